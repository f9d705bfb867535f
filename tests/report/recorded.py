"""Recordings: real ones, each made once for a module, and those that somebody else might have made."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LIMIT = 60.0
_HARNESS = """
import contextlib, os, signal, sys, time
from vmfsm import Machine, MachineTimeout, recording
from vmfsm.testing import GUEST_ARGS

def machine(where, name, *args, **options):
    options = {"recorder": {"directory": where}, **options}
    return Machine("qemu-system-x86_64", [*GUEST_ARGS, *args], name=name, options=options)

def run(where, pause=0.0):
    with machine(where, "good") as vm:
        with vm.trace("boot", guest="tiny"):
            vm.launch()
            vm.console.expect("ready")
        for number in range(3):
            with vm.trace("ping", number=number):
                time.sleep(pause if number == 1 else 0)
                vm.console.sendline("ping")
                vm.console.expect("pong")
        vm.note("looks well")
        vm.console.sendline("poweroff")
        vm.wait(timeout=30)

run("good")
run("slow", pause=0.5)

with contextlib.suppress(MachineTimeout), machine("hangs", "hangs", bundle={"directory": "bundles"}) as vm:
    vm.launch()
    vm.console.expect("ready")
    vm.console.sendline("hang")
    vm.console.expect("echo: hang")
    with vm.trace("install"):
        vm.console.expect("installed", timeout=0.3)

source, destination = machine("moves", "source"), machine("moves", "destination", "-incoming", "defer")
with source, destination:
    source.launch()
    source.console.expect("ready")
    destination.launch()
    source.migration.to(destination, timeout=30)

vm = machine("again", "again")
for _ in range(2):
    vm.launch()
    vm.kill()

vm = machine("killed", "killed").launch()
vm.console.expect("ready")
with vm.trace("long work"):
    path = vm.plugin("recorder").path
    while not any(record.kind == "step-begin" for record in recording.read(path).records()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def make_all(directory: Path) -> Path:
    """Directories of recordings, by what was recorded; the harness of the last one, `killed`, was killed."""
    ran = subprocess.run(
        [sys.executable, "-c", _HARNESS], cwd=directory, check=False, capture_output=True, timeout=LIMIT
    )
    assert ran.returncode == -9, ran.stderr.decode()
    return directory


def write(path: Path, records: Iterable[Mapping[str, Any] | bytes], **header: Any) -> Path:
    """A recording with these lines."""
    first = {
        "format": "vmfsm-recording",
        "version": 1,
        "recording": path.name,
        "piece": 1,
        "before": 0,
        "clocks": {"monotonic": 1000.0, "wall": 1.7e9},
        "name": "made",
        **header,
    }
    with path.open("wb") as file:
        for record in (first, *records):
            file.write(record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n")
    return path


def record(at: float, kind: str, **data: Any) -> dict[str, Any]:
    """A line."""
    return {"at": 1000.0 + at, "kind": kind, "data": data}


def without_progress(stderr: str) -> str:
    """What a command said there besides what it was at, which it says on a machine where that takes long."""
    busy = ("reading recordings ...", "making the page ...")
    return "".join(line for line in stderr.splitlines(keepends=True) if line.rstrip() not in busy)
