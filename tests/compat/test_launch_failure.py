"""A failed launch is caught by code of every year: as `VMLaunchFailure`, and as what it was raised from."""

import pickle
from pathlib import Path

import pytest
from qemu.qmp import ConnectError

from tests.compat.conftest import MakeVM
from vmfsm.compat import QEMUMachine, QMPTimeoutError, VMLaunchFailure


def test_qemu_refuses(make_vm: MakeVM) -> None:
    with pytest.raises(ConnectError) as caught:
        make_vm("-unknown").launch()
    failure = caught.value
    assert isinstance(failure, VMLaunchFailure)
    assert isinstance(failure.__cause__, ConnectError)
    assert isinstance(failure.exc, EOFError)
    assert failure.exitcode == 1
    assert str(failure).startswith("ConnectError: ")
    again = pickle.loads(pickle.dumps(failure))
    assert (type(again), again.args) == (VMLaunchFailure, failure.args)


def test_there_is_no_such_binary(make_vm: MakeVM) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        make_vm(binary="/nowhere/qemu").launch()
    assert isinstance(caught.value, VMLaunchFailure)
    assert caught.value.args == (None, caught.value.command, "")


def test_there_is_no_such_directory(make_vm: MakeVM, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="FileNotFoundError: ") as caught:
        make_vm(log_dir=str(tmp_path / "nowhere"), name="v").launch()
    assert isinstance(caught.value, VMLaunchFailure)
    assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "nowhere" / "v.log"))


@pytest.mark.parametrize("kind", [TimeoutError, QMPTimeoutError])
def test_it_is_silent(make_vm: MakeVM, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        make_vm(wrapper=["sh", "-c", "exec sleep 1000"], qmp_timer=0.2).launch()
    assert isinstance(caught.value, VMLaunchFailure)


class Odd(ExceptionGroup[Exception]):
    """There are none without what it is a group of."""


class ReadOnly(Exception):
    @property
    def command(self) -> str:
        return "its own"


@pytest.mark.parametrize("cause", [ValueError("x"), Odd("x", [ValueError()]), ReadOnly()])
def test_a_subclass_raises(make_vm: MakeVM, tmp_path: Path, cause: Exception) -> None:
    class Raising(QEMUMachine):
        def _post_launch(self) -> None:
            super()._post_launch()
            cause.add_note("a note")
            raise cause

    vm = make_vm(kind=Raising)
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert caught.value.__cause__ is cause
    assert caught.value.args == (-9, " ".join(vm._qemu_full_args), "")
    assert isinstance(caught.value, ValueError) == isinstance(cause, ValueError)
    assert not getattr(caught.value, "__notes__", None)
