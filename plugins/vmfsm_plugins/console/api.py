"""A console as its users have it: text to read and wait for, a guest to talk to."""

import asyncio
import logging
import socket as sockets
import time
from collections.abc import Callable, Sized
from typing import IO, Any, NoReturn

from vmfsm import (
    ConfigError,
    ConsoleClosed,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    TransitionError,
)
from vmfsm_plugins.streams.buffer import BEGINNING, Position
from vmfsm_plugins.streams.logfile import open_log
from vmfsm_plugins.subscribers import Subscribers

from .bridge import as_file
from .expect import Expected, Pattern, Search
from .options import Options
from .sender import Progress
from .stream import Stream

_LOGGER = logging.getLogger("vmfsm.console")
_EVIDENCE = 8 * 1024
_EXIT_GRACE = 1.0
"""Seconds after the end of a console for the end of QEMU to be seen; they come in either order."""
_SEARCH_SHARE = 5
"""A search that took a second is repeated after this many, unless much has come."""


class _Waiting:
    """A call of `expect`: what it looks for, and in which launch, whatever is launched meanwhile."""

    def __init__(self, search: Search, stream: Stream | None) -> None:
        self.search = search
        self.stream = stream


class Console:
    """One console of a machine.

    Everything the guest writes is read at once, whether or not anybody looks, and kept: the last `buffer`
    bytes in memory, as bytes and as text, everything in the file `path`. Text is what the guest sent, line
    ends and all; what is not in the console's encoding becomes U+FFFD. What was kept stays after the end,
    and the next launch starts afresh.

    There is one read position, which `expect` and `read` move. Everything here may be used from any thread;
    `expect`, `send` and `sendline` wait, and on the I/O thread their twins in `aio` take their place.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.aio = AsyncConsole(self)
        """`expect`, `send` and `sendline` for coroutines, on the I/O thread or in any asyncio loop."""
        self._options = options
        self._machine: Machine | None = None
        self._stream: Stream | None = None
        self._subscribers = Subscribers(_LOGGER, bytes)

    def __repr__(self) -> str:
        return f"<Console {self.name}{' closed' if self.closed else ''}>"

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """All text that is kept, read or not."""
        return self._stream.buffer.view().text() if self._stream else ""

    @property
    def data(self) -> bytes:
        """All bytes that are kept, read or not."""
        return self._stream.buffer.view().data() if self._stream else b""

    def lines(self) -> list[str]:
        """The lines of `text`, without their ends (LF, CR LF). The last may be unfinished."""
        lines = self.text.split("\n")
        return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]

    @property
    def path(self) -> str:
        """The file of the last launch; empty before the first.

        It gets every byte as it comes, with option `timestamps` also the times, and no more after an error.
        """
        return self._stream.file.path if self._stream else ""

    @property
    def closed(self) -> bool:
        """Whether nothing can come any more. True before the first launch, too."""
        return self._stream is None or self._stream.ended

    @property
    def lost(self) -> int:
        """How many bytes of this launch fell out of the buffer before they were read. Recorded, too."""
        return self._stream.cursor.lost if self._stream else 0

    def read(self, n: int = -1) -> str:
        """The text that came and was not read yet, at most `n` characters of it. Never waits.

        :raises ConfigError: when `n` is no int.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise ConfigError(f"read takes a number of characters, not {n!r}", field="n")
        return self._stream.cursor.take(n) if self._stream else ""

    def mark(self) -> int:
        """The place that the text has come to, for `since`."""
        return self._stream.buffer.end.char if self._stream else 0

    def since(self, mark: int) -> str:
        """The text that came after `mark`, read or not.

        :raises ConfigError: when part of it fell out of the buffer, or belongs to an earlier launch.
        """
        if isinstance(mark, bool) or not isinstance(mark, int):
            raise ConfigError(f"since takes what mark returned, not {mark!r}", field="mark")
        if self._stream is None:
            return ""
        view = self._stream.buffer.view()
        if mark < view.start.char:
            raise ConfigError(
                f"console {self.name!r}: {view.start.char - mark} characters after the mark are not kept any "
                f"more (see option 'buffer', and the file {self.path})",
                field="mark",
            )
        return view.text(Position(-1, mark))

    def subscribe(self, callback: Callable[[bytes], object]) -> Callable[[], None]:
        """Have `callback` called with all bytes from now on, in all launches; a function that ends it.

        It is called on the I/O thread, in the order of the bytes, in whatever pieces they are read, and must
        not wait: while it runs nothing else of any machine does. An empty one says that it is over for this
        launch: the console has ended, or QEMU has and what it left was read. One that raises is logged and
        not called again. Who waits in `expect` has seen the bytes before.

        :raises ConfigError: for what is no plain function.
        """
        return self._subscribers.add(callback)

    # -- talking to the guest -------------------------------------------------------------------------------

    def expect(self, *patterns: Pattern, timeout: float | None = 60) -> Expected:
        """Wait for the first match of a pattern in what was not read yet, and read through it.

        A str is a regular expression on text, bytes are one on bytes, and both may be given at once; `^` and
        `$` match at lines. Compiled patterns are taken as they are. The match that begins first in the stream
        wins; of those that begin together the one whose pattern comes first. What has come already counts,
        also at the deadline and after the end of QEMU.

        A pattern is tried whenever something has come, so `[0-9]+` may find the first digits only: name what
        follows. One that begins with `.*` takes time by the square of a line's length.

        Python's `re` lets nothing else in the process run while it searches, so a pattern that takes for
        ever, as one with nested quantifiers may, `(a+)+b`, stops everything, deadlines too: that patterns
        are sane is up to the caller.

        :raises MachineTimeout: at the deadline. The read position has not moved.
        :raises MachineDied: when QEMU has ended without a match.
        :raises ConsoleClosed: when the console was closed by a QEMU that lives.
        :raises GuestPanicked: when the guest panicked meanwhile.
        :raises ConfigError: for what is no pattern.
        :raises TransitionError: when the machine was never launched.
        """
        __tracebackhide__ = True
        waiting = _Waiting(Search(patterns), self._stream)
        try:
            return self._owner.run(
                self._expect(waiting), timeout=timeout, operation=self._expecting(waiting), of_guest=True
            )
        except (MachineDied, MachineTimeout) as error:
            return self._at_last(waiting, error)

    def send(self, data: str | bytes, *, timeout: float | None = 60) -> None:
        """Write to the guest, and wait until QEMU's socket has taken all of it (it holds about 200 KB).

        A str is sent in the console's encoding. What several threads send is never mixed up.

        :raises MachineTimeout: at the deadline; it says how much was taken.
        :raises MachineDied: when QEMU has ended.
        :raises ConsoleClosed: when the console was closed by a QEMU that lives.
        :raises GuestPanicked: when the guest panicked while it did not read.
        :raises ConfigError: for text that the encoding does not have.
        :raises TransitionError: when the machine was never launched.
        """
        __tracebackhide__ = True
        payload = self._encoded(data)
        progress = Progress(len(payload))
        try:
            self._owner.run(
                self._send(payload, progress), timeout=timeout, operation=self._sending, of_guest=True
            )
        except MachineTimeout as error:
            raise _with_progress(error, progress) from None

    def sendline(self, text: str = "", *, timeout: float | None = 60) -> None:
        """`send` text and what ends a line (option `newline`)."""
        __tracebackhide__ = True
        self.send(self._line(text), timeout=timeout)

    def socket(self) -> sockets.socket:
        """A socket that gets all that is kept and then what comes, and writes to the guest. Never waits.

        The caller closes it. It does not move the read position. It reaches its end when the console does;
        who reads slower than the guest writes loses what falls out of the buffer before. What is written to
        it goes between the `send`s of others, in whatever pieces it comes.

        :raises TransitionError: when the machine was never launched.
        """
        stream = self._launched("socket")
        ours, theirs = sockets.socketpair()
        ours.setblocking(False)
        stream.loop.call_soon_threadsafe(stream.bridge, ours)
        return theirs

    def file(self, mode: str = "r") -> IO[Any]:
        """A file over `socket`: "r", "w", "rw", each with "b" for bytes. The caller closes it.

        Text is in the console's encoding, with line ends as text files have them, and is sent line by line.

        :raises ConfigError: for other modes.
        :raises TransitionError: when the machine was never launched.
        """
        if not isinstance(mode, str):
            raise ConfigError(f"not a mode for a console: {mode!r}", field="mode")
        plain = mode.replace("t", "").replace("r+", "rw").replace("w+", "rw")
        if set(plain) - {"b"} not in ({"r"}, {"w"}, {"r", "w"}):
            raise ConfigError(f"not a mode for a console: {mode!r}", field="mode")
        with self.socket() as end:
            return as_file(end, plain, self._options.encoding)

    # -- for the twins --------------------------------------------------------------------------------------

    @property
    def _owner(self) -> Machine:
        assert self._machine is not None, "a plugin object is configured by its machine"
        return self._machine

    @property
    def _sending(self) -> str:
        return f"send to console {self.name!r}"

    def _expecting(self, waiting: "_Waiting") -> str:
        return f"expect({waiting.search}) on console {self.name!r}"

    def _encoded(self, data: object) -> bytes:
        if isinstance(data, str):
            try:
                return data.encode(self._options.encoding)
            except UnicodeError as error:
                what = f"a str of {len(data)} characters that {self._options.encoding} does not have all of"
                if isinstance(error, UnicodeEncodeError):
                    what += f" (see position {error.start})"
                # Neither the text nor what the codec says about it: it may be a password.
                raise ConfigError(f"console {self.name!r}: cannot send {what}", field="data") from None
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        raise ConfigError(f"console {self.name!r}: send takes str or bytes, not {_kind(data)}", field="data")

    def _line(self, text: object) -> str:
        if not isinstance(text, str):
            raise ConfigError(f"console {self.name!r}: sendline takes a str, not {_kind(text)}", field="text")
        return text + self._options.newline

    def _launched(self, call: str) -> Stream:
        if self._stream is None:
            machine = self._owner
            raise TransitionError(
                f"{machine.name}: {call} of console {self.name!r} in state {machine.state.value}: "
                "the machine was never launched",
                event=call,
                machine=machine.name,
                state=machine.state,
            )
        return self._stream

    def _at_last(self, waiting: "_Waiting", error: MachineDied | MachineTimeout) -> Expected:
        """The match that came at the last moment, else `error`."""
        __tracebackhide__ = True
        stream = waiting.stream
        found = stream.cursor.find(waiting.search) if stream else None
        if found is not None:
            return found
        if stream is not None and stream.buffer.end == stream.origin:
            error.add_note(f"console {self.name!r} has said nothing")
        raise error

    async def _expect(self, waiting: "_Waiting") -> Expected:
        """Every search is through all that was not read, since a match may begin anywhere.

        So that a flood does not cost the square of its size, the next one comes when half as much has come
        as there was, which is before any of it can fall out of the buffer unseen, or when the time that
        searches take is a small share.
        """
        waiting.stream = stream = self._launched("expect")
        while True:
            begin = time.monotonic()
            seen = stream.buffer.end.byte
            found = stream.cursor.find(waiting.search)
            if found is not None:
                stream.flush()
                return found
            if stream.ended:
                await self._closed()
            now = time.monotonic()
            again = now + _SEARCH_SHARE * (now - begin)
            much = min(stream.cursor.unread, stream.buffer.limit) // 2
            if stream.buffer.end.byte == seen and not stream.ended:
                await stream.news.wait()
            while not stream.ended and stream.buffer.end.byte - seen < much:
                left = again - time.monotonic()
                if left <= 0 or stream.urgent > seen:
                    break
                await stream.news.wait(left)

    async def _send(self, data: bytes, progress: Progress) -> None:
        stream = self._launched("send")
        try:
            await stream.write(data, progress)
        except OSError:
            await self._closed()

    async def _closed(self) -> NoReturn:
        await asyncio.sleep(_EXIT_GRACE)  # where QEMU has ended, this call is ended by its machine meanwhile
        raise ConsoleClosed(f"{self._owner.name}: console {self.name!r} was closed, and QEMU lives")

    # -- for the plugin, on the I/O thread ------------------------------------------------------------------

    def configured(self, machine: Machine) -> None:
        self._machine = machine
        self._subscribers.machine = machine.name

    def open(self, plan: LaunchPlan) -> tuple[Stream, sockets.socket]:
        """Start afresh; the stream, and QEMU's end of it.

        :raises OSError: when its file cannot be opened.
        """
        machine = self._owner

        def record(kind: str, data: dict[str, object]) -> None:
            text = data.get("text", "")
            machine.record(kind, {"console": self.name, **data}, size=200 + 2 * len(str(text)))

        def file_failed(what: str) -> None:
            _LOGGER.warning("%s: console %r: %s; it goes on without", machine.name, self.name, what)
            record("console-file", {"error": what})

        options = self._options
        file = open_log(
            options.log,
            f"'log' of plugin 'console' for {self.name!r}",
            plan,
            f"{machine.name}-{self.name}.log",
            file_failed,
            timestamps=options.timestamps,
        )
        origin = self._stream.buffer.end if self._stream else BEGINNING
        try:
            stream = Stream(options, file, origin, record, self._subscribers)
        except BaseException:
            file.close()
            raise
        self._stream = stream
        return stream, stream.other

    def last_lines(self) -> str:
        if self._stream is None:
            return ""
        text = self._stream.buffer.view().tail(_EVIDENCE)
        return text if len(text) < _EVIDENCE else text.partition("\n")[2] or text


