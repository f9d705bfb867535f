"""Scopes in which verdicts of some kinds are no trouble."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from vmfsm import Machine, MachineDied, TransitionError, Verdict


class Expectation:
    """What `Verdicts.expected` and `allowed` return: a context manager, also for `async with`.

    Verdicts of these kinds that come within it, in whatever launch, neither wake nor end anything; they are
    recorded with the action `expected`. Of scopes in one another the innermost that names a kind gets it. It
    can be entered once: a second time is a `TransitionError`.
    """

    def __init__(
        self,
        machine: Machine,
        scopes: "list[Expectation]",
        flush: Callable[[], object],
        kinds: tuple[str, ...],
        timeout: float | None,
        *,
        demanded: bool,
        most: int,
    ) -> None:
        self.kinds = kinds
        self._machine = machine
        self._scopes = scopes
        self._flush = flush
        self._timeout = timeout
        self._demanded = demanded
        self._most = most
        self._verdicts: list[Verdict] = []
        self._missing = set(kinds)
        self._complete = asyncio.Event()
        self._entered = False

    def __repr__(self) -> str:
        return f"<Expectation of {', '.join(self.kinds)}; seen: {len(self._verdicts)}>"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Those that came, oldest first; of very many the first, and of each kind one. Never waits."""
        return tuple(self._verdicts)

    def hear(self, verdict: Verdict) -> None:
        """One has come. On the I/O thread; not for users."""
        if len(self._verdicts) < self._most or verdict.kind in self._missing:
            self._verdicts.append(verdict)
        self._missing.discard(verdict.kind)
        if not self._missing:
            self._complete.set()

    def __enter__(self) -> Self:
        if self._entered:
            raise TransitionError(
                f"{self._machine.name}: {self!r} can be entered once",
                event="enter",
                machine=self._machine.name,
                state=self._machine.state,
            )
        self._entered = True
        self._scopes.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        with self._leaving():
            if kind is None and self._demanded:
                self._machine.run(
                    self._come(), timeout=self._timeout, operation=self._operation, of_guest=True
                )

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        with self._leaving():
            if kind is None and self._demanded:
                await self._machine.arun(
                    self._come(), timeout=self._timeout, operation=self._operation, of_guest=True
                )

    @contextlib.contextmanager
    def _leaving(self) -> Iterator[None]:
        __tracebackhide__ = True
        try:
            yield
        except MachineDied:
            if self._missing:
                raise
        finally:
            self._scopes.remove(self)

    @property
    def _operation(self) -> str:
        return f"the wait for expected verdicts ({', '.join(self.kinds)})"

    async def _come(self) -> None:
        self._flush()
        await self._complete.wait()
