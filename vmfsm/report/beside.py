"""Files beside the page: the whole text of what is too long for it."""

import contextlib
import errno
import os
import re
import secrets
from types import TracebackType
from typing import IO, Self

from vmfsm.paths import check_path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ODD = re.compile(r"[^\w.+-]+", re.ASCII)


class NewFile:
    """A file that is there when all of it is; until then there is what was there before, or nothing.

    Only its owner may read it, and a link that is in its place is replaced, not followed. As a context
    manager: what leaves the block by an exception leaves nothing behind.

    :raises OSError: when it can't be written; also where there is something else than a file.
    """

    def __init__(self, path: str) -> None:
        directory, name = os.path.split(check_path(path))
        self.path = path
        self._temporary = os.path.join(directory, f".{name[:80]}.{secrets.token_hex(6)}")
        if os.path.lexists(path) and not (os.path.islink(path) or os.path.isfile(path)):
            raise FileExistsError(errno.EEXIST, "there is something that is no file", path)
        try:
            fd = os.open(self._temporary, _FLAGS, 0o600)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, path) from None
        self._file: IO[str] = os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace", newline="")

    def write(self, text: str, /) -> None:
        """The next piece of it."""
        self._file.write(text)

    def done(self) -> None:
        """That was all."""
        self._file.close()
        os.replace(self._temporary, self.path)

    def drop(self) -> None:
        """It is not wanted."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.done()
        finally:
            self.drop()


class _Piece(NewFile):
    def __init__(self, path: str, name: str) -> None:
        super().__init__(path)
        self.name = name


class Beside:
    """The directory of these files, made for the first one; there are none without a page.

    As a context manager: they are there when the block is left, and not where that is by an exception.

    :param page: its path, such as `a/report.html`, for which it is `a/report-files`.
    """

    def __init__(self, page: str | None) -> None:
        self._page = page
        self._files: list[_Piece] = []

    def relative(self, path: str) -> str:
        """A path as the page may refer to it."""
        return os.path.relpath(path, os.path.dirname(self._page or "") or ".")

    def file(self, key: str, name: str) -> _Piece | None:
        """A new one, for something of the machine of that key."""
        if self._page is None:
            return None
        directory = os.path.splitext(self._page)[0] + "-files"
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, mode=0o700)
        if os.path.islink(directory):
            raise FileExistsError(
                errno.EEXIST, "files beside the page are to be there, not a link", directory
            )
        number = len(self._files)
        path = os.path.join(directory, f"{key}-{number}-{_ODD.sub('-', name)[:80]}.log")
        file = _Piece(path, self.relative(path))
        self._files.append(file)
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for file in self._files if kind is None else ():
                file.done()
        finally:
            for file in self._files:
                file.drop()
