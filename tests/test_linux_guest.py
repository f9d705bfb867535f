"""End to end: a real Linux with a shell on its serial console, from its first line to its power-off."""

import pytest

from tests.linux_guest import BOOT, PROMPT, Boot, Linux, Shell
from vmfsm import MachineTimeout, Reason, State


def test_shell_monitor_and_power_off(boot: Boot) -> None:
    shell = boot(append="vmfsm.test=yes", name="linux")
    vm = shell.vm
    vm.console.sendline("uname -a")
    assert "x86_64" in vm.console.expect(r"Linux \(none\) .*GNU/Linux", timeout=BOOT).match[0]
    vm.console.sendline("cat /proc/cmdline")
    vm.console.expect(r"console=ttyS0 quiet .* vmfsm\.test=yes\r?\n", timeout=BOOT)
    vm.console.sendline("echo $((6 * 7))")
    vm.console.expect(r"^42\r?$", timeout=BOOT)

    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.qmp.execute("stop")
    assert vm.run_state == "paused"
    vm.qmp.execute("cont")

    here = vm.qmp.mark()
    vm.console.sendline("poweroff -f")
    event = vm.qmp.wait_event("SHUTDOWN", since=here, timeout=BOOT)
    assert event["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert vm.wait(timeout=BOOT) == 0
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN)
    assert "Power down" in vm.console.text


def test_the_power_button(boot: Boot) -> None:
    vm = boot(modules=("button", "evdev")).vm
    vm.shutdown(guest=True, timeout=BOOT)
    assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
    assert "the button was pressed" in vm.console.text
    ways = [record.data["way"] for record in vm.timeline if record.kind == "stop"]
    assert ways == ["qmp (the guest)"], "the guest went by itself"


def test_the_shell_of_the_tests(boot: Boot) -> None:
    shell = boot(
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        modules=("virtio_pci", "virtio_rng", "virtio_console", "tpm_tis"),  # the last one is built in
    )
    assert "virtio_rng" in shell.run("cat /sys/class/misc/hw_random/rng_available")
    assert shell.run("lsmod | grep -c virtio_ring") == "1"
    shell.run("modprobe virtio_blk")

    assert shell.run("true") == ""
    assert shell.run("printf 'no line end'") == "no line end"
    assert shell.run("printf 'a\n\nb\n\n'") == "a\n\nb"
    assert shell.run("cd /tmp; x=$((x + 1))\nif true; then echo one; fi  # two\n\necho three") == "one\nthree"
    assert shell.run("pwd; echo $x") == "/tmp\n1"
    assert shell.run(f"echo '{PROMPT}' end-1 0; echo {'x' * 900}").split("\n")[1] == "x" * 900
    assert shell.run("seq 20000").split("\n") == [str(number) for number in range(1, 20001)]
    assert shell.run("(echo bad; exit 3)", status=3) == "bad"
    assert shell.run("nonsense", status=None).endswith("not found")
    with pytest.raises(AssertionError, match="'false' ended with 1"):
        shell.run("false")
    with pytest.raises(MachineTimeout):
        shell.run("cat", timeout=0.5)
    shell.vm.console.send("\x04")  # which ends cat
    shell.await_prompt()
    assert shell.run("echo $((6 * 7))") == "42"
    shell.vm.kill()


def test_a_module_that_there_is_not(linux: Linux) -> None:
    vm = linux(modules=("virtio_blk", "no_such"))
    vm.launch()
    vm.console.expect("has not all of the modules virtio_blk no_such", timeout=BOOT)
    vm.wait(timeout=BOOT)


def test_launched_again(linux: Linux) -> None:
    vm = linux()
    for _ in range(2):
        assert Shell(vm.launch()).await_prompt().run("cat /proc/1/comm") == "sh"
        vm.shutdown()
