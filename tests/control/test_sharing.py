"""One machine, asked by many at once: everybody gets what is theirs, in every launch."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import LIMIT, InThread
from vmfsm import LaunchError, Machine, MachineDied, MachineTimeout, control
from vmfsm.testing import GUEST_ARGS

COMMANDS = 100
"""Of each of those who ask."""


@pytest.fixture
def guest(qemu: str) -> Iterator[Machine]:
    with Machine(qemu, GUEST_ARGS, name="guest") as vm:
        vm.launch()
        vm.console.expect("ready", timeout=LIMIT)
        yield vm


def find(name: str = "guest") -> control.Client:
    return control.find(f"{os.getpid()}/{name}", timeout=LIMIT)


def test_replies_go_to_those_who_asked(guest: Machine) -> None:
    """The test's own, those of two clients, and those of two threads of one of them."""

    def ask(client: control.Client, who: str) -> None:
        for number in range(COMMANDS):
            name = f"none-{who}-{number}"
            assert f"command {name} has not" in client.qmp(name, timeout=LIMIT)["error"]["desc"]
            assert client.qmp("query-name", timeout=LIMIT) == {"return": {}}

    with find() as one, find() as two:
        asking = [InThread(ask, client, str(who)) for who, client in enumerate((one, two, two))]
        for number in range(COMMANDS):
            reply = guest.qmp.execute_raw(f"none-own-{number}", timeout=LIMIT)
            assert f"command none-own-{number} has not" in reply["error"]["desc"]
        for thread in asking:
            thread.result(60)


def test_everybody_gets_all_events(guest: Machine) -> None:
    own: list[str] = []
    unsubscribe = guest.qmp.subscribe(lambda event: own.append(event["event"]))
    rounds = 50
    with find() as client, client.events() as one, client.events() as two:
        mark = guest.qmp.mark()
        stopping = InThread(lambda: [client.qmp("stop") and client.qmp("cont") for _ in range(rounds)])
        heard = [[stream.next(LIMIT)["event"] for _ in range(2 * rounds)] for stream in (one, two)]
        stopping.result()
    unsubscribe()
    assert heard == [["STOP", "RESUME"] * rounds] * 2
    assert own == heard[0]
    assert [event["event"] for event in guest.qmp.events(mark)] == heard[0], "the test's own are not taken"


def test_a_machine_that_is_launched_again_is_followed(qemu: str) -> None:
    vm = Machine(qemu, GUEST_ARGS, name="again")
    with vm:
        vm.launch()
        with (
            find("again") as client,
            client.console(tail=0) as console,
            client.events() as events,
            client.records(history=False, limit=LIMIT) as records,
        ):
            for launch in range(3):
                if launch:
                    vm.launch()
                vm.console.expect("> ", timeout=LIMIT)
                client.write(b"poweroff\n" if launch == 1 else b"hello\n")
                if launch == 1:
                    vm.wait(LIMIT)
                else:
                    vm.console.expect("echo: hello", timeout=LIMIT)
                    client.shutdown()
            said, closed = b"", 0
            while closed < 3:
                output = console.next(LIMIT)
                assert output.lost == 0
                said += output.data
                closed += output.closed
            assert said.count(b"echo: hello") == 2
            names: list[str] = []
            while names.count("SHUTDOWN") < 2:
                names.append(events.next(LIMIT)["event"])
            ended = 0
            for record in records:
                ended += record.kind == "transition" and record.data["dest"] == "stopped"
                if ended == 3:
                    break
            assert ended == 3
            assert client.snapshot()["launches"] == 3
            with pytest.raises(control.ControlError, match="had ended before") as raised:
                client.qmp("query-status")
            assert raised.value.type == MachineDied.__name__


def test_a_launch_is_watched_and_cancelled(qemu: str) -> None:
    """A machine that does not come up can be ended from elsewhere."""
    silent = Machine(qemu, name="silent", wrapper=["sh", "-c", "exec sleep 1000"])
    launching = InThread(silent.launch, timeout=LIMIT)
    with find("silent") as client:
        with client.records(limit=LIMIT) as records:
            assert any(record.kind == "spawn" for record in records)
        assert client.snapshot()["state"] == "launching"
        assert client.kill()["state"] == "stopped"
    assert isinstance(launching.join().error, LaunchError)


def test_two_of_a_name(qemu: str) -> None:
    first, second = Machine(qemu, GUEST_ARGS, name="twin"), Machine(qemu, GUEST_ARGS, name="twin")
    with first, second:
        with find("twin") as over:
            assert over.snapshot()["state"] == "configured"
        first.launch()
        with find("twin") as alive:
            assert alive.snapshot()["pid"] == first.pid
        second.launch()
        with pytest.raises(control.NoSuchMachine, match="2 machines are named"):
            find("twin")
        listings = [one for one in control.machines(LIMIT) if one.name == "twin"]
        assert {one.pid for one in listings} == {first.pid, second.pid}
        for listing in listings:
            with listing.client() as client:
                assert client.snapshot()["pid"] == listing.pid


def test_there_is_none() -> None:
    with pytest.raises(control.NoSuchMachine, match="no machine 'nobody'"):
        control.find("nobody")


def test_it_is_held_until_somebody_releases_it(guest: Machine) -> None:
    with find() as one:
        assert "look at this" in one.hold("look at this")["held"]
        assert one.snapshot()["held"]
    (listing,) = [
        other for other in control.machines(LIMIT) if other.name == "guest" and other.state == "running"
    ]
    assert listing.held is not None
    assert "look at this" in listing.held
    (hold,) = [record for record in guest.timeline if record.kind == "hold"]
    assert (hold.kind, hold.data["keep"]) == ("hold", True)
    assert hold.data["by"] == f"process {os.getpid()} of user {os.geteuid()}"
    waiting = InThread(guest.console.expect, "never", timeout=0.01)
    with find() as other:
        with pytest.raises(control.ControlError, match="release it first, or kill it") as raised:
            other.shutdown()
        assert raised.value.type == "TransitionError"
        assert not waiting.over
        assert other.release() == {"held": None}
        assert other.release() == {"held": None}
        assert isinstance(waiting.join().error, MachineTimeout)
        assert other.shutdown()["state"] == "stopped"


def test_a_machine_that_is_held_can_be_killed(guest: Machine) -> None:
    with find() as client:
        client.hold()
        assert client.kill() == {"state": "stopped", "reason": "killed", "exit_status": -9}


def test_a_screendump(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Machine(qemu, ["-vga", "std"], name="screen") as vm:
        vm.launch()
        with find("screen") as client:
            path = client.screendump("picture.png")
            assert path == str(tmp_path / "picture.png")
            assert Path(path).read_bytes().startswith(b"\x89PNG\r\n")
            with pytest.raises(control.ControlError) as raised:
                client.screendump(tmp_path / "no such directory" / "picture.png")
            assert raised.value.type == "QMPCommandError"


def test_secrets_are_hidden_in_errors(qemu: str) -> None:
    with Machine(qemu, GUEST_ARGS, name="discreet") as vm:
        vm.launch()
        vm.secrets.add("hunter2-hunter2")
        with find("discreet") as client, pytest.raises(control.ControlError) as raised:
            client.console("hunter2-hunter2")
        assert "hunter2" not in str(raised.value)
        assert "***" in str(raised.value)
