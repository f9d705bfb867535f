"""Consoles of a real QEMU with a real guest in it."""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.console import AsyncConsole, Console, Consoles, Expected

from tests.waiting import SLACK, InThread, until
from vmfsm import (
    ConfigError,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    State,
    TransitionError,
    hookimpl,
)
from vmfsm.offers import AsyncConsole as OfferedAsyncConsole
from vmfsm.offers import Console as OfferedConsole
from vmfsm.offers import Expected as OfferedExpected
from vmfsm.testing import GUEST_ARGS

Make = Callable[..., Machine]


@pytest.fixture
def make(qemu: str) -> Iterator[Make]:
    """Makes machines with the tiny guest and no monitor, with the console's options; kills them."""
    machines = []

    def make(*args: str, options: object = None, **parameters: object) -> Machine:
        settings: dict[str, object] = {
            "args": [*GUEST_ARGS, *args],
            "block": ["qmp"],
            "options": {"console": options} if options is not None else {},
            **parameters,
        }
        machines.append(Machine(qemu, **settings))  # type: ignore[arg-type]
        return machines[-1]

    yield make
    for machine in machines:
        machine.kill()


def test_is_what_the_core_promises() -> None:
    def accept(console: OfferedConsole, twins: OfferedAsyncConsole, expected: OfferedExpected) -> None: ...

    def check(console: Console, twins: AsyncConsole, expected: Expected) -> None:
        accept(console, twins, expected)  # mypy reads this

    assert callable(check)


def test_a_conversation(make: Make) -> None:
    with make() as vm:
        vm.launch()
        banner = vm.console.expect("ready")
        assert (banner.index, banner.match.group(), banner.before) == (0, "ready", "vmfsm guest ")
        vm.console.expect("> ")
        vm.console.sendline("ping")
        assert vm.console.expect("echo: (.*)\r\n", "pong").match.group(1) == "ping"
        assert vm.console.expect(b"p(.)ng").match.group(1) == b"o"
        vm.console.send(b"exit 3\n")
        with pytest.raises(Exception, match="status 7"):
            vm.wait(timeout=20)
        # Newer QEMUs let the guest run on for a moment, which is enough for a prompt.
        text = vm.console.text.removesuffix("> ")
        assert text == "vmfsm guest ready\r\n> echo: ping\r\npong\r\n> echo: exit 3\r\n"
        assert vm.console.lines()[:2] == ["vmfsm guest ready", "> echo: ping"]
        assert vm.console.closed


def test_reading_does_not_wait(make: Make) -> None:
    vm = make()
    console = vm.console
    assert (console.text, console.read(), console.lines(), console.path) == ("", "", [], "")
    assert console.closed
    assert console.since(console.mark()) == ""
    with vm:
        vm.launch()
        assert not console.closed
        until(lambda: console.text.endswith("> "))
        assert console.read(5) == "vmfsm"
        assert console.read() == " guest ready\r\n> "
        assert console.read() == ""
        here = console.mark()
        console.sendline("ping")
        until(lambda: console.since(here).endswith("pong\r\n> "))
        assert console.since(here) == "echo: ping\r\npong\r\n> "
        console.expect("pong")
        assert console.read() == "\r\n> "
    assert console.since(here) == "echo: ping\r\npong\r\n> "
    assert console.lines() == ["vmfsm guest ready", "> echo: ping", "pong", "> "]


def test_not_launched(make: Make) -> None:
    console = make().console
    calls: list[Callable[[], object]] = [
        lambda: console.expect(""),
        lambda: console.send("x"),
        console.sendline,
        console.socket,
        console.file,
    ]
    for call in calls:
        with pytest.raises(TransitionError, match="configured"):
            call()


def test_after_the_end(make: Make) -> None:
    vm = make()
    vm.launch()
    vm.console.expect("ready")
    vm.console.sendline("poweroff")
    vm.wait(timeout=20)
    assert vm.console.expect("echo: (\\w+)").match.group(1) == "poweroff"  # it has come
    began = time.monotonic()
    with pytest.raises(MachineDied):
        vm.console.expect("never", timeout=30)
    with pytest.raises(MachineDied):
        vm.console.send("x")
    assert time.monotonic() - began < SLACK


def test_death_ends_a_wait(make: Make) -> None:
    with make() as vm:
        vm.launch()
        vm.console.expect("> ")
        waiting = InThread(vm.console.expect, "never", timeout=60)
        vm.console.sendline("poweroff")
        with pytest.raises(MachineDied) as caught:
            waiting.result()
        assert caught.value.state is not None
        assert "echo: poweroff" in caught.value.evidence.console


