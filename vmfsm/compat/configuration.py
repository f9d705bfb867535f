"""What a machine is made of: the constructor, what may be changed before a launch, and the command line."""

import itertools
import os
import socket
import threading
from collections.abc import Sequence
from typing import Self

from vmfsm import escape

from . import command_line
from .command_line import Address
from .console import Console
from .errors import MisuseError
from .files import TempDir
from .limits import seconds
from .transport import Listener, Pair

_numbers = itertools.count(1)


class Configuration:
    """The part of `QEMUMachine` that starts nothing.

    :param binary: QEMU's.
    :param args: its arguments, after those that are made here; copied.
    :param wrapper: what the command line is put behind.
    :param name: for logs and the names of files; made up where it is not given.
    :param base_temp_dir: where the temporary directory is made. `test_dir` is an older name of it.
    :param monitor_address: where QEMU finds its monitor: a path, or host and port (0: a free one); `None`: a
        socket pair, or a path in `sock_dir` where that is given.
    :param sock_dir: where sockets with paths of their own are made; without it there are none.
    :param socket_scm_helper: a program that is called with the monitor's descriptor and the one to be sent.
    :param drain_console: accepted; the console is always drained.
    :param console_log: a file that gets all that the guest says on the console.
    :param log_dir: an existing directory for QEMU's log, which is kept there.
    :param qmp_timer: seconds for the start of QEMU and its monitor; `None`: no limit.
    :raises QEMUMachineError: (also an `AssertionError`) for what can be none of these.
    """

    qmp_command_timeout: float | None = 300.0
    """Seconds for each command; `None`: as long as QEMU lives. A subclass or a user may set it."""

    def __init__(
        self,
        binary: str,
        args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        name: str | None = None,
        base_temp_dir: str | None = None,
        monitor_address: Address = None,
        *,
        test_dir: str | None = None,
        sock_dir: str | None = None,
        socket_scm_helper: str | None = None,
        drain_console: bool = False,
        console_log: str | None = None,
        log_dir: str | None = None,
        qmp_timer: float | None = 30,
    ) -> None:
        self._binary = binary
        self._args = _words("args", args)
        self._wrapper = _words("wrapper", wrapper)
        if name is not None and not isinstance(name, str):
            raise MisuseError(f"name must be a str, not {name!r}")
        self._name = name or f"qemu-{os.getpid()}-{next(_numbers)}"
        if base_temp_dir and test_dir and base_temp_dir != test_dir:
            raise MisuseError("base_temp_dir and test_dir are two names of one parameter")
        self._base_temp_dir = _path("base_temp_dir", base_temp_dir or test_dir) or "/var/tmp"
        self._monitor_address = _check_address(monitor_address)
        self._sock_dir = _path("sock_dir", sock_dir)
        self._socket_scm_helper = _path("socket_scm_helper", socket_scm_helper)
        self._drain_console = drain_console or console_log is not None
        self._console_log_path = _path("console_log", console_log)
        self._log_dir = _path("log_dir", log_dir)
        self._qmp_timer = seconds(qmp_timer, "qmp_timer")

        self._qmp_set = True
        self._machine: str | None = None
        self._console_set = False
        self._console_device_type: str | None = None
        self._console_index = 0

        self._temp_dir: str | None = None
        self._temp: TempDir | None = None
        self._transport: Pair | Listener | None = None
        self._console: Console | None = None
        self._qemu_full_args: tuple[str, ...] = ()
        self._remove_files: list[str] = []
        self._cleaning = threading.RLock()

    # -- what may be changed before a launch ----------------------------------------------------------------

    @property
    def args(self) -> list[str]:
        """The user's arguments: the list itself, which may be changed."""
        return self._args

    @property
    def binary(self) -> str:
        """QEMU's, as it was given."""
        return self._binary

    def add_args(self, *args: str) -> None:
        """Append arguments.

        :raises MisuseError: unless each of them is a str; nothing is appended.
        """
        for arg in args:
            if not isinstance(arg, str):
                raise MisuseError(f"args must each be a str, not {arg!r}")
        self._args.extend(args)

    def add_monitor_null(self) -> None:
        """Add a monitor that nobody can reach, so that QEMU makes none by itself."""
        self._args += ["-monitor", "null"]

    def add_fd(self, fd: int, fdset: int, opaque: str, opts: str = "") -> Self:
        """Have QEMU inherit a descriptor, into an fd set (QEMU documentation, `-add-fd`); the machine."""
        option = f"fd={fd},set={fdset},opaque={escape(opaque)}"
        os.set_inheritable(fd, True)
        self._args += ["-add-fd", f"{option},{opts}" if opts else option]
        return self

    def set_machine(self, machine_type: str) -> None:
        """Choose QEMU's machine type, `-machine`; the last one counts."""
        self._machine = machine_type

    def set_console(self, device_type: str | None = None, console_index: int = 0) -> None:
        """Have a console; the last call counts.

        :param device_type: for `-device`; `None`: a serial port of the machine's.
        :param console_index: how many serial ports come before it, and go nowhere.
        :raises MisuseError: for what is neither; nothing has changed.
        """
        if not isinstance(device_type, str | None):
            raise MisuseError(f"device_type must be a str or None, not {device_type!r}")
        if not isinstance(console_index, int) or console_index < 0:
            raise MisuseError(f"console_index must be an int of 0 or more, not {console_index!r}")
        self._console_set = True
        self._console_device_type = device_type
        self._console_index = console_index

    def set_qmp_monitor(self, enabled: bool = True) -> None:
        """Have a monitor, from the next launch on, or have none.

        :param enabled: a bool, or what is as good: an int, or `None`.
        :raises MisuseError: for anything else; nothing has changed.
        """
        if not isinstance(enabled, int | None):
            raise MisuseError(f"enabled must be a bool, not {enabled!r}")
        self._qmp_set = enabled

    def get_command_arguments(self, option: str) -> list[str]:
        """What follows each occurrence of an option in `args`.

        :raises IndexError: when nothing follows.
        """
        return command_line.following(self._args, option)

    # -- directories ----------------------------------------------------------------------------------------

    @property
    def temp_dir(self) -> str:
        """The machine's temporary directory: made now, if it is not there, and removed after the run."""
        if self._temp_dir is None:
            self._temp = TempDir(self, self._base_temp_dir)
            self._temp.make()
            self._temp_dir = self._temp.path
        return self._temp_dir

    @property
    def sock_dir(self) -> str:
        """Where sockets with paths are made."""
        return self.temp_dir if self._sock_dir is None else self._sock_dir

    @property
    def log_dir(self) -> str:
        """Where QEMU's log is."""
        return self.temp_dir if self._log_dir is None else self._log_dir

    # -- the command line -----------------------------------------------------------------------------------

    @property
    def _base_args(self) -> list[str]:
        """The arguments before the user's. Read when the sockets are made."""
        return command_line.base_args(
            monitor=self._monitor_chardev() if self._qmp_set else None,
            machine=self._machine,
            console=self._console_chardev() if self._console_set else None,
            console_device=self._console_device_type,
            console_index=self._console_index,
        )

    def _monitor_chardev(self) -> str:
        if self._transport is not None:
            return self._transport.chardev
        return command_line.socket_options("mon", address=self._monitor_address)

    def _console_chardev(self) -> str:
        return command_line.socket_options("console") if self._console is None else self._console.chardev

    @property
    def _sock_pair(self) -> tuple[socket.socket, socket.socket] | None:
        """The ends of the monitor's socket pair, QEMU's first; `None` where there is none."""
        return self._transport.ends if isinstance(self._transport, Pair) else None

    @property
    def _cons_sock_pair(self) -> tuple[socket.socket, socket.socket] | None:
        """The ends of the console's socket pair, QEMU's first; `None` where there is none."""
        return None if self._console is None else self._console.pair

    def _compose(self) -> tuple[str, ...]:
        """The whole command line.

        :raises QEMUMachineError: for a word that can be none.
        """
        words = (*self._wrapper, self._binary, *self._base_args, *self._args)
        for word in words:
            if not isinstance(word, str) or "\0" in word:
                raise MisuseError(f"the command line must hold only str without NUL, not {word!r}")
        return words


# What Python calls it where parameters are missing, surplus or unknown: users know no other class.
Configuration.__init__.__qualname__ = "QEMUMachine.__init__"


def _words(field: str, words: object) -> list[str]:
    if isinstance(words, str | bytes) or not isinstance(words, Sequence):
        raise MisuseError(f"{field} must be a sequence of str, not {words!r}")
    return list(words)


def _path(field: str, path: object) -> str | None:
    if isinstance(path, str | os.PathLike):
        text = os.fspath(path)
        if isinstance(text, str) and "\0" not in text:
            return text
    elif path is None:
        return None
    raise MisuseError(f"{field} must be a path, not {path!r}")


def _check_address(address: object) -> Address:
    match address:
        case None:
            return None
        case str() if address and "\0" not in address:
            return address
        case (str() as host, int() as port) if isinstance(address, tuple):
            if not isinstance(port, bool) and 0 <= port < 0x10000:
                return host, port
    raise MisuseError(f"monitor_address must be a path, a tuple (host, port) or None, not {address!r}")
