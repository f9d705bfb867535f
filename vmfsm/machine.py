"""`Machine`: what users hold. Its methods ask the launch on the I/O thread, and wait."""

import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from . import config, evidence, holding, present, serving
from .caller import Caller, in_hook_of
from .clock import Clock
from .deadline import Deadline
from .debuggers import DebuggerWatch
from .errors import (
    ConfigError,
    Evidence,
    LaunchError,
    MachineTimeout,
    PluginError,
    TransitionError,
    Verdict,
    VMError,
    describe,
)
from .exit_guard import ExitGuard
from .failures import Failures, words_of, words_of_verdict
from .hold_modes import BREAKPOINT, hold_modes, is_failure
from .holds import Hold, Holds
from .iothread import IOThread
from .judging import ACTIONS, Action, judge
from .launch import Launch
from .lifecycle import Event, Lifecycle, Reason, State, Transition
from .marks import Marks, Step, check_data
from .observers import Observers
from .onlookers import is_onlooker, looking_on
from .plugins import PluginInfo, claim, give_back, load
from .redaction import Secrets
from .reports import plugin_errors
from .timeline import Record, Timeline
from .waits import Wait, Waits
from .workers import Workers

if TYPE_CHECKING:
    from .jsonable import JSON
    from .offers import QMP, Console, FDs, Log, Migration, Snapshots, Verdicts

T = TypeVar("T")
E = TypeVar("E", bound=VMError)
_numbers = itertools.count(1)
_MOST_VERDICTS = 20