class AsyncConsole:
    """The calls of a `Console` that wait, for coroutines on the I/O thread and in any other asyncio loop."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def expect(self, *patterns: Pattern, timeout: float | None = 60) -> Expected:
        """As `Console.expect`."""
        console = self._console
        waiting = _Waiting(Search(patterns), console._stream)
        try:
            return await console._owner.arun(
                console._expect(waiting),
                timeout=timeout,
                operation=console._expecting(waiting),
                of_guest=True,
            )
        except (MachineDied, MachineTimeout) as error:
            return console._at_last(waiting, error)

    async def send(self, data: str | bytes, *, timeout: float | None = 60) -> None:
        """As `Console.send`."""
        console, payload = self._console, self._console._encoded(data)
        progress = Progress(len(payload))
        try:
            await console._owner.arun(
                console._send(payload, progress), timeout=timeout, operation=console._sending, of_guest=True
            )
        except MachineTimeout as error:
            raise _with_progress(error, progress) from None

    async def sendline(self, text: str = "", *, timeout: float | None = 60) -> None:
        """As `Console.sendline`."""
        await self.send(self._console._line(text), timeout=timeout)


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} of length {len(value)}" if isinstance(value, Sized) else kind


def _with_progress(error: MachineTimeout, progress: Progress) -> MachineTimeout:
    error.args = (f"{error}: QEMU took {progress.taken} of {progress.size} bytes",)
    return error
