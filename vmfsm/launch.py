"""One launch of a machine: from `launching` to its final state, as one coroutine on the I/O thread.

`Launch.live` reads as the life of a machine: set up, run, end. What can come from elsewhere at any time is
told to it and only noted: QEMU has ended (`gone`), somebody asks for the end (`asked`).
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import oom
from .alarm import Alarm
from .caller import Caller, Runner
from .calls import Calls
from .companion import Companion
from .companions import Companions
from .config import BEST, Config
from .deadline import Deadline
from .descriptors import check_fd
from .ending import PANIC, Facts, final_state
from .errors import (
    GuestPanicked,
    LaunchError,
    MachineDied,
    MachineTimeout,
    PluginError,
    TransitionError,
    Verdict,
    VMError,
    describe,
)
from .failures import Failures
from .hold_modes import is_failure
from .hookcalls import CLEANUP_GRACE, HookCalls
from .iothread import IOThread, outcome
from .lifecycle import Event, Reason, State
from .losses import Losses
from .ownership import Owned, Ownership
from .paths import in_full
from .plan import LaunchPlan, Polite
from .plugins import PluginSet
from .preparation import compose_command, prepare
from .process import REAP, Process, differences, find_binary
from .redaction import redact_environment
from .reports import (
    Failure,
    abnormal_exit,
    describe_exit,
    how_it_ended,
    launch_error,
    machine_died,
    plugin_errors,
    why_launch_failed,
)
from .stopping import stop
from .waits import Waits

if TYPE_CHECKING:
    from .machine import Machine

_LOGGER = logging.getLogger("vmfsm.launch")

LAST_BREATH = 0.25
"""Seconds for QEMU to turn out to have ended, where a set-up hook failed or a companion ended."""
ANNOUNCED_END = 10.0
"""The same, where QEMU has said that it ends (event SHUTDOWN): until it has takes a while on a busy host."""
LAST_WORDS = 0.5
"""Seconds for reading what a QEMU that has ended left in its sockets."""
HURRY = 2.0
"""Seconds until SIGKILL when whoever waits for the end is interrupted."""
UNASKED_CLEANUP = 30.0
"""Seconds for the clean-up hooks after a QEMU that ended unasked; for `launch_ended` after a late launch."""


class Launch:
    """One launch. On the I/O thread only, but for `kill_now` and plain attributes that are read."""

    def __init__(
        self,
        machine: "Machine",
        config: Config,
        plugins: PluginSet,
        failures: Failures,
        fire: Callable[[Event, Reason | None], object],
        record: Callable[[str, dict[str, object], int], object],
        observers_told: Callable[[], Awaitable[None]],
        io: IOThread,
        deadline: Deadline,
        caller: Caller,
        waits: Waits,
    ) -> None:
        self.io = io
        self.name = config.name
        self.caller = caller
        self.failures = failures
        """What speaks for it that it counts as failed."""
        self.plan: LaunchPlan | None = None
        self.process: Process | None = None
        self.command: tuple[str, ...] = (*config.wrapper, config.binary, *config.args)
        self.environment: Mapping[str, str | None] | None = None
        """How QEMU's differs from this process's, as far as that is known; without its marks."""
        self.cwd: str | None = None
        """QEMU's working directory, in full, where there was a QEMU to start in it."""
        self.exit_status: int | None = None
        self.had_run = False
        """It got as far as `running`."""
        self.gone: asyncio.Future[None] = io.loop.create_future()
        """Done when QEMU has ended and what it left in its sockets has been read."""
        self.asked: asyncio.Future[None] = io.loop.create_future()
        """Done when somebody asked for the end."""
        self.calls = Calls(io, config.name, self.gone, self._died, self.when_ended, waits, record, failures)
        self.final: tuple[State, Reason] | None = None
        self.failure: LaunchError | None = None
        """Why it did not get as far as `running`."""
        self.errors: list[PluginError] = []
        """What clean-up hooks raised."""
        self.told: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        """The threads that know how it ended."""

        self._machine = machine
        self._config = config
        self._fire = fire
        self._record = record
        self._observers_told = observers_told
        self._deadline = deadline
        self._runner = Runner(io, machine)
        self._runner.caller = caller
        self._hooks = HookCalls(machine, config.name, plugins, self._runner, record)
        self._companions = Companions(config.name, self._hooks.run_plain, record, self._companion_ended)
        self._losses = Losses(config.name, io.loop)
        self._owned: Owned | None = None
        self._no_spawn = False
        self._kills: list[_Kill] = []
        """Those that reached QEMU, or may have; each adds itself, and takes back itself only."""
        self._interrupt: BaseException | None = None
        self._asked_guest = False
        self._forcings: list[object] = []
        """Likewise."""
        self._cause: str | None = None
        self._oom_kills: tuple[str, int] | None = None
        self._oom = False
        self._exited_already = False
        self._cleaned_up = False
        self._failed: Failure | None = None
        self._end_deadline: Deadline | None = None
        self._ended_deadline: Deadline | None = None
        """Of the hook `launch_ended`, where that has another."""
        self._timers: set[Alarm | asyncio.TimerHandle] = set()
        self._waiting: list[Caller] = []
        self._on_end: list[Callable[[], object]] = []
        self._ended: asyncio.Future[None] = io.loop.create_future()

    # -- told from outside ----------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """QEMU has, though the I/O thread may not have noticed. From any thread."""
        return self.process is not None and self.process.ended

    def ask(
        self, caller: Caller, deadline: Deadline, *, guest: bool = False, had_ended: bool = False
    ) -> None:
        """`caller` wants the machine to end by `deadline`, and to be released when it has.

        :param had_ended: QEMU had before the caller asked, so it did not end because of that.
        """
        if self.final is not None:
            caller.release(None)
            return
        self._waiting.append(caller)
        if caller.wait is not None:
            caller.wait.tell_begin(self._record)
        if not (self.asked.done() or had_ended or self._exited_already):
            self._end_deadline = deadline
            self._asked_guest = guest
            if self.had_run:
                self._runner.caller = caller  # else the launching caller goes on running the hooks
            self.asked.set_result(None)
        self._watch(deadline)

    def interrupt(self, caller: Caller, error: BaseException) -> None:
        """The thread inside `launch` got an exception from outside: end, and release it then."""
        if self.final is not None:
            caller.release(None)
            return
        self._interrupt = self._interrupt or error
        self._waiting.append(caller)
        self._end_deadline = Deadline(0)
        if not self.asked.done():
            self.asked.set_result(None)

    def kill_now(self, deadline: Deadline | None = None) -> None:
        """Send SIGKILL, and see to it that no process is made any more. From any thread; never waits.

        :param deadline: of who waits for the end, which may be noticed before that is told to the walk.
        """
        mine = _Kill(deadline)
        self._kills.append(mine)  # first, since the exit may be judged at any moment from then on
        self._no_spawn = True
        if self.process is not None and not self.force(signal.SIGKILL):
            self._kills.remove(mine)

    @property
    def _killed(self) -> bool:
        return bool(self._kills)

    def force(self, number: signal.Signals) -> bool:
        """Send a signal to QEMU's process group; whether it was alive to get it. From any thread."""
        return self.process is not None and self.process.signal(number)

    @property
    def interrupted(self) -> bool:
        """The thread inside `launch` got an exception from outside, and knows that from this."""
        return self._interrupt is not None

    def hurry(self, caller: Caller, interrupt: BaseException) -> None:
        """`caller`, who waits for the end, was interrupted: no more than `HURRY` seconds until SIGKILL."""
        caller.has_left(interrupt)
        if caller in self._waiting:
            self._watch(Deadline(HURRY))
        elif self._killed:
            self.ask(caller, Deadline(HURRY))  # it had not got to asking, but had begun to kill
        else:
            caller.release(None)  # it had not even asked

    def _watch(self, deadline: Deadline) -> None:
        """Kill when `deadline` is over, whatever the walk is held up by."""
        if self.final is not None or self._exited_already:
            return
        if deadline.expired:
            self._send(signal.SIGKILL, by_force=True)
        else:
            self._timers.add(Alarm(deadline, lambda: self._watch(deadline)))

    def condemn(self, verdict: Verdict) -> None:
        """The guest is lost, and the machine with it: QEMU is ended at once."""
        if self.calls.condemned is not None or self._killed or self.final is not None or self.process is None:
            self.calls.report(verdict)
            return
        self.calls.condemned = verdict
        self.force(signal.SIGKILL)

    def force_late(self) -> None:
        """The deadline is over and the I/O thread did nothing about it. From any thread."""
        self._send(signal.SIGKILL, by_force=True)

    def _send(self, number: signal.Signals, by_force: bool) -> None:
        mine = object()
        if by_force:
            self._forcings.append(mine)  # first, as in `kill_now`
        if not self.force(number) and by_force:
            self._forcings.remove(mine)

    @property
    def _forced(self) -> bool:
        return bool(self._forcings)

    @property
    def hooks_ended(self) -> Sequence[Mapping[str, object]]:
        """The implementations of hooks that have ended, as their records say it. From any thread."""
        return self._hooks.ended

    @property
    def running_hook(self) -> str | None:
        """The implementation of a hook that runs now, or what else the walk is at. From any thread."""
        return self._hooks.running or self._companions.starting

    def held_up_by(self) -> str:
        """For a message: which hook is running."""
        if self._hooks.running is not None:
            return f": {self._hooks.running} is running"
        starting = self._companions.starting
        return "" if starting is None else f": {starting}"

    async def tell_ended_again(self, deadline: Deadline) -> None:
        """Run the hook `launch_ended` once more: more is known of how it went."""
        await self.until_ended()
        self._runner.caller = None
        await self._observers_told()  # of why it is told again
        await self._hooks.clean_up("launch_ended", deadline)

    async def until_ended(self) -> None:
        if not self._ended.done():
            await asyncio.wait({self._ended})

    def when_ended(self, function: Callable[[], object]) -> None:
        """Call `function` when the final state is reached."""
        if self.final is not None:
            function()
        else:
            self._on_end.append(function)

    def ending_error(self, thread: threading.Thread, *, learned: bool) -> VMError | None:
        """What is bad about how a machine that had been running ended, unless `thread` was told already.

        :param learned: the thread waited while it happened: only then a wedged QEMU concerns it.
        """
        assert self.final is not None
        state, reason = self.final
        if thread in self.told:
            return None
        self.told.add(thread)
        operation = "the end of the machine"
        if self.calls.condemned is not None and reason is Reason.GUEST_PANICKED:
            return self.calls.condemnation(self.calls.condemned, operation).add_errors(self.errors)
        if state is State.FAILED and (learned or reason is not Reason.WEDGED):
            errors = [*self.errors, *self.calls.untold(operation)]
            error = abnormal_exit(self.name, self._describe_exit(), self.exit_status, reason, errors)
            error.__cause__ = self.failure
            return error
        if self._cause == PANIC and self.calls.has_verdict and not self.calls.was_told:
            return self.calls.take_verdict(operation)
        return plugin_errors(self.errors) if self.errors else None

    def note_told(self, error: BaseException | None) -> None:
        """This thread gets `error` now; if it is what QEMU was ended for, it knows how it ended."""
        if isinstance(error, GuestPanicked) and self.calls.condemned is not None:
            self.told.add(threading.current_thread())

    def _died(self, operation: str) -> MachineDied:
        how = self._describe_exit() + (" after the guest panicked" if self._cause == PANIC else "")
        return machine_died(
            self.name, operation, how, self.exit_status, self._judge()[1], was_over=self.final is not None
        )

    def _describe_exit(self) -> str:
        if self.process is None:
            return "QEMU was not started"
        return f"QEMU {describe_exit(self.exit_status)}" if self._exited_already else "QEMU is being ended"

    # -- the walk -------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """The whole walk, from `launching` to the final state."""
        await self._launch()
        if self._failed is None:
            assert self.process is not None
            self._fire(Event.LAUNCHED, None)
            self.had_run = True
            self._runner.caller = None
            Ownership.get().serve()
            self._tell_waits_over()
            await self._observers_told()
            self.caller.release(None)
            self._oom_kills = oom.oom_kills(self.process.pid)
            await asyncio.wait({self.gone, self.asked}, return_when=asyncio.FIRST_COMPLETED)
        await self._end()
        self._tell_waits_over()
        await self._observers_told()
        deadline = self._ended_deadline or self._end_deadline or self._unasked()
        self.errors += await self._hooks.clean_up("launch_ended", deadline)
        self._release()

    def _tell_waits_over(self) -> None:
        """Who waits for this point of the walk is released when observers have been told, of that as well."""
        self._tell_over(self.caller, None if self.had_run else self._interrupt or self.failure)
        for caller in self._waiting:
            self._tell_over(caller)
        if self.final is not None:
            self.calls.tell_end()

    @staticmethod
    def _tell_over(caller: Caller, error: BaseException | None = None) -> None:
        if caller.wait is not None:
            caller.wait.tell_end(error)

    async def _launch(self) -> None:
        """Set up; where that fails, `_failed` says what it ends as."""
        set_up: asyncio.Future[BaseException | None] = asyncio.ensure_future(self._set_up())
        lost = self._losses.fails_launch
        steps: set[asyncio.Future[Any]] = {set_up, self.gone, self.asked, lost}
        await self._deadline.first(steps)
        if set_up.done():
            error = set_up.result()
            if error is None and self._losses.any_while_launching:
                steps.discard(set_up)
                await asyncio.wait(steps, timeout=2 * LAST_BREATH, return_when=asyncio.FIRST_COMPLETED)
                error = lost.result() if lost.done() else None
            elif self.process is not None and (isinstance(error, Exception) or self.process.ended):
                # What the hook ran into may be the end of QEMU, whose sockets close before it has ended.
                await asyncio.wait(
                    {self.gone, self.asked}, timeout=LAST_BREATH, return_when=asyncio.FIRST_COMPLETED
                )
            is_lost = self._no_spawn or self.calls.condemned is not None
            ended = self.gone.done() or self.asked.done() or is_lost or self._deadline.expired
            if error is not None or ended:
                self._failed = self._explain(error)
            return
        self._failed = self._explain(lost.result() if lost.done() else None)
        if self._failed.reason is not Reason.REQUESTED:
            self.force(signal.SIGKILL)
        set_up.cancel()
        await asyncio.wait({set_up}, timeout=CLEANUP_GRACE)
        if self.process is None:  # a function that waits for a companion can't be stopped, but that can
            await self._companions.stop(self._end_deadline or self._deadline, at_once=self._killed)

    def _explain(self, error: BaseException | None) -> Failure:
        """Why the launch failed. `error` is what the set-up came to."""
        if error is not None and not isinstance(error, Exception):
            self._interrupt = self._interrupt or error
        if self._interrupt is not None:
            what = f"interrupted by {describe(self._interrupt)}"
            return Failure(State.FAILED, Reason.LAUNCH_ERROR, what, self._interrupt)
        if self._killed:
            return Failure(State.STOPPED, Reason.KILLED, "cancelled by kill()", error)
        if self.calls.condemned is not None:
            cause = self.calls.condemnation(self.calls.condemned, "launch")
            what = str(cause).removeprefix(f"{self.name}: ")
            return Failure(State.FAILED, Reason.GUEST_PANICKED, what, cause)
        if self._forced and not self.asked.done():
            error = None  # whoever launched was late to be told, and has killed it: that is no end of its own
        elif self._exited_already:
            return Failure(State.FAILED, Reason.LAUNCH_ERROR, self._describe_exit(), error)
        if self.asked.done():
            return Failure(State.STOPPED, Reason.REQUESTED, "cancelled by shutdown()", error)
        if isinstance(error, PluginError):
            what = str(error).removeprefix(f"{self.name}: ")
            return Failure(State.FAILED, Reason.HOOK_FAILED, what, error)
        if error is not None:
            return Failure(State.FAILED, Reason.LAUNCH_ERROR, str(error), error)
        what = f"not up after {self._deadline.timeout:g} s{self.held_up_by()}"
        timeout = MachineTimeout(f"{self.name}: {what}", machine=self.name, state=State.LAUNCHING)
        timeout.operation, timeout.timeout = "launch", self._deadline.timeout
        return Failure(State.FAILED, Reason.DEADLINE, what, timeout)

    async def _set_up(self) -> BaseException | None:
        try:
            self.plan = prepare(self._config, self._own)
        except OSError as error:
            if self._owned is not None:
                self._owned.end()
            return error
        assert self._owned is not None
        owned = self._owned
        if self._config.accel == BEST:
            failed = await self._choose_accelerator()
            if failed is not None:
                return failed
        failed = await self._hooks.set_up("pre_launch", self._contributor, plan=self.plan)
        for companion in self.plan.companions:
            self._machine.secrets.learn_command(companion.command)
        if failed is None and not self._no_spawn:
            failed = await self._companions.start(self.plan, owned)
        if failed is not None or self._no_spawn:
            return failed
        try:
            self._spawn(self.plan, owned)
        except Exception as error:  # noqa: BLE001 - whatever a plugin put on the plan
            return error
        return await self._hooks.set_up("post_launch", self._contributor)

    def _own(self, directory: str) -> None:
        self._owned = Ownership.get().own(self.name, directory)

    async def _choose_accelerator(self) -> BaseException | None:
        from .capability import Question  # which launches machines itself

        question = Question(self._config.binary, self._config.env, self._deadline)
        chosen: list[str] = []
        self._hooks.running = "the choice of an accelerator"
        try:
            error = await self._hooks.run_plain(lambda: chosen.append(question.best_accelerator()))
        except asyncio.CancelledError:
            question.cancel()
            raise
        self._hooks.running = None
        if error is None:
            self._config = self._config._replace(accel=chosen[0])
        return error

    def _contributor(self, plugin: str) -> None:
        assert self.plan is not None
        self.plan.contributor = plugin

    def _adopt(self, plan: LaunchPlan, owned: Owned) -> None:
        assert plan.adopted is not None
        args = plan.adopted.args
        self.command = tuple(
            map(os.fsdecode, [args] if isinstance(args, str | bytes | os.PathLike) else args)
        )
        self._machine.secrets.learn_command(self.command)
        self._record("adopt", {"command": self.command, "pid": plan.adopted.pid}, 1_000)
        self.process = Process.adopt(plan.adopted, on_exit=self._exited)
        self._started(None)
        plan.pid = self.process.pid
        owned.has_process(self.process.pid, plan.sockets, plan.directories)

    def _started(self, binary: str | None) -> None:
        assert self.process is not None
        assert self.plan is not None
        paths = {
            "directory": self.plan.directory,
            "log_dir": self._config.log_dir,
            "base_dir": self._config.base_dir,
        }
        self._record("started", {"pid": self.process.pid, "binary": binary, "paths": paths}, 500)

    def _spawn(self, plan: LaunchPlan, owned: Owned) -> None:
        plan.spent = True
        if plan.adopted is not None:
            self._adopt(plan, owned)
            return
        self.command = compose_command(self._config, plan)
        executable = find_binary(self.command[0], plan.env.get("PATH"))
        for fd in plan.fds:  # before anything of ours gets the number of one that was closed meanwhile
            check_fd(fd)
        self._machine.secrets.learn_command(self.command)
        self.environment = differences(plan.env)
        self.cwd = in_full(self._config.cwd)
        environment = redact_environment(self.environment)
        what: dict[str, object] = {
            "command": self.command,
            "cwd": self._config.cwd,
            "environment": environment,
        }
        self._record("spawn", what, 1_000)
        self.process = Process.spawn(
            self.command,
            executable=executable,
            env={**plan.env, **owned.environment},
            cwd=self._config.cwd,
            fds=plan.fds,
            inherit_fds=plan.inherit_fds,
            output=plan.output,
            on_exit=self._exited,
        )
        self._started(self._config.binary if plan.wrapper else executable)
        plan.pid = self.process.pid
        owned.has_process(self.process.pid, plan.sockets, plan.directories)
        plan.close_given()
        if self._no_spawn:
            self.kill_now()

    def _companion_ended(self, companion: Companion) -> None:
        if self._killed or (self.process is not None and self.process.sent):
            return  # as it may, since QEMU was made to end
        self._losses.note(companion)
        # If that is because QEMU ends, as it is for many, QEMU will have ended in a moment.
        self._miss_in(LAST_BREATH, companion)

    def _miss_in(self, seconds: float, companion: Companion, *, again: bool = False) -> None:
        self._timers.add(self.io.loop.call_later(seconds, self._miss, companion, again))

    def _miss(self, companion: Companion, again: bool) -> None:
        """A companion has ended while QEMU lives, or before it did."""
        if self._exited_already or self._failed is not None:
            return
        if companion.exit_status == 0 and self.asked.done():
            return  # it may be because QEMU is about to end
        if companion.exit_status == 0 and self._machine.run_state == "shutdown" and not again:
            self._miss_in(ANNOUNCED_END, companion, again=True)
            return
        verdict = self._losses.decide(companion, had_run=self.had_run)
        if verdict is not None:
            self._machine.report(verdict)

    def _exited(self, status: int | None) -> None:
        if self.final is not None:
            return  # it was stuck in the kernel, and given up
        self.exit_status = status
        self._exited_already = True
        if self._oom_kills is not None and status == -signal.SIGKILL:
            file, before = self._oom_kills
            self._oom = (oom.count(file) or 0) > before
        sent = sorted(number.name for number in self.process.sent) if self.process else []
        self._record("exit", {"status": status, "sent": sent}, 200)
        self.io.start(self._hear_last_words())

    async def _hear_last_words(self) -> None:
        """Let plugins read what QEMU left in its sockets, then tell everybody that it has ended."""
        assert self.plan is not None
        words = [asyncio.ensure_future(outcome(_hear(listen))) for _, listen in self.plan.last_words]
        await asyncio.sleep(0)  # mostly they are done by then, and `asyncio.wait` would take two turns more
        late = {task for task in words if not task.done()}
        if late:
            _, late = await asyncio.wait(late, timeout=LAST_WORDS)
        for task in late:
            task.cancel()
        causes = [task.result()[1] for task in words if task not in late and not task.cancelled()]
        self._cause = next((cause for cause in causes if cause is not None), None)
        self._tell_gone()

    def _tell_gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self.calls.tell_death()

    # -- the end --------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        if self.process is None and self.plan is not None and self.plan.adopted is not None:
            assert self._owned is not None
            self._adopt(self.plan, self._owned)  # that it is to be ended is all that is known of it
            if self._no_spawn:
                self.kill_now()
        if self._failed is not None and self._failed.reason is not Reason.REQUESTED:
            self.force(signal.SIGKILL)  # gone before the caller sees the error
        self._fire(Event.QUIT, self._judge()[1])
        self._note_failed()
        if self._end_deadline is None:
            killer = next((kill.deadline for kill in tuple(self._kills) if kill.deadline is not None), None)
            self._end_deadline = killer or (self._deadline if self._failed is not None else self._unasked())
        deadline = self._end_deadline
        is_late = self._failed is not None and self._failed.reason is Reason.DEADLINE
        if is_late and deadline is self._deadline and self._hooks.has("launch_ended"):
            # All its time went by waiting for what did not come: just where one wants to be told more.
            self._ended_deadline = self._unasked()
            self.caller.wait_longer(self._ended_deadline)
        if self.plan is not None:
            self.plan.spent = True
        cleaning = asyncio.ensure_future(self._early_cleanup(deadline))
        await asyncio.sleep(0)  # mostly there is nothing to do
        if self.process is not None and not self.gone.done():
            await self._stop(self.process, cleaning, deadline)
        self.errors += await cleaning
        self._blame_companions()
        await self._companions.stop(deadline, at_once=self._killed)
        await self._kill_left()
        self._note_failed()
        self.errors += await self._hooks.clean_up("post_shutdown", deadline)
        if self.plan is not None:
            self.plan.close_given()
            self.errors += await self._hooks.cleanups(self.plan.cleanups, deadline)
            self._disown(self.plan)
        self._cleaned_up = True
        for timer in self._timers:
            timer.cancel()
        self._tell_gone()  # where there was no process, nobody else did
        if self._killed and self._failed is not None and self._failed.reason is Reason.REQUESTED:
            self._failed = self._explain(self._failed.cause)  # kill() came while shutdown() was at it
        self.final = self._judge()
        self._note_failed()
        if self._failed is not None:
            self.failure = launch_error(
                self.name,
                self._failed,
                command=self.command,
                status=self.exit_status,
                evidence=self._machine.evidence(),
                errors=self.errors,
            )
        self._fire(Event.EXITED if self.final[0] is State.STOPPED else Event.FAIL, self.final[1])

    def note_failure(self, why: str, *, by: str) -> None:
        """It counts as failed from now on, if it did not before."""
        if not self.failures.is_certain:
            why = self.failures.note(self._machine.secrets.redact(why))
            self._record("failure", {"error": why, "by": by}, 200 + len(why))

    def _note_failed(self) -> None:
        """As far as is known by now."""
        if self._interrupt is not None and not is_failure(self._interrupt):
            return
        if self._failed is not None:
            if self._failed.state is State.FAILED:
                words = self._machine.evidence().output
                self.note_failure(why_launch_failed(self._failed, words, self.command), by="launch")
        elif (self.gone.done() or self.final is not None) and self._judge()[0] is State.FAILED:
            reason = self._judge()[1]
            self.note_failure(how_it_ended(self._describe_exit(), reason), by="end")
        elif self.failures.why is not None:
            self.note_failure(self.failures.why, by="wait")
        elif self.errors:
            self.note_failure(describe(self.errors[0]), by="end")

    def _unasked(self) -> Deadline:
        return self._machine.deadline(UNASKED_CLEANUP)

    async def _kill_left(self) -> None:
        """What wrappers or companions may have moved out of their process groups.

        Or what is still in QEMU's, where it was not we who have reaped that.
        """
        if self._owned is None or self.plan is None:
            return
        is_wrapped = self.plan.is_wrapped or self.plan.wrapper
        if is_wrapped or self.plan.companions or (self._exited_already and self.exit_status is None):
            await self._owned.kill_left()

    def _disown(self, plan: LaunchPlan) -> None:
        """Unless something is left that whoever comes later may remove."""
        has_process = self.process is not None and not self._exited_already
        if self._owned is not None and not has_process and not os.path.exists(plan.directory):
            self._owned.end()

    def _blame_companions(self) -> None:
        """Those that ended before QEMU, if nobody was told: whoever ends the machine is."""
        self.errors += self._losses.untold(self.calls.take_back)
        # One that failed in the last moments may be why QEMU did, or it was just before QEMU was made to end.
        # Where QEMU ended well by itself, it was because of that.
        state, reason = self._judge()
        made_to_end = self.asked.done() or self._killed
        if state is State.FAILED or (made_to_end and reason in {Reason.REQUESTED, Reason.KILLED}):
            self.errors += self._losses.undecided(
                "while it was needed" if self.had_run else "before QEMU was up"
            )

    async def _early_cleanup(self, deadline: Deadline) -> list[PluginError]:
        await self._hooks.settled()
        return await self._hooks.clean_up("early_cleanup", deadline)

    async def _stop(
        self, process: Process, cleaning: "asyncio.Future[list[PluginError]]", deadline: Deadline
    ) -> None:
        assert self.plan is not None
        if signal.SIGKILL in process.sent:
            self.force(signal.SIGKILL)  # again: whoever sent it may have been interrupted before it had
            await asyncio.wait({self.gone}, timeout=REAP)
        else:
            await stop(
                gone=self.gone,
                cleaning=cleaning,
                deadline=deadline,
                ways=self._ways(self.plan),
                send=self._send,
                record=self._record,
            )
        if not self._exited_already:
            _LOGGER.error(
                "%s: QEMU (pid %d) has not ended after SIGKILL: stuck in the kernel", self.name, process.pid
            )

    def _ways(self, plan: LaunchPlan) -> list[tuple[str, Polite, bool]]:
        """The polite ways that apply, the guest's first."""
        ways = sorted(plan.polite, key=lambda way: not way[2])
        return [way for way in ways if self._asked_guest or not way[2]]

    def _judge(self) -> tuple[State, Reason]:
        if not self.had_run:
            failed = self._failed or self._explain(None)
            return failed.state, failed.reason
        if self._interrupt is not None:
            return State.FAILED, Reason.LAUNCH_ERROR
        if self._cleaned_up and not self._exited_already:
            return State.FAILED, Reason.WEDGED
        return final_state(
            Facts(
                ended=self._exited_already,
                exit_status=self.exit_status,
                cause=self._cause,
                expected_exits=self._config.expected_exits,
                asked=self.asked.done(),
                asked_guest=self._asked_guest,
                killed=self._killed,
                forced=self._forced,
                signals=self.process.sent if self.process else (),
                condemned=self.calls.condemned is not None,
                oom=self._oom,
            )
        )

    async def give_up(self, bug: BaseException) -> None:
        """The walk itself is broken. Nobody may wait for ever and nothing may be left because of it."""
        _LOGGER.error("%s: this is a bug in vmfsm; please report it", self.name, exc_info=bug)
        self.force(signal.SIGKILL)
        if self.process is not None:
            await asyncio.wait({self.gone}, timeout=REAP)
        await self._companions.stop(Deadline(0), at_once=True)
        if self.plan is not None:
            self.plan.close_given()
            self.errors += await self._hooks.clean_up("post_shutdown", self._unasked())
            self.errors += await self._hooks.cleanups(self.plan.cleanups, self._unasked())
        self.final = State.FAILED, Reason.LAUNCH_ERROR
        self.note_failure(f"internal error: {describe(bug)}", by="launch")
        self.failure = LaunchError(f"{self.name}: internal error: {describe(bug)}", machine=self.name)
        self.failure.__cause__ = bug
        self._tell_gone()
        for event in (Event.QUIT, Event.FAIL):
            with contextlib.suppress(TransitionError):
                self._fire(event, self.final[1])
        self._release()

    def _release(self) -> None:
        """The final state is reached and observers were told: let everybody go who waited for it."""
        if not self._ended.done():
            self._ended.set_result(None)
        for function in self._on_end:
            function()
        if not self.had_run and self.caller not in self._waiting:
            self.caller.release(self._interrupt or self.failure)
        for caller in self._waiting:
            caller.release(None)


class _Kill:
    """A SIGKILL that somebody sends."""

    def __init__(self, deadline: Deadline | None) -> None:
        self.deadline = deadline


async def _hear(listen: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
    return await listen()