def test_next_launch_starts_afresh(make: Make, tmp_path: Path) -> None:
    vm = make(name="vm", log_dir=tmp_path)
    before = vm.console.mark()
    with vm:
        for _ in range(2):
            vm.launch()
            vm.console.expect("ready")
            vm.console.expect("> ")
            vm.shutdown()
            assert vm.console.text == "vmfsm guest ready\r\n> "
            assert vm.console.read() == ""
        with pytest.raises(ConfigError, match="not kept"):
            vm.console.since(before)
    assert (tmp_path / "vm-console.log").read_bytes() == b"vmfsm guest ready\r\n> "
    assert (tmp_path / "vm-console.2.log").read_bytes() == b"vmfsm guest ready\r\n> "
    assert vm.console.path == str(tmp_path / "vm-console.2.log")


def test_a_mark_before_the_launch(make: Make) -> None:
    vm = make()
    here = vm.console.mark()
    with vm:
        vm.launch()
        vm.console.expect("> ")
        assert vm.console.since(here) == vm.console.text


def test_timeout(make: Make) -> None:
    with make() as vm:
        vm.launch()
        vm.console.expect("ready")
        with pytest.raises(
            MachineTimeout, match=r"expect\('never', b'ever'\) on console 'console'"
        ) as caught:
            vm.console.expect("never", b"ever", timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.timeout == pytest.approx(0.2)
        assert caught.value.evidence.console.startswith("vmfsm guest ready")
        until(lambda: vm.console.text.endswith("> "))
        assert vm.console.expect("> ", timeout=0).before == "\r\n"  # what has come counts
        with pytest.raises(ConfigError):
            vm.console.expect("x", timeout=-1)


@pytest.mark.parametrize("patterns", [(), ("(",), (b"[",), (3,), (None,), ("a", ["b"])])
def test_wrong_patterns(make: Make, patterns: tuple[str, ...]) -> None:
    vm = make()  # never launched: the pattern comes first
    with pytest.raises(ConfigError) as caught:
        vm.console.expect(*patterns)
    assert caught.value.field == "patterns"


@pytest.mark.parametrize("data", [3, None, ["x"], "\udc80"])
def test_wrong_data(make: Make, data: str) -> None:
    with pytest.raises(ConfigError):
        make().console.send(data)


def test_sendline_and_newline(make: Make) -> None:
    with make(options={"newline": "\r\n"}) as vm:
        vm.launch()
        vm.console.expect("> ")
        vm.console.sendline("ping")
        vm.console.expect("pong")
        vm.console.sendline()
        with pytest.raises(ConfigError):
            vm.console.sendline(b"ping")  # type: ignore[arg-type]


def test_flood_with_nobody_looking(make: Make) -> None:
    """It freezes neither QEMU nor the I/O thread, and another console answers meanwhile."""
    options = {"a": {"buffer": 64 * 1024}, "b": {"device": "isa-debugcon"}}
    with make(options=options) as vm, make() as other:
        vm.launch()
        other.launch()
        other.console.expect("> ")
        vm.consoles["a"].expect("> ")
        vm.consoles["a"].sendline("flood")
        until(lambda: vm.consoles["a"].lost > 100_000)
        other.console.sendline("ping")
        other.console.expect("pong", timeout=20)
        assert len(vm.consoles["a"].text) <= 64 * 1024
        assert Path(vm.consoles["a"].path).stat().st_size > 100_000
        last = vm.consoles["a"].expect(r" (\w+)\r\n").match.group(1)
        assert any(record.kind == "console-lost" for record in vm.timeline)
        assert int(vm.consoles["a"].expect(r" (\w+)\r\n").match.group(1), 16) > int(last, 16)


def test_the_monitor_answers_during_a_flood(make: Make) -> None:
    with make(block=[]) as vm:
        vm.launch()
        vm.console.expect("> ")
        vm.console.sendline("flood")
        until(lambda: len(vm.console.text) > 10_000)
        for _ in range(50):
            assert vm.qmp.execute("query-status", timeout=20)["status"] == "running"
        vm.shutdown(timeout=20)
        assert vm.state is State.STOPPED


def test_a_panic_ends_a_wait(make: Make) -> None:
    with make("-action", "panic=none", block=[]) as vm:
        vm.launch()
        vm.console.expect("> ")
        waiting = InThread(vm.console.expect, "never", timeout=60)
        vm.console.sendline("panic")
        with pytest.raises(GuestPanicked):
            waiting.result()
        vm.console.sendline("ping")
        vm.console.expect("pong", timeout=20)


def test_compiled_patterns_are_taken_as_they_are(make: Make) -> None:
    with make() as vm:
        vm.launch()
        assert vm.console.expect(re.compile("^READY", re.IGNORECASE), re.compile(b"guest")).index == 1
        assert vm.console.expect(re.compile("READY", re.IGNORECASE)).match.group() == "ready"


def test_two_serial_ports_and_the_order(make: Make) -> None:
    with make(options={"second": {"index": 2}, "first": {"index": 0}}) as vm:
        vm.launch()
        assert list(vm.consoles) == ["second", "first"]
        assert vm.console is vm.consoles["second"]
        vm.consoles["first"].expect("ready")
        serial = [vm.command[i + 1] for i, arg in enumerate(vm.command) if arg == "-serial"]
        assert serial == ["chardev:vmfsm-console-1", "null", "chardev:vmfsm-console-0"]
        assert vm.consoles["second"].text == ""


def test_device(make: Make) -> None:
    with make(options={"device": "isa-serial"}) as vm:
        vm.launch()
        vm.console.expect("ready")
        assert "isa-serial,chardev=vmfsm-console-0" in vm.command


def test_device_after_a_port(make: Make) -> None:
    with make(options={"device": "isa-serial", "index": 1}) as vm:
        vm.launch()
        assert vm.command[vm.command.index("-serial") + 1] == "null"
        assert vm.console.text == ""


def test_device_with_properties(make: Make) -> None:
    """SeaBIOS writes to port 0x402."""
    with make(options={"ttyS0": {}, "bios": {"device": "isa-debugcon,iobase=0x402"}}) as vm:
        vm.launch()
        vm.consoles["bios"].expect("SeaBIOS")
        vm.consoles["ttyS0"].expect("ready")
        assert "[ttyS0]\nvmfsm guest ready" in vm.evidence().console
        assert "[bios]\n" in vm.evidence().console


@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("device", ["virtconsole", "virtserialport,name=org.example"])
def test_virtio_console(qemu: str, machine: str, device: str) -> None:
    """Several of them share a bus, beside one of the user's with the port number it asks for."""
    user = ["-device", "virtio-serial", "-device", "virtconsole,nr=1,bus=virtio-serial-bus.0,chardev=null"]
    vm = Machine(
        qemu,
        ["-M", machine, "-nodefaults", "-S", "-chardev", "null,id=null", *user],
        options={
            "console": {
                "hvc0": {"device": device},
                "hvc1": {"device": device.split(",", 1)[0] + ",nr=5"},
                "ttyS0": {},
            }
        },
        block=["qmp"],
    )
    with vm:
        vm.launch()
        alive = InThread(vm.wait, timeout=1)
        with pytest.raises(MachineTimeout):
            alive.result()
        assert sum("virtio-serial,id=" in arg for arg in vm.command) == 1
        assert vm.log.text == ""


def test_console_file_and_timestamps(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "console.txt"
    path.write_text("of an older run")
    with make(options={"log": path, "timestamps": True}) as vm:
        vm.launch()
        vm.console.expect("> ")
        vm.console.sendline("ping")
        vm.console.expect("pong\r\n> ")
        assert vm.console.path == str(path)
        assert vm.console.text == "vmfsm guest ready\r\n> echo: ping\r\npong\r\n> "
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert re.fullmatch(
        f"{stamp}vmfsm guest ready\r\n{stamp}> echo: ping\r\n{stamp}pong\r\n{stamp}> ",
        path.read_bytes().decode(),
    )


@pytest.mark.parametrize("where", ["log", "log_dir"])
def test_a_file_that_cannot_be_opened(make: Make, tmp_path: Path, where: str) -> None:
    if where == "log":
        vm = make(options={"log": tmp_path / "missing" / "file"})
    else:
        vm = make(log_dir=tmp_path, name="vm")
        (tmp_path / "vm-console.log").mkdir()
    with pytest.raises(LaunchError, match=f"'{where}'.*{tmp_path}"):
        vm.launch()
    assert vm.state is State.FAILED
    assert vm.console.closed
    if where == "log":
        (tmp_path / "missing").mkdir()
    else:
        (tmp_path / "vm-console.log").rmdir()
    vm.launch()
    vm.console.expect("ready")
    assert vm.console.path == str(tmp_path / ("missing/file" if where == "log" else "vm-console.log"))


def test_a_file_that_cannot_be_written(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with make(options={"log": "/dev/full"}) as vm:
        vm.launch()
        vm.console.expect("ready")
        assert [record.kind for record in vm.timeline].count("console-file") == 1
    assert "cannot write" in caplog.text
    assert vm.console.text.startswith("vmfsm guest ready")


@pytest.mark.parametrize("n", [None, "x", 1.5, True])
def test_wrong_numbers(make: Make, n: Any) -> None:
    vm = make()
    for call in (vm.console.read, vm.log.tail):
        with pytest.raises(ConfigError) as caught:
            call(n)
        assert caught.value.field == "n"
    with pytest.raises(ConfigError) as caught:
        vm.console.file(3)  # type: ignore[arg-type]
    assert caught.value.field == "mode"
    with pytest.raises(ConfigError, match="keyword-only"):
        vm.console.expect("x", 3)  # type: ignore[arg-type]


def test_no_such_console(make: Make) -> None:
    vm = make(options={"one": {}, "two": {"index": 1}})
    with pytest.raises(ConfigError, match=r"no console 'three'.*one, two"):
        vm.consoles["three"]
    assert "three" not in vm.consoles
    assert vm.consoles.get("three") is None


def test_data_is_not_in_messages(make: Make) -> None:
    vm = make(options={"encoding": "ascii"})
    for data in ("hunter2 é", ["hunter2"]):
        with pytest.raises(ConfigError) as caught:
            vm.console.send(data)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_console_that_says_nothing(make: Make) -> None:
    with make(options={"one": {}, "two": {"index": 1}}) as vm:
        vm.launch()
        vm.consoles["one"].expect("ready")
        for name, silent in (("one", False), ("two", True)):
            with pytest.raises(MachineTimeout, match=name) as caught:
                vm.consoles[name].expect("never", timeout=0.2)
            said = f"console {name!r} has said nothing"
            assert (said in caught.value.__notes__) is silent


def test_records_are_chunks(make: Make) -> None:
    with make() as vm:
        vm.launch()
        vm.console.expect("> ")
        for _ in range(20):
            vm.console.sendline("ping")
            vm.console.expect("pong\r\n> ")
    said = [record.data for record in vm.timeline if record.kind == "console"]
    assert all(data["console"] == "console" for data in said)
    assert "".join(str(data["text"]) for data in said) == vm.console.text
    assert len(said) < 100


def test_a_failed_launch_keeps_what_was_said(make: Make) -> None:
    class Fails:
        name = "fails"

        @hookimpl
        def post_launch(self, machine: Machine) -> None:
            machine.console.expect("ready")
            raise ValueError("no")

    vm = make(plugins=[Fails()])
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert "vmfsm guest ready" in caught.value.evidence.console
    assert vm.console.text.startswith("vmfsm guest ready")
    assert vm.console.closed


@pytest.mark.parametrize("before", ["*", "console"])
def test_a_launch_that_fails_half_way_leaves_nothing(make: Make, before: str) -> None:
    class Fails:
        name = "fails"

        @hookimpl
        def pre_launch(self) -> None:
            raise ValueError("no")

    Fails.before = (before,)  # type: ignore[attr-defined]
    vm = make(plugins=[Fails()], options={"a": {}, "b": {"index": 1}})
    for _ in range(2):
        with pytest.raises(LaunchError):
            vm.launch()
        assert vm.state is State.FAILED
        assert vm.console.closed


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt also where it was ignored by who started this."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_expecting(make: Make) -> None:
    """It ends the wait, and the machine can be used on."""
    with make() as vm:
        vm.launch()
        vm.console.expect("> ")
        main = threading.get_ident()
        timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            vm.console.expect("never", timeout=30)
        timer.join()
        vm.console.sendline("ping")
        vm.console.expect("pong")


def test_twins_in_an_async_hook(make: Make) -> None:
    class Talks:
        name = "talks"
        answer = ""

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            console = machine.console
            await console.aio.expect("> ")
            await console.aio.send("ping\n")
            self.answer = (await console.aio.expect("p.ng")).match.group()
            await console.aio.sendline()
            with pytest.raises(MachineTimeout):
                await console.aio.expect("never", timeout=0.1)
            with pytest.raises(TransitionError, match="aio"):
                console.expect("> ")
            assert console.text.startswith("vmfsm guest")

    plugin = Talks()
    with make(plugins=[plugin]) as vm:
        vm.launch()
        assert plugin.answer == "ping"


def test_twins_in_a_loop_of_the_users(make: Make) -> None:
    async def talk(vm: Machine) -> str:
        aio = vm.console.aio
        await aio.expect("> ", timeout=20)
        expecting = asyncio.create_task(aio.expect(b"pong", timeout=20))
        await aio.sendline("ping")
        found = await expecting
        await aio.send(b"poweroff\n")
        with pytest.raises(MachineDied):
            await aio.expect("never", timeout=20)
        with pytest.raises(MachineDied):
            await aio.send("x")
        return f"{(await aio.expect('power')).match.group()}{found.match.group().decode()}"

    with make() as vm:
        vm.launch()
        assert asyncio.run(talk(vm)) == "powerpong"


def test_console_given_as_an_object(qemu: str) -> None:
    with Machine(qemu, GUEST_ARGS, plugins=[Consoles(uart={})], block=["qmp"]) as vm:
        vm.launch()
        vm.consoles["uart"].expect("ready")
