"""Whatever a harness does not do, each call of a client ends by its deadline."""

import inspect
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control.harnesses import Program, doing, program
from tests.waiting import LIMIT, InThread, stand_still, until
from vmfsm import control
from vmfsm.control import client

TIMEOUT = 0.2
GRACE = 0.2
"""In place of three seconds."""
SLACK = 20.0
"""Seconds beside the bound: on a machine that is busy, too, it is far from never."""
PAGE = (Path(__file__).parents[2] / "docs" / "waiting.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Of other programs' machines\n")[2].partition("\n## ")[0]

CALLS: dict[str, Callable[[control.Client], object]] = {
    "control.machines": lambda guest: control.machines(TIMEOUT),
    "control.find": lambda guest: control.find("guest", timeout=TIMEOUT),
    "Client.snapshot": lambda guest: guest.snapshot(timeout=TIMEOUT),
    "Client.records": lambda guest: guest.records(timeout=TIMEOUT),
    "Client.events": lambda guest: guest.events(timeout=TIMEOUT),
    "Client.console": lambda guest: guest.console(timeout=TIMEOUT),
    "Client.qmp": lambda guest: guest.qmp("query-status", timeout=TIMEOUT),
    "Client.write": lambda guest: guest.write(b"x", timeout=TIMEOUT),
    "Client.screendump": lambda guest: guest.screendump("/tmp/picture", timeout=TIMEOUT),
    "Client.bundle": lambda guest: guest.bundle("/tmp", timeout=TIMEOUT),
    "Client.gdbstub": lambda guest: guest.gdbstub(timeout=TIMEOUT),
    "Client.hold": lambda guest: guest.hold(timeout=TIMEOUT),
    "Client.release": lambda guest: guest.release(timeout=TIMEOUT),
    "Client.shutdown": lambda guest: guest.shutdown(timeout=TIMEOUT),
    "Client.kill": lambda guest: guest.kill(timeout=TIMEOUT),
}
OVER_AT_ONCE = {"control.harnesses", "Listing.client", "Client.close", "Stream.close"}


def test_the_page_has_all() -> None:
    """Everything public that is called, and nothing else."""
    listed = set(re.findall(r"`((?:control|Client|Stream|Listing)\.\w+)`", SECTION))
    public = {f"control.{name}" for name in ("find", "harnesses", "machines")}
    for kind in (control.Client, control.Stream, control.Listing):
        public |= {
            f"{kind.__name__}.{name}"
            for name, member in vars(kind).items()
            if inspect.isfunction(member) and not name.startswith("_")
        }
    assert listed == public
    assert {*CALLS, *OVER_AT_ONCE, "Stream.next"} == public


STUCK = {
    "stopped": """
    wait()
    say("stuck")
    os.kill(os.getpid(), signal.SIGSTOP)
    """,
    "its I/O thread held up": """
    wait()
    async def hold_up():
        say("stuck")
        time.sleep(1000)
    vm.run(hold_up(), timeout=1000, operation="nothing")
    """,
}


@pytest.fixture(scope="module", params=STUCK)
def stuck(qemu: str, request: pytest.FixtureRequest) -> Iterator[tuple[Program, control.Listing]]:
    """A harness that does not go on, and its machine as it was when it did."""
    with program(doing(STUCK[request.param])) as ran:
        ran.said()
        (listing,) = [one for one in control.machines(LIMIT) if one.harness == ran.pid]
        ran.go_on()
        ran.said("stuck")
        yield ran, listing


@pytest.mark.parametrize("call", CALLS)
def test_it_ends_by_its_deadline(
    stuck: tuple[Program, control.Listing], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_GRACE", GRACE)
    _, listing = stuck
    with listing.client() as guest:
        calling = InThread(CALLS[call], guest).join(TIMEOUT + GRACE + SLACK)
    assert calling.seconds >= TIMEOUT
    if call == "control.machines":
        assert listing.name in {one.name for one in calling.result() if one.status == "silent"}
    else:
        assert isinstance(calling.error, control.NoAnswer), calling.error
        assert isinstance(calling.error, TimeoutError)


def test_an_item_ends_by_its_deadline(qemu: str) -> None:
    with program(doing("wait()")) as ran:
        ran.said()
        with ran.find() as guest, guest.records(history=False) as records:
            with pytest.raises(control.NoAnswer):
                records.next(TIMEOUT)
            guest.qmp("query-status")
            assert records.next(LIMIT).kind == "qmp-command"
            with guest.records(history=False, limit=TIMEOUT) as limited:
                assert list(limited) == []
                assert limited.over == "limit"


def test_who_waits_is_released_by_closing(qemu: str) -> None:
    """From another thread, the client's and the stream's."""
    with program(doing("wait()")) as ran:
        ran.said()
        guest = ran.find()
        stand_still(ran.pid)
        asking = InThread(guest.snapshot, timeout=None)
        until(lambda: guest._channel is not None)
        guest.close()
        assert isinstance(asking.join().error, control.Disconnected)
        os.kill(ran.pid, signal.SIGCONT)
        with ran.find() as other, other.events() as events:
            following = InThread(list, events)
            events.close()
            assert following.result() == []
            assert events.over == "closed"
            with pytest.raises(StopIteration):
                events.next(1)
        with pytest.raises(control.Disconnected, match="was closed"):
            guest.snapshot()