class Machine:
    """A QEMU virtual machine and its life.

    :param binary: QEMU's: a path, or a name to look for in `PATH`.
    :param args: QEMU's arguments, after those of the plugins.
    :param name: for messages and the names of files; made up where it is not given.
    :param wrapper: what to put before QEMU's command line.
    :param env: differences to this process's environment; `None` as a value takes a variable away.
    :param cwd: QEMU's working directory.
    :param display: for `-display`; `None` leaves the option out.
    :param accel: for `-accel`; `"best"` chooses at each launch the best one that works for this binary (see
        `capabilities`); `None` leaves the option out, so that QEMU or `args` decide.
    :param log_dir: an existing directory of the user's for logs that are to be kept.
    :param base_dir: where the private directory (0700) is made for each launch; the system's place for
        temporary files without it.
    :param expected_exits: exit statuses that are a good ending when QEMU ends unasked.
    :param plugins: plugin objects to add, or to use instead of the installed one of the same name.
    :param block: names of installed plugins not to load.
    :param options: options for the installed plugins, by plugin.
    :raises ConfigError: for what is wrong with any of these.
    :raises PluginLoadError: for an installed plugin that is broken.

    Starts nothing. All members may be used from any thread. Times are seconds; `None` as a timeout is no
    limit; a negative one is a `ConfigError`. A call returns or raises at the latest `GRACE` (2) seconds after
    its deadline, unless a plain hook is still running in the calling thread. After `fork` a machine belongs
    to the parent: in the child its methods raise `TransitionError`.
    """

    def __init__(
        self,
        binary: "str | os.PathLike[str]",
        args: Sequence[str] = (),
        *,
        name: str | None = None,
        wrapper: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        cwd: "str | os.PathLike[str] | None" = None,
        display: str | None = "none",
        accel: str | None = None,
        log_dir: "str | os.PathLike[str] | None" = None,
        base_dir: "str | os.PathLike[str] | None" = None,
        expected_exits: Iterable[int] = (0,),
        plugins: Sequence[object] = (),
        block: Sequence[str] = (),
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        name = f"vm-{os.getpid()}-{next(_numbers)}" if name is None else name
        present.is_shown()
        self._config = config.check(
            binary, args, name, wrapper, env, cwd, display, accel, log_dir, base_dir, expected_exits
        )
        self._hold_modes = hold_modes()
        self._plugins = load(plugins, block, options)
        self._pid_of_owner = os.getpid()
        self._lifecycle = Lifecycle(name)
        self._timeline = Timeline()
        self._secrets = Secrets()
        self._secrets.learn_command(self._config.args)
        self._waits = Waits()
        self._marks = Marks(self._secrets, self._add_mark)
        self._verdicts: tuple[Record, ...] = ()
        """The records of the last ones, which the timeline may have lost meanwhile."""
        self._observers = Observers(self, name, self._plugins)
        self._clock = Clock()
        self._holds = Holds(self._clock, functools.partial(holding.ended, self))
        self._hold_was_told = False
        self._launch: Launch | None = None
        self._asked: tuple[int, object] | None = None
        """The launch that was asked for last, and by which thread; `_begun`: that which has begun last."""
        self._begun: object = None
        self._failures = Failures()
        """Of the last launch, and of what is before the first."""
        claim(plugins)
        try:
            self._tell_configured()
        except BaseException:
            give_back(plugins)
            raise
        present.enter(self)

    def __repr__(self) -> str:
        state, why, since = self._lifecycle.now
        reason = f" ({why.value})" if why else ""
        held = f" held ({self.held})" if self.held else ""
        pid = f" pid={self.pid}" if self.pid else ""
        seconds = time.monotonic() - since
        return f"<Machine {self.name} {state.value}{reason} since {seconds:.1f} s{held}{pid}>"

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def state(self) -> State:
        return self._lifecycle.state

    @property
    def reason(self) -> Reason | None:
        """Why it is in this state; `None` where there is nothing to explain."""
        return self._lifecycle.reason

    @property
    def since(self) -> float:
        """When the state was entered: seconds on the monotonic clock."""
        return self._lifecycle.since

    @property
    def history(self) -> tuple[Transition, ...]:
        """Every change of state, over all launches."""
        return self._lifecycle.history

    @property
    def timeline(self) -> tuple[Record, ...]:
        """The last records of what happened, bounded in number and size."""
        marks = self._marks.on_their_way()  # first, so that none is missed that gets there meanwhile
        records = self._timeline.records()
        return (*records, *(mark for mark in marks if mark not in records)) if marks else records

    @property
    def pid(self) -> int | None:
        """The process id of QEMU (or of what wraps it) while that is alive."""
        launch = self._launch
        if launch is None or launch.process is None or launch.process.ended:
            return None
        return launch.process.pid

    @property
    def exit_status(self) -> int | None:
        """Of the last launch: a status, or minus the number of the signal that QEMU died of.

        `None` while it is alive, where there was no process, and where the host program ignores SIGCHLD, so
        that the system threw the status away.
        """
        return self._launch.exit_status if self._launch else None

    @property
    def failure(self) -> str | None:
        """Why the launch in progress, or the last one, counts as failed, in one line; `None` if it does not.

        The first of: an exception left the `with` block (or `note_failure` was told one), the launch failed,
        a verdict ended waits or QEMU, the machine ended otherwise than it was asked to. Without any of those,
        its last wait for the guest, if that timed out or was ended by QEMU's end or a panic, or its last call
        of another kind, if that timed out; a later one that does well takes that back, until the machine is
        ended. `docs/endings.md` has the details.
        """
        return self._failures.why

    @property
    def command(self) -> tuple[str, ...]:
        """The command line of the last launch; without what plugins add before there was one."""
        if self._launch is not None:
            return self._launch.command
        return (*self._config.wrapper, self._config.binary, *self._config.args)

    @property
    def run_state(self) -> str | None:
        """QEMU's own run state (`running`, `paused`, `prelaunch`, …; QMP reference, `RunState`).

        Kept from events, so it never waits. `None` where no QEMU lives or there is no monitor to tell.
        """
        return cast("str | None", getattr(self._plugins.get("qmp"), "run_state", None))

    @property
    def plugins(self) -> "tuple[PluginInfo, ...]":
        """What is loaded, from where and with which options, in the order of set-up hooks. Never waits."""
        return self._plugins.infos()

    def snapshot(self) -> "dict[str, JSON]":
        """All that is known of the machine at this moment, for JSON: `docs/snapshot.md` has the fields.

        Never waits: from any thread, hooks and the I/O thread among them, in any state, whatever QEMU or
        somebody's hook is doing; in a forked child it shows how things were at the fork. Without the
        machine's secrets. State, reason and history are of one moment; the rest is read one after the other.
        """
        from . import snapshot

        return snapshot.take(self)

    def diagram(self, format: str = "mermaid") -> str:  # noqa: A002 - what it is
        """The lifecycle with the way that this machine has gone, and where it is. Never waits.

        Arrows say how often they were taken, and for which reason the last time.

        :param format: `"mermaid"`, or `"graphviz"` for `dot`: text for that.
        :raises ConfigError: for another one.
        """
        from . import diagram

        return diagram.draw(self.history, format)

    # -- what its users say ---------------------------------------------------------------------------------

    def trace(self, step: str, /, **data: object) -> Step:
        """A piece of a test, for the timeline: `with machine.trace("install", disk=size):`.

        A record when it begins, with `data`, and one when it is over, with the seconds and the exception that
        left it, which goes on. Steps may be nested, also around `await`; from any thread, hooks and the I/O
        thread among them, in any state. Never waits.

        :raises ConfigError: for what is no text, and data that is named as what the records have already.
        :raises TransitionError: in a forked child.
        """
        self._refuse_in_child("trace")
        check_data("step", data, step, "step")
        return Step(self._marks, step, data)

    def note(self, text: str, /, **data: object) -> None:
        """A word for the timeline. As `trace`, and at one moment."""
        self._refuse_in_child("note")
        check_data("note", data, text, "text")
        self._marks.mark("note", {"text": text, **data})

    def note_failure(self, error: BaseException | str, /) -> None:
        """Say that the test has failed, where no exception leaves the `with` block for it to be seen.

        For test runners, in a hook of theirs. It is of the launch in progress, or the last; see `failure`.
        From any thread, hooks and the I/O thread among them, in any state. Never waits, with one exception:
        where the machine had ended by then, and had not failed, the hook `launch_ended` is run again, for 30
        seconds at most. Not when called on the I/O thread or in a hook of this machine.

        :param error: what went wrong: of an exception, its type and the first line of what it says.
        :raises ConfigError: for what is neither an exception nor a text, and for an empty one.
        :raises TransitionError: in a forked child.
        """
        self._refuse_in_child("note_failure")
        is_news = not self._failures.is_certain
        self._note_failure(words_of(error), by="note")
        if is_news:
            serving.tell_ended_again(self)

    @property
    def secrets(self) -> Secrets:
        """What is not shown of this machine; `secrets.add` adds to it."""
        return self._secrets

    # -- what plugins offer ---------------------------------------------------------------------------------

    def plugin(self, name: str) -> Any:
        """The object of a loaded plugin.

        :raises ConfigError: where there is none of this name.
        """
        plugin = self._plugins.get(name)
        if plugin is None:
            loaded = ", ".join(self._plugins)
            raise ConfigError(
                f"{self.name}: no plugin {name!r} (loaded: {loaded})", field=name, machine=self.name
            )
        return plugin

    @property
    def qmp(self) -> "QMP":
        """The monitor. :raises ConfigError: where the plugin is not loaded."""
        return cast("QMP", self.plugin("qmp"))

    @property
    def console(self) -> "Console":
        """The first console. :raises ConfigError: where the plugin is not loaded."""
        return next(iter(self.consoles.values()))

    @property
    def consoles(self) -> "Mapping[str, Console]":
        """The consoles by name. :raises ConfigError: where the plugin is not loaded."""
        return cast("Mapping[str, Console]", self.plugin("console").consoles)

    @property
    def fds(self) -> "FDs":
        """Descriptors for QEMU. :raises ConfigError: where the plugin is not loaded."""
        return cast("FDs", self.plugin("fdpass"))

    @property
    def log(self) -> "Log":
        """QEMU's output. :raises ConfigError: where the plugin is not loaded."""
        return cast("Log", self.plugin("logs"))

    @property
    def snapshots(self) -> "Snapshots":
        """Snapshots of disks and memory. :raises ConfigError: where the plugin is not loaded."""
        return cast("Snapshots", self.plugin("snapshots"))

    @property
    def migration(self) -> "Migration":
        """To another machine, or a file. :raises ConfigError: where the plugin is not loaded."""
        return cast("Migration", self.plugin("migration"))

    @property
    def verdicts(self) -> "Verdicts":
        """What went wrong in the guest. :raises ConfigError: where the plugin is not loaded."""
        return cast("Verdicts", self.plugin("verdicts"))

    # -- lifecycle ------------------------------------------------------------------------------------------

    def launch(self, timeout: float | None = 30) -> Self:
        """Start QEMU and wait until every plugin is ready.

        From `configured`, `stopped` or `failed` to `running`; returns the machine.

        :raises LaunchError: when that fails; QEMU is gone then, and what was set up is cleaned up. Where not
            even the framework's own threads can be started nothing has begun, and the state is as it was.
        :raises TransitionError: in other states; nothing has changed then.
        """
        __tracebackhide__ = True
        deadline = self.deadline(timeout)
        try:
            io = self._io("launch")
            ExitGuard.get(), Workers.get()  # neither can be made any more when the interpreter exits
        except (OSError, RuntimeError) as lack:  # of descriptors, or threads
            error = LaunchError(f"{self.name}: launch failed: {lack}", machine=self.name, state=self.state)
            error.command = self.command
            raise error from lack
        caller = Caller(io, Wait("launch", deadline))
        try:
            self._asked = threading.get_ident(), caller
            io.post(self._begin, io, caller, deadline)
            serving.serve(self, caller, deadline, "launch")
        except MachineTimeout as late:  # the I/O thread is held up; it will end the launch as soon as it can
            error = LaunchError(str(late), machine=self.name, state=self.state)
            error.command = self.command
            raise self._with_evidence(error) from late
        except VMError as error:
            raise self._redacted(error) from error.__cause__
        except BaseException as interrupt:
            serving.hand_over(self, io, caller, interrupt)
            raise
        return self

    def shutdown(self, *, guest: bool = False, timeout: float | None = 30) -> None:
        """End QEMU, gently first and by force if it must be; clean up; to `stopped` or `failed`.

        :param guest: ask the guest first, by the power button.
        :raises AbnormalExit: when it had to be forced, or had ended badly and this thread was not told yet.
        :raises PluginError: when clean-up hooks raised.
        :raises GuestPanicked: when QEMU ended for a panic that nobody was told of.
        :raises MachineTimeout: when something holds up the clean-up; QEMU was sent SIGKILL even so.
        :raises TransitionError: inside a hook of this machine, on the I/O thread, in a forked child.

        Nothing happens where nothing is alive. From another thread during `launch` it cancels that.
        """
        __tracebackhide__ = True
        if not isinstance(guest, bool):
            raise ConfigError(f"guest must be True or False, not {guest!r}", field="guest", machine=self.name)
        deadline = self.deadline(timeout)
        self._refuse_in_child("shutdown")
        self._catch_up(deadline)
        launch = self._launch
        if launch is None:
            return
        self._io("shutdown")
        was_over = serving.end(self, launch, "shutdown", deadline, guest=guest)
        if launch.had_run and not launch.interrupted:
            self._raise(launch.ending_error(threading.current_thread(), learned=not was_over))

    def kill(self, timeout: float | None = 10) -> None:
        """End QEMU at once with SIGKILL, in any state, before waiting for anything; clean up.

        :raises PluginError: when clean-up hooks raised.
        :raises MachineTimeout: when the clean-up takes longer; QEMU was sent SIGKILL even so.
        :raises TransitionError: inside a hook of this machine, on the I/O thread, in a forked child.
        """
        __tracebackhide__ = True
        deadline = self.deadline(timeout)
        self._refuse_in_child("kill")
        self._catch_up(deadline)
        launch = self._launch
        if launch is None:
            self._holds.end()
            return
        self._io("kill")
        was_over = serving.end(self, launch, "kill", deadline, at_once=True)
        if not was_over and launch.errors:
            if launch.final is not None and launch.final[0] is State.STOPPED:
                launch.told.add(threading.current_thread())  # that is all there is to tell
            raise self._with_evidence(plugin_errors(launch.errors))

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the machine has ended, which somebody else causes; its exit status.

        :raises AbnormalExit: when it ended badly.
        :raises MachineTimeout: when it has not ended by then; nothing has changed.
        :raises GuestPanicked: when that happens meanwhile.
        :raises PluginError: when clean-up hooks raised.
        :raises TransitionError: when it was never launched.
        """
        __tracebackhide__ = True
        deadline = self.deadline(timeout)
        self._refuse_in_child("wait")
        launch = self._launched("wait")
        self._io("wait")
        result = launch.calls.run_in_thread(
            launch.until_ended(), deadline, "wait", of_guest=True, needs_qemu=False, at_once=False
        )
        try:
            # Where it has ended, it is what is made of that, a bundle say, that takes longer.
            if launch.final is None or not isinstance(result.error, MachineTimeout):
                self._raise(result.error)
        finally:
            del result  # see `_raise`
        launch.told.discard(threading.current_thread())
        self._raise(launch.ending_error(threading.current_thread(), learned=False))
        return launch.exit_status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid_of_owner:
            return  # a forked child leaves the block; the machine is its parent's
        try:
            try:
                if error is not None:
                    if is_failure(error):
                        self._note_failure(describe(error), by="with")
                        serving.tell_ended_again(self)
                    holding.hold_failure(self, error)
            finally:
                self._holds.release(*self._holds.kept_in(threading.get_ident()))  # what else would?
                self.shutdown()
        except VMError as trouble:
            if error is None:
                raise
            self._add_bundle(error)
            error.add_note(f"and with machine {self.name}: {describe(trouble)}")
            for note in getattr(trouble, "__notes__", ()):
                if note not in error.__notes__:  # both may show what was seen last
                    error.add_note(note)

        else:
            if error is not None:
                self._add_bundle(error)

    def _add_bundle(self, error: BaseException) -> None:
        path = getattr(self._plugins.get("bundle"), "path", None)
        if path is not None:
            error.add_note(f"{self.name}: bundle: {path}")

    # -- holding it ------------------------------------------------------------------------------------------

    def hold(self, reason: str | None = None, *, keep: bool = False) -> Hold:
        """Let no deadline and no kill timer of this machine run out, until this hold is released.

        Never waits; in any state, any number of times by any threads, also on the I/O thread and in hooks. It
        is of the machine, not of one launch. The clock of the machine goes on with the last release.

        :param reason: for those who wonder; without it, they are told the thread.
        :param keep: `shutdown` waits for the release before it asks QEMU to go, and a verdict does not end
            QEMU. `kill` ends the hold, and so does an interrupt of `launch`, `shutdown` or `kill`.
        :raises ConfigError: for a `reason` that is no text, a `keep` that is neither `True` nor `False`.
        :raises TransitionError: in a forked child, and when the interpreter exits.
        """
        if reason is not None and not isinstance(reason, str):
            raise ConfigError(f"reason must be a text, not {reason!r}", field="reason", machine=self.name)
        if not isinstance(keep, bool):
            raise ConfigError(f"keep must be True or False, not {keep!r}", field="keep", machine=self.name)
        self._refuse_in_child("hold")
        return holding.begin(self, reason, keep=keep)

    def release(self) -> None:
        """End all holds, whoever has them. Never waits; from any thread.

        :raises TransitionError: in a forked child.
        """
        self._refuse_in_child("release")
        self._holds.end()

    @property
    def held(self) -> str | None:
        """Why it is held, or by which thread; `None` where it is not."""
        return str(self._holds) or None

    def wait_released(self, timeout: float | None = None) -> None:
        """Wait until nobody holds it; at once where nobody does.

        :raises MachineTimeout: when somebody still does by then. This time goes on while it is held.
        :raises TransitionError: on the I/O thread, in a forked child.
        """
        deadline = Deadline(timeout)
        self._io("wait_released", in_hooks=True)
        if not holding.wait(self, "wait_released", lambda: not self._holds.held, deadline):
            error = MachineTimeout(f"{self.name}: held for {deadline.timeout:g} s and on: {self._holds}")
            error.operation, error.timeout = "wait_released", deadline.timeout
            raise self._with_evidence(error)

    # -- for plugins ----------------------------------------------------------------------------------------

    def run(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        timeout: float | None,
        operation: str,
        of_guest: bool = False,
    ) -> T:
        """Run `coroutine` on the I/O thread and wait for it: to its end, the deadline, or the end of QEMU.

        :param operation: what it does, for messages.
        :param of_guest: what it waits for comes from the guest, so that a verdict about that ends the wait.
        :raises MachineTimeout: when the deadline is over first; the coroutine is cancelled.
        :raises MachineDied: when QEMU ends first: once the machine is in its final state, or at the deadline
            if that is sooner, or at once inside of its hooks.
        :raises GuestPanicked: with `of_guest`.
        :raises TransitionError: when the machine was never launched, or on the I/O thread.

        What the coroutine raises is raised here. An exception in the waiting thread cancels it.
        """
        __tracebackhide__ = True
        try:
            deadline = self.deadline(timeout)
            self._io(operation, in_hooks=True)
            launch = self._running(operation)
        except BaseException:
            coroutine.close()
            raise
        result = launch.calls.run_in_thread(
            coroutine, deadline, operation, of_guest=of_guest, needs_qemu=True, at_once=in_hook_of(self)
        )
        try:
            launch.note_told(result.error)
            self._raise(result.error)
            return cast(T, result.value)
        finally:
            del result  # see `_raise`

    async def arun(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        timeout: float | None,
        operation: str,
        of_guest: bool = False,
    ) -> T:
        """`run` for coroutines: to be awaited on the I/O thread or in any other asyncio loop."""
        __tracebackhide__ = True
        try:
            deadline = self.deadline(timeout)
            self._refuse_in_child(operation)
            launch = self._running(operation)
        except BaseException:
            coroutine.close()
            raise
        result = await launch.calls.run_in_loop(coroutine, deadline, operation, of_guest=of_guest)
        try:
            launch.note_told(result.error)
            self._raise(result.error)
            return cast(T, result.value)
        finally:
            del result  # see `_raise`

    def record(self, kind: str, data: Mapping[str, object], *, size: int = 200) -> None:
        """Add a record to the timeline, without the machine's secrets. On the I/O thread only.

        :param size: about how many bytes `data` keeps alive; the timeline is bounded by it.
        """
        self._record(kind, data, size)

    def report(self, verdict: Verdict, *, action: Action | None = None) -> None:
        """Say that the guest is lost. On the I/O thread only.

        :param action: what is to follow, of `vmfsm.ACTIONS`. Without it plugins are asked (hook `judge`);
            where none has an opinion it is `"wake"`: who waits for the guest, or else will next, gets
            `GuestPanicked`, and the machine stays as it is. So it does where it is to fail, but is kept by
            a hold.
        :raises ConfigError: for another action.
        """
        if action is not None and action not in ACTIONS:
            raise ConfigError(f"action must be one of {', '.join(ACTIONS)}, not {action!r}", field="action")
        follows = action or judge(self, self.name, self._plugins, verdict)
        if follows == "none":
            return
        if follows == "fail" and self._holds.kept:
            follows = "wake"
        what = {"verdict": verdict.kind, "where": verdict.where, "action": follows, "what": verdict.what}
        record = self._record("verdict", what, 1_000)
        self._verdicts = (*self._verdicts[-_MOST_VERDICTS + 1 :], record)
        if self._launch is None:
            return
        self._launch.note_failure(words_of_verdict(verdict), by="verdict")
        if follows == "wake":
            self._launch.calls.report(verdict)
        elif follows == "fail":
            self._launch.condemn(verdict)

    def deadline(self, timeout: float | None) -> Deadline:
        """One for something of this machine's: no time passes for it while the machine is held.

        :raises ConfigError: as of `Deadline`.
        """
        return Deadline(timeout, None if is_onlooker() else self._clock)

    async def until_ended(self) -> None:
        """Wait for the final state of this launch, which somebody else causes. On the I/O thread only.

        At once where it is there already, or nothing was launched. Nothing but the caller bounds it. Not for
        hooks of this machine: its end waits for them.
        """
        if self._launch is not None:
            await self._launch.until_ended()

    def bundle(
        self,
        directory: "str | os.PathLike[str] | None" = None,
        *,
        memory: bool = False,
        timeout: float = 10,
    ) -> str:
        """Put all that can be had of the machine into a new directory; its path. See `docs/bundle.md`.

        From the first launch on, in any state; what can't be had is named in it, with the reason. The files
        are written by this process, and are for its user alone.

        :param directory: where it is made; that of the plugin's option without it, else the current one.
        :param memory: with the guest's memory.
        :param timeout: seconds for all of it; no hold stops them. What is not there by then is left out.
        :raises OSError: when no directory can be made, or its file system does not answer.
        :raises ConfigError: for what is wrong with a parameter, and where the plugin is not loaded.
        :raises MachineTimeout: when the I/O thread is held up.
        :raises TransitionError: before the first launch, on the I/O thread, in a forked child.
        """
        __tracebackhide__ = True
        deadline = Deadline(timeout)
        self._io("bundle", in_hooks=True)
        launch = self._launched("bundle")
        with looking_on("bundle"):
            result = launch.calls.run_in_thread(
                self.plugin("bundle").make(self, directory, memory=memory, timeout=timeout),
                deadline,
                "bundle",
                of_guest=False,
                needs_qemu=False,
                at_once=False,
            )
        try:
            self._raise(result.error)
            return cast(str, result.value)
        finally:
            del result  # see `_raise`

    async def abundle(
        self,
        directory: "str | os.PathLike[str] | None" = None,
        *,
        memory: bool = False,
        timeout: float = 10,
    ) -> str:
        """`bundle` for coroutines: to be awaited on the I/O thread or in any other asyncio loop."""
        __tracebackhide__ = True
        deadline = Deadline(timeout)
        self._refuse_in_child("bundle")
        launch = self._launched("bundle")
        coroutine = self.plugin("bundle").make(self, directory, memory=memory, timeout=timeout)
        with looking_on("bundle"):
            result = await launch.calls.run_in_loop(
                coroutine, deadline, "bundle", of_guest=False, needs_qemu=False
            )
        try:
            self._raise(result.error)
            return cast(str, result.value)
        finally:
            del result  # see `_raise`

    def evidence(self) -> Evidence:
        """The last of what plugins have seen in this launch, without the machine's secrets. Never waits."""
        return evidence.collect(self._launch.plan if self._launch else None, self._secrets)

    def _tell_configured(self) -> None:
        for implementation in self._plugins.implementations("configured"):
            try:
                implementation.function(*(self for _ in implementation.arguments))
            except ConfigError:
                raise
            except Exception as raised:
                error = PluginError(
                    f"{self.name}: configured of plugin {implementation.plugin!r} raised {describe(raised)}",
                    machine=self.name,
                )
                error.plugin, error.hook = implementation.plugin, "configured"
                raise error from raised

    # -- on the I/O thread ----------------------------------------------------------------------------------

    def _catch_up(self, deadline: Deadline) -> None:
        """Let a launch begin that this thread has asked for, and was interrupted before it had.

        Where the I/O thread is late with it, what ends the machine would else find nothing to end. What
        another thread asks for meanwhile is left to that: either may be first.
        """
        thread, asked = self._asked or (None, None)
        is_over = self._launch is None or self._launch.final is not None
        if thread != threading.get_ident() or asked is self._begun or not is_over or IOThread.is_current():
            return
        begun = threading.Event()

        def note() -> None:
            self._begun = asked  # also where the interrupt was so early that nothing was posted
            begun.set()

        IOThread.get().post(note)
        begun.wait(deadline.remaining())

    def _begin(self, io: IOThread, caller: Caller, deadline: Deadline) -> None:
        self._begun = caller
        if Event.LAUNCH.value not in self._lifecycle.allowed():
            caller.release(self._refused("launch"))
            return
        self._failures = Failures()
        self._launch = Launch(
            self,
            self._config,
            self._plugins,
            self._failures,
            self._fire,
            self._record,
            self._observers.told,
            io,
            deadline,
            caller,
            self._waits,
        )
        # Now, not in the task: who asks next may be served in this very turn of the loop, to be refused.
        self._fire(Event.LAUNCH, None)
        self._launch.gone.add_done_callback(lambda _: self._holds.wake())
        if caller.wait is not None:
            caller.wait.tell_begin(self._record)
        io.start(self._live(self._launch))

    async def _live(self, launch: Launch) -> None:
        ExitGuard.get().add(self)
        if BREAKPOINT in self._hold_modes:
            DebuggerWatch.get().begin()
        try:
            await launch.live()
        except BaseException as bug:  # noqa: BLE001 - whatever it is, nobody may wait for ever because of it
            await launch.give_up(bug)
        finally:
            if self._launch is launch:  # else it was launched again already
                ExitGuard.get().discard(self)

    def _fire(self, event: Event, reason: Reason | None) -> None:
        transition = self._lifecycle.fire(event, reason)
        data = {
            "event": event.value,
            "source": transition.source.value,
            "dest": transition.dest.value,
            "reason": reason.value if reason else None,
        }
        self._record("transition", data, 400, transition)

    def _record(
        self, kind: str, data: Mapping[str, object], size: int, transition: Transition | None = None
    ) -> Record:
        if self._secrets:
            data = self._secrets.redact_all(data)
        record = self._timeline.add(kind, data, size)
        self._observers.add(record, size, transition)
        return record

    def _note_failure(self, why: str, *, by: str) -> None:
        why = self._failures.note(self._secrets.redact(why))
        with contextlib.suppress(OSError, RuntimeError):  # there can be no I/O thread; and it is known here
            self._marks.mark("failure", {"error": why, "by": by})

    def _add_mark(self, record: Record, size: int) -> None:
        self._timeline.append(record, size)
        self._observers.add(record, size)

    def _kill_now(self) -> None:
        """Send SIGKILL, if a QEMU is alive, and see to it that none is started. For the exit guard."""
        if self._launch is not None:
            self._launch.kill_now()

    # -- in the calling thread ------------------------------------------------------------------------------

    def _io(self, call: str, *, in_hooks: bool = False) -> IOThread:
        """The I/O thread, if the caller may wait for it."""
        self._refuse_in_child(call)
        io = IOThread.get()
        io.refuse_inside(call, self.name)
        if not in_hooks and in_hook_of(self):
            raise TransitionError(
                f"{self.name}: {call} was called inside a hook of this machine, which it would wait for",
                event=call,
                machine=self.name,
                state=self.state,
            )
        return io

    def _refuse_in_child(self, call: str) -> None:
        if os.getpid() != self._pid_of_owner:
            raise TransitionError(
                f"{self.name}: {call} was called in a forked child; the machine belongs to process "
                f"{self._pid_of_owner}",
                event=call,
                machine=self.name,
                state=self.state,
            )

    def _refused(self, call: str) -> TransitionError:
        allowed = self._lifecycle.allowed()
        return TransitionError(
            f"{self.name}: cannot {call} in state {self.state.value} (allowed: {', '.join(allowed)})",
            event=call,
            allowed=allowed,
            machine=self.name,
            state=self.state,
        )

    def _launched(self, operation: str) -> Launch:
        if self._launch is None:
            raise self._refused(operation)
        return self._launch

    def _running(self, operation: str) -> Launch:
        launch = self._launch
        if launch is None or (launch.final is not None and not launch.had_run):
            raise self._refused(operation)
        if launch.process is None and in_hook_of(self):
            raise TransitionError(
                f"{self.name}: {operation} would wait for a QEMU that is started after pre_launch only",
                event=operation,
                machine=self.name,
                state=self.state,
            )
        return launch

    def _raise(self, error: BaseException | None) -> None:
        __tracebackhide__ = True
        try:
            if error is not None:
                raise self._with_evidence(error) if isinstance(error, VMError) else error
        finally:
            # A frame that knows the exception whose traceback knows it is a cycle, which keeps alive all that
            # the callers hold, until the garbage collector finds it.
            del error

    def _with_evidence(self, error: E) -> E:
        return self._redacted(evidence.complete(error, self))

    def _redacted(self, error: E) -> E:
        return error.redact(self._secrets.redact) if self._secrets else error
