"""main_gen_path.py on digits: what is recorded, when, and that recording changes nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import analyze_paths
import main_gen_path
import main_gen_teacher
import old_cifar_noisy
from common.errors import BadInput
from data.seeds import with_weight_seed
from runs.run_folder import network_of, read_args
from utils import experiment_parser, get_loaders

FLAGS = "--ny_ratio 0.4 --augment crop --batch_size 48 --epochs 3".split()  # 200 samples: 5 updates, a short last one


@pytest.fixture(scope="module")
def runs(quick, tmp_path_factory):
    """{what --record says: the folder of a run from the same seed}."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("paths"))
        for record in ("train", "eval", "none"):
            flags = ["--record", record, "--run_name", record, "--fine_every", 2, "--path_dtype", "float32"]
            folders[record] = main_gen_path.main(quick(*FLAGS, *flags)).absolute()
    return folders


def path(folder, name):
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def sidecar(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_recording_does_not_change_the_weights_by_a_bit(runs):
    weights = [torch.load(folder / "epoch_2.pt", weights_only=True) for folder in runs.values()]
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())


def test_shapes_are_samples_steps_classes(runs):
    for record in ("train", "eval"):
        assert path(runs[record], "PATH_TRAIN_COARSE").shape == (1437, 3, 10)
        assert path(runs[record], "PATH_BATCH_COARSE").shape == (48, 3, 10)
        assert path(runs[record], "PATH_BATCH_FINE").shape == (48, 8, 10)  # 15 updates, every second one
    assert not list(runs["none"].glob("PATH_*"))


def test_every_sample_trained_on_is_followed_and_no_other(runs):
    with np.load(runs["train"] / "labels.npz") as kept:
        followed = np.isin(np.arange(1437), kept["idx"])
    for record in ("train", "eval"):
        total = path(runs[record], "PATH_TRAIN_COARSE").sum(2)
        np.testing.assert_allclose(total[followed], 1, atol=1e-5)
        assert not total[~followed].any()


def test_a_teacher_and_oht_of_a_comparison_record_the_same_path_on_the_side(runs, quick, workplace, monkeypatch):
    """And are analysed by their folders, too. Methods that OHT teaches record none."""
    monkeypatch.setattr(analyze_paths, "draw", lambda *all_of_them: None)
    flags = [*FLAGS, "--seed", 1, "--valid_size", 0, "--record_paths", "--path_dtype", "float32"]
    teacher = main_gen_teacher.main(quick(*flags))
    compared = old_cifar_noisy.main(quick(*flags, "--methods", "OHT", "ES-FilterKD", "--seeds", 2, "--path", "both"))
    expected = path(runs["train"], "PATH_TRAIN_COARSE")
    np.testing.assert_array_equal(path(teacher, "PATH_TRAIN_COARSE"), expected)
    # whose loss has another factor, so that the paths part after the first update
    first = path(compared / "seed_1" / "OHT", "PATH_TRAIN_COARSE")
    assert first.shape == expected.shape and (first.any(2) == expected.any(2)).all()
    assert (first[:, 0] == expected[:, 0]).all(1)[expected[:, 0].any(1)].sum() == 48
    recorded = sorted(str(file.relative_to(compared).parent) for file in compared.rglob("PATH_*.npy"))
    assert recorded == ["seed_1/OHT", "seed_2/OHT"]
    for folder in (teacher, compared / "seed_2" / "OHT"):
        out = analyze_paths.main([str(folder)])
        assert len((out / "suspects.csv").read_text().splitlines()) == 201
    with pytest.raises(BadInput, match="--record_paths.*OHT"):
        old_cifar_noisy.main(quick("--methods", "LS", "--record_paths"))


def test_nothing_is_selected(runs):
    assert not [file for folder in runs.values() for file in folder.glob("best_*")]


