"""How hard the fuzz tests try: a little and always the same in `make test`, at length with `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("VMFSM_FUZZ_FACTOR", "0"))
"""How many times as many examples, with a seed that is new each time; 0: the same few, always."""


def tries(examples: int) -> settings:
    """Settings of a test that makes so many examples in `make test`."""
    return settings(
        max_examples=examples * max(1, FACTOR),
        derandomize=not FACTOR,
        database=None,
        print_blob=True,  # what there is to have a failure of `make fuzz` again
        deadline=None,  # a busy machine is no failure; what may not take long is asserted where it is
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
