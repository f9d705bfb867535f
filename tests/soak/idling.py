"""A harness whose machines are idle: says the pids of its QEMUs, and waits for the end of its input.

Three machines as a harness has them, and three threads that wait in calls that nothing answers, since waiting
is to cost nothing either.
"""

import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Callable

from tests.bench.floor import NO_MACHINE, QEMU
from vmfsm import Machine, VMError
from vmfsm.testing import GUEST_ARGS

_NEVER = 1e6
"""Seconds that the waits have; a limit is to cost no more than none."""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as block:
        at_path = {"qmp": {"address": f"{directory}/monitor"}}
        pair = block.enter_context(Machine(QEMU, NO_MACHINE, name="pair"))
        path = block.enter_context(Machine(QEMU, NO_MACHINE, name="path", options=at_path))
        guest = block.enter_context(Machine(QEMU, GUEST_ARGS, name="guest"))
        machines = [pair, path, guest]
        for machine in machines:
            machine.launch()
        guest.console.expect("ready")
        waiting = [
            _in_thread(lambda: pair.wait(timeout=_NEVER)),
            _in_thread(lambda: path.qmp.wait_event("NEVER", timeout=_NEVER)),
            _in_thread(lambda: guest.console.expect("never", timeout=_NEVER)),
        ]
        print(json.dumps({machine.name: machine.pid for machine in machines}), flush=True)
        sys.stdin.read()
        for machine in machines:
            machine.kill()
        for thread in waiting:
            thread.join()


def _in_thread(wait: Callable[[], object]) -> threading.Thread:
    def until_the_end() -> None:
        with contextlib.suppress(VMError):
            wait()

    thread = threading.Thread(target=until_the_end, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    main()
