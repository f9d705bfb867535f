"""A script that is killed while its machine runs."""

import os
import signal
import sys

from tests.compat.standins.external import BareMachine

vm = BareMachine("qemu-system-x86_64", ["-display", "none", "-nodefaults"], base_temp_dir=sys.argv[1])
vm.set_machine("none")
vm.launch()
os.write(1, f"{vm.get_pid()} {vm.cmd('query-status')['status']}\n".encode())
os.kill(os.getpid(), signal.SIGKILL)
