"""Secrets are in nothing that is shown or kept: no record, log, message or registry."""

import json
import logging
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError
from vmfsm_plugins.qmp import QMPCommandError

from tests.conftest import MakeMachine
from tests.waiting import until
from vmfsm import (
    ConfigError,
    LaunchError,
    LaunchPlan,
    Machine,
    PluginError,
    Secrets,
    State,
    Verdict,
    VMError,
    format_timeline,
    hookimpl,
)
from vmfsm import registry as registry_of_machines
from vmfsm.compat.errors import VMLaunchFailure
from vmfsm.compat.machine import QEMUMachine
from vmfsm.redaction import redact_command, redact_message
from vmfsm.testing import Leak, leakcheck

NOTHING = ["-M", "none", "-nodefaults"]
SECRET = "Tr0ub4dor&3-marker"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("secret,id=s,data=xyz", "secret,id=s,data=***"),
        ("secret,data=x,,yz,id=s", "secret,data=***,id=s"),
        ("qom-type=secret,id=s,data=1", "qom-type=secret,id=s,data=***"),
        ("secret,id=s,file=/etc/passphrase", "secret,id=s,file=/etc/passphrase"),
        ("secret,id=s,format=base64,data=eA==,keyid=k", "secret,id=s,format=base64,data=***,keyid=k"),
        ("secret_keyring,id=s,serial=1234", "secret_keyring,id=s,serial=1234"),
        ('{"qom-type":"secret","id":"s","data":"x"}', '{"qom-type": "secret", "id": "s", "data": "***"}'),
        ('{"driver":"raw","data":"x"}', '{"driver":"raw","data":"x"}'),
        ("{no json,password=x", "{no json,password=x"),
        ("port=5900,password=hunter2", "port=5900,password=***"),
        (":1,password=on,password-secret=s", ":1,password=on,password-secret=s"),
        ("driver=http,file.password=abc", "driver=http,file.password=***"),
        ("file=https://me:hunter2@host/x,format=raw", "file=https://me:***@host/x,format=raw"),
        ("--password=hunter2", "--password=***"),
        ("pwd=hunter2,mode=aes-cbc", "pwd=***,mode=aes-cbc"),
        (
            'file=json:{"driver":"https",,"password":"a,,b"},if=none',
            'file=json:{"driver": "https",, "password": "***"},if=none',
        ),
        ('json:{"url":"https://me:hunter2@host"}', 'json:{"url": "https://me:***@host"}'),
        ('json:{"driver":"raw"}', 'json:{"driver":"raw"}'),
        ('file=json:{"driver":"raw",,"size":1}', 'file=json:{"driver":"raw",,"size":1}'),
        ("data=x", "data=x"),
        ("name=opt/x,string=hunter2", "name=opt/x,string=hunter2"),
        ("virtio-net,mac=52:54:00:12:34:56", "virtio-net,mac=52:54:00:12:34:56"),
        ("", ""),
    ],
)
def test_what_is_a_secret_by_its_form(word: str, shown: str) -> None:
    assert redact_command([word]) == (shown,)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"qom-type": "secret", "id": "s", "data": "x"}, {"qom-type": "secret", "id": "s", "data": "***"}),
        ({"qom-type": "secret", "props": {"data": "x"}}, {"qom-type": "secret", "props": {"data": "***"}}),
        ({"protocol": "vnc", "password": "x"}, {"protocol": "vnc", "password": "***"}),
        ({"command-line": "set_password vnc x keep"}, {"command-line": "set_password vnc *** keep"}),
        ({"command-line": "change vnc password x"}, {"command-line": "change vnc password ***"}),
        (
            {"command-line": "object_add secret,id=s,data=x"},
            {"command-line": "object_add secret,id=s,data=***"},
        ),
        ({"command-line": "info status"}, {"command-line": "info status"}),
        ({"password": True, "path": ["x"]}, {"password": True, "path": ["x"]}),
        ({"url": "https://me:x@host", "more": ["me:x"]}, {"url": "https://me:***@host", "more": ["me:x"]}),
    ],
)
def test_what_is_one_in_a_command(message: dict[str, Any], shown: dict[str, Any]) -> None:
    name = "human-monitor-command" if "command-line" in message else "object-add"
    sent = json.dumps({"execute": name, "arguments": message}).encode()
    assert json.loads(redact_message(sent)) == {"execute": name, "arguments": shown}


def test_a_short_one_is_hidden_in_its_option_only() -> None:
    secrets = Secrets()
    secrets.learn_command(["-object", "secret,id=s1,data=1"])
    assert secrets.redact("-object secret,id=s1,data=1: 11 of 1") == "-object secret,id=s1,data=***: 11 of 1"


@pytest.mark.parametrize("value", ["", "short", b"long enough", None])
def test_what_can_not_be_added(value: Any) -> None:
    with pytest.raises(ConfigError, match="at least 6"):
        Secrets().add(value)


def test_the_longest_is_hidden_first() -> None:
    secrets = Secrets()
    secrets.add("secret")
    secrets.add("secret of secrets")
    assert secrets.redact("a secret of secrets, a secret") == "a ***, a ***"
    assert secrets.redact_all({"a": ["secret", ("secret", 1)]}) == {"a": ["***", ("***", 1)]}


