"""The VM image builder, with the Linux guest."""

import re
from pathlib import Path

import pytest

from tests.compat.standins.conftest import RunCode
from tests.linux_guest import KERNEL_PARAMETERS
from tests.waiting import is_alive

SCRIPT = Path(__file__).with_name("vm_image_builder_script.py")
STATUS = {"ends": 0, "graceful": 0, "raises": 1}


@pytest.mark.parametrize(("what", "drained"), [("ends", False), ("raises", True), ("graceful", True)])
def test_image_builder(
    run_code: RunCode, qemu: str, kernel: Path, initramfs: Path, tmp_path: Path, what: str, drained: bool
) -> None:
    log = tmp_path / "console.log"
    boots = ("-kernel", str(kernel), "-initrd", str(initramfs), "-append", KERNEL_PARAMETERS)
    result = run_code(str(SCRIPT), what, str(log) if drained else "", *boots)
    assert result.returncode == STATUS[what], result.stdout
    found = re.match(r"QEMU (\d+) (\S+)\n", result.stdout)
    assert found, result.stdout
    assert not is_alive(int(found[1]))
    assert not Path(found[2]).exists()
    assert ("the end" in result.stdout) == (STATUS[what] == 0)
    assert ("RuntimeError: the build has failed" in result.stdout) == (what == "raises")
    assert "vmfsm" not in result.stdout.partition("Traceback")[2], "nothing of ours is in the traceback"
    if what == "graceful":
        assert "status 0" in result.stdout
    if drained:
        assert b"the shell is up" in log.read_bytes()
