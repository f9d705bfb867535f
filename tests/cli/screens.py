"""A terminal that can be looked at: tmux's."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cli.running import environment
from tests.waiting import LIMIT, is_alive, until


class Screen:
    """Inside of the `with` block: a shell on a terminal of that size, in a tmux server of its own."""

    def __init__(self, *, columns: int = 80, rows: int = 24) -> None:
        self._size = (columns, rows)
        self._directory = tempfile.TemporaryDirectory(prefix="screen-")
        self._socket = Path(self._directory.name) / "tmux"

    def __enter__(self) -> Self:
        columns, rows = self._size
        shell = "env PS1='$ ' sh"
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", str(columns), "-y", str(rows), shell)
        self._tmux("set", "-g", "status", "off")
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))
        self.pid = int(self._tmux("display-message", "-p", "#{pid}"))
        """Of the server, whose child the shell is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if is_alive(self.pid):
            self._tmux("kill-server")
        until(lambda: not is_alive(self.pid))
        self._directory.cleanup()

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names, or type text."""
        self._tmux("send-keys", *keys)

    def rows(self) -> list[str]:
        """What can be read there, row by row."""
        shown = self._tmux("capture-pane", "-p").split("\n")[: self._size[1]]
        return [row.rstrip() for row in shown]

    def until(self, condition: Callable[[list[str]], object]) -> list[str]:
        """Wait for the rows to be so; the rows."""
        deadline = time.monotonic() + LIMIT
        while not condition(rows := self.rows()):
            assert time.monotonic() < deadline, "\n".join(rows)
            time.sleep(0.05)
        return rows

    def until_over(self) -> None:
        """Wait for the end of the shell, and with it of tmux."""
        until(lambda: not is_alive(self.pid))

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=environment({"TMUX": None}),
        ).stdout
