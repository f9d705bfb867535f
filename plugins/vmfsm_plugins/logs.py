"""What QEMU itself says, on stdout and stderr: to a file, to the timeline, to errors."""

import codecs
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

from vmfsm import (
    ConfigError,
    Deadline,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    TransitionError,
    check_path,
    hookimpl,
)

from .streams.buffer import Buffer
from .streams.drain import MOST
from .streams.intake import Intake
from .streams.logfile import LogFile, open_log
from .subscribers import Subscribers

_LOGGER = logging.getLogger("vmfsm.logs")
_KEPT = 1024 * 1024
_EVIDENCE = 64 * 1024
_SHOWN = 20
"""How many lines are shown in snapshots, of so many bytes at the most."""
_SHOWN_BYTES = 8 * 1024
_PATIENCE = 1.0
"""Seconds after which `follow` looks whether it is late."""
_ENCODING = "utf-8"
_ERRORS = "surrogateescape"
# Python's own "backslashreplace" is so slow that a flood of wrong bytes would stop the I/O thread.
_ESCAPES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_OURS = frozenset({signal.SIGTERM, signal.SIGKILL})
"""What the framework itself may send to QEMU."""


class _Output(Intake):
    """QEMU's output during one launch. On the I/O thread only, but for what is read of it."""

    def __init__(self, machine: Machine, file: LogFile, subscribers: Subscribers[bytes]) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        super().__init__(
            self._read_end,
            Buffer(_KEPT, _ENCODING, _ERRORS),
            file,
            lambda text: machine.record("output", {"text": _readable(text)}, size=200 + 2 * len(text)),
            subscribers,
            secrets=machine.secrets,
        )

    def last(self, size: int) -> str:
        """About the last `size` bytes of it. From any thread; reads no file."""
        return _readable(self.buffer.view().tail(size))

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            fd, self.write_end = self.write_end, -1
            os.close(fd)

    def close(self) -> None:
        self.close_write_end()
        super().close()
        if self._read_end >= 0:
            fd, self._read_end = self._read_end, -1
            os.close(fd)


