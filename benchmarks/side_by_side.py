"""Contenders timed by turns in one process, so that a noisy machine is noisy for all of them; their ratios."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MORE = 4  # a race of seconds: at most so many times its turns


@dataclass
class Ratio:
    """`over` by `under`, each an array of a value a turn, or one number.

    goal: the most that the median may be, or, where more is better, the least. digits: of the ratio in print; unit: of
    its two sides.
    """

    name: str
    over: np.ndarray | float
    under: np.ndarray | float
    goal: float | None = None
    more_is_better: bool = False
    digits: int = 2
    unit: str = "s"

    @property
    def values(self) -> np.ndarray:
        return np.atleast_1d(np.divide(self.over, self.under))

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is none."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.more_is_better else self.median <= self.goal

    def __str__(self) -> str:
        values = (f"{v:.{self.digits}f}" for v in np.quantile(self.values, (0.5, 0, 1, 0.25, 0.75)))
        text = "{:>8} ({}..{}; IQR {}..{})".format(*values)
        text += f"  [{np.median(self.over):.3g} / {np.median(self.under):.3g} {self.unit}]"
        if self.goal is not None:
            text += f"  goal {'>=' if self.more_is_better else '<='} {self.goal:g}: {'met' if self.met else 'MISSED'}"
        return f"  {self.name:<64} {text}"


def in_turns(contenders: dict[str, Callable], turns: int, wait: Callable = lambda: None, seconds: float = 0) -> dict:
    """{name: (turns,) seconds} of functions. wait(): until a GPU has done what it was given.

    While fewer than `seconds` have passed there are more turns, MORE times as many at most: a fast machine's are short,
    and noisier.
    """
    taken, began = {name: [] for name in contenders}, time.perf_counter()
    for turn in range(MORE * turns):
        if turn >= turns and time.perf_counter() - began >= seconds:
            break
        for name, work in contenders.items():
            wait()
            started = time.perf_counter()
            work()
            wait()
            taken[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in taken.items()}
