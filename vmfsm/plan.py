"""What plugins contribute to a launch."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from .companion import Companion, Ready
from .descriptors import Closable, check_fd
from .errors import ConfigError, TransitionError
from .logpaths import unused

Polite = Callable[[], Coroutine[Any, Any, object]]
Cleanup = Callable[[], object]


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
        self.is_wrapped = False
        """What is started may leave processes elsewhere, as with a `wrapper`: they are killed at the end."""
        self.env = env
        """The whole environment that QEMU will have."""
        self.directory = directory
        """The machine's private directory (0700), removed when the launch is over."""
        self.log_dir = log_dir
        """The user's directory for what is to be kept, if there is one."""
        self.inherit_fds = False
        """Give QEMU every inheritable descriptor of this process, too. For code that relies on that only."""
        self.output: int | None = None
        """A descriptor that becomes QEMU's stdout and stderr; `None`: they are thrown away."""
        self.pid: int | None = None
        """QEMU's process id (or that of what wraps it), from when it is started on, and kept afterwards."""
        self.adopted: subprocess.Popen[bytes] | None = None
        self.fds: list[int] = []
        self.cleanups: list[tuple[str, Cleanup]] = []
        self.polite: list[tuple[str, Polite, bool]] = []
        self.evidence: list[tuple[str, Callable[[], Mapping[str, object]]]] = []
        self.last_words: list[tuple[str, Callable[[], Coroutine[Any, Any, str | None]]]] = []
        self.sockets: list[str] = []
        """Unix sockets outside of `directory`: removed for this process, too, should it be killed."""
        self.directories: list[str] = []
        """Directories beside `directory` (0700, this user's): removed likewise, with all that is in them."""
        self.companions: list[Companion] = []
        self.spent = False
        """The command line is composed, or the launch has failed: what is added now comes too late."""
        self.contributor = ""
        self._given: list[Closable] = []
        self._log_paths: set[str] = set()

    def pass_fd(self, fd: int) -> int:
        """Let QEMU inherit `fd` under its number, which is returned. It stays the caller's to close.

        :raises ConfigError: for what is no open descriptor.
        :raises TransitionError: when the plan is spent.
        """
        self._require_unspent("pass_fd")
        if check_fd(fd) not in self.fds:
            self.fds.append(fd)
        return fd

    def adopt(self, popen: "subprocess.Popen[bytes]") -> None:
        """Use this child, which this process has started already, as QEMU, in place of starting one.

        From now on it is the machine's: ended with it, or when the launch fails. What is on the plan for the
        start of a process (arguments, wrapper, environment, descriptors, output) has no effect. Where the
        child leads a process group, signals go to that, else to the child alone. It may have ended by now.
        Others may go on calling `poll` and `wait` of `popen`.

        :raises ConfigError: for what is no `Popen`, and for a second one.
        :raises TransitionError: when the plan is spent.
        """
        self._require_unspent("adopt")
        if not isinstance(popen, subprocess.Popen):
            raise ConfigError(f"popen must be a subprocess.Popen, not {popen!r}", field="popen")
        if self.adopted is not None:
            raise ConfigError("there is an adopted child already", field="popen")
        self.adopted = popen

    def give(self, end: Closable) -> int:
        """Let QEMU inherit a socket or file for good; its number there is returned.

        Our copy is closed as soon as QEMU has its own, or the launch has failed, so that end of file can be
        seen on the other end.

        :raises ConfigError: for what is not open.
        :raises TransitionError: when the plan is spent.
        """
        self._require_unspent("give")
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

    def companion(
        self,
        argv: Sequence[str],
        *,
        name: str | None = None,
        ready: Ready = None,
        env: Mapping[str, str | None] | None = None,
        fds: Sequence[int | Closable] = (),
    ) -> Companion:
        """Ask for a helper process: started before QEMU, ended and reaped after it.

        It is started when every `pre_launch` has run, after the companions that were asked for before, and
        QEMU when the last of them is ready. It ends with SIGTERM, or else SIGKILL, between QEMU's end and
        `post_shutdown`, the last one first. If it ends before it is ready, the launch fails; if later while
        QEMU lives, that is a verdict (`companion-ended`), which wakes who waits for the guest.

        :param argv: its command line; the program is looked for in `PATH`.
        :param name: for messages and its log file; the program's without it.
        :param ready: how to tell that QEMU may be started: a path at which there is something (if that is a
            Unix socket, somebody must listen; it is found in `/proc/net/unix`, without connecting); a
            compiled pattern that its output has; a plain function, called in the thread of `launch` until
            it returns something true; a coroutine function, which returns when it is ready (or `False`, to
            be called again). `None`: as soon as it is started. The deadline is the launch's.
        :param env: differences to this process's environment.
        :param fds: what it inherits beside the standard three, under the same numbers: descriptors, which
            stay the caller's, and sockets and files, which are given for good (as by `give`).
        :raises ConfigError: for what is wrong with any of these, and a name that there is already.
        :raises TransitionError: when the plan is spent.

        Where it raises, `fds` stay the caller's to close.

        stdin is empty; stdout and stderr go to `<machine>-<name>.log`, in the machine's `log_dir`, or in its
        private directory, which is removed at the end.
        """
        self._require_unspent("companion")
        companion = Companion(self.contributor, argv, name, ready, env, fds)
        if any(other.name == companion.name for other in self.companions):
            raise ConfigError(f"there is a companion {companion.name!r} already", field="name")
        self.companions.append(companion)
        return companion

    def log_path(self, name: "str | os.PathLike[str]") -> str:
        """A path for a log file of this launch: in the user's directory, else in the private one.

        Where this process has written a file of that name already, the next is `….2.log` and so on.

        :param name: the file's name; an absolute path stays as it is.
        """
        if self.log_dir is None and not os.path.isabs(name):
            root, extension = os.path.splitext(os.path.join(self.directory, name))
            numbers = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
            path = next(
                path for number in numbers if (path := root + number + extension) not in self._log_paths
            )
            self._log_paths.add(path)
            return path
        return unused(os.path.abspath(os.path.join(self.log_dir or "", name)))

    def _require_unspent(self, call: str) -> None:
        if self.spent:
            raise TransitionError(f"plan.{call}: QEMU is being started already", event=call)

    def close_given(self) -> None:
        """Close our copies of what was given. Not for plugins: the launch does it."""
        while self._given:
            with contextlib.suppress(Exception):  # somebody closed it already, say
                self._given.pop().close()
        for companion in self.companions:
            companion.close_given()


def escape(value: str) -> str:
    """`value` as it has to be written inside one of QEMU's `key=value,…` options: commas are doubled.

    QEMU documentation, "Invocation", section on option syntax.
    """
    return value.replace(",", ",,")
