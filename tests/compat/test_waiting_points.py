"""`docs/waiting.md` has each call of the drop-in that can wait; each is hung here, and ends in time."""

import inspect
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import MakeVM
from tests.compat.test_qtest import TCGMachine
from tests.faults.test_waiting_points import SLACK, TIMEOUT, Row, rows
from tests.waiting import InThread
from vmfsm.caller import GRACE
from vmfsm.compat import ConsoleSocket, QEMUMachine, QEMUQtestMachine, QEMUQtestProtocol
from vmfsm.compat.monitor import Monitor

ROWS = rows("Of the drop-in")
WITHOUT_WAITING = {
    "QEMUMachine": {
        *("add_args", "add_fd", "add_monitor_null", "set_console", "set_machine", "set_qmp_monitor"),
        *(
            "exitcode",
            "get_command_arguments",
            "get_log",
            "get_pid",
            "is_running",
            "event_match",
            "__enter__",
        ),
    },
    "QEMUQtestMachine": set[str](),
    "QEMUQtestProtocol": {"close", "settimeout", "qemu_has_ended"},
    "_qmp": {
        *("by", "clear_events", "close", "event", "get_sock_fd", "is_scm_available", "parse_address"),
        *("send_fd_scm", "settimeout", "value_of", "__enter__", "__exit__"),
    },
}
"""And those that are only for other parts of the drop-in."""


def calls(cls: type, *bases: type) -> set[str]:
    known = {name for base in bases for name, _ in inspect.getmembers(base, callable)}
    return {
        name
        for name, _ in inspect.getmembers(cls, callable)
        if (not name.startswith("_") or name in {"__enter__", "__exit__"}) and name not in known
    }


def test_every_call_waits_for_nothing_or_has_a_row() -> None:
    listed = [name for row in ROWS for name in row.calls]
    found = {
        "QEMUMachine": calls(QEMUMachine),
        "QEMUQtestMachine": calls(QEMUQtestMachine, QEMUMachine),
        "QEMUQtestProtocol": calls(QEMUQtestProtocol),
        "_qmp": calls(Monitor),
    }
    waiting = [f"{of}.{name}" for of, names in found.items() for name in names - WITHOUT_WAITING[of]]
    assert sorted(listed) == sorted(waiting)
    assert set(HANGS) == set(listed)
    assert calls(ConsoleSocket, socket.socket) == set()


# -- each of them hangs -------------------------------------------------------------------------------------


class Lab:
    def __init__(self, make_vm: MakeVM, directory: Path) -> None:
        self.make = make_vm
        self.directory = directory
        self.left = ExitStack()

    def stopped(self, **parameters: Any) -> QEMUMachine:
        vm = self.make(**parameters)
        vm.launch()
        os.kill(vm.get_pid() or 0, signal.SIGSTOP)
        return vm

    def stopped_qtest(self) -> TCGMachine:
        vm = self.make("-nodefaults", "-machine", "pc", "-S", kind=TCGMachine)
        assert isinstance(vm, TCGMachine)
        vm.launch()
        os.kill(vm.get_pid() or 0, signal.SIGSTOP)
        return vm

    def silent(self, **parameters: Any) -> QEMUMachine:
        return self.make(wrapper=["sh", "-c", "exec sleep 1000"], **parameters)

    def protocol(self, *args: Any, **kw: Any) -> QEMUQtestProtocol:
        qtest = QEMUQtestProtocol(*args, **kw)
        self.left.callback(qtest.close)
        qtest.settimeout(TIMEOUT)
        return qtest


