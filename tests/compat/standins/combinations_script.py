# ruff: noqa: PT017 - it is no test
"""Stands for the script that looks for crashes: it starts every machine with every device.

Most of them do not start, and say why. Each line of its output is one of them, as JSON: `machine`, `device`,
whether it `starts`, `exitcode`, and `log`. What goes wrong otherwise ends it with a status that is not 0.

    combinations_script.py QEMU OFFSET STEP MACHINE...

:param MACHINE: those that are tried with devices; every other one is tried without.
:param STEP: of all combinations, in their order, every so many, from OFFSET on.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from qemu.machine import QEMUMachine
from qemu.machine.machine import VMLaunchFailure

Combination = tuple[str, str | None]


def names(qemu: str, option: str) -> list[str]:
    """What QEMU lists."""
    listed = subprocess.run([qemu, option, "help"], check=True, capture_output=True, text=True).stdout
    pattern = r'^name "([^"]+)"' if option == "-device" else r"^(\S+) +\S"
    return [name for name in re.findall(pattern, listed, re.MULTILINE) if name != "Supported"]


def combinations(qemu: str, with_devices: Sequence[str]) -> Iterator[Combination]:
    for machine in names(qemu, "-machine"):
        yield machine, None
    for device in names(qemu, "-device"):
        for machine in with_devices:
            yield machine, device


def arguments(combination: Combination) -> list[str]:
    machine, device = combination
    return ["-S", "-machine", machine, "-accel", "tcg", *(() if device is None else ("-device", device))]


def check(qemu: str, combination: Combination) -> dict[str, Any]:
    """Try one of them."""
    vm = QEMUMachine(qemu, args=arguments(combination))
    starts = True
    try:
        vm.launch()
    except VMLaunchFailure as failure:
        starts = False
        assert failure.exitcode == vm.exitcode(), failure
        assert failure.exitcode is not None, failure
        assert failure.output == vm.get_log(), failure
        assert failure.exitcode != 0, failure
    finally:
        vm.shutdown()
    assert not vm.is_running()
    machine, device = combination
    return {
        "machine": machine,
        "device": device,
        "starts": starts,
        "exitcode": vm.exitcode(),
        "log": vm.get_log(),
    }


def main() -> None:
    _, qemu, offset, step, *with_devices = sys.argv
    for combination in list(combinations(qemu, with_devices))[int(offset) :: int(step)]:
        print(json.dumps(check(qemu, combination)))


if __name__ == "__main__":
    main()
