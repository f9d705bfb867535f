"""Every fault at every point: the call ends as the documents say, and the machine works again after it.

Of the cells, as many as touch each fault and each point once; with VMFSM_TEST_MATRIX=whole all of them.
"""

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.endings import assert_path, spoiler, until_guest_is_up
from tests.faults.matrix.cells import CELLS, IMPOSSIBLE, Cell, climbs_the_ladder, covering
from tests.faults.matrix.expectations import RUNS, SLACK, Expected, expected
from tests.faults.matrix.faults import FAULTS, By, Effect
from tests.faults.matrix.points import FINAL, POINTS, Kind
from tests.faults.matrix.scene import FAR, Scene, matrix_lab
from tests.waiting import InThread, until
from vmfsm import (
    AbnormalExit,
    ConfigError,
    Evidence,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    VMError,
)
from vmfsm.caller import GRACE

WHOLE = os.environ.get("VMFSM_TEST_MATRIX") == "whole"
CHOSEN = CELLS if WHOLE else covering()
SHORT = 0.3
SHORT_LADDER = 1.0
LADDER = 20.0


def test_every_pair_is_a_cell_or_has_a_reason() -> None:
    pairs = {(fault, point) for fault in FAULTS for point in POINTS}
    cells = {(f"{cell.fault.by.name.lower()}: {cell.fault.name}", cell.point.name) for cell in CELLS}
    assert cells | set(IMPOSSIBLE) == pairs
    assert not cells & set(IMPOSSIBLE)
    assert len({cell.id for cell in CELLS}) == len(CELLS)


def test_every_fault_and_every_point_is_touched() -> None:
    assert {cell.fault.name for cell in covering()} == {fault.name for fault in FAULTS.values()}
    assert len({fault.name for fault in FAULTS.values()}) == len(FAULTS)
    assert {cell.point.name for cell in covering()} == set(POINTS)


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in CHOSEN])
def test_cell(qemu: str, tmp_path: Path, cell: Cell, request: pytest.FixtureRequest) -> None:
    want = expected(*cell)
    timeout = _timeout(cell, want)
    for attempt in range(8):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        with matrix_lab(qemu, directory, cell.fault) as lab, cell.point.prepare(cell.point, lab) as scene:
            met = Meeting(cell, scene, timeout)
            if met.was_reached:
                met.judge(want)
                return
        timeout *= 2  # the machine is so busy that the deadline was over before it came to that
    pytest.fail(f"the point is not reached within {timeout / 2:g} s: {met.error!r}")


def _timeout(cell: Cell, want: Expected) -> float:
    """As short as the outcome allows."""
    if climbs_the_ladder(cell):
        return LADDER
    if not want.late:
        return FAR
    return SHORT_LADDER if cell.point.kind in {Kind.STOP, Kind.STOP_HOOK} else SHORT


