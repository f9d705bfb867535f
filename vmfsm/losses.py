"""What it means that a companion has ended before QEMU was made to, and who is told of it."""

import asyncio
from collections.abc import Callable

from .companion import Companion
from .companions import ended_error
from .errors import PluginError, Verdict


class Losses:
    """Of one launch. On the I/O thread only.

    That a companion has ended is `noted` at first, since many end because QEMU does, and then QEMU has ended
    in a moment. If it has not, the loss is `decided`: it fails the launch, or is a verdict on a machine that
    runs. Whoever ends the machine is told of what nobody was told by then.
    """

    def __init__(self, machine: str, loop: asyncio.AbstractEventLoop) -> None:
        self.fails_launch: asyncio.Future[PluginError] = loop.create_future()
        """Done when the launch can't succeed any more."""
        self._machine = machine
        self._noted: list[Companion] = []
        self._verdicts: list[tuple[Verdict, PluginError]] = []

    def note(self, companion: Companion) -> None:
        """It has ended."""
        self._noted.append(companion)

    @property
    def any_while_launching(self) -> bool:
        """Whether one has ended before the machine was up."""
        return bool(self._noted) or self.fails_launch.done()

    def decide(self, companion: Companion, *, had_run: bool) -> Verdict | None:
        """QEMU lives on without it; the verdict, where the machine was up."""
        self._noted.remove(companion)
        error = ended_error(self._machine, companion, "while it was needed")
        if not had_run:
            if not self.fails_launch.done():
                self.fails_launch.set_result(error)
            return None
        message = str(error).removeprefix(f"{self._machine}: ")
        what = {"companion": companion.name, "exit_status": companion.exit_status, "message": message}
        verdict = Verdict("companion-ended", "vmfsm", what)
        self._verdicts.append((verdict, error))
        return verdict

    def untold(self, take_back: Callable[[Verdict], bool]) -> list[PluginError]:
        """The decided ones that nobody was told of.

        :param take_back: takes a verdict back, unless somebody was told.
        """
        return [error for verdict, error in self._verdicts if take_back(verdict)]

    def undecided(self, when: str) -> list[PluginError]:
        """Those that ended badly in the last moments, when it could not be seen any more what it meant."""
        return [
            ended_error(self._machine, companion, when)
            for companion in self._noted
            if companion.exit_status != 0
        ]
