"""evaluate.py on a run of digits: its figures are the run's own, and new images get predictions."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import evaluate
import main_gen_teacher
from common import errors
from common.files import read_json, write_json
from runs.figures import plot_confusion


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("evaluate"))
        flags = ["--dataset", "digits", "--net", "smallcnn", "--epochs", "2", "--ny_ratio", "0.2"]
        return main_gen_teacher.main(flags).absolute()


def rows_of(run):
    with open(run / "metrics.csv") as f:
        return list(csv.DictReader(f))


def test_figures_of_the_last_epoch_are_those_of_metrics_csv(run, capsys):
    out = evaluate.main([str(run), "--checkpoint", "epoch_1"])
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    found = json.loads((out / "metrics.json").read_text())
    for name in ("acc", "nll", "ece", "brier"):
        assert found[name] == pytest.approx(float(rows_of(run)[-1][f"test_{name}"]), abs=1e-4)
    assert (out / "reliability.png").stat().st_size > 5000 and (out / "confusion.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "ran_in, given, precision",
    [
        ("float32", [], "float32"),
        ("bfloat16", [], "bfloat16"),
        ("float16", [], "float32"),  # which a CPU cannot
        ("bfloat16", ["--amp", "off"], "float32"),
    ],
)
def test_a_run_is_evaluated_in_its_own_precision_whatever_the_machine_offers(run, tmp_path, ran_in, given, precision):
    copied = shutil.copytree(run, tmp_path / "run")
    write_json(copied / "environment.json", {**read_json(copied / "environment.json"), "precision": ran_in})
    (copied / "checksums.json").unlink()
    args = evaluate.make_parser().parse_args([str(copied), "--device", "cpu", *given])
    assert evaluate.choose_hardware(args).precision == precision


def test_a_moved_run_is_evaluated_where_it_is_now(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    assert evaluate.main([str(moved)]).parent == moved


def test_predictions_of_new_images_are_distributions_in_file_order(run, tmp_path):
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("b.png", "a.png", "more/c.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)).save(images / name)
    out = evaluate.main([str(run), "--images", str(images), "--out", str(tmp_path / "p.csv")])
    with open(out) as f:
        rows = list(csv.DictReader(f))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "more/c.png"]
    for row in rows:
        p = [float(row[f"p_{k}"]) for k in range(10)]
        assert sum(p) == pytest.approx(1, abs=1e-4)
        assert int(row["label"]) == int(np.argmax(p)) and row["name"] == row["label"]


def test_names_from_outside_are_no_formulas_in_predictions(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    settings = json.loads((copy / "args.json").read_text())
    settings["resolved"]["class_names"] = [f"=class({k})" for k in range(10)]
    (copy / "args.json").write_text(json.dumps(settings))
    (copy / "checksums.json").unlink()
    (tmp_path / "images").mkdir()
    for name in ("=cmd().png", "'=x.png", os.fsdecode(b"\xff.png")):
        Image.new("L", (8, 8)).save(tmp_path / "images" / name)
    out = evaluate.main([str(copy), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "p.csv")])
    with open(out, encoding="utf-8", errors="surrogateescape") as f:
        rows = list(csv.DictReader(f))
    assert [row["file"] for row in rows] == ["''=x.png", "'=cmd().png", os.fsdecode(b"\xff.png")]
    assert all(row["name"] == f"'=class({row['label']})" for row in rows)


def test_the_confusion_of_classes_with_odd_names_is_drawn(tmp_path):
    plot_confusion(np.eye(4, dtype=int), ["$x_2$", r"$\frac{$", "a\nb" * 99, "<b>"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--checkpoint", "epoch_7"], "best_acc, best_loss, epoch_1"),
        (["--images", "."], "--out"),
        (["--images", "/nowhere", "--out", "x.csv"], "/nowhere"),
        (["--amp", "fp8"], "--amp fp8"),
        (["--images", ".", "--out", "nowhere/p.csv"], "--out nowhere"),
        (["--checkpoint", "last"], "best_acc, best_loss, epoch_1"),
    ],
)
def test_mistakes_are_named(run, flags, says):
    with pytest.raises(errors.BadInput, match=says.replace(".", r"\.")):
        evaluate.main([str(run), *flags])


def test_of_a_run_that_chooses_no_best_epoch_the_last_is_evaluated(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    assert evaluate.main([str(copied)]).name == "evaluation_best_acc"
    for name in ("best_acc", "best_loss"):
        (copied / f"{name}.pt").unlink()
    shutil.copy(copied / "epoch_1.pt", copied / "epoch_0.pt")
    (copied / "checksums.json").unlink()
    assert evaluate.main([str(copied)]).name == "evaluation_epoch_1"


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(errors.BadInput, match="args.json"):
        evaluate.main([str(tmp_path)])


def test_a_test_set_of_other_labels_is_refused(quick, workplace):
    arrays = {f"{s}_images": np.zeros((n, 8, 8), np.uint8) for s, n in (("train", 60), ("test", 10))}
    arrays |= {f"{s}_labels": np.arange(n) % 3 for s, n in (("train", 60), ("test", 10))}
    np.savez("a.npz", **arrays)
    np.savez("b.npz", **{**arrays, "train_labels": (np.arange(60) + 1) % 3})
    flags = ["--dataset", "npz", "--data_dir", "a.npz", "--net", "smallcnn", "--epochs", "1", "--batch_size", "20"]
    run = main_gen_teacher.main(flags)
    evaluate.main([str(run)])
    with pytest.raises(errors.BadInput, match="--data_dir"):
        evaluate.main([str(run), "--data_dir", "b.npz"])


def test_the_folder_of_a_comparison_is_answered_with_one_of_its_runs(run, tmp_path):
    shutil.copytree(run, tmp_path / "seed_1" / "OHT")
    shutil.copy(run / "args.json", tmp_path)
    with pytest.raises(errors.BadInput, match="seed_1/OHT"):
        evaluate.main([str(tmp_path)])
