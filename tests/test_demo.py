"""The demo is what newcomers run first: it works, and says what it is there to say."""

import re
import subprocess
import sys
from pathlib import Path

from tests.waiting import LIMIT
from vmfsm import State

DEMO = Path(__file__).parent.parent / "docs" / "examples" / "demo.py"


def test_it_runs_and_shows_two_lives(qemu: str) -> None:
    demo = subprocess.run(
        [sys.executable, DEMO], check=False, capture_output=True, text=True, timeout=2 * LIMIT
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    states = re.findall(r"transition +(\w+) -> (\w+)", demo.stdout)
    assert states == [
        ("configured", "launching"),
        ("launching", "running"),
        ("running", "quitting"),
        ("quitting", "stopped"),
    ]
    assert all(state.value in demo.stdout for state in State)
    for said in ("(guest-shutdown)", "post_launch of qmp", "pong", "qmp-event", "SHUTDOWN", "ms"):
        assert said in demo.stdout, said
    assert "\x1b" not in demo.stdout, "colours are for terminals"
    doomed = demo.stdout.partition("\nAnother one")[2]
    assert "MachineDied: doomed: " in doomed
    assert "QEMU ended with status 7" in doomed
    assert "  | > echo: exit 3\n" in doomed, "the evidence"
    assert re.search(r"It is over: <Machine doomed failed \(qemu-exit\) since \d+\.\d s>\n\Z", doomed)