@pytest.fixture
def lab(make_vm: MakeVM, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(make_vm, tmp_path)
    with lab.left:
        yield lab


Call = Callable[[], object]
EVENT = [("STOP", None)]


def _launch(lab: Lab) -> Call:
    return lab.silent(qmp_timer=TIMEOUT).launch


def _command(call: Callable[[QEMUMachine], object]) -> Callable[[Lab], Call]:
    def prepare(lab: Lab) -> Call:
        vm = lab.stopped()
        vm._qmp.settimeout(TIMEOUT)
        return lambda: call(vm)

    return prepare


def _on_stopped(call: Callable[[QEMUMachine], object]) -> Callable[[Lab], Call]:
    def prepare(lab: Lab) -> Call:
        vm = lab.stopped()
        return lambda: call(vm)

    return prepare


def _leave(lab: Lab) -> Call:
    vm = lab.stopped()
    patch = lab.left.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("VMFSM_TIMEOUT_SCALE", "0.05")  # of its 30 s, and of the 60 s that SIGKILL may take
    return lambda: vm.__exit__(None, None, None)


def _by_helper(lab: Lab) -> Call:
    helper = lab.directory / "helper"
    helper.write_text("#!/bin/sh\nexec sleep 1000\n")
    helper.chmod(0o755)
    vm = lab.make(socket_scm_helper=str(helper))
    vm.qmp_command_timeout = TIMEOUT
    vm.launch()
    return lambda: vm.send_fd_scm(file_path=os.devnull)


def _in_post_launch(call: Callable[[Monitor], object]) -> Callable[[Lab], Call]:
    class Own(QEMUMachine):
        def _post_launch(self) -> None:
            call(self._qmp)

    return lambda lab: lab.silent(kind=Own).launch


def _connect_by_default(monitor: Monitor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMFSM_TIMEOUT_SCALE", str(TIMEOUT / 15))
        monitor.connect()


def _qtest(lab: Lab) -> Call:
    vm = lab.stopped_qtest()
    assert vm._qtest is not None
    vm._qtest.settimeout(TIMEOUT)
    return lambda: vm.qtest("readl 0")


def _nobody_answers(lab: Lab) -> Call:
    ours, theirs = socket.socketpair()
    lab.left.enter_context(theirs)
    qtest = lab.protocol(sock=ours)
    qtest.connect()
    return lambda: qtest.cmd("readl 0")


def _nobody_connects(lab: Lab) -> Call:
    return lab.protocol(str(lab.directory / "qtest"), server=True).accept


@contextmanager
def _a_full_listener() -> Iterator[tuple[str, int]]:
    """Nobody accepts there, and no more can wait for it."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(10):
            waiting = held.enter_context(socket.socket())
            waiting.settimeout(TIMEOUT)
            try:
                waiting.connect(address)
            except TimeoutError:
                break
        yield address


def _nobody_accepts(lab: Lab) -> Call:
    return lab.protocol(lab.left.enter_context(_a_full_listener())).connect


HANGS: dict[str, Callable[[Lab], Call]] = {
    "QEMUMachine.launch": _launch,
    "QEMUMachine.shutdown": _on_stopped(lambda vm: vm.shutdown(timeout=TIMEOUT)),
    "QEMUMachine.wait": _on_stopped(lambda vm: vm.wait(TIMEOUT)),
    "QEMUMachine.__exit__": _leave,
    "QEMUMachine.kill": _on_stopped(lambda vm: vm.kill()),
    "QEMUMachine.qmp": _command(lambda vm: vm.qmp("query-status")),
    "QEMUMachine.cmd": _command(lambda vm: vm.cmd("query-status")),
    "QEMUMachine.command": _command(lambda vm: vm.command("query-status")),
    "QEMUMachine.send_fd_scm": _by_helper,
    "QEMUMachine.get_qmp_event": _on_stopped(lambda vm: vm.get_qmp_event(TIMEOUT)),
    "QEMUMachine.get_qmp_events": _on_stopped(lambda vm: vm.get_qmp_events(TIMEOUT)),
    "QEMUMachine.event_wait": _on_stopped(lambda vm: vm.event_wait("STOP", TIMEOUT)),
    "QEMUMachine.events_wait": _on_stopped(lambda vm: vm.events_wait(EVENT, TIMEOUT)),
    "QEMUQtestMachine.qtest": _qtest,
    "QEMUQtestProtocol.cmd": _nobody_answers,
    "QEMUQtestProtocol.accept": _nobody_connects,
    "QEMUQtestProtocol.connect": _nobody_accepts,
    "_qmp.cmd": _command(lambda vm: vm._qmp.cmd("query-status")),
    "_qmp.command": _command(lambda vm: vm._qmp.command("query-status")),
    "_qmp.cmd_raw": _command(lambda vm: vm._qmp.cmd_raw("query-status")),
    "_qmp.cmd_obj": _command(lambda vm: vm._qmp.cmd_obj({"execute": "query-status"})),
    "_qmp.pull_event": _on_stopped(lambda vm: vm._qmp.pull_event(TIMEOUT)),
    "_qmp.get_events": _on_stopped(lambda vm: vm._qmp.get_events(TIMEOUT)),
    "_qmp.accept": _in_post_launch(lambda monitor: monitor.accept(TIMEOUT)),
    "_qmp.connect": _in_post_launch(_connect_by_default),
}

CASES = [(row, name) for row in ROWS for name in row.calls]


@pytest.mark.parametrize(("row", "name"), CASES, ids=[name for _, name in CASES])
def test_it_ends_by_its_deadline(lab: Lab, row: Row, name: str) -> None:
    ended = InThread(HANGS[name](lab)).join(600)
    if row.raises:
        assert {kind.__name__ for kind in type(ended.error).__mro__} & row.raises
        assert ended.seconds >= TIMEOUT * 0.99
    else:
        assert ended.error is None
    assert ended.seconds <= TIMEOUT + GRACE + SLACK
