"""Stands for the builder of VM images: a guest that is waited for, and told what to do, by its console."""

import atexit
import os
import socket
import sys
import time
from typing import Any

from qemu.machine import QEMUMachine

QEMU = "qemu-system-x86_64"


class ConsoleTimeout(Exception):
    """The guest did not say it in time."""


class BaseVM:
    """A guest, whose console's output is kept, as it comes, beside QEMU's other files."""

    login_prompt = "vmfsm-guest# "
    boot_timeout = 120

    def __init__(self, args: list[str], console_log: str | None = None) -> None:
        self._args = args
        self._console_log_path = console_log
        self._guest: Any = None
        atexit.register(self.shutdown)

    def boot(self) -> None:
        guest = QEMUMachine(
            binary=QEMU,
            args=["-nodefaults", "-m", "256", "-no-reboot", *self._args],
            drain_console=self._console_log_path is not None,
            console_log=self._console_log_path,
        )
        guest.set_machine("pc")
        guest.set_console()
        try:
            guest.launch()
        except BaseException:
            print("failed to launch: ", " ".join(guest._args), file=sys.stderr)
            log = guest.get_log()
            if log is not None:
                print(log, file=sys.stderr)
            raise
        atexit.register(self.shutdown)
        self._guest = guest
        self._raw = open(os.path.join(guest._temp_dir, guest._name + "-console.raw"), "wb")  # noqa: SIM115
        self.raw_path = self._raw.name

    @property
    def _console(self) -> socket.socket:
        console: socket.socket = self._guest.console_socket
        return console

    def console_init(self, timeout: float | None = None) -> None:
        self._console.settimeout(self.boot_timeout if timeout is None else timeout)

    def console_wait(self, expect: str, expectalt: str | None = None) -> bool:
        """Read what the guest says, until it says one of them; whether it was the first."""
        output = ""
        while True:
            try:
                data = self._console.recv(1)
            except socket.timeout as late:  # noqa: UP041 - as it is written there
                raise ConsoleTimeout(f"still waiting for {expect!r} after {output!r}") from late
            if not data:
                raise EOFError(output)
            self._raw.write(data)
            self._raw.flush()
            output += data.decode("latin1")
            if expect in output:
                return True
            if expectalt is not None and expectalt in output:
                return False

    def console_consume(self) -> str:
        """What the guest has said already."""
        output = b""
        self._console.setblocking(False)
        while True:
            try:
                data = self._console.recv(1)
            except BlockingIOError:
                break
            if not data:
                break
            output += data
        self._console.setblocking(True)
        self.console_init()
        self._raw.write(output)
        return output.decode("latin1")

    def console_send(self, command: str) -> None:
        for letter in command:
            self._console.send(letter.encode("utf-8"))
            time.sleep(0.001)

    def console_wait_send(self, wait: str, command: str) -> None:
        self.console_wait(wait)
        self.console_send(command)

    def console_command(self, command: str) -> str:
        """What a shell's command writes."""
        self.console_send(f"echo be''gin; {command}; echo e''nd\n")
        self.console_wait("begin\r\n")
        begin = self._raw.tell()
        self.console_wait("end\r\n")
        with open(self.raw_path, "rb") as raw:
            raw.seek(begin)
            return raw.read().removesuffix(b"end\r\n").replace(b"\r\n", b"\n").decode()

    def qmp(self, *args: Any, **kwargs: Any) -> Any:
        return self._guest.qmp(*args, **kwargs)

    def wait(self) -> None:
        self._guest.wait()

    def shutdown(self) -> None:
        if self._guest is not None:
            self._guest.shutdown()
            self._raw.close()

    def graceful_shutdown(self) -> None:
        self.console_send("poweroff -f\n")
        self._guest.wait()
        self._raw.close()


__all__ = ["BaseVM", "ConsoleTimeout"]
