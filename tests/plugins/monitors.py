"""Machines with a monitor, for the tests of the qmp plugin."""

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

import pytest
from vmfsm_plugins.qmp import QMP

from vmfsm import LaunchPlan, Machine, VMError, hookimpl
from vmfsm.testing import GUEST_ARGS, FakeQEMU

BUILT_IN = ("bundle", "console", "fdpass", "logs", "migration", "qmp", "snapshots", "verdicts")
MakeMachine = Callable[..., Machine]


@pytest.fixture
def monitored(qemu: str, caplog: pytest.LogCaptureFixture) -> Iterator[MakeMachine]:
    """Makes machines with a monitor, launched by default, with a QEMU that does nothing by default.

    Takes more plugin objects, options of the plugin in `qmp`, a fake QEMU to be run instead, and what
    `Machine` takes. Kills the machines at the end, and sees that nothing was logged.
    """
    machines: list[Machine] = []
    fakes = contextlib.ExitStack()

    def build(
        *plugins: object,
        qmp: dict[str, object] | None = None,
        args: tuple[str, ...] = ("-M", "none", "-nodefaults"),
        fake: FakeQEMU | None = None,
        launch: bool = True,
        **parameters: object,
    ) -> Machine:
        given = [QMP(**(qmp or {})), *plugins]  # type: ignore[arg-type]  # tests pass what is wrong, too
        settings: dict[str, object] = {"args": args, "block": BUILT_IN, "plugins": given, **parameters}
        vm = Machine(qemu if fake is None else fakes.enter_context(fake).binary, **settings)  # type: ignore[arg-type]
        machines.append(vm)
        return vm.launch() if launch else vm

    yield build
    for machine in machines:
        with contextlib.suppress(VMError):
            machine.kill()
    fakes.close()
    records = caplog.get_records("call")
    assert [record for record in records if record.levelno >= logging.WARNING] == []


class Serial:
    """The tiny guest's serial port, as a socket."""

    name = "serial"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(30)
        plan.args += ["-chardev", f"socket,id=serial,fd={plan.give(theirs)}", "-serial", "chardev:serial"]
        plan.defer(self._socket.close)

    def command(self, line: str) -> None:
        """Have the guest do something, as soon as it is up."""
        heard = b""
        while b"ready" not in heard:
            heard += self._socket.recv(1024)
        self._socket.sendall(line.encode() + b"\r")


MakeGuest = Callable[..., tuple[Machine, Serial]]


@pytest.fixture
def monitored_guest(monitored: MakeMachine) -> MakeGuest:
    """Launches the tiny guest, with more arguments for QEMU; the machine and the guest's serial port."""

    def launch(*args: str, **parameters: object) -> tuple[Machine, Serial]:
        serial = Serial()
        return monitored(serial, args=(*GUEST_ARGS, *args), **parameters), serial

    return launch
