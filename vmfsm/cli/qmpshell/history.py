"""The lines that were typed, in a file of the user's; but for those that may hold a secret."""

import contextlib
import os
import re
from pathlib import Path

from prompt_toolkit.history import FileHistory

# Commands that take a password, and arguments that are one, or a key.
_SECRET = re.compile(
    r"password|passphrase|passwd|secret|\bkey\b|\bdata\b|expire_|credential|token", re.IGNORECASE
)


def place() -> Path:
    """XDG Base Directory Specification: `XDG_STATE_HOME`."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "vmfsm" / "qmp-history"


class History(FileHistory):
    """Readable for its user only.

    :raises OSError: where there can be no such file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
        super().__init__(str(path))

    def store_string(self, string: str) -> None:
        if not _SECRET.search(string):
            with contextlib.suppress(OSError):  # a disk that is full is nothing to lose a shell for
                super().store_string(string)
