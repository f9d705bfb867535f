"""Commands and events, as old code asks for them."""

import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from vmfsm_plugins.qmp.events import Event, check_wanted, matches

from vmfsm import ConfigError, Deadline

from .configuration import Configuration
from .errors import MisuseError, QEMUMachineError, QMPTimeoutError
from .limits import seconds
from .monitor import Monitor, Wait

LOG = logging.getLogger("qemu.machine.machine")


class Commands(Configuration):
    """The part of `QEMUMachine` that talks with the monitor."""

    _monitor: Monitor | None = None
    _quit_issued = False

    @property
    def _qmp(self) -> Monitor:
        """The monitor of this run.

        :raises QEMUMachineError: where there is none.
        """
        if self._monitor is None:
            raise QEMUMachineError("Attempt to access QMP with no connection")
        return self._monitor

    # -- commands -------------------------------------------------------------------------------------------

    def qmp(
        self,
        cmd: str,
        args_dict: Mapping[str, Any] | bool | None = None,
        conv_keys: bool | None = None,
        **args: Any,
    ) -> dict[str, Any]:
        """Execute a command; the whole reply, `{"return": …}` or `{"error": …}`.

        :param args_dict: its arguments, as they are.
        :param conv_keys: in the names of those given by keyword, `_` stands for `-`, unless this is false.
        :raises QEMUMachineError: where there is no monitor, or QEMU ends.
        :raises QMPTimeoutError: when it does not answer in `qmp_command_timeout` seconds.
        """
        reply = self._qmp.cmd_raw(cmd, _arguments(cmd, args_dict, conv_keys, args))
        if cmd == "quit" and "return" in reply:
            self._quit_issued = True
        return reply

    def cmd(
        self,
        cmd: str,
        args_dict: Mapping[str, Any] | bool | None = None,
        conv_keys: bool | None = None,
        **args: Any,
    ) -> Any:
        """As `qmp`; the value of the reply's `return`.

        :raises ExecuteError: when QEMU answers with an error.
        """
        value = self._qmp.value_of(cmd, _arguments(cmd, args_dict, conv_keys, args))
        if cmd == "quit":
            self._quit_issued = True
        return value

    def command(
        self,
        cmd: str,
        args_dict: Mapping[str, Any] | bool | None = None,
        conv_keys: bool | None = None,
        **args: Any,
    ) -> Any:
        """The older name of `cmd`."""
        return self.cmd(cmd, args_dict, conv_keys, **args)

    def send_fd_scm(self, fd: int | None = None, file_path: str | None = None) -> int:
        """Have QEMU given a descriptor with the next `getfd` or `add-fd`; 0.

        :param file_path: in place of a descriptor: a file that is opened for reading.
        :raises QMPError: where the monitor is TCP.
        :raises QMPTimeoutError: when `socket_scm_helper` does not end in `qmp_command_timeout` seconds.
        """
        if (fd is None) == (file_path is None):
            raise MisuseError("send_fd_scm takes a descriptor or a path")
        if self._socket_scm_helper is not None:
            return self._send_by_helper(self._socket_scm_helper, file_path if fd is None else fd)
        if fd is not None:
            self._qmp.send_fd_scm(fd)
            return 0
        assert file_path is not None
        opened = os.open(file_path, os.O_RDONLY)
        try:
            self._qmp.send_fd_scm(opened)
        finally:
            os.close(opened)
        return 0

    def _send_by_helper(self, helper: str, what: object) -> int:
        """Have `socket_scm_helper` send it now; its exit status."""
        if not os.path.exists(helper):
            raise QEMUMachineError(f"there is no socket_scm_helper {helper}")
        monitor = self._qmp
        if not monitor.is_scm_available():
            raise MisuseError("descriptors can't pass over TCP")
        to = monitor.get_sock_fd()
        try:
            ran = subprocess.run(
                [helper, str(to), str(what)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[to, what] if isinstance(what, int) else [to],
                check=False,
                timeout=Deadline(seconds(self.qmp_command_timeout, "qmp_command_timeout")).remaining(),
            )
        except subprocess.TimeoutExpired as late:
            raise QMPTimeoutError(f"socket_scm_helper {helper} has not ended in time") from late
        LOG.debug("%s: %s", helper, ran.stdout.decode(errors="replace"))
        return ran.returncode

    # -- events ---------------------------------------------------------------------------------------------

    def get_qmp_event(self, wait: Wait = False) -> Event | None:
        """The oldest event that nobody was given yet.

        :param wait: seconds to wait for one, `True`: as long as QEMU lives; `False` or 0: not at all.
        :raises QMPTimeoutError: when none comes.
        """
        return self._qmp.pull_event(wait)

    def get_qmp_events(self, wait: Wait = False) -> list[Event]:
        """All events that nobody was given yet, oldest first; where there are none, waits for one."""
        return self._qmp.get_events(wait)

    def event_wait(
        self, name: str, timeout: Wait = 60.0, match: Mapping[str, Any] | None = None
    ) -> Event | None:
        """`events_wait` for one."""
        return self.events_wait([(name, match)], timeout)

    def events_wait(
        self, events: Iterable[tuple[str, Mapping[str, Any] | None]], timeout: Wait = 60.0
    ) -> Event | None:
        """The first event that is any of these, and that nobody was given yet; the others stay.

        :param events: pairs of a name and of what `event_match` compares.
        :param timeout: seconds, `True`: as long as QEMU lives; `None`, `False` or 0: do not wait.
        :raises QMPTimeoutError: when none comes in that time.
        :raises QEMUMachineError: when QEMU ends meanwhile.
        """
        try:
            wanted = check_wanted(events)
        except ConfigError as wrong:
            raise MisuseError(str(wrong)) from wrong
        return self._qmp.event(wanted, timeout or False)

    @staticmethod
    def event_match(event: Any, match: Any) -> bool:
        """Whether an event has all that `match` has, recursively; `None` in `match` is any value."""
        return matches(event, match)


def _arguments(
    command: str, given: object, conv_keys: bool | None, keywords: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    if isinstance(given, bool) and conv_keys is None:  # its place was here, once
        given, conv_keys = None, given
    if given is not None:
        if not isinstance(given, Mapping) or keywords or conv_keys is not None:
            raise MisuseError(f"{command}: arguments are either a dict, as it is, or keywords")
        return given
    if conv_keys is None or conv_keys:
        return {name.replace("_", "-"): value for name, value in keywords.items()}
    return keywords
