"""Sides measured by turns, and what their samples come to."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

Side = Callable[[], Mapping[str, float]]
"""Measures once: the values, in the units they are shown in, by what they are values of."""
Samples = dict[str, list[float]]


def by_turns(rounds: int, **sides: Side) -> dict[str, Samples]:
    """Measure every side once a round, in an order that is shuffled anew each time.

    So what else the computer does hits all of them alike, and the n-th samples of two sides are a pair. A
    round before the first, which is not counted, warms everything up.
    """
    shuffled = random.Random(0)
    samples: dict[str, Samples] = {name: {} for name in sides}
    order = list(sides)
    for number in range(rounds + 1):
        shuffled.shuffle(order)
        for name in order:
            for what, value in sides[name]().items():
                if number > 0:
                    samples[name].setdefault(what, []).append(value)
    return samples


class Spread(NamedTuple):
    """The middle of some samples, and what the middle 80 % of them lie between."""

    p10: float
    median: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        if len(samples) < 2:
            return cls(samples[0], samples[0], samples[0])
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(tenths[0], statistics.median(samples), tenths[-1])


class Goal(NamedTuple):
    """What a figure should be."""

    compared: Literal["itself", "ratio", "difference"]
    limit: float
    at_least: bool = False

    def describe(self, unit: str) -> str:
        bound = "at least" if self.at_least else "at most"
        match self.compared:
            case "ratio":
                return f"{bound} {self.limit:g} x floor"
            case "difference":
                return f"{bound} floor + {self.limit:g} {unit}"
            case _:
                return f"{bound} {self.limit:g} {unit}"


class Figure(NamedTuple):
    """Something that was measured, beside the least that it could be."""

    name: str
    unit: str
    samples: Sequence[float]
    floor: Sequence[float] | None = None
    """Samples of what does the same with next to nothing; each is the pair of one of `samples`."""
    goal: Goal | None = None

    @property
    def ratios(self) -> list[float]:
        """Pair by pair; empty without a floor."""
        return [mine / least for mine, least in zip(self.samples, self.floor or (), strict=False)]

    @property
    def differences(self) -> list[float]:
        """Pair by pair; empty without a floor."""
        return [mine - least for mine, least in zip(self.samples, self.floor or (), strict=False)]

    @property
    def met(self) -> bool | None:
        """Whether the median of what the goal is about is within it."""
        if self.goal is None:
            return None
        compared = {"itself": self.samples, "ratio": self.ratios, "difference": self.differences}
        samples = compared[self.goal.compared]
        assert samples, f"{self.name}: nothing to compare"
        median = statistics.median(samples)
        return median >= self.goal.limit if self.goal.at_least else median <= self.goal.limit
