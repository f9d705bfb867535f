"""Whether the process that made this program still lives: if it was killed, nobody else ends what it left."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Task


class Maker:
    """Who has the FIFO open for writing as long as the program is in use, in whatever PID namespace.

    :param path: the FIFO.
    :param patience: seconds to go on without the maker: it is to be seen what a harness leaves behind.
    """

    def __init__(self, path: str, patience: float) -> None:
        self._directory = os.path.dirname(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._patience = patience
        self._interval = min(patience, 5.0)

    def outlive(self) -> None:
        """Wait as long as it lives, and a while longer; then end, and remove the program."""
        for seconds in self.watch():
            assert not callable(seconds)
            time.sleep(seconds)

    def watch(self) -> Task:
        """As `outlive`, as a task."""
        while self._lives():
            yield self._interval
        yield self._patience
        try:
            for name in os.listdir(self._directory):
                os.unlink(f"{self._directory}/{name}")
            os.rmdir(self._directory)
        except OSError:
            pass  # another one of the program's processes does it
        finally:
            os._exit(0)

    def _lives(self) -> bool:
        try:
            return os.read(self._fd, 1) != b""
        except BlockingIOError:  # nothing to read, but somebody could write
            return True
