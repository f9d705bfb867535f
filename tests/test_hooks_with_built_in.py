"""Hooks beside the built-in plugins: what works in them, and that failing ones leave nothing."""

import pytest

from tests.hooked import Async, Journal, Kind, Plain, assert_works, raising, three
from vmfsm import LaunchError, Machine, PluginError, Reason, State, TransitionError, hookimpl
from vmfsm.hooks import LIFECYCLE_HOOKS
from vmfsm.testing import GUEST_ARGS


class Talkative:
    """Talks to the monitor and the console in its hooks; its name comes before those of the built-in ones."""

    name = "a-talkative"

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def pre_launch(self, machine: Machine) -> None:
        with pytest.raises(TransitionError, match=machine.name):
            machine.qmp.execute("query-status")

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        self.heard.append(machine.qmp.execute("query-status")["status"])
        self.heard.append(machine.console.expect("ready").index)

    @hookimpl
    def early_cleanup(self, machine: Machine) -> None:
        self.heard.append(machine.qmp.execute("query-status")["status"])
        machine.console.sendline("ping")
        self.heard.append(machine.console.expect("pong").index)


class TalkativeAsync:
    """The same as coroutines."""

    name = "a-talkative"

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        self.heard.append((await machine.qmp.aio.execute("query-status"))["status"])
        self.heard.append((await machine.console.aio.expect("ready")).index)

    @hookimpl
    async def early_cleanup(self, machine: Machine) -> None:
        self.heard.append((await machine.qmp.aio.execute("query-status"))["status"])
        await machine.console.aio.sendline("ping")
        self.heard.append((await machine.console.aio.expect("pong")).index)


@pytest.mark.parametrize("plugin", [Talkative, TalkativeAsync])
def test_monitor_and_console_work_in_the_hooks(
    qemu: str, plugin: type[Talkative] | type[TalkativeAsync]
) -> None:
    talkative = plugin()
    with Machine(qemu, GUEST_ARGS, plugins=[talkative]) as machine:
        for _ in range(2):
            talkative.heard.clear()
            machine.launch()
            assert talkative.heard == ["running", 0]
            machine.shutdown()
            assert talkative.heard == ["running", 0] * 2
            assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.mark.parametrize("kind", [Plain, Async])
@pytest.mark.parametrize("hook", LIFECYCLE_HOOKS)
def test_a_hook_that_raises(qemu: str, journal: Journal, hook: str, kind: Kind) -> None:
    plugins = three(journal, kind, **{hook: raising(ValueError("no good"))})
    machine = Machine(qemu, ["-M", "none", "-nodefaults"], plugins=plugins)
    if hook in {"pre_launch", "post_launch"}:
        with pytest.raises(LaunchError, match="no good"):
            machine.launch()
        assert (machine.state, machine.reason) == (State.FAILED, Reason.HOOK_FAILED)
    else:
        machine.launch()
        with pytest.raises(PluginError, match="no good"):
            machine.shutdown()
        assert (machine.state, machine.reason, machine.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
    for clean_up in ("early_cleanup", "post_shutdown"):
        assert journal.of(clean_up) == "cba"
    assert_works(machine, journal)
    assert machine.exit_status == 0, "it went by the monitor's quit"
