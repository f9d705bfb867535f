"""`QEMUQtestMachine`: a machine whose devices are driven by commands instead of a guest."""

import os
import socket
from collections.abc import Sequence

from vmfsm import LaunchPlan, Machine, escape, hookimpl

from .errors import QtestClosedError
from .machine import QEMUMachine
from .qtest_protocol import TIMEOUT, QEMUQtestProtocol

__all__ = ("QEMUQtestMachine", "QEMUQtestProtocol")


class _UntilTheEnd:
    """The plugin that lets nobody wait for a QEMU that has ended, nor too short for one that is held."""

    name = "compat-qtest"

    def __init__(self, qtest: QEMUQtestProtocol) -> None:
        self._qtest = qtest

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self._qtest._serve(machine)
        plan.on_exit(self._qtest.qemu_has_ended)


class QEMUQtestMachine(QEMUMachine):
    """A machine with QEMU's qtest server, and the accelerator that runs no guest.

    :param qmp_timer: `None`, the default here: the start may take as long as it likes.

    The others are `QEMUMachine`'s. With `sock_dir` QEMU connects to `<sock_dir>/<name>-qtest.sock`, else it
    is given one end of a socket pair.
    """

    def __init__(
        self,
        binary: str,
        args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        name: str | None = None,
        base_temp_dir: str | None = None,
        qmp_timer: float | None = None,
        *,
        test_dir: str | None = None,
        sock_dir: str | None = None,
        socket_scm_helper: str | None = None,
    ) -> None:
        super().__init__(
            binary,
            args,
            wrapper,
            name,
            base_temp_dir,
            test_dir=test_dir,
            sock_dir=sock_dir,
            socket_scm_helper=socket_scm_helper,
            qmp_timer=qmp_timer,
        )
        self._qtest: QEMUQtestProtocol | None = None
        self._qtest_path = None if sock_dir is None else os.path.join(sock_dir, f"{self._name}-qtest.sock")
        self._qtest_sock_pair: tuple[socket.socket, socket.socket] | None = None
        """QEMU's end, inheritable, and ours; `None` with a path."""

    @property
    def _base_args(self) -> list[str]:
        args = super()._base_args
        if self._qtest_path is not None:
            args += ["-qtest", f"unix:path={escape(self._qtest_path)}"]
        else:
            pair = self._qtest_sock_pair
            fd = None if pair is None else pair[0].fileno()
            args += ["-chardev", f"socket,id=qtest,fd={fd}", "-qtest", "chardev:qtest"]
        return [*args, "-accel", "qtest"]

    def _pre_launch(self) -> None:
        # QEMU reports in its log when the connection begins and ends, so it is there from the start.
        if self._qtest_path is not None:
            self._remove_files.append(self._qtest_path)
            try:
                self._qtest = QEMUQtestProtocol(self._qtest_path, server=True)
            except OSError:
                self._remove_files.remove(self._qtest_path)  # it is somebody else's
                raise
        else:
            self._qtest_sock_pair = socket.socketpair()
            self._qtest_sock_pair[0].set_inheritable(True)
            self._qtest = QEMUQtestProtocol(sock=self._qtest_sock_pair[1])
        super()._pre_launch()

    def _run_plugins(self) -> list[object]:
        return [*super()._run_plugins(), *([] if self._qtest is None else [_UntilTheEnd(self._qtest)])]

    def _post_launch(self) -> None:
        super()._post_launch()
        assert self._qtest is not None
        if self._qtest_sock_pair is not None:
            self._qtest_sock_pair[0].close()
            self._qtest.connect()
        else:
            self._qtest.settimeout(self._qmp_timer)
            self._qtest.accept()
            self._qtest.settimeout(TIMEOUT)

    def _post_shutdown(self) -> None:
        # Not before: QEMU has ended, and has written to its log that the connection has.
        try:
            if self._qtest is not None:
                self._qtest.close()
            if self._qtest_sock_pair is not None:
                for end in self._qtest_sock_pair:
                    end.close()
        finally:
            self._qtest_sock_pair = None
            super()._post_shutdown()

    def qtest(self, cmd: str) -> str:
        """Send a command to QEMU's qtest server; the line that answers it, with its end.

        `""` where QEMU ends instead.

        :raises QtestTimeoutError: when there is none within 300 seconds, or what was set by `settimeout`.
        :raises QtestClosedError: when the machine is not launched, or QEMU has ended.
        """
        if self._qtest is None:
            raise QtestClosedError(f"qtest: the machine was never launched: {cmd!r}")
        return self._qtest.cmd(cmd)