def test_a_verdict_is_a_tuple_too() -> None:
    secrets = Secrets()
    secrets.add(SECRET)
    verdict = Verdict("panic", "console", {"message": f"with {SECRET}"})
    assert secrets.redact_all((verdict,)) == (Verdict("panic", "console", {"message": "with ***"}),)


def test_thousands_of_secrets() -> None:
    """Of a machine whose password is changed all the time: each record looks for all of them."""
    secrets = Secrets()
    before = time.thread_time()
    for number in range(1000):
        secrets.learn_message(b'{"execute":"set_password","arguments":{"password":"no-%d-of-many"}}' % number)
        assert secrets.redact(f"no-{number}-of-many no-{number}-of-any") == f"*** no-{number}-of-any"
    assert time.thread_time() - before < 10, "to compile a pattern for each takes ten times that"


@pytest.mark.parametrize("piece", [b"x", b"0123456789" * 10], ids=["other", "like it"])
def test_a_long_secret_and_a_flood(piece: bytes) -> None:
    """A key of a hundred kilobytes is looked for in time that is linear."""
    secrets = Secrets()
    secrets.add("0123456789" * 10 + "".join(map(str, range(20_000))))
    filter, before, count = secrets.filter(), time.thread_time(), 0  # noqa: A001
    flood = piece * (65536 // len(piece))
    for _ in range(16):
        count += len(filter.feed(flood))
    assert count + len(filter.finish()) == 16 * len(flood)
    assert time.thread_time() - before < 5


@pytest.mark.parametrize(
    "text", ["xabacabay", "abacab", "abacaba", "abacabacabad", "abacababacaba", "aabacabab"]
)
def test_pieces_are_no_way_around(text: str) -> None:
    """Wherever the stream is cut in three, what comes out is that of the whole, and nothing stays inside."""
    secrets = Secrets()
    secrets.add("abacab")
    secrets.add("abacabac")
    whole = secrets.redact(text).encode()
    data = text.encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            filter = secrets.filter()  # noqa: A001
            parts = [filter.feed(part) for part in (data[:first], data[first:second], data[second:])]
            assert b"".join([*parts, filter.finish()]) == whole


def test_a_line_that_is_over_is_not_held_back() -> None:
    secrets = Secrets()
    secrets.add(SECRET)
    assert secrets.filter().feed(b"QEMU says T\n") == b"QEMU says T\n"


def test_what_only_looks_like_one_is_held_back_for_a_moment_only(qemu: str) -> None:
    """Somebody may wait for just that, while QEMU waits for them."""
    says = ["sh", "-c", 'printf "Which disk? d"; exec "$@"', "sh"]
    with Machine(qemu, NOTHING, wrapper=says) as vm:
        vm.secrets.add("disk-passphrase")
        vm.launch()
        until(lambda: vm.log.text == "Which disk? d")
        assert vm.state is State.RUNNING


class Seen:
    """All that observers are told."""

    name = "seen"

    def __init__(self) -> None:
        self.batches: list[object] = []

    @hookimpl
    def records(self, batch: object) -> None:
        self.batches.append(batch)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the registry of a program that is started is."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime


def everything_in(directory: "Path | str") -> Iterator[bytes]:
    for path in Path(directory).rglob("*"):
        if path.is_file():
            yield os.fsencode(path) + path.read_bytes()


def shown_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_run(
    qemu: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    args = [*NOTHING, "-object", f"secret,id=s,data={SECRET}-a"]
    with Machine(qemu, args, log_dir=tmp_path, plugins=[seen], env={"TOKEN": f"{SECRET}-b"}) as vm:
        vm.launch()
        vm.qmp.execute("object-add", qom_type="secret", id="t", data=f"{SECRET}-c")
        with pytest.raises(QMPCommandError) as refused:
            vm.qmp.execute("object-add", qom_type="secret", id="t", data=f"{SECRET}-c")
        line = f"object_add secret,id=t,data={SECRET}-d"
        vm.qmp.execute("human-monitor-command", command_line=line)
        in_registry = registry_of_machines.directory()
        kept = b"".join([*everything_in(tmp_path), *everything_in(in_registry)])
        assert f"{SECRET}-a" in vm.command[-1], "it is what was run"
    shown = [caplog.text, repr(vm), repr(vm.timeline), format_timeline(vm.timeline), shown_of(refused.value)]
    shown += [
        repr(seen.batches),
        repr(vm.evidence()),
        repr(vm.secrets),
        repr(vm.history),
        vm.log.text,
        *capfd.readouterr(),
    ]
    assert SECRET not in "".join(shown)
    assert SECRET.encode() not in kept
    assert "secret,id=s,data=***" in format_timeline(vm.timeline)


@pytest.mark.parametrize(
    "option",
    [
        ["-object", "secret,id=s,data={},foo=bar"],
        ["-object", '{{"qom-type": "secret", "id": "s", "data": "{}", "foo": 1}}'],
        ["-object", "secret,data={},data={},id=1.2"],
    ],
    ids=["option", "json", "twice"],
)
@pytest.mark.parametrize("secret", [SECRET, "comma,,comma,,"], ids=["plain", "commas"])
def test_a_launch_that_fails_for_it(
    qemu: str, option: list[str], secret: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU quotes the option that is wrong."""
    caplog.set_level(logging.DEBUG)
    word = option[1].format(*[secret] * option[1].count("{}"))
    vm = Machine(qemu, [*NOTHING, option[0], word], log_dir=tmp_path, name="failing")
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    error = caught.value
    assert error.command[-1] == word, "what was run is exact"
    shown = (
        shown_of(error) + error.output + repr(error.evidence) + repr(vm.timeline) + vm.log.text + caplog.text
    )
    shown += shown_of(pickle.loads(pickle.dumps(error))) + (tmp_path / "failing.log").read_text()
    assert secret not in shown
    assert secret.replace(",,", ",") not in shown
    assert "qemu-system-x86_64: -object" in str(error)


def test_a_short_one_in_a_launch_that_fails(qemu: str) -> None:
    vm = Machine(qemu, [*NOTHING, "-object", "secret,id=s,data=e,foo=bar"])
    with pytest.raises(LaunchError, match=r"-object secret,id=s,data=\*\*\*,foo=bar: .*") as caught:
        vm.launch()
    assert "data=e" not in shown_of(caught.value) + vm.log.text + repr(vm.timeline)
    assert "the end of" in "".join(caught.value.__notes__), "other words keep their letters"


class Tells:
    """A plugin whose own error has a secret in it, which it told the machine of."""

    name = "tells"

    @hookimpl
    def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        machine.secrets.add(SECRET)
        plan.on_evidence(lambda: {"console": f"login: {SECRET}\n"})
        raise ValueError(f"no such user: {SECRET}")


def test_what_a_plugin_says_is_one(bare: MakeMachine) -> None:
    vm = bare(Tells())
    with pytest.raises(LaunchError, match=r"no such user: \*\*\*") as caught:
        vm.launch()
    error = caught.value
    assert SECRET not in str(error) + repr(error.evidence) + repr(error.__notes__) + repr(vm.timeline)
    assert isinstance(error.__cause__, PluginError)
    assert SECRET not in str(error.__cause__), "what is behind that is the plugin's own"


HARNESS = """
import sys
from vmfsm import Machine, registry
with Machine("qemu-system-x86_64", ["-M", "none", *sys.argv[1:]]) as vm:
    vm.launch()
    print([entry.harness.command for entry in registry.machines()])
"""


def test_the_command_line_of_the_harness_in_the_registry(qemu: str, runtime: Path) -> None:
    option = ["-object", f"secret,id=s,data={SECRET}"]
    ran = subprocess.run([sys.executable, "-c", HARNESS, *option], check=True, capture_output=True, text=True)
    assert "secret,id=s,data=***" in ran.stdout
    assert SECRET not in ran.stdout + ran.stderr


def test_processes_that_are_left() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(1000)", f"secret,id=s,data={SECRET}"]
    check = leakcheck(patience=0)
    check.__enter__()
    with subprocess.Popen(sleep) as left:
        try:
            with pytest.raises(Leak, match=r"data=\*\*\*") as caught:
                check.__exit__(None, None, None)
        finally:
            left.kill()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": f"-object secret,id=s,data={SECRET}"},
        {"args": ["-object", f"secret,id=s,data={SECRET}\0"]},
        {"env": {"TOKEN": SECRET.encode()}},
        {"env": {"TOKEN": f"{SECRET}\0"}},
        {"env": [f"TOKEN={SECRET}"]},
    ],
)
def test_what_is_refused(qemu: str, wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(qemu, **wrong)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "call", [(["object-add", SECRET],), ("object-add", [SECRET]), ({"execute": "x", "arguments": SECRET},)]
)
def test_commands_that_are_refused(qemu: str, call: tuple[Any, ...]) -> None:
    with pytest.raises(VMError) as caught:
        Machine(qemu).qmp.execute(*call)
    assert SECRET not in str(caught.value)


def test_the_drop_in(qemu: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vm = QEMUMachine(qemu, [*NOTHING, "-object", f"secret,id=s,data={SECRET},foo=bar"])
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert "data=***,foo=bar" in str(caught.value)
    assert SECRET not in shown_of(caught.value) + caplog.text
    vm = QEMUMachine(qemu, NOTHING)
    with vm:
        vm.launch()
        vm.qmp("object-add", {"qom-type": "secret", "id": "s", "data": SECRET})
        with pytest.raises(ExecuteError) as refused:
            vm.command("object-add", qom_type="secret", id="s", data=SECRET)
        assert SECRET not in shown_of(refused.value)
        assert vm.cmd("qom-get", path="/objects/s", property="data") == SECRET, "who asks for it is told"
        vm.qmp("qom-set", {"path": "/machine", "property": "none", "value": SECRET})
    assert '"data":"***"' in caplog.text
    assert "<-- {'return': '***'}" in caplog.text
    assert SECRET not in caplog.text
