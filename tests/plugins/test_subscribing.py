"""Code that gets all bytes of a console or of QEMU's output as they come."""

import logging
from collections.abc import Iterator

import pytest

from tests.waiting import until
from vmfsm import ConfigError, Machine
from vmfsm.iothread import IOThread
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

NOISE = b"\xff\x00 \x1b[31mhello\r\n"


@pytest.fixture
def vm() -> Iterator[Machine]:
    ready = [do.say(NOISE, times=100), do.output(NOISE), do.output(NOISE, stdout=True)]
    with FakeQEMU(ready=ready, lines={"more": [do.say("more\n")]}) as fake:
        machine = Machine(fake.binary)
        yield machine
        machine.kill()


@pytest.mark.parametrize("which", ["console", "log"])
def test_every_byte_of_every_launch(vm: Machine, which: str) -> None:
    seen: list[bytes] = []
    inside: list[bool] = []
    stream = getattr(vm, which)
    stream.subscribe(seen.append)
    stream.subscribe(lambda data: inside.append(IOThread.get().inside()))
    expected = NOISE * (100 if which == "console" else 2)
    for _ in range(2):
        seen.clear()
        vm.launch()
        until(lambda: len(b"".join(seen)) == len(expected))
        assert b"" not in seen
        vm.shutdown()
        assert b"".join(seen) == expected
        assert seen[-1] == b""
        assert seen.count(b"") == 1
    assert all(inside)


def test_its_end_and_what_came_just_before_that(qemu: str) -> None:
    with FakeQEMU(lines={"go": [do.say(NOISE * 1000), do.output(NOISE * 1000), do.die_of(9)]}) as fake:
        vm = Machine(fake.binary)
        console: list[bytes] = []
        output: list[bytes] = []
        vm.console.subscribe(console.append)
        vm.log.subscribe(output.append)
        vm.launch()
        vm.console.sendline("go")
        until(lambda: vm.pid is None and vm.state.value == "failed")
        for seen in (console, output):
            assert b"".join(seen) == NOISE * 1000
            assert seen[-1] == b""
        vm.kill()


def test_who_has_unsubscribed_gets_nothing(vm: Machine) -> None:
    some: list[bytes] = []
    every: list[bytes] = []
    stop = vm.console.subscribe(some.append)
    vm.console.subscribe(every.append)
    vm.launch()
    until(lambda: len(b"".join(every)) == 100 * len(NOISE))
    before = list(some)
    stop()
    stop()
    vm.console.sendline("more")
    until(lambda: b"".join(every).endswith(b"more\n"))
    assert some == before


def test_one_that_raises_is_not_called_again(vm: Machine, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[bytes] = []
    every: list[bytes] = []

    def bad(data: bytes) -> None:
        calls.append(data)
        raise SystemExit("no")

    vm.console.subscribe(bad)
    vm.console.subscribe(every.append)
    vm.launch()
    until(lambda: len(b"".join(every)) == 100 * len(NOISE))
    assert len(calls) == 1
    [logged] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (logged.name, "not called again" in logged.getMessage()) == ("vmfsm.console", True)


@pytest.mark.parametrize("which", ["console", "log"])
def test_what_cannot_be_called(vm: Machine, which: str) -> None:
    async def coroutine(data: bytes) -> None:
        pass

    for wrong in (None, "print", coroutine):
        with pytest.raises(ConfigError) as caught:
            getattr(vm, which).subscribe(wrong)
        assert caught.value.field == "callback"
