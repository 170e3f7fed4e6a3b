"""Students of a recorded path: targets made of it, and what is said of it."""

import csv

import numpy as np
import pytest
import torch

import main_gen_path
from common import interruption
from common.errors import BadInput, Interrupted
from experiments import from_path, recorded_paths, tables
from supervision.table import PredictionTable
from training import loop

PATH = np.random.default_rng(0).dirichlet(np.ones(3), (5, 4)).astype(np.float32)  # 5 samples, 4 epochs


def test_a_paths_average_is_the_table_that_a_training_would_have_kept():
    table = PredictionTable(5, 3, 0.3)
    for step in range(4):
        table.update(torch.arange(5), torch.from_numpy(PATH[:, step]))
    np.testing.assert_allclose(from_path.average(PATH, "table", 0.3), table.values, atol=1e-6)


def test_a_corrected_average_forgets_the_first_prediction_as_any_other():
    weights = np.array([0.343, 0.49, 0.7, 1.0])
    expected = np.einsum("t,ntk->nk", weights / weights.sum(), PATH)
    np.testing.assert_allclose(from_path.average(PATH, "corrected", 0.3), expected, atol=1e-6)
    np.testing.assert_allclose(from_path.average(PATH, "mean", 0), PATH.mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("moment", "epoch"),
    [("last", 19), ("best", 7), ("best-3", 4), ("best+2", 9), ("best-9", 0), ("best+15", 19), ("3", 3)],
)
def test_moments_stay_within_the_run(moment, epoch):
    assert from_path.epoch_of(moment, best=7, epochs=20) == epoch


def test_what_is_said_of_a_path_by_hand():
    """Sample 0 is mislabelled: at its true class 1 for two epochs, at its given class 0 in the last."""
    path = np.array([[[0.1, 0.9], [0.2, 0.8], [0.6, 0.4]], [[0.1, 0.9], [0.6, 0.4], [0.1, 0.9]]], np.float32)
    said = from_path.path_figures(np.repeat(path, [1, 10], 0), np.ones(11, int), np.array([0] + [1] * 10))
    assert said["true_raw"] == "1.0000 1.0000 0.0000" and said["true_mean"] == "1.0000 1.0000 1.0000"
    assert said["fitted_wrong"] == "0.0000 0.0000 1.0000" and said["true_table"] == "1.0000 1.0000 1.0000"
    assert said["fitted_all"] == "0.9091 0.0000 1.0000"
    assert said["fitted_against_mean"] == pytest.approx(1 / 11)


def read(folder):
    with open(folder / "results.csv", newline="") as f:
        return {row["method"]: row for row in csv.DictReader(f)}


def test_students_of_a_path_and_a_run_that_was_stopped(quick, workplace, monkeypatch):
    flags = ("--augment", "none", "--ny_ratio", 0.4, "--epochs", 3)
    students = ("--students", "table:0.05:last", "net:best", "net:2", "table:1:1")
    whole = from_path.main(quick("--run_name", "whole", *flags, *students))
    rows = read(whole)
    assert list(rows) == ["OHT", *students[1:]]
    kept, data = np.load(whole / "seed_10086/OHT/epoch_2.npy"), np.load(whole / "seed_10086/OHT/labels.npz")
    idx, truth = data["idx"], np.eye(10)[data["y"][data["idx"]]]
    distance = np.linalg.norm(kept[idx] - truth, axis=1).mean()
    assert float(rows["table:0.05:last"]["distance"]) == pytest.approx(distance, abs=1e-3)  # the path is in float16
    path = np.load(whole / "seed_10086/OHT/PATH_TRAIN_COARSE.npy")[idx].astype(np.float32)
    change = np.linalg.norm(path[:, 1] - path[:, 0], axis=1).mean()  # smoothing 1 keeps the newest alone
    assert float(rows["table:1:1"]["change"]) == pytest.approx(change, rel=1e-3)
    end_update, calls = loop.end_update, []

    def stop(state, *what):
        end_update(state, *what)
        calls.append(state)
        if len(calls) == 20:  # OHT has made 12 updates, so within the first student's second epoch
            interruption._noted = 15

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "end_update", stop)
        from_path.main(quick("--run_name", "stopped", *flags, *students))
    stopped = from_path.main(quick("--run_name", "stopped", *flags, *students, "--resume"))
    assert read(stopped) == rows


def test_students_of_true_distributions_are_as_far_from_them_as_their_targets(quick, workplace):
    """p* is .9 on the clean label and .1 on the next."""
    y = from_path.Experiment(from_path.make_parser().parse_args(quick()), workplace).data.y
    truth = (0.9 * np.eye(10)[y] + 0.1 * np.eye(10)[(y + 1) % 10]).astype(np.float32)
    np.save("truth.npy", truth)
    flags = ("--true_probs", "truth.npy", "--ny_ratio", 0.4, "--epochs", 1, "--students", "truth", "clean")
    folder = from_path.main(quick("--run_name", "h", *flags))
    data = np.load(folder / "seed_10086/OHT/labels.npz")
    noisy = np.linalg.norm((np.eye(10)[data["ny"]] - truth)[data["idx"]], axis=1).mean()
    distances = {method: float(row["distance"]) for method, row in read(folder).items()}
    assert distances == {"OHT": pytest.approx(noisy, rel=1e-4), "truth": 0, "clean": pytest.approx(0.02**0.5, rel=1e-4)}


def test_a_recorded_run_is_a_row_with_what_is_said_of_its_path(quick, workplace, capsys):
    folder = main_gen_path.main(quick("--run_name", "r", "--ny_ratio", 0.4, "--epochs", 2))
    recorded_paths.main([str(folder), "--csv", "rows.csv"])
    with open("rows.csv", newline="") as f:
        (row,) = csv.DictReader(f)
    data = np.load(folder / "labels.npz")
    path, y, ny = (values[data["idx"]] for values in (np.load(folder / "PATH_TRAIN_COARSE.npy"), data["y"], data["ny"]))
    wrong = y != ny
    right = (path[wrong].argmax(2) == y[wrong, None]).mean(0)
    assert [float(v) for v in row["true_raw"].split()] == pytest.approx(right, abs=1e-4)
    (text, _) = tables.epoch_shares([row])
    assert f"| 1 | {right[1]:.3f} |" in text


def test_a_student_that_is_none_is_bad_input(quick, workplace):
    with pytest.raises(BadInput, match="--students"):
        from_path.main(quick("--students", "table:last"))
    assert not list(workplace.iterdir())