class Logs:
    """The plugin: QEMU's stdout and stderr, as they come, in a file and in memory.

    In the file every byte is as QEMU wrote it, but for the machine's secrets: QEMU quotes its options where
    they are wrong, and `***` stands for a secret in them. In text what is not UTF-8 is shown as `\\xff`.
    It is kept, also after a launch that failed, until the next launch. Everything may be used from any
    thread; only `follow` waits.

    :param path: the file; by default `<machine>.log` in the machine's `log_dir`, or in its private
        directory, which is removed at the end. One that this process has written to already, for an earlier
        launch or another machine, is kept: the next is `….2.log` and so on. A launch whose file cannot be
        opened fails; one that cannot be written later is given up, with a warning.
    """

    name = "logs"
    before = ("*",)

    def __init__(self, *, path: "str | os.PathLike[str] | None" = None) -> None:
        self.given_path = None if path is None else check_path(path, field="options['logs']['path']")
        """The option."""
        self._machine: Machine | None = None
        self._output: _Output | None = None
        self._subscribers = Subscribers(_LOGGER, bytes)

    def __repr__(self) -> str:
        return f"<Log {self.path or 'of no launch yet'}>"

    # -- machine.log ----------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The file of the last launch; empty before the first."""
        return self._output.file.path if self._output else ""

    @property
    def text(self) -> str:
        """All that QEMU said in this launch, while there is the file; else the last 1 MiB of it.

        Only an ordinary file is read, no FIFO or device.
        """
        output = self._output
        if output is None:
            return ""
        ended = output.ended
        if output.file.whole:
            with contextlib.suppress(OSError), open(output.file.path, "rb") as file:
                decoder = codecs.getincrementaldecoder(_ENCODING)(_ERRORS)
                return _readable(decoder.decode(file.read(), final=ended))
        return _readable(output.buffer.view().text())

    def tail(self, n: int = 20) -> str:
        """The last `n` lines, with their ends.

        :raises ConfigError: when `n` is no int.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise ConfigError(f"tail takes a number of lines, not {n!r}", field="n")
        if n <= 0 or self._output is None:
            return ""
        view = self._output.buffer.view()
        text = _readable(view.text())
        if view.start.byte > 0 and text.count("\n") <= n:
            text = self.text
        lines = text.split("\n")
        unfinished = lines.pop()
        lines = [f"{line}\n" for line in lines[-n:]] + ([unfinished] if unfinished else [])
        return "".join(lines[-n:])

    def follow(self, *, timeout: float | None = None) -> Iterator[str]:
        """What QEMU says, from the beginning of this launch and then as it comes, to QEMU's end.

        :param timeout: for all of it.
        :raises MachineTimeout: at the deadline.
        :raises TransitionError: when the machine was never launched.
        """
        machine, output = self._machine, self._output
        assert machine is not None, "a plugin object is configured by its machine"
        deadline = machine.deadline(timeout)
        if output is None:
            raise TransitionError(
                f"{machine.name}: cannot follow the log in state {machine.state.value}: never launched",
                event="follow",
                machine=machine.name,
                state=machine.state,
            )
        return _follow(machine, output, deadline)

    def subscribe(self, callback: Callable[[bytes], object]) -> Callable[[], None]:
        """Have `callback` called with all bytes from now on, in all launches; a function that ends it.

        As of consoles: on the I/O thread, in order, without waiting; an empty one says that it is over for
        this launch. One that raises is logged and not called again.

        :raises ConfigError: for what is no plain function.
        """
        return self._subscribers.add(callback)

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._machine = machine
        self._subscribers.machine = machine.name

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        def file_failed(what: str) -> None:
            _LOGGER.warning("%s: %s; it goes on without", machine.name, what)
            machine.record("log-file", {"error": what})

        file = open_log(self.given_path, "'path' of plugin 'logs'", plan, f"{machine.name}.log", file_failed)
        try:
            output = _Output(machine, file, self._subscribers)
        except BaseException:
            file.close()
            raise
        self._output = output
        plan.output = output.write_end
        plan.on_exit(output.dry)
        plan.on_evidence(lambda: {"output": output.last(_EVIDENCE)})

    @hookimpl
    async def post_launch(self) -> None:
        if self._output is not None:
            self._output.close_write_end()  # QEMU has its own; the last of them closed is the end of file

    @hookimpl
    async def post_shutdown(self, machine: Machine) -> None:
        if self._output is not None:
            self._output.close()
        status = machine.exit_status
        if status is None or status >= 0:
            return
        if -status not in _OURS or machine.reason in {Reason.QEMU_SIGNAL, Reason.OOM_KILLED}:
            oom = ", out of memory" if machine.reason is Reason.OOM_KILLED else ""
            # Not its command line: there may be secrets in it.
            _LOGGER.warning("%s: QEMU died of %s%s", machine.name, _signal_name(-status), oom)

    @hookimpl
    def snapshot(self) -> dict[str, object] | None:
        if self._output is None:
            return None
        return {"lines": self._output.last(_SHOWN_BYTES).splitlines()[-_SHOWN:], "path": self.path}


def _follow(machine: Machine, output: _Output, deadline: Deadline) -> Iterator[str]:
    """From the file where there is one, which outlives its name; it has what fell out of the buffer."""
    decoder = codecs.getincrementaldecoder(_ENCODING)(_ERRORS)
    with contextlib.ExitStack() as stack:
        file = None
        if output.file.whole:
            with contextlib.suppress(OSError):
                file = stack.enter_context(open(output.file.path, "rb", buffering=0))
        position = 0
        while True:
            ended = output.ended
            view = output.buffer.view()
            data = b""
            if file is not None and output.file.whole:
                data = os.pread(file.fileno(), MOST, position)
            else:
                position = max(position, view.start.byte)
                data = view.data(view.at_byte(position), MOST)
            position += len(data)
            text = _readable(decoder.decode(data, final=ended and not data))
            if text:
                yield text
            if data:
                continue
            if ended:
                return
            if deadline.expired:
                error = MachineTimeout(
                    f"{machine.name}: following the log timed out after {deadline.timeout:g} s",
                    machine=machine.name,
                    state=machine.state,
                    evidence=machine.evidence(),
                )
                error.operation, error.timeout = "follow", deadline.timeout
                raise error
            left = deadline.nap()
            with contextlib.suppress(MachineDied, MachineTimeout):
                machine.run(
                    _more(output, position, _PATIENCE if left is None else min(left, _PATIENCE)),
                    timeout=2 * _PATIENCE,
                    operation="follow",
                )


async def _more(output: _Output, position: int, patience: float) -> None:
    if output.buffer.end.byte <= position and not output.ended:
        await output.news.wait(patience)


def _readable(text: str) -> str:
    """With the bytes that were no characters as `\\xff`."""
    return text if text.isascii() else text.translate(_ESCAPES)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
