"""The options of consoles: what is wrong with them is said, and named."""

from pathlib import Path

import pytest

from vmfsm import ConfigError, Machine

WRONG: list[tuple[dict[str, object], str]] = [
    ({"devcie": "isa-serial"}, "['devcie']"),
    ({"device": 3}, "['device']"),
    ({"device": ""}, "['device']"),
    ({"device": "isa-serial,chardev=mine"}, "['device']"),
    ({"device": '{"driver": "isa-serial"}'}, "['device']"),
    ({"index": -1}, "['index']"),
    ({"index": "1"}, "['index']"),
    ({"index": True}, "['index']"),
    ({"log": 3}, "['log']"),
    ({"log": ""}, "['log']"),
    ({"timestamps": 1}, "['timestamps']"),
    ({"timestamps": True, "encoding": "utf-16"}, "['timestamps']"),
    ({"encoding": "klingon"}, "['encoding']"),
    ({"encoding": "hex"}, "['encoding']"),
    ({"encoding": "rot13"}, "['encoding']"),
    ({"encoding": 8}, "['encoding']"),
    ({"encoding": "ascii", "newline": "\u2028"}, "['newline']"),
    ({"newline": b"\n"}, "['newline']"),
    ({"buffer": 0}, "['buffer']"),
    ({"buffer": 1.5}, "['buffer']"),
    ({"buffer": True}, "['buffer']"),
    ({"a": {}, "index": 1, "b": {"index": 1}}, "['index']"),
    ({"a": {}, "typo": 3}, "['typo']"),
    ({"a": {"devcie": "isa-serial"}}, "['a']['devcie']"),
    ({"a": {"index": "0"}}, "['a']['index']"),
    ({"a": {"log": 3}}, "['a']['log']"),
    ({"a/b": {}}, "['a/b']"),
    ({"a": {}, "a.2": {"index": 1}}, "['a.2']"),
    ({"a": {}, "b": {}}, "['b']['index']"),
    ({"a": {"log": "x", "index": 1}, "b": {"log": "./x"}}, "['b']['log']"),
]


@pytest.mark.parametrize(("options", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine("qemu", options={"console": options})
    assert caught.value.field == f"options['console']{field}"
    assert "'console'" in str(caught.value)
    assert field.rsplit("['", 1)[1].removesuffix("']") in str(caught.value)


def test_right() -> None:
    machine = Machine(
        "qemu",
        options={
            "console": {"ttyS0": {"log": "/dev/null"}, "hvc0": {"device": "virtconsole", "log": "/dev/null"}}
        },
    )
    assert list(machine.consoles) == ["ttyS0", "hvc0"]
    assert machine.console is machine.consoles["ttyS0"]
    assert list(Machine("qemu").consoles) == ["console"]
    assert list(Machine("qemu", options={"console": {}}).consoles) == ["console"]


@pytest.mark.parametrize("name", ["console", "ttyS0"])
def test_a_console_and_the_log_in_one_file(name: str, tmp_path: Path) -> None:
    console = {"log": tmp_path / "x"}
    options = {
        "console": {name: console} if name != "console" else console,
        "logs": {"path": f"{tmp_path}/./x"},
    }
    with pytest.raises(ConfigError, match="both write to") as caught:
        Machine("qemu", options=options)
    assert caught.value.field == f"options['console'][{name!r}]['log']"
    Machine("qemu", options={"console": {"log": "/dev/null"}, "logs": {"path": "/dev/null"}})
