"""Records: what a launch leaves, in order, bounded in number and size, and readable."""

import gc
import itertools
import re
import shlex
import subprocess
import sys
import time

import pytest

from tests.conftest import MakeMachine
from vmfsm import LaunchError, Machine, Record, format_timeline, hookimpl
from vmfsm.timeline import Timeline


def test_records_come_in_order_with_their_time() -> None:
    timeline = Timeline()
    begin = time.monotonic()
    added = [timeline.add("count", {"number": number}, 10) for number in range(5)]
    assert timeline.records() == tuple(added)
    assert [record.data["number"] for record in added] == [0, 1, 2, 3, 4]
    times = [record.at for record in added]
    assert begin <= times[0]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic()


def test_bounded_in_number() -> None:
    timeline = Timeline()
    for number in range(10_000):
        timeline.add("count", {"number": number}, 0)
    records = timeline.records()
    assert len(records) == 2_000
    assert [record.data["number"] for record in records] == list(range(8_000, 10_000)), "the last ones"


def test_bounded_in_bytes() -> None:
    timeline = Timeline()
    for number in range(100):
        timeline.add("big", {"number": number}, 16 * 1024)
    numbers = [record.data["number"] for record in timeline.records()]
    assert numbers == list(range(84, 100)), "256 KiB of them"


def test_the_last_one_is_kept_whatever_its_size() -> None:
    timeline = Timeline()
    timeline.add("small", {}, 1)
    timeline.add("huge", {}, 1 << 30)
    assert [record.kind for record in timeline.records()] == ["huge"]
    timeline.add("small", {}, 1)
    assert [record.kind for record in timeline.records()] == ["small"], "and makes way for the next"


class Failing:
    name = "failing"

    @hookimpl
    async def post_launch(self) -> None:
        raise RuntimeError("\x1b[31mred")


