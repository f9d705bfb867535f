"""Boots a guest, and leaves its end to the interpreter's.

Arguments: what is to be done, the file for the console's log or "", and QEMU's arguments.
"""

import os
import sys

from tests.compat.standins.vm_image_builder import BaseVM, ConsoleTimeout

_, what, console_log, *args = sys.argv
vm = BaseVM(args, console_log or None)
vm.boot()
print(f"QEMU {vm._guest.get_pid()} {vm._guest.temp_dir}")
vm.console_init()
vm.console_wait(vm.login_prompt)
assert os.path.dirname(vm.raw_path) == vm._guest.temp_dir
assert vm.console_command("echo $((6 * 7))") == "42\n"
vm.console_consume()
vm.console_consume()
vm.console_init(timeout=0.2)
try:
    vm.console_wait("that never comes")
except ConsoleTimeout as late:
    print(f"as expected: {late}")
vm.console_init()
assert vm.console_command("uname -s") == "Linux\n"
match what:
    case "ends":
        pass
    case "raises":
        raise RuntimeError("the build has failed")
    case "graceful":
        vm.graceful_shutdown()
        print(f"status {vm._guest.exitcode()}")
print("the end")
