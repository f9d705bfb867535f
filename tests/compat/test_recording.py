"""Old code that is recorded: it is enough that the environment says so."""

from pathlib import Path

import pytest

from tests.recordings import files_in, read
from tests.waiting import until
from vmfsm import recording
from vmfsm.compat import QEMUMachine, VMLaunchFailure


def test_by_the_environment(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFSM_RECORD", str(tmp_path))
    with QEMUMachine(qemu, args=["-M", "none"], name="old") as vm:
        vm.launch()
        vm.qmp("query-status")
    (path,) = files_in(tmp_path)
    assert path.name.startswith("old-")
    until(lambda: not recording.read(path).problems)
    it = read(str(path))
    assert "query-status" in [record.data.get("command") for record in it.records()]
    picture = it.snapshot()
    assert (picture["state"], picture["exit_status"]) == ("stopped", 0)


def test_a_directory_that_cannot_be(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VMFSM_RECORD", str(tmp_path / "file" / "records"))
    vm = QEMUMachine(qemu, args=["-M", "none"])
    with pytest.raises(VMLaunchFailure, match="VMFSM_RECORD: Not a directory"):
        vm.launch()


def test_not_without_it(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMFSM_RECORD", raising=False)
    monkeypatch.chdir(tmp_path)
    with QEMUMachine(qemu, args=["-M", "none"]) as vm:
        vm.launch()
    assert files_in(tmp_path) == []