def test_a_launch_can_be_read_off_it(bare: MakeMachine) -> None:
    machine = bare(Failing())
    assert list(machine.timeline) == []
    with pytest.raises(LaunchError):
        machine.launch()
    by_kind: dict[str, Record] = {}
    for record in machine.timeline:
        by_kind.setdefault(record.kind, record)
    assert by_kind["transition"].data == {
        "event": "launch",
        "source": "configured",
        "dest": "launching",
        "reason": None,
    }
    assert by_kind["spawn"].data == {"command": machine.command, "cwd": None, "environment": {}}
    assert by_kind["hook-begin"].data == {"hook": "post_launch", "plugin": "failing"}
    assert by_kind["exit"].data == {"status": -9, "sent": ["SIGKILL"]}
    hook = by_kind["hook"].data
    seconds = hook["seconds"]
    assert hook == {
        "hook": "post_launch",
        "plugin": "failing",
        "seconds": seconds,
        "error": "RuntimeError: \\x1b[31mred",
    }
    assert isinstance(seconds, float)
    assert 0 <= seconds < 30
    transitions = [record for record in machine.timeline if record.kind == "transition"]
    assert [(r.data["event"], r.data["reason"]) for r in transitions] == [
        (transition.event.value, transition.reason.value if transition.reason else None)
        for transition in machine.history
    ]
    times = [record.at for record in machine.timeline]
    assert times == sorted(times)

    lines = format_timeline(machine.timeline).splitlines()
    assert lines[0].split() == ["0.0000", "s", "transition", "configured", "->", "launching"]
    assert lines[-2].split()[2:] == ["transition", "quitting", "->", "failed", "(hook-failed)"]
    assert lines[-1].split()[4:7] == ["wait", "launch:", "failed"]
    assert any("post_launch of failing" in line and "raised RuntimeError" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_several_launches_are_on_one_timeline(bare: MakeMachine) -> None:
    machine = bare()
    for _ in range(2):
        machine.launch()
        machine.kill()
    spawns = [record for record in machine.timeline if record.kind == "spawn"]
    assert len(spawns) == 2


class Recording:
    name = "recording"

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        machine.record("mine", {"what": "\x1b[2Jnews"}, size=8)


def test_a_plugin_adds_its_own(bare: MakeMachine) -> None:
    machine = bare(Recording()).launch()
    (record,) = (record for record in machine.timeline if record.kind == "mine")
    assert record.data == {"what": "\x1b[2Jnews"}
    assert r"what=\x1b[2Jnews" in format_timeline([record])


def test_formatted_values_are_short_and_in_one_line() -> None:
    text = format_timeline(
        [Record("chunk", 100.0, {"text": "a\nb" * 1000, "number": 5}), Record("later", 101.5, {})], width=200
    )
    first, second = text.splitlines()
    assert first.startswith(r"  0.0000 s            chunk  text=a\nba\nb")
    assert first.endswith("...  number=5")
    assert len(first) < 150
    assert second.split() == ["1.5000", "s", "later"]
    assert format_timeline([]) == ""


COMMAND = (
    *("wrapper", "qemu-system-x86_64", "-display", "none", "-m", "16"),
    *("-drive", "file=/somewhere/with/a/long/path/guest.bin,format=raw,if=floppy,readonly=on"),
    *("-append", "console=ttyS0 panic=-1 - loglevel=7 init=/bin/init-of-the-test"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
)
LONG = [
    Record("spawn", 0.0, {"command": COMMAND}),
    Record("console", 0.1, {"console": "console", "text": "  indented " + "word " * 40}),
    Record("console", 0.1, {"console": "console", "text": "x" * 200}),
    Record("qmp-event", 0.2, {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}),
]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_formatted_lines_fit(width: int) -> None:
    lines = format_timeline(LONG, width=width).splitlines()
    assert max(map(len, lines)) in range(width - 12, width + 1)
    command = format_timeline(LONG[:1], width=width)
    assert words_of(command.partition("spawn")[2]) == words_of(shlex.join(COMMAND)), "no word is broken"
    margin = command.index("wrapper")
    starts = [line[margin:] for line in command.splitlines()[1:]]
    assert all(start.startswith(("-", "  ")) for start in starts), "rows begin with options"
    assert any(start.startswith("-drive file=") for start in starts)


def test_formatted_with_no_room_at_all() -> None:
    lines = format_timeline(LONG[1:], width=1).splitlines()
    assert max(map(len, lines)) <= len("  0.0000 s            qmp-event  ") + 20


def test_formatted_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (70, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert format_timeline(LONG) == format_timeline(LONG, width=columns)
    monkeypatch.delenv("COLUMNS")
    program = "from tests.test_timeline import *; print(format_timeline(LONG))"
    piped = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert piped.stdout == format_timeline(LONG, width=100) + "\n"


def test_a_command_without_end_is_cut() -> None:
    lines = format_timeline(
        [Record("spawn", 0.0, {"command": ("-x " * 5000).split()})], width=80
    ).splitlines()
    assert len(lines) == 41
    assert lines[-1].endswith("more lines)")


def test_formatted_text_stands_in_a_column() -> None:
    said = "\r\nLinux\x1b[2J version 6\r\n\tok\r\n"
    records = [
        Record("console", 5.0, {"console": "console", "text": said}),
        Record("console", 5.0, {"console": "hvc0", "text": "\n".join(map(str, range(100)))}),
    ]
    lines = format_timeline(records).splitlines()
    margin = " " * lines[0].index("Linux")
    assert lines[0].endswith(r"Linux\x1b[2J version 6")
    assert lines[1] == margin + "        ok"
    assert lines[2].endswith("hvc0: 0")
    assert lines[-1] == margin + "(92 more lines)"


def test_formatted_begins_are_of_what_has_not_ended() -> None:
    names = {"hook": "pre_launch", "plugin": "mine"}
    begin = Record("hook-begin", 1.0, names)
    end = Record("hook", 2.5, {**names, "seconds": 1.5, "error": None})
    text = format_timeline([begin, end, begin])
    assert [line.split() for line in text.splitlines()] == [
        ["0.0000", "s", "1.50", "s", "hook", "pre_launch", "of", "mine"],
        ["-1.5000", "s", "hook-begin", "pre_launch", "of", "mine"],
    ]


def test_formatted_in_colours_only_where_asked() -> None:
    failed = Record("hook", 0.0, {"hook": "post_launch", "plugin": "p", "seconds": 0.1, "error": "Oops: x"})
    assert "\x1b" not in format_timeline([failed])
    assert format_timeline([failed], colour=True) == f"\x1b[31m{format_timeline([failed])}\x1b[0m"


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (
            "qmp-command",
            {"command": "device_add", "id": 1, "arguments": ("driver", "id")},
            "device_add (driver, id)",
        ),
        ("qmp-reply", {"command": "quit", "id": 1, "seconds": 0.5, "error": "no"}, "quit: no"),
        ("qmp-event", {"event": "STOP", "timestamp": {"seconds": 1}}, "STOP"),
        ("exit", {"status": -9}, "QEMU died of SIGKILL"),
        ("exit", {"status": -9, "sent": ["SIGKILL"]}, "QEMU died of SIGKILL (sent by vmfsm)"),
        ("exit", {"status": -9, "sent": []}, "QEMU died of SIGKILL (not by vmfsm)"),
        ("exit", {"status": None}, "QEMU ended, with a status that could not be had"),
        ("hook", {"mine": [1, None]}, "mine=[1, null]"),
        ("stop", {"way": "qmp"}, "politely, by qmp"),
        ("stop", {"way": "SIGKILL"}, "SIGKILL"),
        ("spawn", {"command": ("a b", "-c", "d")}, "'a b' -c d"),
    ],
)
def test_formatted_kinds(kind: str, data: dict[str, object], says: str) -> None:
    assert format_timeline([Record(kind, 0.0, data)]).endswith(f"{kind}  {says}")


def test_a_record_that_comes_while_they_are_read() -> None:
    """As the garbage collector runs, which lets other threads run, too."""
    timeline = Timeline()
    for number in range(100):
        timeline.add(str(number), {}, 1)
    later = iter(range(100, 110))

    def add(phase: str, info: object) -> None:
        for number in itertools.islice(later, 1):
            timeline.add(str(number), {}, 1)

    before = gc.get_threshold()
    gc.callbacks.append(add)
    gc.set_threshold(1)
    try:
        kinds = [record.kind for record in timeline.records()]
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(add)
    assert kinds == [str(number) for number in range(len(kinds))]
    assert len(kinds) >= 100
