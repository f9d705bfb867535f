"""A run from the launch to its outcome. It ends the machine, whatever happens."""

import contextlib
import threading
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from vmfsm import (
    ConfigError,
    Deadline,
    Machine,
    MachineTimeout,
    State,
    Verdict,
    VMError,
    printable,
)
from vmfsm.cli.terminal.interrupts import Interrupted, Interrupts
from vmfsm.errors import cut

from .display import Display
from .outcome import Outcome, RunStatus, StepError, of_ending, of_error, of_interrupt, of_verdict
from .steps import Step
from .stuck import ended_when_stuck
from .talking import Talking

_LAST_WORDS = 5.0
"""Seconds for a guest that is lost to say why, at most; it has said it …"""
_SAID = 0.5
"""… when it was silent for so many."""
_HELD = frozenset(
    {RunStatus.VERDICT, RunStatus.TIMEOUT, RunStatus.STEP_FAILED, RunStatus.ENDED_EARLY, RunStatus.FAILED}
)
"""What is worth a look."""
_LONGEST = 200
"""Characters of a step in a message."""
_LOOK = 0.5
"""Seconds between two looks at whether what is held for somebody is still there."""
_OUTPUT = frozenset({"pipe", "stdout"})
"""Interrupts for want of somebody or something to write to."""
_ALONG = _OUTPUT | {"SIGHUP"}
"""What comes along with the first interrupt, where a pipeline is interrupted or a terminal closed."""
_ALIVE = frozenset({State.LAUNCHING, State.RUNNING, State.QUITTING})


class Script(NamedTuple):
    """What is to be done, and how long it may take."""

    steps: Sequence[Step] = ()
    timeout: float | None = None
    """Seconds for each step; `None`: `STEP_TIMEOUT`, and no limit for the end of the guest."""
    total_timeout: float | None = None
    """Seconds for all of it."""
    launch_timeout: float = 30.0
    then: str = "shutdown"
    """After the last step: `shutdown`, `wait` for the end of the guest, `keep` it till somebody ends it."""
    ask_guest: bool = False
    """Shut down by the power button first."""
    stop_timeout: float = 30.0
    hold: bool = False
    """Keep a machine whose run has failed, for somebody to look at it."""
    stdin: str = "none"
    """`none`, `terminal`, `raw` (a terminal whose Ctrl-C is for the guest), `pipe`."""
    allowed: frozenset[str] = frozenset()
    """Kinds of verdicts that are no failure."""


STEP_TIMEOUT = 60.0


class Done(NamedTuple):
    """A step, and how it went."""

    step: Step
    met: bool
    seconds: float


