"""The labels that are trained on: noise, then the class-balanced subset, then the validation rows."""

import hashlib
from argparse import Namespace
from dataclasses import dataclass

import numpy as np

from common.errors import BadInput
from data.datasets import Dataset, fingerprint, open_dataset
from data.label_files import Marks, read_labels
from data.noise import add_label_noise, realised_rate
from data.seeds import role_seed


@dataclass
class LabelledData:
    """A data set with its noise and its splits.

    y, ny: (N,) int64, clean and possibly noisy label of every row of the training split. train_idx,
    valid_idx: rows trained on, rows held out of them; sorted. valid_idx is empty without such a split. marks: of
    marks.csv, as they judge ny, where ny come from there; their original is y.
    """

    dataset: Dataset
    y: np.ndarray
    ny: np.ndarray
    train_idx: np.ndarray
    valid_idx: np.ndarray
    marks: Marks | None = None

    @property
    def corrected(self) -> bool:
        """Whether ny are labels that a person corrected: where they differ from y, nobody knows that ny is wrong."""
        return self.marks is not None

    @property
    def truth(self) -> np.ndarray:
        """The labels that are taken for right."""
        return self.ny if self.corrected else self.y

    @property
    def noise_realised(self) -> float:
        """The share of labels that are known to be wrong."""
        return realised_rate(self.truth, self.ny)

    @property
    def not_trained_on(self) -> list[str]:
        """Names of the classes without a training sample."""
        there = np.bincount(self.truth[self.train_idx], minlength=self.dataset.num_classes)
        return [name for name, count in zip(self.dataset.class_names, there, strict=True) if not count]

    def fingerprints(self) -> dict[str, str]:
        """Identify the labels in files that depend on them: SHA-256 of y and ny, and of the paths of image files."""
        found = {"y_sha256": fingerprint(self.y), "ny_sha256": fingerprint(self.ny)}
        if self.dataset.train_paths:
            paths = "\n".join(self.dataset.train_paths).encode("utf-8", "surrogateescape")
            found["paths_sha256"] = hashlib.sha256(paths).hexdigest()
        return found


def check_data(args: Namespace, dataset: Dataset) -> None:
    """BadInput for flags of noise, subset, split and batch that do not fit the data; downloads nothing."""
    if args.ny_file and args.ny_ratio:
        raise BadInput(
            f"--ny_file {args.ny_file} and --ny_ratio {args.ny_ratio:g}: one of them gives the noise; drop one"
        )
    if "ny_kind" in args.given and "ny_ratio" not in args.given and not args.ny_ratio:
        raise BadInput(f"--ny_kind {args.ny_kind}: there is no noise without --ny_ratio; give it too")
    if dataset.num_classes < 2:
        raise BadInput(f"--dataset {args.dataset}: the training set has one class only; two are needed")
    usable, in_use = dataset.num_usable, args.train_size or dataset.num_usable
    if not min(dataset.num_classes, usable) <= in_use <= usable:
        raise BadInput(
            f"--train_size {args.train_size}: there are {usable} training samples of {dataset.num_classes} classes; "
            "give at most as many, and one of each class at least"
        )
    _check_left(args, in_use - _valid_count(args, dataset, in_use), f"--valid_size {args.valid_size:g}")
    if args.ny_file and dataset.needs_download:  # else load_data reads it right away
        _read_noise_file(args, dataset)


def _check_left(args, left, flag):
    """BadInput when too few samples are trained on; flag: what took the others."""
    if left < max(2, args.batch_size):
        raise BadInput(
            f"--batch_size {args.batch_size}: {flag} leaves {left} samples to train on; give that or "
            "less as --batch_size, and leave at least two samples"
        )


def load_data(args: Namespace, dataset: Dataset | None = None) -> LabelledData:
    """Noise over all rows; of the usable ones the class-balanced subset; of these the validation rows.

    Each has its own seed, so that the noisy label of a row depends on data seed, kind and ratio alone.
    Downloads what is absent (NeedsDownload if it cannot).
    """
    if dataset is None:
        dataset = open_dataset(args)
        check_data(args, dataset)
    dataset.load()
    data_seed = args.seed if args.data_seed is None else args.data_seed
    y, marks, rows = np.asarray(dataset.train.labels, np.int64), None, dataset.train.usable
    if args.ny_file:
        ny, marks = _read_noise_file(args, dataset, y)
    elif args.ny_ratio:
        ny = add_label_noise(y, dataset.num_classes, args.ny_ratio, args.ny_kind, role_seed(data_seed, "noise"))
    else:
        ny = y.copy()
    if args.train_size:
        rows = rows[_balanced_subset(y[rows], args.train_size, dataset.num_classes, role_seed(data_seed, "subset"))]
    order = np.random.default_rng(role_seed(data_seed, "validation")).permutation(len(rows))
    if args.valid_rows == "last":
        order = np.arange(len(rows))
    cut = len(rows) - _valid_count(args, dataset, len(rows))
    train, valid = np.sort(rows[order[:cut]]), np.sort(rows[order[cut:]])
    if marks is not None:
        train, valid = (rows[marks.mark[rows] != "drop"] for rows in (train, valid))
        _check_left(args, len(train), f"--ny_file {args.ny_file} (the rest is marked drop)")
    return LabelledData(dataset, y, ny, train, valid, marks)


def _read_noise_file(args, dataset, y=None):
    return read_labels(args.ny_file, dataset.num_train, dataset.class_names, dataset.train_paths, y)


def _valid_count(args, dataset, in_use):
    """Rows to hold out of the in_use training rows; none where the data set brings a validation split."""
    if args.valid_size == 0 or dataset.valid:
        return 0
    held_out = int(args.valid_size * in_use + 1e-9) if args.valid_size < 1 else int(args.valid_size)
    if args.valid_size > 1 and held_out != args.valid_size:
        raise BadInput(f"--valid_size {args.valid_size:g}: below 1 it is a share, from 1 on a whole number of samples")
    if not 0 < held_out < in_use:
        raise BadInput(
            f"--valid_size {args.valid_size:g}: holds out {held_out} of {in_use} samples; "
            "some must be left on both sides (0: no validation split)"
        )
    return held_out


def _balanced_subset(labels, size, num_classes, seed):
    """`size` rows, as equally many of each class as there are; sorted."""
    order = np.random.default_rng(seed).permutation(len(labels))
    # A row's turn is its place among the drawn rows of its class: taking the rows with the earliest turns
    # takes one of every class after another, and goes on with the rest when a small class is used up.
    turn = np.empty(len(labels), np.int64)
    for k in range(num_classes):
        of_class = order[labels[order] == k]
        turn[of_class] = np.arange(len(of_class))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:size])
