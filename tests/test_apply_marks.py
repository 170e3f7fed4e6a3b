"""From learning paths to a corrected data set: record, look, correct, train, and look again, on real images."""

import csv
import hashlib
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import analyze_paths
import apply_marks
import main_gen_path
from runs.run_folder import read_args

CLASSES = ["airplane", "frog", "horse", "truck"]
FLAGS = "--net smallcnn --batch_size 50 --lr 0.05 --epochs 6 --image_size 32 --augment none --device cpu --amp off"


@pytest.fixture
def images(workplace):
    """(folder of 1,200 images and 400 for testing, {SHA-256 of an image: its class}): 360 lie in the next class."""
    source = Path(os.environ.get("TEST_DATA_DIR", "nowhere")) / "cifar10_folder"
    if not source.is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    truth = {}
    for split, each in (("train", 300), ("test", 100)):
        for k, name in enumerate(CLASSES):
            for n, image in enumerate(sorted((source / split / name).iterdir())[:each]):
                label = (k + (split == "train" and n % 10 < 3)) % 4
                to = workplace / "images" / split / CLASSES[label] / f"{k}_{image.name}"
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(image, to)
                truth[hashlib.sha256(image.read_bytes()).hexdigest()] = k
    return "images", truth


def right_classes(folder, files, truth):
    return np.array([truth[hashlib.sha256((Path(folder) / file).read_bytes()).hexdigest()] for file in files])


def look(run, folder, truth, cards, marks=None):
    """Mark a run's first cards as somebody who knows the truth; returns marks.csv, how many labels were wrong, and how
    many have a mark."""
    out = analyze_paths.main([str(run), *(["--marks", str(marks)] if marks else [])])
    with open(out / "suspects.csv", newline="") as f:
        ranked = [int(row["idx"]) for row in csv.DictReader(f)]
    with np.load(run / "labels.npz") as kept:
        given, files = kept["ny"], [f"train/{path}" for path in kept["paths"]]
    right, said = right_classes(folder, files, truth), {}
    if marks:
        with open(marks, newline="") as f:
            said = {int(row["idx"]): row["mark"] for row in csv.DictReader(f) if row["mark"]}
    said |= {i: "right" if right[i] == given[i] else "wrong" for i in ranked[:cards]}
    with open("marks.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow("idx file original_label given_label label label_name mark audit".split())
        for i, file in enumerate(files):
            label = right[i] if said.get(i) == "wrong" else given[i]
            writer.writerow([i, file, given[i], given[i], label, CLASSES[label], said.get(i, ""), ""])
    return "marks.csv", int((given != right).sum()), len(said)


def next_run(printed, name):
    """Run what apply_marks.py says is next."""
    words = shlex.split(re.search(r"python (\S+ --.*)", printed)[1])
    assert words[-2] == "--run_name"
    return main_gen_path.main([*words[1:-1], name])


def accuracy(run):
    with open(run / "metrics.csv", newline="") as f:
        return float([row["test_acc"] for row in csv.DictReader(f)][-1])


@pytest.mark.long
def test_two_rounds_from_the_record_to_the_accuracy_after_the_correction(images, workplace, monkeypatch, capsys):
    monkeypatch.setattr(analyze_paths, "draw", lambda *all_of_them: None)
    folder, truth = images
    flags = ["--dataset", "folder", "--data_dir", folder, "--fine_every", "1000", *FLAGS.split()]
    first = main_gen_path.main([*flags, "--run_name", "first"])

    marks, wrong, looked_at = look(first, folder, truth, 300)
    capsys.readouterr()
    apply_marks.main([marks, "--run", str(first), "--out", "corrected"])
    second = next_run(capsys.readouterr().out, "second")

    before = {path: path.read_bytes() for path in Path("corrected").rglob("*") if path.is_file()}
    marks, wrong_then, looked_at_then = look(second, "corrected", truth, 150, "corrected/.corrections/marks.csv")
    capsys.readouterr()
    apply_marks.main([marks, "--run", str(second), "--in_place"])
    third = next_run(capsys.readouterr().out, "third")
    with np.load(third / "labels.npz") as kept:
        files = [f"train/{path}" for path in kept["paths"]]
        wrong_now = int((right_classes("corrected", files, truth) != kept["ny"]).sum())
    print(wrong, wrong_then, wrong_now, looked_at, looked_at_then, *map(accuracy, (first, second, third)))

    assert (wrong, looked_at, looked_at_then) == (360, 300, 450)
    assert wrong_then <= 180 and wrong_now <= 0.7 * wrong_then
    assert accuracy(third) > accuracy(first)
    apply_marks.main(["--undo", "--data_dir", "corrected"])
    assert {path: path.read_bytes() for path in Path("corrected").rglob("*") if path.is_file()} == before


def test_of_a_set_that_is_no_folder_the_marks_themselves_are_the_labels_to_train_on(quick, workplace, capsys):
    run = main_gen_path.main(quick("--run_name", "first", "--seed", 3, "--fine_every", 100))
    with np.load(run / "labels.npz") as kept, open("marks.csv", "w", newline="") as f:
        y, writer = kept["y"], csv.writer(f)
        writer.writerow("idx file original_label given_label label label_name mark audit".split())
        for i, k in enumerate(y):
            label, mark = ((k + 1) % 10, "wrong") if i == 0 else (k, "")
            writer.writerow([i, "", k, k, label, label, mark, ""])
    capsys.readouterr()
    apply_marks.main(["marks.csv", "--run", str(run), "--out", "changes.csv"])
    with open("changes.csv", newline="") as f:
        assert [(row["idx"], row["change"]) for row in csv.DictReader(f)] == [("0", "relabel")]
    second = next_run(capsys.readouterr().out, "second")
    with np.load(second / "labels.npz") as kept:
        assert kept["ny"].tolist() == [(y[0] + 1) % 10, *y[1:].tolist()]
    assert read_args(second)["seed"] == 3 and read_args(second)["fine_every"] == 100
