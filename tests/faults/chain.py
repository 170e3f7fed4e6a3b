"""A chain of runs on real digits that takes seconds: teacher, student, paths, paths of human labels, comparison."""

import csv
import json

import numpy as np
import torch

COMMON = (
    "--dataset digits --net smallcnn --batch_size 50 --lr 0.05 --device cpu --amp off --save_minutes 0.0001".split()
)
SIZE = ["--train_size", 300]
CHAIN = {
    "main_gen_teacher": [*COMMON, *SIZE, "--epochs", 4, "--ny_ratio", 0.2, "--save_epochs", 1],
    "main_distill": [*COMMON, "--epochs", 4, "--teach_path", "smallcnndigits_cosine_n0.2", "--teach_type", "table"],
    "main_gen_path": [*COMMON, *SIZE, "--epochs", 4, "--fine_every", 2],
    "cifar10h_gen_path": [*COMMON, "--epochs", 3, "--fine_samples", 50, "--human_probs", "probs.npy"],
    "old_cifar_noisy": [
        *COMMON,
        *SIZE,
        *("--epochs", 2, "--ny_ratio", 0.4, "--path", "c", "--seeds", 2),
        *("--methods", "OHT", "ESKD", "ES-FilterKD"),
    ],
}


def prepare(folder):
    """Make the folder in which the chain runs."""
    from data.datasets import digits

    folder.mkdir(parents=True, exist_ok=True)
    labels = digits(None).test.labels
    np.save(folder / "probs.npy", np.float32(0.9) * np.eye(10, dtype=np.float32)[labels] + np.float32(0.01))


def epochs_done(folder):
    """{metrics.csv: its text} below a folder; seconds are in it, so that an epoch trained again differs."""
    return {file: file.read_text() for file in folder.rglob("metrics.csv")}


def differences(folder, other):
    """Files of two folders that differ, seconds and logs aside; sorted relative paths."""
    names = {f.relative_to(root) for root in (folder, other) for f in root.rglob("*") if f.is_file()}
    return sorted(str(name) for name in names if not _same(folder / name, other / name))


def _same(file, other):
    if not (file.is_file() and other.is_file()):
        return False
    if file.suffix in (".out", ".txt", ".png") or file.name in ("args.json", "environment.json", "checksums.json"):
        return True  # logs, pictures, and what names flags and checksums
    if file.name == "metrics.csv":
        return _without_seconds(csv.DictReader(file.open())) == _without_seconds(csv.DictReader(other.open()))
    if file.name == "last.pt":
        return _equal(*(_read_last(f) for f in (file, other)))
    if file.suffix == ".json":
        return _told(file) == _told(other)
    return file.read_bytes() == other.read_bytes()


def _told(file):
    """A .json without what a stop changes, the sum of a table that was written before, and where a teacher lies."""
    content = json.loads(file.read_text())
    return {name: value for name, value in content.items() if name not in ("sha256_before", "teacher", "crc32")}


def _without_seconds(rows):
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def _read_last(file):
    last = torch.load(file, weights_only=True)
    return {**last, "rows": _without_seconds(last["rows"])}


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b
