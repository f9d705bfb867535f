"""What a figure means nothing without: the machine, the versions, and how busy it was."""

import datetime
import os
import platform
import subprocess
from importlib import metadata

from .floor import QEMU

DISTRIBUTIONS = ("vmfsm", "transitions", "pluggy", "qemu.qmp")


def facts() -> dict[str, str]:
    """By name, to be shown as they are."""
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} to run on",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": f"{busy} (of 1, 5, 15 minutes)",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "QEMU": _qemu_version(),
        **{name: metadata.version(name) for name in DISTRIBUTIONS},
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _qemu_version() -> str:
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].removeprefix("QEMU emulator version ")
