"""All measures of a (50000, 200, 10) float16 path beside one np.load(file).mean(), in turns, and the memory they need.

python -m benchmarks.path_measures
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import print_in_turns
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
        print(f"path {tuple(args.shape)}, float16")
        print_in_turns(contenders, args.repeats)


if __name__ == "__main__":
    main()
