"""A harness answers whatever it does, but for what the system keeps it from."""

import os
import signal
import subprocess
import time

import pytest

from tests.control.harnesses import doing, program
from tests.waiting import LIMIT, SLACK, InThread, stand_still, until
from vmfsm import Machine, control

pytestmark = pytest.mark.usefixtures("qemu")

WHILE = {
    "computing": "while True: sum(range(10_000))",
    "waiting for the guest": 'vm.console.expect("never", timeout=None)',
    "waiting for the end": "vm.wait()",
    "in a debugger": "pdb.set_trace()",
}


@pytest.mark.parametrize("body", WHILE.values(), ids=WHILE)
def test_a_harness_that_is_busy(body: str) -> None:
    with program(doing(body)) as ran:
        ran.said()
        with ran.find() as guest:
            assert guest.qmp("query-status")["return"]["status"] == "running"
            assert guest.snapshot()["state"] == "running"
            with guest.console() as console:
                assert b"ready" in next(console).data
                guest.write(b"hello\n")
                said = b""
                while b"echo: hello" not in said:
                    said += console.next(LIMIT).data
            kinds = [record.kind for record in guest.records(follow=False)]
            assert {"transition", "spawn", "console"} <= set(kinds)
            assert guest.kill() == {"state": "stopped", "reason": "killed", "exit_status": -9}


def test_one_that_is_stopped() -> None:
    with program(doing("time.sleep(1000)")) as ran:
        ran.said()
        guest = ran.find()
        stand_still(ran.pid)
        begin = time.monotonic()
        with pytest.raises(control.NoAnswer):
            guest.snapshot(timeout=0.1)
        (listing,) = [one for one in control.machines(0.2) if one.harness == ran.pid]
        assert (listing.status, listing.name) == ("silent", "guest")
        assert listing.problem == "the harness does not answer"
        with pytest.raises(control.NoAnswer, match="does not answer"):
            listing.client()
        with pytest.raises(control.NoAnswer):
            guest.records(timeout=0.1)
        assert time.monotonic() - begin < SLACK
        os.kill(ran.pid, signal.SIGCONT)
        assert guest.qmp("query-status")["return"]["status"] == "running"
        guest.close()


def test_one_that_is_killed_while_it_is_followed() -> None:
    with program(doing("time.sleep(1000)")) as ran:
        ran.said()
        with ran.find() as guest, guest.records() as records, guest.console() as console:
            waiting = InThread(list, records)
            assert next(console).data
            os.kill(ran.pid, signal.SIGKILL)
            assert isinstance(waiting.join().error, control.Disconnected)
            with pytest.raises(control.Disconnected):
                console.next(LIMIT)
            ran.process.wait(LIMIT)
            with pytest.raises(control.Disconnected):
                guest.snapshot()
        until(lambda: not [harness for harness in control.harnesses() if harness.pid == ran.pid])


def test_one_that_ends_while_it_is_followed() -> None:
    """Who follows is told everything, to the last."""
    with program(doing("wait()")) as ran:
        ran.said()
        with ran.find() as guest, guest.records() as records, guest.console() as console:
            guest.write(b"hello\n")
            said = b""
            while b"echo: hello" not in said:
                said += console.next(LIMIT).data
            ran.go_on()
            changes = [record.data["dest"] for record in records if record.kind == "transition"]
            assert changes == ["launching", "running", "quitting", "stopped"]
            assert records.over == "ended"
            assert [output.closed for output in console if not output.data] == [True]
            assert console.over == "ended"
        assert ran.end() == (0, "")


def test_one_that_ends_while_who_follows_is_busy() -> None:
    """It waits a moment for them to read what a socket does not hold."""
    body = """
    from vmfsm.control import server
    server._LAST_WORDS = 60.0
    wait()
    for _ in range(1_200):
        vm.note("x" * 150)
    """
    with program(doing(body)) as ran:
        path = ran.said().socket
        with ran.find() as guest, guest.records() as records:
            ran.go_on()
            until(lambda: not os.path.exists(path))
            with pytest.raises(subprocess.TimeoutExpired):
                ran.process.wait(0.3)
            dests = [record.data.get("dest") for record in records]
            assert "stopped" in dests
            assert records.over == "ended"
        assert ran.end() == (0, "")


def test_it_is_there_when_launch_returns_and_gone_with_the_program() -> None:
    with program(doing("say(str(os.path.exists(sys.stdin.readline().strip())))\nwait()")) as ran:
        ran.said()
        path = ran.socket
        ran.go_on(path)
        ran.said("True")
        assert os.stat(path).st_mode & 0o777 == 0o600
        ran.go_on()
        assert ran.end() == (0, "")
        assert not os.path.exists(path)


def test_of_one_that_is_killed_it_goes_too() -> None:
    with program(doing("time.sleep(1000)")) as ran:
        ran.said()
        path = ran.socket
        ran.process.kill()
        until(lambda: not os.path.exists(path))


def test_machines_in_any_state() -> None:
    body = """
    never = machine("never")
    with machine("over") as over:
        over.launch()
    failed = machine("failed", args=["-no-such-option"])
    try:
        failed.launch()
    except Exception:
        pass
    say("all")
    wait()
    gone = weakref.ref(never)
    del never
    while gone():  # who has just been answered may have it in hand
        gc.collect()
    say("less")
    time.sleep(1000)
    """
    with program(doing(body), {"PYTEST_CURRENT_TEST": "some test"}) as ran:
        ran.said().said("all")
        listings = {one.name: one for one in control.machines(LIMIT) if one.harness == ran.pid}
        assert {name: one.state for name, one in listings.items()} == {
            "guest": "running",
            "never": "configured",
            "over": "stopped",
            "failed": "failed",
        }
        assert {one.status for one in listings.values()} == {"live"}
        assert {one.test for one in listings.values()} == {"some test"}
        assert [listings[name].launches for name in ("guest", "never", "over")] == [1, 0, 1]
        assert listings["guest"].pid is not None
        assert listings["over"].pid is None
        with listings["never"].client() as never, never.records(history=False, limit=LIMIT) as records:
            assert never.snapshot()["state"] == "configured"
            with pytest.raises(control.ControlError, match="before the first launch") as raised:
                never.qmp("query-status")
            assert raised.value.type == "TransitionError"
            ran.go_on()
            ran.said("less")
            assert list(records) == []
            assert records.over == "gone"
            with pytest.raises(control.ControlError, match="no machine has the number"):
                never.snapshot()


def test_it_can_be_switched_off() -> None:
    with program(doing("time.sleep(1000)"), {"VMFSM_CONTROL": "0"}) as ran:
        ran.said()
        (listing,) = [one for one in control.machines(LIMIT) if one.harness == ran.pid]
        assert listing.status == "silent"
        assert listing.problem is not None
        assert "nobody listens" in listing.problem
        assert not os.path.exists(ran.socket)


def test_what_may_mean_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmfsm import ConfigError

    monkeypatch.setenv("VMFSM_CONTROL", "off")
    with pytest.raises(ConfigError, match="VMFSM_CONTROL must be 0 or 1, not 'off'") as raised:
        Machine("qemu-system-x86_64")
    assert raised.value.field == "VMFSM_CONTROL"
