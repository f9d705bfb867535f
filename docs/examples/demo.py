"""A machine from launch to power-off, and what it has to say about that afterwards.

    python docs/examples/demo.py        (or: make demo)

The guest is a boot sector that comes with vmfsm: it takes commands on its serial port.
"""

import sys

from vmfsm import Machine, format_timeline
from vmfsm.testing import GUEST_ARGS


def main() -> None:
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


if __name__ == "__main__":
    main()
