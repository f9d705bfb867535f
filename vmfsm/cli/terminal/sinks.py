"""Where output goes to: a file or pipe, a terminal with a status line, a terminal that has a guest on it."""

import os

from .escapes import Tracker
from .raw import is_ours

_SAVE, _RESTORE, _CLEAR = "\x1b7", "\x1b8", "\x1b[K"
_LEAST_ROWS = 6
_USUAL_COLUMNS = 80
"""Of a terminal that does not say how many it has, as many in CI do not."""


def write(fd: int, data: bytes) -> None:
    """All of it, however long that takes."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody has set it so for all who share it
            _await_room(fd)


def _await_room(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


class Plain:
    """Bytes as they are, messages as lines, and no status line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def data(self, data: bytes) -> None:
        write(self._fd, data)

    def message(self, text: str) -> None:
        write(self._fd, f"{text}\n".encode())

    def status(self, text: str) -> None:
        pass

    def finish(self) -> None:
        pass


class StatusLine(Plain):
    """A terminal for messages, with the status in its last line."""

    _shown = False

    def message(self, text: str) -> None:
        super().message(f"{self._cleared()}{text}")

    def status(self, text: str) -> None:
        if not is_ours(self._fd):
            return
        line = f"\r{_in_style(text, os.get_terminal_size(self._fd).columns)}{_CLEAR}"
        write(self._fd, line.encode())
        self._shown = True

    def finish(self) -> None:
        write(self._fd, self._cleared().encode())

    def _cleared(self) -> str:
        shown, self._shown = self._shown, False
        return f"\r{_CLEAR}" if shown else ""


class Screen(Plain):
    """A terminal that a guest writes to, whatever that writes; messages among it, the status in its last row.

    That row is kept out of what scrolls (DECSTBM). A guest that takes the whole screen, by an alternate
    buffer or a scrolling region of its own, has it, as long as it does; and nothing is drawn in the middle
    of one of its control sequences.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._tracker = Tracker()
        self._size: os.terminal_size | None = None
        """What the last row was reserved for; `None` where it is not."""

    def data(self, data: bytes) -> None:
        self._tracker.feed(data)
        write(self._fd, data)

    def message(self, text: str) -> None:
        begin = "" if self._tracker.at_start_of_line else "\r\n"
        lines = text.replace("\n", "\r\n")
        self._tracker.feed(b"\n")
        write(self._fd, f"{begin}{lines}\r\n".encode())

    def status(self, text: str) -> None:
        if not self._tracker.between_sequences:
            return
        if self._tracker.taken or not is_ours(self._fd):
            self._give_back()
            return
        size = os.get_terminal_size(self._fd)
        if size.lines < _LEAST_ROWS:
            return
        reserve = ""
        if size != self._size:
            # A new last row, even if the cursor is in the one there is.
            reserve = f"\n\x1b[A{_SAVE}\x1b[1;{size.lines - 1}r{_RESTORE}"
        elif self._tracker.region_lost:
            reserve = f"{_SAVE}\x1b[1;{size.lines - 1}r{_RESTORE}"
        self._size = size
        self._tracker.region_lost = False
        line = f"{_SAVE}\x1b[{size.lines};1H{_in_style(text, size.columns)}{_CLEAR}{_RESTORE}"
        write(self._fd, (reserve + line).encode())

    def finish(self) -> None:
        self._give_back()
        if not self._tracker.at_start_of_line:
            write(self._fd, b"\r\n")

    def _give_back(self) -> None:
        size, self._size = self._size, None
        if size is not None:
            write(self._fd, f"{_SAVE}\x1b[r\x1b[{size.lines};1H{_CLEAR}{_RESTORE}".encode())


def _in_style(text: str, columns: int) -> str:
    """One row of it. Never in the last column, where some terminals begin another."""
    width = (columns or _USUAL_COLUMNS) - 1
    line = text[:width]
    return line if os.environ.get("NO_COLOR") else f"\x1b[7m{line:{width}}\x1b[m"