class Session:
    """One run. For the main thread."""

    def __init__(self, machine: Machine, script: Script, *, status: bool, quiet: bool = False) -> None:
        self.machine = machine
        self.script = script
        self.done: list[Done] = []
        self._interrupts = Interrupts()
        self._talking = contextlib.ExitStack()
        self._began = time.monotonic()
        self._total = machine.deadline(script.total_timeout)
        self._doing = "launching"
        self._doing_until: float | None = None
        self._has_keys = False
        self._last_event: tuple[str, float] | None = None
        self.display = Display(
            status=self.status if status else None,
            interrupt=self._interrupts.interrupt,
            quiet=quiet,
        )

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def recording(self) -> str | None:
        """The file with all that happened; `None` where nothing was recorded."""
        try:
            path: str | None = self.machine.plugin("recorder").path
        except ConfigError:  # it is not there
            return None
        return path

    def run(self) -> Outcome:
        """Launch, go through the script, end the machine; never raises for what happens to that."""
        with self._interrupts, ended_when_stuck():
            self.display.follow(self.machine)
            with contextlib.suppress(ConfigError):
                self.machine.qmp.subscribe(self._note_event)
            try:
                with self._interrupts.raising():
                    outcome = self._live()
            except Interrupted as interrupt:
                outcome = self._of_interrupt(interrupt)
            except Exception as error:  # noqa: BLE001 - the machine and the terminal come first
                if not isinstance(error, VMError | StepError):
                    self.display.verdict(traceback.format_exc())
                outcome = self._of_error(error)
            try:
                outcome = self._end(outcome)
            finally:
                self._talking.close()
            try:
                with self._interrupts.raising():
                    self.display.close_console()
            except Interrupted:
                self.display.verdict("the rest of the console's output is not written")
            return of_interrupt("stdout") if outcome.good and self.display.failed else outcome

    def status(self) -> str:
        """What is going on, in a line. From any thread; never waits."""
        machine = self.machine
        now = time.monotonic()
        parts = [f"{machine.name}: {machine.state.value} {now - machine.since:.0f} s", self._doing]
        if self._doing_until is not None:
            parts[-1] += f" ({max(0.0, self._doing_until - now):.0f} s left)"
        if self._last_event is not None:
            parts.append(f"{self._last_event[0]} {now - self._last_event[1]:.0f} s ago")
        if self._has_keys:
            parts.append("Ctrl-] ? for help")
        return printable(" | ".join(parts)).replace("\n", " ")

    # -- what happens ---------------------------------------------------------------------------------------

    def _live(self) -> Outcome:
        script, machine = self.script, self.machine
        self._limit("launching", script.launch_timeout)
        machine.launch(timeout=self._left(script.launch_timeout))
        if script.stdin in {"terminal", "raw"}:
            self._talk()
        console: str | None = None
        for number, step in enumerate(script.steps, 1):
            if step.kind == "on":
                console = step.text
            else:
                self._step(step, number, console)
        if script.stdin == "pipe":
            self._talk()
        if script.then == "shutdown":
            return Outcome(RunStatus.OK, f"{_count(script.steps)} done")
        timeout = script.timeout if script.then == "wait" else None
        self._limit("waiting for the guest to end", timeout)
        machine.wait(timeout=self._left(timeout))
        return of_ending(machine, met=True)

    def _step(self, step: Step, number: int, console: str | None) -> None:
        seconds = STEP_TIMEOUT if self.script.timeout is None else self.script.timeout
        self._limit(f"{number}/{len(self.script.steps)} {step}", seconds)
        began = time.monotonic()
        met = False
        try:
            said = step.do(self.machine, console, self._left(seconds) or 0.0)
            met = True
        finally:
            self.done.append(Done(step, met, time.monotonic() - began))
        if said is not None:
            self.display.message(said)

    def _end(self, outcome: Outcome) -> Outcome:
        if outcome.status is RunStatus.VERDICT:
            self._hear_last_words()
        machine = self.machine
        if self.script.hold and outcome.status in _HELD and machine.state is State.RUNNING:
            self._hold(outcome)
        if machine.state in _ALIVE:
            error = self._stop()
            outcome = of_error(machine, error) if error is not None and outcome.good else outcome
        seen = self._verdicts()
        if outcome.good and seen:
            return of_verdict(seen[0])
        return outcome

    def _hold(self, outcome: Outcome) -> None:
        """Until somebody releases it, or interrupts, or it ends."""
        self._limit("held, for somebody to look at it", None)
        self.display.message(f"{outcome.message}: kept for a look, and Ctrl-C ends it")
        hold = self.machine.hold(outcome.message, keep=True)
        try:
            with self._interrupts.raising():
                while self.machine.state is State.RUNNING and not hold.released:
                    with contextlib.suppress(MachineTimeout):
                        self.machine.wait_released(timeout=_LOOK)
        except Interrupted:
            pass
        finally:
            hold.release()

    def _stop(self) -> VMError | None:
        """Shut down; in a thread, so that an interrupt kills at once. What that raised."""
        self._limit("stopping", self.script.stop_timeout)
        errors: list[VMError] = []

        def shut_down() -> None:
            try:
                self.machine.shutdown(guest=self.script.ask_guest, timeout=self.script.stop_timeout)
            except VMError as error:
                errors.append(error)

        thread = threading.Thread(target=shut_down, name="vmfsm-stopping")
        thread.start()
        while thread.is_alive():
            try:
                with self._interrupts.raising():
                    thread.join()
            except Interrupted as interrupt:
                if interrupt.why in _ALONG:
                    continue
                self.display.message(f"killing {self.machine.name}")
                self._kill()
                thread.join()
                return None
        return errors[0] if errors else None

    def _kill(self) -> None:
        with contextlib.suppress(VMError):
            self.machine.kill()

    def _hear_last_words(self) -> None:
        """A kernel that panics says why after it has said that."""
        self._limit("the guest's last words", _LAST_WORDS)
        until = time.monotonic() + _LAST_WORDS
        self.display.last_output = max(self.display.last_output, time.monotonic() - _SAID / 2)
        with contextlib.suppress(Interrupted), self._interrupts.raising():
            while (
                self.machine.state is State.RUNNING
                and time.monotonic() < until
                and time.monotonic() - self.display.last_output < _SAID
            ):
                with contextlib.suppress(VMError):
                    self.machine.wait(timeout=_SAID / 10)

    # -- what comes of it -----------------------------------------------------------------------------------

    def _of_interrupt(self, interrupt: Interrupted) -> Outcome:
        if interrupt.why == "kill":
            self._kill()
        elif self.machine.state in _ALIVE:
            self.display.message(f"stopping {self.machine.name} (Ctrl-C kills it)")
        script = self.script
        if script.then == "keep" and len(self.done) == _real(script.steps) and interrupt.why not in _OUTPUT:
            return Outcome(RunStatus.OK, of_interrupt(interrupt.why).message)
        return of_interrupt(interrupt.why)

    def _of_error(self, error: Exception) -> Outcome:
        outcome = of_error(self.machine, error)
        if outcome.status is RunStatus.TIMEOUT and self._total.expired:
            where = self._doing.removeprefix("waiting for ")
            return outcome._replace(message=f"the total of {self._total.timeout:g} s was over in: {where}")
        if self.done and not self.done[-1].met:
            step = cut(str(self.done[-1].step), _LONGEST)
            where = f"{step}, step {len(self.done)} of {_real(self.script.steps)}"
            return outcome._replace(message=f"{where}: {outcome.message}")
        return outcome

    def _verdicts(self) -> list[Verdict]:
        try:
            seen = self.machine.verdicts.seen
        except ConfigError:  # nobody looks for them
            return []
        return [verdict for verdict in seen if verdict.kind not in self.script.allowed]

    # -- small things ---------------------------------------------------------------------------------------

    def _talk(self) -> None:
        how = self.script.stdin
        talking = Talking(
            self.machine,
            terminal=how != "pipe",
            interrupts=how != "raw",
            ask=self._interrupts.interrupt,
            tell=self.display.verdict,
            status=self.status,
        )
        self._talking.enter_context(talking)
        self._has_keys = how != "pipe"

    def _limit(self, doing: str, seconds: float | None) -> None:
        self._doing = doing
        limits = [
            left for left in (self._total.remaining(), Deadline(seconds).remaining()) if left is not None
        ]
        self._doing_until = time.monotonic() + min(limits) if limits else None

    def _left(self, seconds: float | None) -> float | None:
        """Seconds for a call, which scales them: no more than what is left of the total."""
        remaining = self._total.remaining()
        if remaining is None or self._total.timeout is None or self.script.total_timeout is None:
            return seconds
        scale = self._total.timeout / self.script.total_timeout if self.script.total_timeout else 1.0
        return remaining / scale if seconds is None else min(seconds, remaining / scale)

    def _note_event(self, event: dict[str, object]) -> None:
        self._last_event = str(event.get("event")), time.monotonic()


def _real(steps: Sequence[Step]) -> int:
    return sum(step.kind != "on" for step in steps)


def _count(steps: Sequence[Step]) -> str:
    number = _real(steps)
    return "1 step" if number == 1 else f"{number} steps"
