"""A recorded path with what is known of its samples, from files of this project or anybody else's."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.untrusted import load_npy
from data.label_files import Marks, read_marks
from paths.measures import chunks
from paths.recorder import damaged_steps, read_sidecar


@dataclass
class Recorded:
    """What an analysis reads: paths and given labels, and where they are known the truth, names, files and images.

    path: (N, T, K), complete steps only. given: (N,) int64. clean: (N,) clean labels, where they differ from the
    given ones. true_probs: (N, K). original: (N,) the data set's own labels, where they are known. marks: what a person
    said of the given ones. files: N names, in the folder files_in where that is known. images: called with (n,) idx,
    gives n uint8 (H, W, C). texts: N texts, or N dictionaries of them. step_name: what a step is. fine: ((M, T', K),
    their idx (M,), updates from one step to the next).
    """

    name: str
    path: np.ndarray
    given: np.ndarray
    class_names: list
    clean: np.ndarray | None = None
    true_probs: np.ndarray | None = None
    original: np.ndarray | None = None
    marks: Marks | None = None
    files: list | None = None
    files_in: Path | None = None
    images: Callable | None = None
    texts: list | None = None
    step_name: str = "step"
    fine: tuple | None = None

    def take_marks(self, file):
        """Take over what a person said in marks.csv (--marks), of the given labels or of earlier ones.

        BadInput where it was made on other data.
        """
        if not Path(file).is_file():
            raise BadInput(f"--marks: there is no file {file}; give the marks.csv that report.html exports")
        split = next((s for s in ("train/", "test/") if self.files and all(f.startswith(s) for f in self.files)), "")
        paths = self.files and [name.removeprefix(split) for name in self.files]
        marks = read_marks(file, len(self.given), self.class_names, paths, self.original, flag="--marks")
        if marks is None:
            raise BadInput(f"--marks {file}: is no marks.csv; give the one that report.html exports")
        self.marks, self.original = marks.of(self.given), marks.original

    @property
    def wrong(self):
        """(N,) bool, or None where nobody knows."""
        return None if self.clean is None else self.given != self.clean

    @property
    def reference(self):
        """(name, (N, K) distributions) that predictions are held against: p*, the clean labels, or else the given."""
        if self.true_probs is not None:
            return "p*", self.true_probs
        one_hot = np.eye(self.path.shape[2], dtype=np.float32)
        return (
            ("the given label", one_hot[self.given]) if self.clean is None else ("the clean label", one_hot[self.clean])
        )


def open_path(file):
    """The (N, T, K) memory map of a path, complete steps only.

    Its shape, its range and the sums of its rows must make sense. A path with a .json is one of PathRecorder's: its
    checksums are compared, too. One without is accepted with a warning. Nothing is unpickled. Raises BadInput that
    names the file.
    """
    file = Path(file)
    path = load_npy(file, f"{file}: not a readable .npy array", mapped=True)
    if path.ndim != 3 or path.dtype.kind != "f" or 0 in path.shape:
        found = f"{path.shape} of {path.dtype}"
        raise BadInput(f"{file}: expected (samples, steps, classes) of float16 to float64, found {found}")
    if path.shape[2] < 2:
        raise BadInput(f"{file}: has one class only; two are needed")
    is_ours = file.with_suffix(".json").exists()
    if is_ours:
        path = path[:, : _complete(file, path.shape[1])]
    _check_distributions(file, path)
    if not is_ours:
        warnings.warn(f"{file}: no .json beside it; accepted after checking shape, range and sums", stacklevel=2)
    return path


def _complete(file, num_steps):
    """How many of the num_steps steps are complete and intact, from the first on."""
    try:
        complete, damaged = {int(step) for step in read_sidecar(file)["complete"]}, damaged_steps(file)
    except (ValueError, IndexError) as problem:
        raise BadInput(f"{file}: its .json does not fit it ({problem}); take an intact copy") from None
    steps = next(t for t in range(num_steps + 1) if t not in complete)
    if not steps:
        found = "step 0 was never recorded: steps count from 0" if complete else "no step is complete yet; wait for one"
        raise BadInput(f"{file}: {found}")
    if damaged:
        raise BadInput(f"{file}: step {damaged[0]} is not what was written; take an intact copy")
    return steps


def _check_distributions(file, path):
    for rows, q in chunks(path):
        total = q.sum(0)
        if not np.isfinite(total).all():
            raise BadInput(f"{file}: has values that are not finite (NaN or infinity); leave such predictions out")
        if q.min() < 0 or q.max() > 1 + 1e-3:
            raise BadInput(f"{file}: has values outside 0 .. 1; give probabilities (softmax), not logits")
        if not (np.isclose(total, 1, atol=0.02) | (total == 0)).all():
            row = rows.start + int(np.argmax((~np.isclose(total, 1, atol=0.02) & (total != 0)).any(0)))
            raise BadInput(f"{file}: predictions of row {row} do not sum to 1; give probabilities over all classes")
