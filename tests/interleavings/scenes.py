"""What is interleaved: lives of a machine that can be held up at each transition, and what happens there."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.conftest import BUILT_IN
from tests.endings import NoGood
from tests.interleavings.scheduler import Clock, Gate, Interrupt, Posts, gate_at
from tests.waiting import LIMIT, InThread, until
from vmfsm import TABLE, Event, LaunchPlan, Machine, State, VMError, hookimpl

ALIVE_FOR = 1000.0
"""Seconds that any call in a scene may take by its clock."""

PLACES = ("before", "plain hook", "async hook", "after")
HOOKS = {row.event: row.hook for row in TABLE}
FINAL = {State.STOPPED, State.FAILED}


class Point(NamedTuple):
    """Where a life is held up: at the transition `event` of the life `life`."""

    life: str
    event: Event
    place: str

    @property
    def holds_io_thread(self) -> bool:
        return self.place in {"before", "after"}

    def __str__(self) -> str:
        return f"{self.life}-{self.event.value}-{self.place}".replace(" ", "-")


LIVES: dict[str, tuple[Event, ...]] = {
    "asked": (Event.LAUNCH, Event.LAUNCHED, Event.QUIT, Event.EXITED),  # launch(), shutdown()
    "died": (Event.QUIT, Event.FAIL),  # launch(), it exits with 3, wait()
    "broken": (Event.QUIT, Event.FAIL),  # launch(), whose last hook raises
}
"""Each transition of the table is in one of these lives, those of the ends in each way to them."""

POINTS = tuple(
    Point(life, event, place) for life, events in LIVES.items() for event in events for place in PLACES
)


class HookGate:
    """A plugin with one hook that comes to the gate, and a count of all."""

    name = "gate"

    def __init__(self, hook: str | None, gate: Gate, *, broken: bool) -> None:
        self.hook = hook
        self.gate = gate
        self.broken = broken
        self.ran: list[str] = []

    def run(self, hook: str) -> None:
        self.ran.append(hook)
        if hook == self.hook:
            self.gate()

    def raise_if_broken(self) -> None:
        if self.broken:
            self.broken = False
            raise NoGood("no good")


class PlainGate(HookGate):
    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.defer(lambda: self.ran.append("defer"))
        self.run("pre_launch")

    @hookimpl
    def post_launch(self) -> None:
        self.run("post_launch")
        self.raise_if_broken()

    @hookimpl
    def early_cleanup(self) -> None:
        self.run("early_cleanup")

    @hookimpl
    def post_shutdown(self) -> None:
        self.run("post_shutdown")


class AsyncGate(HookGate):
    async def arun(self, hook: str) -> None:
        self.ran.append(hook)
        if hook == self.hook:
            await self.gate.as_coroutine()

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        plan.defer(lambda: self.ran.append("defer"))
        await self.arun("pre_launch")

    @hookimpl
    async def post_launch(self) -> None:
        await self.arun("post_launch")
        self.raise_if_broken()

    @hookimpl
    async def early_cleanup(self) -> None:
        await self.arun("early_cleanup")

    @hookimpl
    async def post_shutdown(self) -> None:
        await self.arun("post_shutdown")


class Scene:
    """One life of one machine, held up at a point, and everybody in it."""

    def __init__(self, directory: Path, point: Point) -> None:
        self.point = point
        self.gate = Gate()
        hook = HOOKS[point.event] if point.place.endswith("hook") else None
        kind = AsyncGate if point.place == "async hook" else PlainGate
        self.plugin = kind(hook, self.gate, broken=point.life == "broken")
        self._fifo = directory / "fifo"
        os.mkfifo(self._fifo)
        self._control = os.open(self._fifo, os.O_RDWR)
        # A real process that ends as it is told. It has no monitor: SIGTERM is the polite way to end it.
        self.machine = Machine(
            "sh",
            ["-c", 'read status <"$0"; exit "$status"', str(self._fifo)],
            display=None,
            block=BUILT_IN,
            plugins=[self.plugin],
            base_dir=directory,
        )
        self.posts = Posts()
        self.clock = Clock()
        self.interrupt = Interrupt()
        self.main: list[tuple[str, BaseException | None]] = []
        """What each call of the main thread raised."""
        self.others: list[tuple[str, InThread]] = []
        """The calls of other threads."""
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._undo.callback(os.close, self._control)
        self._undo.callback(self._end)
        self._undo.enter_context(self.posts.noted())
        self._undo.enter_context(self.interrupt.heard())
        self._undo.enter_context(self.clock.in_use())
        if self.point.holds_io_thread:
            self._undo.enter_context(gate_at(self.machine, self.point.event, self.point.place, self.gate))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _end(self) -> None:
        self.gate.open()
        with contextlib.suppress(VMError):
            self.machine.kill()

    # -- the main thread ------------------------------------------------------------------------------------

    def play(self, acts: "tuple[str, ...]") -> None:
        """Live the life; at the point, `acts` happen one after the other; then all that began goes on."""
        acting = InThread(self._act, acts)
        if self._call("launch") and self.point.life == "died":
            self._call("wait")
        elif self.main[-1][1] is None:
            if self.point.event in {Event.LAUNCH, Event.LAUNCHED}:
                acting.result()
                self.settle_end()
            self._call("shutdown")
        acting.result()
        for _, other in self.others:
            other.join()
        self.settle_end()

    def _call(self, name: str) -> bool:
        error: BaseException | None = None
        try:
            getattr(self.machine, name)(timeout=ALIVE_FOR)
        except BaseException as raised:  # noqa: BLE001 - it is looked at later
            error = raised
        self.main.append((name, error))
        return error is None

    def settle_end(self) -> None:
        """An end that is under way comes; that of a machine that just runs does not."""
        self.posts.await_round()
        launch = self.machine._launch
        assert launch is not None
        ending = launch.asked.done() or self.machine.pid is None or self.machine.state is State.QUITTING
        if ending:
            until(lambda: self.machine.state in FINAL)

    # -- at the point ---------------------------------------------------------------------------------------

    def _act(self, acts: "tuple[str, ...]") -> None:
        try:
            if self.point.life == "died":
                until(lambda: self.machine._launch and self.machine._launch.calls.in_progress)
                self.exit(3)
            assert self.gate.reached.wait(LIMIT)
            if not self.point.holds_io_thread:
                self._settle()
            self.posts.io.post(lambda: None)  # so that it serves later posts first, whatever else it has seen
            for act in acts:
                ACTS[act](self)
                if not self.point.holds_io_thread:
                    self._settle()
        finally:
            self.gate.open()

    def _settle(self) -> None:
        """What has happened is known to the walk, though the hook holds it up."""
        self.posts.await_round()
        launch = self.machine._launch
        assert launch is not None
        is_killed = self.point.life == "broken"  # it is about to end
        if launch.process is not None and (is_killed or launch.process.ended):
            until(launch.gone.done)
        is_set_up = self.point.event in {Event.LAUNCH, Event.LAUNCHED}
        if self.point.place == "async hook" and is_set_up and (launch.asked.done() or launch.gone.done()):
            until(lambda: self.machine.state in FINAL)  # it was cancelled, and holds up nothing
        self.posts.await_round()

    def begin(self, call: str) -> None:
        method: Callable[..., Any] = getattr(self.machine, call)
        self.others.append((call, self.posts.begin(lambda: method(timeout=ALIVE_FOR))))

    def begin_same(self) -> None:
        call = {"asked": "shutdown", "died": "wait", "broken": "launch"}[self.point.life]
        if self.point.event in {Event.LAUNCH, Event.LAUNCHED}:
            call = "launch"
        for _ in range(2):
            self.begin(call)

    def exit(self, status: int) -> None:
        os.write(self._control, f"{status}\n".encode())
        until(lambda: self.machine.pid is None)

    def send(self, number: signal.Signals) -> None:
        pid = self.machine.pid
        assert pid is not None
        os.kill(pid, number)
        until(lambda: self.machine.pid is None)

    def interrupt_main(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        before = self.posts.count.get(main, 0)
        self.interrupt.send()
        until(lambda: self.posts.count.get(main, 0) > before)

    def expire(self) -> None:
        self.clock.leap(ALIVE_FOR + 1)


ACTS: dict[str, Callable[[Scene], object]] = {
    "SIGKILL": lambda scene: scene.send(signal.SIGKILL),
    "exits 0": lambda scene: scene.exit(0),
    "exits 1": lambda scene: scene.exit(1),
    "kill": lambda scene: scene.begin("kill"),
    "shutdown": lambda scene: scene.begin("shutdown"),
    "launch": lambda scene: scene.begin("launch"),
    "wait": lambda scene: scene.begin("wait"),
    "same": Scene.begin_same,
    "interrupt": Scene.interrupt_main,
    "deadline": Scene.expire,
}


@contextlib.contextmanager
def scene(directory: Path, point: Point) -> Iterator[Scene]:
    with Scene(directory, point) as staged:
        yield staged
