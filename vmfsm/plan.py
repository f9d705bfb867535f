"""What plugins contribute to a launch."""

import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from .errors import ConfigError

Polite = Callable[[], Coroutine[Any, Any, object]]
Cleanup = Callable[[], object]


class Closable(Protocol):
    """A socket or a file, say."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class LaunchPlan:
    """One launch, as far as it is planned: given to every `pre_launch` in turn, which adds to it.

    Every method may be called from `pre_launch` only, be it a plain function or `async`. What was added is
    used for this launch alone: the next one has a plan of its own.
    """

    def __init__(self, wrapper: list[str], env: dict[str, str], directory: str, log_dir: str | None) -> None:
        self.args: list[str] = []
        """Arguments for QEMU, before the user's own. Use `escape` for a value inside an option."""
        self.wrapper = wrapper
        """What QEMU's command line is put behind (`["strace", "-f"]`, say); the user's, to begin with."""
        self.env = env
        """The whole environment that QEMU will have."""
        self.directory = directory
        """The machine's private directory (0700), removed when the launch is over."""
        self.log_dir = log_dir
        """The user's directory for what is to be kept, if there is one."""
        self.inherit_fds = False
        """Give QEMU every inheritable descriptor of this process. For code that relies on that only."""
        self.output: int | None = None
        """A descriptor that becomes QEMU's stdout and stderr; `None`: they are thrown away."""
        self.fds: list[int] = []
        self.cleanups: list[tuple[str, Cleanup]] = []
        self.polite: list[tuple[str, Polite, bool]] = []
        self.evidence: list[tuple[str, Callable[[], Mapping[str, object]]]] = []
        self.last_words: list[tuple[str, Callable[[], Coroutine[Any, Any, str | None]]]] = []
        self.contributor = ""
        self._given: list[Closable] = []

    def pass_fd(self, fd: int) -> int:
        """Let QEMU inherit `fd` under its number, which is returned. It stays the caller's to close.

        :raises ConfigError: for what is no open descriptor.
        """
        if check_fd(fd) not in self.fds:
            self.fds.append(fd)
        return fd

    def give(self, end: Closable) -> int:
        """Let QEMU inherit a socket or file for good; its number there is returned.

        Our copy is closed as soon as QEMU has its own, or the launch has failed, so that end of file can be
        seen on the other end.
        """
        self._given.append(end)
        return self.pass_fd(end.fileno())

    def defer(self, cleanup: Cleanup) -> None:
        """Register a clean-up: called once when the launch is over, however far it came.

        After every `post_shutdown`, last registered first; all are called, whatever they raise. A plain
        function is called in a worker thread, a coroutine function run on the I/O thread.
        """
        self.cleanups.append((self.contributor, cleanup))

    def on_quit(self, way: Polite, *, guest: bool = False) -> None:
        """Register a polite way to end QEMU: a coroutine function, run on the I/O thread.

        It asks, and returns; whether QEMU goes is waited for elsewhere. Ways are tried in order. Those with
        `guest=True` ask the guest and are tried first, and only for `shutdown(guest=True)`.
        """
        self.polite.append((self.contributor, way, guest))

    def on_exit(self, last_words: Callable[[], Coroutine[Any, Any, str | None]]) -> None:
        """Register a coroutine function to be run, on the I/O thread, as soon as QEMU has ended.

        For reading to the end what QEMU left in a socket. It may return why QEMU ended, where QEMU said so:
        a `ShutdownCause` of QEMU's (QMP reference, `SHUTDOWN`). It is given half a second.
        """
        self.last_words.append((self.contributor, last_words))

    def on_evidence(self, evidence: Callable[[], Mapping[str, object]]) -> None:
        """Register a function that returns what to add to the `evidence` of errors.

        Keys `console`, `output` (str) and `events` (a sequence of events) are shown with every error, others
        are in `evidence.more`. Called from any thread, often: it must be quick and must not wait.
        """
        self.evidence.append((self.contributor, evidence))

    def close_given(self) -> None:
        """Close our copies of what was given. Not for plugins: the launch does it."""
        while self._given:
            with contextlib.suppress(Exception):  # somebody closed it already, say
                self._given.pop().close()


def check_fd(fd: object) -> int:
    """`fd`, where it is the number of a descriptor that is open in this process.

    :raises ConfigError: where it is not.
    """
    if isinstance(fd, bool) or not isinstance(fd, int) or fd < 0:
        raise ConfigError(f"not a file descriptor: {fd!r}", field="fd")
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"file descriptor {fd} is not open", field="fd") from error
    return fd


def escape(value: str) -> str:
    """`value` as it has to be written inside one of QEMU's `key=value,…` options: commas are doubled.

    QEMU documentation, "Invocation", section on option syntax.
    """
    return value.replace(",", ",,")
