"""A harness that dies, or hangs up, at any moment: the two are told apart, and from one that is silent."""

import os
import signal
from pathlib import Path

import pytest

from tests.control.brief import MOMENTS, NAME, brief
from vmfsm import control

DIES = [f"{moment}:dies" for moment in MOMENTS]
HANGS_UP = [f"{moment}:hangs-up" for moment in MOMENTS if moment != "waiting"]


@pytest.fixture(autouse=True)
def registry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize("what", DIES)
def test_one_that_dies_while_it_is_looked_for(what: str) -> None:
    with brief([what]), pytest.raises(control.NoSuchMachine, match="has died"):
        control.find(NAME)


@pytest.mark.parametrize("what", DIES)
def test_one_that_dies_while_all_are_asked(what: str) -> None:
    with brief([what]):
        (listing,) = control.machines()
    assert listing.status == "stale"
    assert listing.problem is None


@pytest.mark.parametrize("what", HANGS_UP)
def test_one_that_hangs_up_while_it_is_looked_for(what: str) -> None:
    with brief([what, what]):
        (listing,) = control.machines()
        assert listing.status == "silent"
        assert listing.problem == "the harness has hung up"
        with pytest.raises(control.NoAnswer, match="has hung up"):
            control.find(NAME)


@pytest.mark.parametrize("what", [*DIES, *HANGS_UP])
def test_while_it_is_asked(what: str) -> None:
    with brief(["answer", what]), control.find(NAME) as client:
        with pytest.raises(control.Disconnected) as caught:
            client.snapshot()
        assert caught.value.has_ended == (what in DIES)
        assert str(caught.value) == f"the harness has {'ended' if what in DIES else 'hung up'}"


def follow(client: control.Client) -> None:
    with client.console() as stream:
        for item in stream:
            assert item.data == b"one\n"


@pytest.mark.parametrize("what", [*DIES, "answered:dies", *HANGS_UP, "answered:hangs-up"])
def test_while_it_is_followed(what: str) -> None:
    with brief(["answer", what]), control.find(NAME) as client:
        with pytest.raises(control.Disconnected) as caught:
            follow(client)
        assert caught.value.has_ended == what.endswith("dies")


def test_one_that_is_no_more() -> None:
    with brief(["answer"]) as pid, control.find(NAME) as client:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(control.Disconnected, match="nobody listens") as caught:
            client.snapshot()
        assert caught.value.has_ended


def test_one_that_is_silent() -> None:
    with brief(["answer"]), control.find(NAME) as client:
        with pytest.raises(control.NoAnswer):
            client.snapshot(timeout=0.01)
        with pytest.raises(control.NoAnswer, match="does not answer"):
            control.find(NAME, timeout=0.01)


def test_a_client_that_is_closed_has_not_ended_the_harness() -> None:
    with brief(["answer"]), control.find(NAME) as client:
        client.close()
        with pytest.raises(control.Disconnected, match="was closed") as caught:
            client.snapshot()
        assert not caught.value.has_ended


def test_one_that_lives_is_meant_rather_than_what_is_left_of_another() -> None:
    with brief([]) as pid:
        os.kill(pid, signal.SIGKILL)
    with brief(["answer", "answer"]), control.find(NAME) as client:
        assert client.snapshot() == {"name": NAME, "state": "running"}
