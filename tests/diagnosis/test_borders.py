"""Whatever is in records, a diagnosis is one printable line, and is made."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vmfsm import Record
from vmfsm.diagnosis import Diagnosis, Diagnostician

KINDS = [
    "transition",
    "hook-begin",
    "hook",
    "spawn",
    "adopt",
    "companion",
    "companion-ready",
    "companion-exit",
    "stop",
    "exit",
    "wait-begin",
    "wait",
    "step-begin",
    "step",
    "note",
    "verdict",
    "hold",
    "release",
    "dropped",
    "failure",
    "started",
    "qmp-greeting",
    "qmp-command",
    "qmp-reply",
    "qmp-event",
    "console",
    "console-lost",
    "console-file",
    "output",
    "log-file",
    "snapshot",
    "fd-passed",
    "migration",
    "of-a-plugin",
]
FIELDS = [
    "event",
    "source",
    "dest",
    "reason",
    "hook",
    "plugin",
    "seconds",
    "error",
    "command",
    "cwd",
    "pid",
    "companion",
    "status",
    "way",
    "operation",
    "timeout",
    "thread",
    "caller",
    "outcome",
    "step",
    "text",
    "verdict",
    "where",
    "what",
    "action",
    "by",
    "keep",
    "records",
    "id",
    "arguments",
    "data",
    "console",
    "bytes",
    "peer",
]
WORDS = [
    "launching",
    "running",
    "quitting",
    "stopped",
    "failed",
    "launch-error",
    "deadline",
    "hook-failed",
    "wedged",
    "qemu-signal",
    "qemu-exit",
    "oom-killed",
    "requested",
    "killed",
    "guest-shutdown",
    "SIGTERM",
    "SIGKILL",
    "qmp",
    "launch",
    "shutdown",
    "wait",
    "execute('query-status')",
    "done",
    "timeout",
    "died",
    "panicked",
    "interrupted",
    "wake",
    "fail",
    "guest-panicked",
    "boot-loop",
    "qemu-asan",
    "RESET",
    "SHUTDOWN",
    "post_launch",
    "CancelledError",
    "MainThread",
]
WORDS += ["expect('x') on console 'c'", "\x1b[2J\u202egnp\x07", "a\r\nb", "\ud800"]

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(WORDS)
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=True)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=6,
)
records = st.builds(
    Record,
    kind=st.sampled_from(KINDS),
    at=st.floats(-1e9, 1e9),
    data=st.dictionaries(st.sampled_from(FIELDS), values, max_size=8),
)


def check(found: Diagnosis) -> None:
    assert found.outcome in {"ok", "failed", "unfinished"}
    texts = [found.cause, *(clue.text for clue in found.clues)]
    assert all(text.isprintable() and 0 < len(text) <= 600 for text in texts)
    assert len(found.clues) <= 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(records, max_size=25), st.dictionaries(st.sampled_from(("name", "harness", "recording")), values)
)
def test_whatever_records_say(told: list[Record], snapshot: dict[str, Any]) -> None:
    diagnostician = Diagnostician()
    for record in sorted(told, key=lambda record: record.at):
        diagnostician.add(record)
    check(diagnostician.conclude(snapshot))
