"""An exception at any line while sockets and files are made: nothing of them is left."""

import contextlib
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.at_line import AtLine
from tests.waiting import until
from vmfsm.compat import ConsoleSocket, QEMUMachine, QEMUQtestMachine, VMLaunchFailure
from vmfsm.compat.files import open_log
from vmfsm.logpaths import open_for_log

# What nobody has got yet is closed when it is collected, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Interrupt(BaseException):
    """What the handler raises."""


def at_every_line(call: Callable[[AtLine], object]) -> None:
    """Call with something that raises at the first line within, at the second, and so on to the last."""
    number = 0
    while True:
        exception = Interrupt()
        interrupt = AtLine(number, exception)
        before = descriptors()
        with contextlib.suppress(Interrupt):
            call(interrupt)
        exception.with_traceback(None)  # which has all that was being made
        until(lambda before=before: descriptors() <= before or gc.collect() < 0)  # type: ignore[misc]
        if not interrupt.raised:
            break
        number += 1
    assert number > 20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_log_between_its_descriptor_and_its_file(tmp_path: Path) -> None:
    def trace(frame: FrameType, event: str, _: object) -> Any:
        if event == "return" and frame.f_code is open_for_log.__code__:
            raise Interrupt
        return trace

    before, tracing = descriptors(), sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(Interrupt):
            open_log(str(tmp_path), "vm", trace)[1].close()
    finally:
        sys.settrace(tracing)
    assert os.listdir(tmp_path) == ["vm.log"]
    assert descriptors() == before


@pytest.mark.parametrize("kind", [QEMUMachine, QEMUQtestMachine])
@pytest.mark.parametrize("paths", [True, False])
def test_before_there_is_a_qemu(tmp_path: Path, kind: type[QEMUMachine], paths: bool) -> None:
    (tmp_path / "s").mkdir()
    log = str(tmp_path / "console.log")

    def launch(interrupt: AtLine) -> None:
        class Interrupted(kind):  # type: ignore[misc, valid-type]
            def _pre_launch(self) -> None:
                with interrupt:
                    super()._pre_launch()

        vm = Interrupted(
            "/not/there", base_temp_dir=str(tmp_path), sock_dir=str(tmp_path / "s") if paths else None
        )
        vm._console_log_path = log
        vm.set_console()
        with contextlib.suppress(VMLaunchFailure):
            vm.launch()
        assert os.listdir(tmp_path / "s") == []
        assert set(os.listdir(tmp_path)) <= {"s", "console.log"}

    with contextlib.suppress(VMLaunchFailure):
        launch(AtLine(10**6, Interrupt()))  # what a process makes once is there
    at_every_line(launch)


def test_while_a_console_is_made(tmp_path: Path) -> None:
    path = str(tmp_path / "console")

    def make(interrupt: AtLine) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            try:
                with interrupt:
                    console = ConsoleSocket(path, str(tmp_path / "log"))
                console.close()
            finally:
                os.remove(path)

    make(AtLine(10**6, Interrupt()))
    at_every_line(make)


@pytest.mark.filterwarnings("error")
def test_a_log_whose_thread_has_just_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Thread.start` hides the exception behind one of its own then; and nobody else closes the file."""

    class Late(Exception):
        pass

    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    start = getattr(threading, name)

    def start_and_be_interrupted(*args: Any, **kw: Any) -> None:
        start(*args, **kw)
        until(lambda: not any(thread.name == "vmfsm-log" for thread in threading.enumerate()))
        raise Late

    monkeypatch.setattr(threading, name, start_and_be_interrupted)
    before = descriptors()
    with pytest.raises(Late):
        open_log(str(tmp_path), "log", object())
    assert descriptors() <= before
