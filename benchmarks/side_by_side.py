"""Contenders timed by turns in one process, so that a noisy machine is noisy for all of them; their ratios."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

MORE = 4  # a race of seconds: at most so many times its turns


class Measured(float):
    """What a contender returns to be judged by it instead of by its seconds."""


@dataclass
class Ratio:
    """`over` by `under`, turn by turn. under: a contender, or a number.

    goal: the most that the median may be, or, where more is better, the least. digits: of the ratio in print; unit: of
    its two sides. values: a ratio a turn; sides: the medians of over and under; both once the race is run.
    """

    name: str
    over: str
    under: str | float
    goal: float | None = None
    more_is_better: bool = False
    digits: int = 2
    unit: str = "s"
    values: np.ndarray | None = None
    sides: tuple = ()

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.more_is_better else self.median <= self.goal

    def is_worse(self, stored: dict) -> bool:
        """Whether the median is worse than every stored repeat was, and the stored median better than every repeat."""
        if self.more_is_better:
            return self.median < stored["min"] and max(self.values) < stored["median"]
        return self.median > stored["max"] and min(self.values) > stored["median"]


@dataclass
class Race:
    """Contenders, and the ratios of interest between them.

    contenders: {name: function}. units: {name: how much work a call does (1)}: what is compared is the time of one
    unit. turns: at least; while fewer than `seconds` have passed there are more, MORE times as many at most. warm_up:
    whether all are called once before the first turn.
    """

    contenders: dict[str, Callable]
    ratios: list[Ratio]
    turns: int
    units: dict[str, float] = field(default_factory=dict)
    seconds: float = 0
    warm_up: bool = True


def run(race: Race, wait: Callable = lambda: None) -> list[Ratio]:
    """The ratios of a race, with their values. wait(): waits for what was handed to a GPU."""
    if race.warm_up:
        in_turns(race.contenders, 1, wait)
    taken = in_turns(race.contenders, race.turns, wait, race.seconds)
    taken = {name: found / race.units.get(name, 1) for name, found in taken.items()}
    for ratio in race.ratios:
        under = taken[ratio.under] if isinstance(ratio.under, str) else np.float64(ratio.under)
        ratio.values = taken[ratio.over] / under
        ratio.sides = float(np.median(taken[ratio.over])), float(np.median(under))
    return race.ratios


def most_calls(turns: int) -> int:
    """Of a contender in a race of at least so many turns, its warm-up among them."""
    return MORE * turns + 1


def in_turns(contenders: dict, repeats: int, wait: Callable = lambda: None, seconds: float = 0) -> dict:
    """{name: (repeats,) seconds, or what it returned as Measured}.

    While fewer than `seconds` have passed there are more repeats, MORE times as many at most.
    """
    taken, began = {name: [] for name in contenders}, time.perf_counter()
    for turn in range(MORE * repeats):
        if turn >= repeats and time.perf_counter() - began >= seconds:
            break
        for name, work in contenders.items():
            wait()
            started = time.perf_counter()
            returned = work()
            wait()
            needed = time.perf_counter() - started
            taken[name].append(returned if isinstance(returned, Measured) else needed)
    return {name: np.array(values) for name, values in taken.items()}
