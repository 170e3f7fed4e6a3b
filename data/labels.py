"""The labels that are trained on: noise, then the class-balanced subset, then the validation rows."""

from dataclasses import dataclass

import numpy as np

from common import errors
from common.errors import BadInput
from data import label_files, noise
from data.datasets import Dataset, fingerprint, open_dataset
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
    marks: label_files.Marks | None = None

    @property
    def corrected(self):
        """Whether ny are labels that a person corrected: where they differ from y, nobody knows that ny is wrong."""
        return self.marks is not None

    @property
    def noise_realised(self):
        """The share of labels that are wrong, as far as anybody knows."""
        return 0.0 if self.corrected else noise.realised_rate(self.y, self.ny)

    @property
    def not_trained_on(self):
        """Names of the classes of which no sample is trained on, by the labels that are taken for right."""
        labels = self.ny if self.corrected else self.y
        there = np.bincount(labels[self.train_idx], minlength=self.dataset.num_classes)
        return [name for name, count in zip(self.dataset.class_names, there, strict=True) if not count]

    def fingerprints(self):
        """Names the labels in files that depend on them: SHA-256 of y and ny."""
        return {"y_sha256": fingerprint(self.y), "ny_sha256": fingerprint(self.ny)}


def check_data(args, dataset):
    """BadInput naming all that is wrong with the flags for noise, subset, split and batch; downloads nothing."""
    problems = errors.Problems()
    if args.ny_file and args.ny_ratio:
        problems.add(
            f"--ny_file {args.ny_file} and --ny_ratio {args.ny_ratio:g}: one of them gives the noise; drop one"
        )
    elif args.ny_file:
        with problems.collect():
            _read_noise_file(args, dataset)
    given = getattr(args, "given", set())
    if "ny_kind" in given and "ny_ratio" not in given and not args.ny_ratio:
        problems.add(f"--ny_kind {args.ny_kind}: there is no noise without --ny_ratio; give it too")
    if dataset.num_classes < 2:
        problems.add(f"--dataset {args.dataset}: the training set has one class only; two are needed")
    in_use = args.train_size or dataset.num_usable
    if in_use > dataset.num_usable:
        bad = dataset.num_train - dataset.num_usable
        problems.add(
            f"--train_size {args.train_size}: the training set has {dataset.num_usable} samples"
            f"{f', and {bad} that cannot be read' if bad else ''}; give at most that"
        )
    elif args.train_size and in_use < dataset.num_classes:
        problems.add(
            f"--train_size {args.train_size}: fewer than the {dataset.num_classes} classes; give one of each at least"
        )
    else:
        with problems.collect():
            left = in_use - _valid_count(args, dataset, in_use)
            if args.batch_size > left:
                problems.add(
                    f"--batch_size {args.batch_size}: larger than the {left} samples that are trained on; "
                    "give a smaller one"
                )
            elif left < 2:
                problems.add(f"--valid_size {args.valid_size:g}: leaves {left} sample to train on; two are needed")
    problems.stop_if_any()


def load_data(args, dataset=None):
    """LabelledData: noise over all rows; of the usable ones the class-balanced subset, then the validation rows.

    Each has its own seed, so that the noisy label of a row depends on data seed, kind and ratio alone.
    Downloads what is absent (errors.NeedsDownload if it cannot).
    """
    if dataset is None:
        dataset = open_dataset(args)
        check_data(args, dataset)
    dataset.load()
    data_seed = args.seed if args.data_seed is None else args.data_seed
    y, marks, rows = np.asarray(dataset.train.labels, np.int64), None, dataset.train.usable
    if args.ny_file:
        marks = label_files.read_marks(args.ny_file, len(y), dataset.class_names, dataset.train_paths, original=y)
        ny = _read_noise_file(args, dataset) if marks is None else marks.label
        label_files.check_alignment(args.ny_file, y, dataset.class_names)
    else:
        ny = noise.add_label_noise(y, dataset.num_classes, args.ny_ratio, args.ny_kind, role_seed(data_seed, "noise"))
    if args.train_size:
        rows = rows[_balanced_subset(y[rows], args.train_size, dataset.num_classes, role_seed(data_seed, "subset"))]
    held_out = _valid_count(args, dataset, len(rows))
    if args.valid_rows == "last":
        order = np.arange(len(rows))
    else:
        order = np.random.default_rng(role_seed(data_seed, "validation")).permutation(len(rows))
    cut = len(rows) - held_out
    train, valid = np.sort(rows[order[:cut]]), np.sort(rows[order[cut:]])
    if marks is not None:
        marks = marks.of(ny)
        train, valid = (rows[marks.mark[rows] != "drop"] for rows in (train, valid))
        if len(train) < max(args.batch_size, 2):
            raise BadInput(
                f"--ny_file {args.ny_file}: leaves {len(train)} samples to train on, the rest is marked drop; "
                "take marks back, or give a smaller --batch_size"
            )
    return LabelledData(dataset, y, ny, train, valid, marks)


def _read_noise_file(args, dataset):
    return label_files.read_labels(args.ny_file, dataset.num_train, dataset.class_names, dataset.train_paths)


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


# ---------------------------------------------------------------------------------------- calibration
