"""Two machines: one from launch to power-off, and one that dies while somebody waits for it.

    python docs/examples/demo.py        (or: make demo)

The guest is a boot sector that comes with vmfsm: it takes commands on its serial port.
"""

import sys

from vmfsm import Machine, MachineDied, format_timeline
from vmfsm.testing import GUEST_ARGS


def all_goes_well() -> None:
    with Machine("qemu-system-x86_64", GUEST_ARGS, name="demo") as vm:
        print(f"It is {vm.state.value}.")

        vm.launch(timeout=30)
        print(f"It is {vm.state.value}, process {vm.pid}.")

        vm.console.expect("guest ready", timeout=30)
        vm.console.sendline("ping")
        print(f"The guest answers: {vm.console.expect('pong', timeout=10).match[0]}")

        vm.qmp.execute("stop")
        print(f"It is {vm.state.value}, and QEMU says that the guest is {vm.run_state}.")
        vm.qmp.execute("cont")

        vm.console.sendline("poweroff")
        vm.wait(timeout=30)
        print(f"It is over: {vm}")

    print("\nWhat happened:\n")
    print(format_timeline(vm.timeline, colour=sys.stdout.isatty()))


def it_dies() -> None:
    print("\nAnother one, which ends while we wait for its login prompt:\n")
    try:
        with Machine("qemu-system-x86_64", GUEST_ARGS, name="doomed") as vm:
            vm.launch(timeout=30)
            vm.console.expect("guest ready", timeout=30)
            vm.console.sendline("exit 3")  # ends QEMU, with status 7
            vm.console.expect("login:", timeout=30)
    except MachineDied as error:  # a traceback shows the same
        print(f"MachineDied: {error}", *error.__notes__, sep="\n")
    print(f"\nIt is over: {vm}")


if __name__ == "__main__":
    all_goes_well()
    it_dies()
