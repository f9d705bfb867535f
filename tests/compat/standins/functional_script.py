# ruff: noqa: PT009, PT027 - they are of unittest
"""Functional tests, each of them in the style of one of theirs."""

import asyncio
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
import unittest
from collections.abc import Iterator

from qemu.machine import QEMUMachine, machine
from qemu.machine.machine import VMLaunchFailure
from qemu.utils import get_info_usernet_hostfwd_port, kvm_available, tcg_available

from tests.compat.standins.functional_base import (
    QEMU,
    SystemTest,
    exec_command_and_wait,
    old_wait_for_console_pattern,
    wait_for_console_pattern,
)
from vmfsm.testing import GUEST_ARGS


class Boots(SystemTest):
    """A guest that is talked to."""

    def boot(self) -> None:
        self.set_machine("pc")
        self.vm.set_console()
        self.vm.add_args(*GUEST_ARGS)
        self.vm.launch()

    def test_a_pattern_at_a_time(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        exec_command_and_wait(self, "ping", "pong")
        exec_command_and_wait(self, "hello", "echo: hello")
        self.vm.shutdown()
        self.assertEqual(self.vm.exitcode(), 0)

    def test_as_it_once_was(self) -> None:
        self.boot()
        old_wait_for_console_pattern(self, "ready")
        self.vm.console_socket.sendall(b"ping\r")
        old_wait_for_console_pattern(self, "pong")

    def test_a_guest_that_is_gone(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        exec_command_and_wait(self, "poweroff", "echo: poweroff")
        with self.assertRaisesRegex(AssertionError, "EOF in console"):
            wait_for_console_pattern(self, "that never comes")
        self.vm.wait()
        self.assertEqual(self.vm.exitcode(), 0)

    def test_a_guest_that_says_the_wrong_thing(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        with self.assertRaisesRegex(AssertionError, "Failure message found in console"):
            exec_command_and_wait(self, "panic", "that never comes")

    def test_from_the_first_byte(self) -> None:
        """However late it is read."""
        self.boot()
        limit = time.monotonic() + 30
        while not select.select([self.vm.console_socket], [], [], 0.0)[0]:
            self.assertLess(time.monotonic(), limit)
        self.vm.cmd("query-status")
        self.assertIn("ready", wait_for_console_pattern(self, "ready"))

    def test_a_console_that_a_tester_closes(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        self.vm.console_socket.close()
        self.vm.shutdown(timeout=int(self.timeout))

    def test_a_second_port_by_a_device(self) -> None:
        self.set_machine("pc")
        self.vm.set_console(device_type="isa-serial", console_index=0)
        self.vm.set_console("isa-serial")
        self.vm.add_args(*GUEST_ARGS)
        self.vm.launch()
        wait_for_console_pattern(self, "ready")

    def test_snapshot_and_hard_end(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        self.vm.shutdown(True)
        self.assertEqual(self.vm.exitcode(), -signal.SIGKILL)

    def test_reset_and_wait(self) -> None:
        self.boot()
        wait_for_console_pattern(self, "ready")
        self.vm.qmp("system_reset")
        self.vm.event_wait("RESET", timeout=self.timeout)
        wait_for_console_pattern(self, "ready")
        self.vm.console_socket.sendall(b"poweroff\r")
        self.vm.event_wait("SHUTDOWN", timeout=200)
        self.vm.wait(timeout=None)


class Arguments(SystemTest):
    """The live list."""

    def test_set_vm_arg(self) -> None:
        self.vm.add_args("-nodefaults", "-S", "-m", "16")
        self.set_vm_arg("-m", "32")
        self.set_vm_arg("-name", "late")
        self.vm.args.append("-no-reboot")
        self.vm.launch()
        self.assertEqual(self.vm.args, ["-nodefaults", "-S", "-m", "32", "-name", "late", "-no-reboot"])
        self.assertEqual(self.vm.cmd("query-name"), {"name": "late"})
        self.assertEqual(self.vm.cmd("query-memory-size-summary")["base-memory"], 32 << 20)

    def test_machine_type(self) -> None:
        self.set_machine("q35")
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        self.assertEqual(self.vm.qmp("qom-get", path="/machine", property="type")["return"][:7], "pc-q35-")

    def test_the_log_is_kept(self) -> None:
        self.vm.add_args("-nodefaults", "-S", "-d", "nonsense_that_is_no_item")
        with self.assertRaises(machine.VMLaunchFailure):
            self.vm.launch()
        name = f"{self.id()}-default.log"
        self.assertIn(name, os.listdir(self.workdir))
        with open(self.log_file(name)) as log:
            self.assertEqual(log.read(), self.vm.get_log())


class Failures(SystemTest):
    """Launches that fail, and what tests do about them."""

    def test_skip_by_output(self) -> None:
        self.vm.add_args("-nodefaults", "-device", "no-such-device")
        try:
            self.vm.launch()
        except VMLaunchFailure as failure:
            self.assertIn("'no-such-device' is not a valid device model name", failure.output)
            self.assertEqual(failure.exitcode, 1)
        else:
            self.fail("it started")
        self.assertEqual(self.vm.exitcode(), 1)
        self.vm.shutdown()
        self.vm.args.clear()
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        self.assertTrue(self.vm.is_running())

    def test_without_monitor(self) -> None:
        """What only tells by its exit status and its output."""
        self.vm.set_qmp_monitor(enabled=False)
        self.vm.add_args("-S", "-machine", "pc", "-m", "16", "-cpu", "")
        self.vm.launch()
        self.vm.wait()
        self.assertEqual(self.vm.exitcode(), 1, "Expected exit code 1")
        self.assertRegex(self.vm.get_log(), r"-cpu option cannot be empty|no CPU|[Cc]pu")

    def test_without_monitor_alive(self) -> None:
        self.vm.set_qmp_monitor(enabled=False)
        self.vm.set_console()
        self.vm.add_args(*GUEST_ARGS)
        self.vm.launch()
        wait_for_console_pattern(self, "ready")
        self.vm.shutdown(timeout=30)
        self.assertEqual(self.vm.exitcode(), 0)

    def test_silence_of_the_monitor_alone(self) -> None:
        import logging

        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        with self.assertNoLogs("qemu", logging.WARNING), self.assertRaises(VMLaunchFailure):
            QEMUMachine(QEMU, ["-nonsense"], base_temp_dir=self.workdir).launch()


class Several(SystemTest):
    """More machines than one."""

    def test_exit_stack(self) -> None:
        with contextlib.ExitStack() as stack:
            vms = [stack.enter_context(QEMUMachine(QEMU, ["-M", kind])) for kind in ("none", "pc", "q35")]
            for vm in vms:
                vm.launch()
            kinds = [vm.cmd("qom-get", {"path": "/machine", "property": "type"}) for vm in vms]
            self.assertEqual([kind.split("-")[0] for kind in kinds], ["none", "pc", "pc"])
        self.assertEqual([vm.exitcode() for vm in vms], [0, 0, 0])

    def test_descriptors_that_nobody_told_of(self) -> None:
        """As with a device in a process of its own, which is found by the number of a socket."""
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self.vm.add_args("-nodefaults", "-S", "-chardev", f"socket,id=other,fd={theirs.fileno()}")
        self.vm.add_args("-serial", "null", "-mon", "chardev=other,mode=control")
        self.vm.launch()
        theirs.close()
        ours.settimeout(self.timeout)
        self.assertTrue(ours.recv(4096).startswith(b'{"QMP":'))
        self.vm.kill()
        self.assertEqual(ours.recv(4096), b"")
        ours.close()

    def test_a_set_of_descriptors(self) -> None:
        os.truncate(self.log_file("machine.log"), 1 << 20)
        with open(self.log_file("machine.log"), "rb") as file:
            self.vm.add_fd(file.fileno(), 3, "null").add_fd(file.fileno(), 3, "again")
            self.vm.add_args(
                "-nodefaults", "-S", "-drive", "file=/dev/fdset/3,if=none,read-only=on,format=raw"
            )
            self.vm.add_monitor_null()
            self.vm.launch()
        self.assertEqual([fdset["fdset-id"] for fdset in self.vm.cmd("query-fdsets")], [3])

    def test_migration(self) -> None:
        source = self.get_vm("-nodefaults", name="source")
        target = self.get_vm("-nodefaults", "-incoming", f"unix:{self.workdir}/m", name="target")
        for vm in (source, target):
            vm.launch()
        source.qmp("migrate", uri=f"unix:{self.workdir}/m")
        for vm in (source, target):
            for _ in self.patience():
                if vm.cmd("query-migrate").get("status") in {"completed", "failed"}:
                    break
            self.assertEqual(vm.cmd("query-migrate")["status"], "completed")
        self.assertEqual(target.cmd("query-status")["status"], "running")
        self.assertEqual(source.cmd("query-status")["status"], "postmigrate")

    def patience(self) -> Iterator[int]:
        limit = time.monotonic() + self.timeout
        attempt = 0
        while time.monotonic() < limit:
            yield attempt
            attempt += 1
            time.sleep(0.05)


class Odds(SystemTest):
    """What else they use."""

    def test_timeouts_of_both_names(self) -> None:
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        for kind in (TimeoutError, asyncio.TimeoutError):
            with self.assertRaises(kind):
                self.vm.event_wait("STOP", timeout=0.1)
        self.vm.cmd("cont")
        self.assertEqual(self.vm.event_wait("RESUME", timeout=60.0)["event"], "RESUME")

    def test_memory_that_is_locked(self) -> None:
        self.vm.add_args("-nodefaults", "-S", "-m", "16")
        self.vm.launch()
        with open(f"/proc/{self.vm.get_pid()}/status") as status:
            self.assertRegex(status.read(), r"VmLck:\s+0 kB")
        self.assertEqual(self.vm.binary, QEMU)

    def test_user_network(self) -> None:
        self.vm.add_args("-nodefaults", "-S", "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22")
        self.vm.launch()
        text = self.vm.cmd("human-monitor-command", command_line="info usernet")
        port = get_info_usernet_hostfwd_port(text)
        with socket.create_connection(("127.0.0.1", port)):
            pass

    def test_accelerators(self) -> None:
        self.assertTrue(tcg_available(QEMU))
        self.assertIn(kvm_available(qemu_bin=QEMU), {True, False})

    def test_messages_of_the_machine(self) -> None:
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        self.vm.shutdown()
        with open(self.log_file("machine.log")) as log:
            self.assertTrue(re.search(r"VM launch command: .*-nodefaults", log.read()))

    def test_a_child_of_the_test(self) -> None:
        """What a test starts beside does not keep the monitor open: QEMU's end is noticed."""
        self.vm.add_args("-nodefaults", "-S")
        self.vm.launch()
        with subprocess.Popen(["sleep", "1000"], close_fds=False) as child:
            os.kill(self.vm.get_pid(), signal.SIGTERM)
            self.vm.wait(timeout=self.timeout)
            child.kill()


if __name__ == "__main__":
    unittest.main()
