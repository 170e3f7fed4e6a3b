"""All measures of a (50000, 200, 10) float16 path beside one np.load(file).mean(), in turns, and the memory they need.

python -m benchmarks.path_measures
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from paths.label_errors import find_label_errors
from paths.measures import compute


def write_path(file, shape):
    """A made-up path in the recorder's layout."""
    num_samples, num_steps, num_classes = shape
    rng = np.random.default_rng(0)
    path = np.lib.format.open_memmap(file, "w+", np.float16, shape, fortran_order=True)
    labels = rng.integers(num_classes, size=num_samples)
    for step in range(num_steps):
        logits = rng.normal(size=(num_samples, num_classes), scale=1.5)
        logits[np.arange(num_samples), labels] += 4 * step / num_steps
        p = np.exp(logits)
        path[:, step] = p / p.sum(1, keepdims=True)
    path.flush()
    return labels


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(50_000, 200, 10))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "path.npy"
        labels = write_path(file, tuple(args.shape))

        def path():
            return np.load(file, mmap_mode="r")

        contenders = {
            "np.load(file).mean()": lambda: np.load(file).mean(),
            "all measures": lambda: compute(path(), labels),
            "find_label_errors": lambda: find_label_errors(path(), labels),
        }
        seconds, memory = {name: [] for name in contenders}, {}
        for _ in range(args.repeats):
            for name, work in contenders.items():
                with PeakMemory() as peak:
                    started = time.perf_counter()
                    work()
                    seconds[name].append(time.perf_counter() - started)
                memory[name] = max(memory.get(name, 0), peak.peak)
    base = np.array(seconds["np.load(file).mean()"])
    print(
        f"path {tuple(args.shape)}, float16, {args.repeats} turns: median seconds, ratio (least .. most), peak RssAnon"
    )
    for name, times in seconds.items():
        ratio = np.array(times) / base
        print(
            f"{name:<22} {np.median(times):7.2f} s {np.median(ratio):7.1f} ({ratio.min():.1f} .. {ratio.max():.1f}) "
            f"{memory[name]:7.0f} MB"
        )


if __name__ == "__main__":
    main()
