"""Contenders measured in turns in one process, so that a noisy machine is noisy for all: ratios, peak memory."""

import threading
import time
from pathlib import Path

import numpy as np


def print_in_turns(contenders, repeats):
    """Run {name: function} in turns and print, a line each: median seconds, ratio to the first, peak RssAnon."""
    seconds, memory = {name: [] for name in contenders}, dict.fromkeys(contenders, 0)
    for _ in range(repeats):
        for name, work in contenders.items():
            with PeakMemory() as watched:
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
            memory[name] = max(memory[name], watched.peak)
    base, width = np.array(next(iter(seconds.values()))), max(map(len, contenders))
    print(f"{repeats} turns: median seconds, times the first (least .. most), peak RssAnon")
    for name, times in seconds.items():
        ratio = np.array(times) / base
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