class Meeting:
    """A call at its point that has met a fault, and what came of it."""

    def __init__(self, cell: Cell, scene: Scene, timeout: float) -> None:
        self.cell = cell
        self.scene = scene
        self.timeout = timeout
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.was_reached = False
        self.seen = Evidence()
        """What there was to be seen when the point was reached."""
        cell.fault.before(scene)
        try:
            if cell.fault.effect is Effect.INTERRUPTED:
                driver = InThread(self._drive)
                with scene.interruptible():
                    self._call()
                driver.result()
            else:
                call = InThread(self._call)
                self._drive()
                call.join(2 * FAR)
        finally:
            scene.release()

    def _call(self) -> None:
        begin = time.monotonic()
        try:
            result = self.scene.call(self.timeout)
            if self.cell.point.name == "log.follow":
                list(result)
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            self.error = error
        finally:
            self.seconds = time.monotonic() - begin
            self.scene.over.set()

    def _drive(self) -> None:
        scene, fault = self.scene, self.cell.fault
        until(lambda: scene.over.is_set() or scene.reached(), FAR)
        self.was_reached = bool(scene.reached())
        if scene.victim is not None:
            self.seen = Evidence(scene.victim.console.text, scene.victim.log.text)
        if scene.over.is_set():
            return
        if fault.by is By.GUEST and not scene.hung:
            assert scene.victim is not None
            if self.cell.point.kind is Kind.LAUNCH_HOOK:
                until_guest_is_up(scene.victim)
            scene.victim.console.sendline(fault.line or "")
        fault.act(scene)
        if scene.hung and fault.by in {By.FAKE, By.GUEST}:
            scene.resume()
        if scene.hook is not None and fault.by is not By.HOOK:
            self._let_hook_go()

    def _let_hook_go(self) -> None:
        scene, effect, vm = self.scene, self.cell.fault.effect, self.scene.machine
        assert vm is not None
        assert scene.hook is not None
        if effect is Effect.HELD_UP:
            return
        if effect is Effect.ENDS:
            until(lambda: vm.pid is None)
        elif self.cell.fault.by is By.COMPANION:
            until(lambda: all(companion.pid is None for companion in scene.lab.companions))
        elif effect in {Effect.KILLED, Effect.SHUT_DOWN}:
            # Beside the call itself, but for a launch, which does not wait for an end.
            callers = 1 if self.cell.point.kind is Kind.LAUNCH_HOOK else 2
            until(lambda: vm._launch is not None and len(vm._launch._waiting) >= callers)
        is_cancelled = self.cell.point.kind is Kind.LAUNCH_HOOK and scene.hook.is_async
        if not (
            is_cancelled and effect in {Effect.ENDS, Effect.KILLED, Effect.SHUT_DOWN, Effect.INTERRUPTED}
        ):
            scene.hook.let_go()

    # -- what came of it ------------------------------------------------------------------------------------

    def judge(self, want: Expected) -> None:
        assert type(self.error) in want.raises, (self.error, self.seconds)
        self._judge_time(want)
        if self.cell.point.kind is not Kind.TOOL:
            self._judge_machine(want)
        self._judge_causes(want)
        if isinstance(self.error, VMError) and self.scene.machine is not None:
            self._judge_error(self.error)
        self._judge_other_end()
        self._finish()

    def _judge_time(self, want: Expected) -> None:
        if want.late:
            assert self.seconds <= self.timeout + GRACE + SLACK
            if isinstance(self.error, MachineTimeout):
                assert self.seconds >= self.timeout
        else:
            assert self.seconds <= GRACE + SLACK

    @property
    def _subject(self) -> Machine:
        """Whose end it may be."""
        scene = self.scene
        vm = scene.machine if self.cell.fault.by is By.HARNESS else scene.victim
        assert vm is not None
        return vm

    def _judge_machine(self, want: Expected) -> None:
        vm = self._subject
        if RUNS not in want.ends and not isinstance(self.error, MachineDied):
            until(lambda: vm.state in FINAL, FAR)
        assert (vm.state, vm.reason) in want.ends, vm.history
        assert_path(vm)
        if vm.state in FINAL:
            assert vm.exit_status in want.status
            assert vm.pid is None
        else:
            assert vm.pid is not None

    def _judge_causes(self, want: Expected) -> None:
        if want.cause is None:
            return
        causes = []
        cause = self.error
        while cause is not None:
            causes.append(type(cause))
            cause = cause.__cause__
        assert any(issubclass(found, want.cause) for found in causes), causes

    def _judge_error(self, error: VMError) -> None:
        [vm] = [vm for vm in self.scene.lab.machines if vm.name == error.machine]
        if isinstance(error, LaunchError | AbnormalExit | MachineDied):
            if self.cell.fault.effect is not Effect.HELD_UP:
                assert error.exit_status == vm.exit_status
                assert error.state is vm.state
            if not isinstance(error, LaunchError):
                assert error.reason is vm.reason
        if isinstance(error, MachineTimeout):
            assert error.operation
            assert error.timeout == self.timeout
        if vm is self.scene.victim and not isinstance(error, ConfigError | TransitionError):
            self._judge_evidence(error)

    def _judge_evidence(self, error: VMError) -> None:
        """What there was to be seen is in it, and where everybody sees it."""
        notes = "\n".join(error.__notes__) if hasattr(error, "__notes__") else ""
        for had, has, title in (
            (self.seen.console, error.evidence.console, "the console's last lines"),
            (self.seen.output, error.evidence.output, "the end of QEMU's output"),
        ):
            if had:
                assert has
                assert title in notes
        if self.cell.fault.name == "exits with 3":
            assert "why" in error.evidence.output

    def _judge_other_end(self) -> None:
        """Whoever ends the machine is told the same, in whichever thread."""
        if self.scene.ending is None:
            return
        error = self.scene.ending.join(FAR).error
        is_forced = self.scene.machine is not None and self.scene.machine.reason is Reason.WEDGED
        assert type(error) is (AbnormalExit if is_forced else type(None)), error

    def _finish(self) -> None:
        """Nothing is left, and the machine works as ever when it is launched again."""
        lab = self.scene.lab
        self.scene.resume()
        for vm in lab.machines:
            spoiler(vm).clear()
            with contextlib.suppress(VMError):
                vm.kill()
            assert vm.state in {*FINAL, State.CONFIGURED}
            assert vm.pid is None
        if lab.fake is not None:
            assert not lab.fake.pids  # which its end would hide from the search for leaks
        for call in self.scene.beside:
            call.join()
        lab.run_qemu()
        lab.make_room()
        for vm in lab.machines[:1]:
            vm.launch(FAR)
            assert vm.qmp.execute("query-status", timeout=FAR)["status"] in {"running", "inmigrate"}
            vm.shutdown()
            assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
            assert_path(vm)
