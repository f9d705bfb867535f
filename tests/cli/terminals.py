"""Commands on a terminal, run by pexpect."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pexpect

from tests.cli.running import environment
from tests.waiting import LIMIT

if TYPE_CHECKING:
    Spawn = pexpect.spawn[str]
else:
    Spawn = pexpect.spawn


class Terminal(Spawn):
    """`vmfsm WORDS`, on a terminal of its own. The end of the `with` block ends it."""

    def __init__(self, *words: str, **env: str | None) -> None:
        super().__init__(
            sys.executable,
            ["-m", "vmfsm", *words],
            env=environment(env),
            encoding="utf-8",
            timeout=LIMIT,
            dimensions=(24, 80),
        )
        self.delaybeforesend = None
        self.delayafterclose = self.delayafterterminate = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(force=True)

    def ends(self, status: int) -> str:
        """Wait for the end; what came before."""
        self.expect(pexpect.EOF)
        said = self.before
        assert isinstance(said, str)
        self.wait()
        assert self.exitstatus == status, said
        return said
