"""Contenders measured in turns in one process, so that a noisy machine is noisy for all: ratios, peak memory."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MORE = 4  # a race of seconds: at most so many times its turns


class Measured(float):
    """What a contender returns to be judged by it instead of by its seconds."""


@dataclass
class Ratio:
    """What is reported of a race: `over` by `under`, turn by turn. under: a contender, or a number.

    goal: the most that the median may be, or, where more is better, the least. digits: of the figure in print; unit: of
    its two sides.
    """

    name: str
    over: str
    under: str | float
    goal: float | None = None
    more_is_better: bool = False
    digits: int = 2
    unit: str = "s"


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


@dataclass
class Figure:
    """A ratio's median, range and quartiles over the turns of its race; sides: the medians of what it is made of."""

    name: str
    median: float
    least: float
    most: float
    quartiles: tuple[float, float]
    ratio: Ratio
    sides: tuple[float, float]

    @property
    def met(self):
        """Whether the goal is reached; None where there is none."""
        if self.ratio.goal is None:
            return None
        return self.median >= self.ratio.goal if self.ratio.more_is_better else self.median <= self.ratio.goal


def run(race, wait=lambda: None):
    """[Figure] of a race. wait(): waits for what was handed to a GPU."""
    if race.warm_up:
        in_turns(race.contenders, 1, wait)
    taken = in_turns(race.contenders, race.turns, wait, seconds=race.seconds)
    taken = {name: found / race.units.get(name, 1) for name, found in taken.items()}
    figures = []
    for ratio in race.ratios:
        under = taken[ratio.under] if isinstance(ratio.under, str) else np.float64(ratio.under)
        values = taken[ratio.over] / under
        quantiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
        least, low, median, high, most = (float(f"{v:.6g}") for v in quantiles)  # as they are stored
        sides = float(np.median(taken[ratio.over])), float(np.median(under))
        figures.append(Figure(ratio.name, median, least, most, (low, high), ratio, sides))
    return figures


def most_calls(turns):
    """Of a contender in a race of at least so many turns, its warm-up among them."""
    return MORE * turns + 1


def in_turns(contenders, repeats, wait=lambda: None, around=lambda name: contextlib.nullcontext(), seconds=0):
    """{name: (repeats,) seconds, or what it returned as Measured}. around(name): a context for each call.

    While fewer than `seconds` have passed there are more repeats, MORE times as many at most.
    """
    taken, began = {name: [] for name in contenders}, time.perf_counter()
    for turn in range(MORE * repeats):
        if turn >= repeats and time.perf_counter() - began >= seconds:
            break
        for name, work in contenders.items():
            with around(name):
                wait()
                started = time.perf_counter()
                returned = work()
                wait()
                needed = time.perf_counter() - started
            taken[name].append(returned if isinstance(returned, Measured) else needed)
    return {name: np.array(values) for name, values in taken.items()}


def print_in_turns(contenders, repeats):
    """Run {name: function} in turns and print, a line each: median seconds, ratio to the first, peak RssAnon."""
    memory, width = dict.fromkeys(contenders, 0), max(map(len, contenders))

    @contextlib.contextmanager
    def watched(name):
        with PeakMemory() as found:
            yield
        memory[name] = max(memory[name], found.peak)

    seconds = in_turns(contenders, repeats, around=watched)
    base = next(iter(seconds.values()))
    print(f"{repeats} turns: median seconds, times the first (least .. most), peak RssAnon")
    for name, times in seconds.items():
        ratio = times / base
        figures = f"{np.median(times):7.2f} s {np.median(ratio):7.1f} ({ratio.min():.1f} .. {ratio.max():.1f})"
        print(f"{name:<{width}} {figures} {memory[name]:7.0f} MB")


class PeakMemory:
    """The largest RssAnon (MB) of this process while the block runs."""

    def __enter__(self):
        self.peak = anonymous_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, anonymous_memory())

    def __exit__(self, *problem):
        self._stop.set()
        self._thread.join()


def anonymous_memory(pid="self"):
    """RssAnon of a process, MB; 0 when it is gone. Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0)
