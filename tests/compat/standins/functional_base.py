"""Stands for the functional tests' base classes: machines made on demand, and talked to by console."""

import logging
import os
import tempfile
import unittest
from contextlib import suppress
from typing import Any

from qemu.machine import QEMUMachine

QEMU = os.environ.get("QEMU_TEST_QEMU_BINARY", "qemu-system-x86_64")


class SystemTest(unittest.TestCase):
    """With as many machines as it asks for, and a directory whose logs outlive them."""

    timeout = 90

    def setUp(self) -> None:
        self.workdir = tempfile.mkdtemp(prefix="functional-", dir=os.environ["QEMU_TEST_DIR"])
        self.log = logging.getLogger("qemu-test")
        self._vms: dict[str, Any] = {}
        logging.getLogger("qemu.machine").setLevel(logging.DEBUG)
        logging.getLogger("qemu.qmp").setLevel(logging.DEBUG)
        self.machinelog = logging.FileHandler(os.path.join(self.workdir, "machine.log"))
        logging.getLogger("qemu.machine").addHandler(self.machinelog)

    def log_file(self, *names: str) -> str:
        return os.path.join(self.workdir, *names)

    def set_machine(self, machinename: str) -> None:
        self.machine = machinename

    @property
    def vm(self) -> Any:
        return self.get_vm(name="default")

    def get_vm(self, *args: str, name: str) -> Any:
        if name not in self._vms:
            vm = QEMUMachine(
                QEMU, base_temp_dir=self.workdir, log_dir=self.workdir, name=f"{self.id()}-{name}"
            )
            self.log.debug("%s", vm.temp_dir)
            if args:
                vm.add_args(*args)
            if hasattr(self, "machine"):
                vm.set_machine(self.machine)
            self._vms[name] = vm
        return self._vms[name]

    def set_vm_arg(self, arg: str, value: str) -> None:
        """Change what an option says, or add it."""
        for index, word in enumerate(self.vm.args):
            if word == arg and index + 1 < len(self.vm.args):
                self.vm.args[index + 1] = value
                return
        self.vm.args.extend([arg, value])

    def tearDown(self) -> None:
        for vm in self._vms.values():
            vm.shutdown()
        logging.getLogger("qemu.machine").removeHandler(self.machinelog)
        self.machinelog.close()


def wait_for_console_pattern(test: SystemTest, success: str, failure: str = "panic", vm: Any = None) -> str:
    """Read until a line has `success`; the test fails by the end, and by a line that has `failure`."""
    console = (vm or test.vm).console_file
    return _read(test, console, success.encode(), failure.encode()).decode(errors="replace")


def exec_command_and_wait(test: SystemTest, command: str, success: str, vm: Any = None) -> str:
    (vm or test.vm).console_socket.sendall(f"{command}\r".encode())
    return wait_for_console_pattern(test, success, vm=vm)


def _read(test: SystemTest, console: Any, success: bytes, failure: bytes) -> bytes:
    text = b""
    while success not in text:
        byte = console.read(1)
        if not byte:
            test.fail(f"EOF in console, expected {success!r} after {text!r}")
        text += byte
        if failure in text:
            test.fail(f"Failure message found in console: {text!r}")
    return text


def old_wait_for_console_pattern(test: SystemTest, success: str, vm: Any = None) -> str:
    """As it was before there was `console_file`."""
    console = (vm or test.vm).console_socket.makefile(mode="rb", encoding="utf-8")
    try:
        return _read(test, console, success.encode(), b"panic").decode()
    finally:
        with suppress(OSError):
            console.close()
