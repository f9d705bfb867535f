"""Stands for two projects outside of QEMU whose machines know the old one's insides."""

import ctypes
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from qemu.machine import QEMUMachine


def parent_death_signal() -> Callable[[], None]:
    """For the child, between fork and exec: let it not outlive this process (`PR_SET_PDEATHSIG`)."""
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_parent() -> None:
        if libc.prctl(1, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl")

    return die_with_parent


class BareMachine(QEMUMachine):
    """Starts QEMU by itself, and with nothing on the command line that was not asked for."""

    @property
    def _base_args(self) -> list[str]:
        args: list[str] = []
        if self._qmp_set:
            if self._sock_pair is not None:
                monitor = f"socket,id=mon,fd={self._sock_pair[0].fileno()}"
            elif isinstance(self._monitor_address, tuple):
                monitor = "socket,id=mon,host={},port={}".format(*self._monitor_address)
            else:
                monitor = f"socket,id=mon,path={self._monitor_address}"
            args.extend(["-chardev", monitor, "-mon", "chardev=mon,mode=control"])
        if self._machine is not None:
            args.extend(["-machine", self._machine])
        for _ in range(self._console_index):
            args.extend(["-serial", "null"])
        if self._console_set:
            assert self._cons_sock_pair is not None
            args.extend(["-chardev", f"socket,id=console,fd={self._cons_sock_pair[0].fileno()}"])
            if self._console_device_type is None:
                args.extend(["-serial", "chardev:console"])
            else:
                args.extend(["-device", f"{self._console_device_type},chardev=console"])
        return args

    def _launch(self) -> None:
        self._pre_launch()
        self._popen = subprocess.Popen(
            self._qemu_full_args,
            stdin=subprocess.DEVNULL,
            stdout=self._qemu_log_file,
            stderr=subprocess.STDOUT,
            shell=False,
            close_fds=False,
            preexec_fn=parent_death_signal(),  # noqa: PLW1509
        )
        self._launched = True
        self._post_launch()


class AttachedMachine(QEMUMachine):
    """Has a thread of its own that reads the console's socket, and looks at QEMU's log while it runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_console()
        self.said = bytearray()
        self._wake, self._waker = os.pipe()
        self._thread: threading.Thread | None = None

    def _post_launch(self) -> None:
        super()._post_launch()
        assert self._cons_sock_pair is not None
        console = self._cons_sock_pair[1]
        self._thread = threading.Thread(target=self._follow, args=(os.dup(console.fileno()),))
        self._thread.start()

    def _follow(self, console: int) -> None:
        while True:
            readable, _, _ = select.select([console, self._wake], [], [])
            if self._wake in readable:
                break
            data = os.read(console, 4096)
            if not data:
                break
            self.said += data
        os.close(console)

    def type(self, text: bytes) -> None:
        assert self._cons_sock_pair is not None
        self._cons_sock_pair[1].sendall(text)

    def log_so_far(self) -> str:
        self._load_io_log()
        log: str = self._iolog
        return log

    def _post_shutdown(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        super()._post_shutdown()

    def forget(self) -> None:
        os.close(self._wake)
        os.close(self._waker)
