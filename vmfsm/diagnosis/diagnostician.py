"""Which of the rules it is."""

from collections.abc import Callable, Mapping

from vmfsm.recording import Recording
from vmfsm.timeline import Record

from . import ends, launching, tests, verdicts, waits
from .case import Case, Diagnosis
from .story import Story

_WHAT_WENT_WRONG: tuple[Callable[[Case], Diagnosis | None], ...] = (
    verdicts.lost,
    launching.launch_failed,
    ends.ended,
    waits.came_to_nothing,
    tests.test_failed,
    ends.forced,
    tests.clean_up_failed,
)
"""Where a launch counts as failed. What happened first is the cause; of one moment, what is first here."""
_WHAT_ELSE: tuple[Callable[[Case], Diagnosis | None], ...] = (
    tests.harness_killed,
    tests.interrupted,
    tests.held,
    tests.goes_on,
)
"""Where it does not. The first that holds."""


class Diagnostician:
    """Is told the records of a machine one by one, and says then what became of it. In bounded memory.

    Whatever is in records, it does not raise.
    """

    def __init__(self) -> None:
        self._story = Story()

    def add(self, record: Record) -> None:
        """The next one. Where a machine was launched again, what is said is of its last launch."""
        if record.kind == "transition" and record.data.get("dest") == "launching":
            self._story = self._story.of_next_launch()
        self._story.add(record)

    def conclude(self, snapshot: Mapping[str, object]) -> Diagnosis:
        """What it comes to.

        :param snapshot: as of `Machine.snapshot` or `Recording.snapshot`, of the time of the last record.
        """
        case = Case(self._story, snapshot)
        if self._story.has_failed:
            found = [diagnosis for rule in _WHAT_WENT_WRONG if (diagnosis := rule(case)) is not None]
            return min(found, key=lambda diagnosis: diagnosis.at or 0.0) if found else tests.failed(case)
        for rule in _WHAT_ELSE:
            if (diagnosis := rule(case)) is not None:
                return diagnosis
        return tests.fine(case)


def diagnose(recording: Recording) -> Diagnosis:
    """What became of the launch that was recorded. Reads the files, twice.

    :raises OSError: when they can't be read.
    """
    diagnostician = Diagnostician()
    for record in recording.records():
        diagnostician.add(record)
    return diagnostician.conclude(recording.snapshot())
