"""Random walks over the public API, with faults on the way; where they got to is part of the test."""

import pytest

from tests.test_interrupts import AT_ANY_TIME
from tests.walks.walk import Grounds, walk

STEPS = 1_200


@AT_ANY_TIME
@pytest.mark.timeout(900)  # many walks
def test_walks(qemu: str) -> None:
    """The same ones each time, but for who is first."""
    with Grounds(qemu).ready() as grounds:
        walk(grounds, 1, walks=40, steps=40)
    tally = grounds.tally
    print(tally)
    assert tally.steps >= STEPS
    assert tally.overlapping >= STEPS / 10
    assert tally.states["running"] >= STEPS / 20
    assert not tally.unreached()