def clean_predictions(folder, model):
    """Of every training sample, by idx, in eval mode."""
    settings = read_args(folder)
    flags = ["--dataset", "digits", "--train_size", "200", "--batch_size", "48", "--valid_size", "0", "--seed", "1"]
    loader = get_loaders(experiment_parser("").parse_args([*flags, "--device", "cpu"]))[0].clean()
    assert settings["seed"] == 1
    out = np.zeros((1437, 10), np.float32)
    with torch.no_grad():
        for x, _, _, idx in loader:
            out[idx] = model.eval()(x).softmax(1)
    return out


def test_step_0_of_the_fine_path_is_the_untrained_network(runs):
    fine, rows = path(runs["train"], "PATH_BATCH_FINE"), sidecar(runs["train"], "PATH_BATCH_FINE")["rows"]
    untrained = with_weight_seed(1, lambda: network_of(runs["train"]))
    np.testing.assert_allclose(fine[:, 0], clean_predictions(runs["train"], untrained)[rows], atol=1e-5)


def test_the_last_coarse_step_is_the_trained_network_in_eval_mode(runs):
    model = network_of(runs["eval"])
    model.load_state_dict(torch.load(runs["eval"] / "epoch_2.pt", weights_only=True))
    predictions = clean_predictions(runs["eval"], model)
    rows = sidecar(runs["eval"], "PATH_BATCH_COARSE")["rows"]
    np.testing.assert_allclose(path(runs["eval"], "PATH_BATCH_COARSE")[:, 2], predictions[rows], atol=1e-5)
    np.testing.assert_allclose(path(runs["eval"], "PATH_TRAIN_COARSE")[:, 2], predictions, atol=1e-5)


def test_the_free_path_agrees_with_the_training_accuracy_of_the_run(runs):
    """The path is of the training pass itself: its argmax hits the given label as often as metrics.csv says."""
    with np.load(runs["train"] / "labels.npz") as kept:
        idx, ny = kept["idx"], kept["ny"]
    accuracy = (path(runs["train"], "PATH_TRAIN_COARSE")[idx].argmax(2) == ny[idx, None]).mean(0)
    rows = np.genfromtxt(runs["train"] / "metrics.csv", delimiter=",", names=True)
    np.testing.assert_allclose(accuracy, rows["train_acc_noisy"], atol=1e-6)


def test_following_more_samples_than_there_are_is_bad_input(quick, workplace):
    with pytest.raises(BadInput, match="--fine_samples 201.* 200"):
        main_gen_path.main(quick("--fine_samples", 201))
    assert not list(workplace.iterdir())


def test_killed_at_any_moment_the_complete_steps_are_those_of_the_whole_run(quick, workplace):
    flags = quick("--scheduler", "multi", "--path_dtype", "float32")  # whose first 80 epochs are the same in all runs
    whole = main_gen_path.main([*flags, "--epochs", "40", "--run_name", "whole"])
    # as the script, but for steps that go to disk at once instead of every ten seconds
    code = "import sys, paths.recorder as r; r.FLUSH_SECONDS = 0; import main_gen_path as m; m.main(sys.argv[1:])"
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code, *flags, "--epochs", "150", "--run_name", "killed"]
    environment = {"PYTHONPATH": str(root), "PATH": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    killed = Path("results/Gen_path/run_killed")
    while process.poll() is None:
        if (killed / "PATH_TRAIN_COARSE.json").exists() and sidecar(killed, "PATH_TRAIN_COARSE")["complete_steps"] >= 5:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    for name in ("PATH_TRAIN_COARSE", "PATH_BATCH_COARSE", "PATH_BATCH_FINE"):
        steps = sorted(map(int, sidecar(killed, name)["complete"]))
        assert 2 < len(steps) < path(killed, name).shape[1] and steps == list(range(len(steps)))
        steps = steps[: path(whole, name).shape[1]]
        np.testing.assert_array_equal(path(killed, name)[:, steps], path(whole, name)[:, steps])
