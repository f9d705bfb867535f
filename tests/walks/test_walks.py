"""Random walks over the public API, with faults on the way; what they have come to is part of the test."""

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.walks.walk import Grounds, Walk


@pytest.mark.timeout(600)
def test_walks(qemu: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Grounds(qemu).ready() as grounds:
        walking = type("Walking", (Walk,), {"grounds": grounds})
        seed(1)(walking)
        run_state_machine_as_test(
            walking,
            settings=settings(
                max_examples=45,
                stateful_step_count=50,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(grounds.tally)
