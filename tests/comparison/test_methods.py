"""METHODS, the registry: an entry is all that a method needs, in the comparison and in main_distill."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import is_color_like

import main_distill
import old_cifar_noisy
from common import interruption
from common.errors import Interrupted
from common.files import read_json
from comparison import methods
from supervision.targets import METHODS, Method, OwnAverage, one_hot, teach_types


def test_the_published_methods_and_their_names():
    assert methods.names(later=False) == ["OHT", "LS", "KD", "ESKD", "FilterKD", "ES-FilterKD"]
    assert {name for name, m in teach_types().items() if not m.later} >= {"table", "onehot", "smooth", "true"}
    assert teach_types()["net"].make is METHODS["KD"].make
    assert all(is_color_like(method.color) for method in METHODS.values())
    with pytest.raises(TypeError):  # now, not after hours of training
        Method(lambda given: None)


class Ensembled:
    """Temporal ensembling: the average of a sample's earlier predictions; of a sample that is new, its label."""

    def __init__(self, table):
        self.table, self.calls = table, []

    def __call__(self, x, label, idx, logits):
        seen = self.table.visited[idx, None]
        p_tar = torch.where(seen, self.table.values[idx], one_hot(label, logits.shape[1]))
        self.calls.append((label, idx, logits, p_tar))
        if len(self.calls) == self.stop_after:
            interruption._noted = 15
        return p_tar

    stop_after = None


def generalised_cross_entropy(logits, p_tar, tau):
    """(1 - q_y^.7) / .7 (Zhang and Sabuncu 2018)."""
    q = (logits / tau).softmax(1)
    return (p_tar * (1 - q**0.7) / 0.7).sum(1).mean()


@pytest.fixture
def made(monkeypatch):
    """The targets that are made while TE is a method: learnt from the run's own table, by another loss."""
    made = []

    def make(given):
        made.append(Ensembled(given.teacher))
        return made[-1]

    entry = Method(make, color="#117733", teacher="own table", log_name="Ensembled", loss=generalised_cross_entropy)
    monkeypatch.setitem(METHODS, "TE", entry)
    return made


SCRIPTS = {
    "comparison": (lambda flags: old_cifar_noisy.main([*flags, "--methods", "TE"]) / "seed_10086" / "TE", "--temp", 2),
    "distill": (lambda flags: main_distill.main([*flags, "--teach_type", "TE"]), "--tau", 1),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_method_is_its_entry_and_may_learn_from_its_own_table_by_another_loss(quick, workplace, made, script):
    main, flag, tau = SCRIPTS[script]
    flags = ("--epochs", 3, "--ny_ratio", 0.4, "--smoothing", 0.25, flag, tau)
    folder = Path(main(quick(*flags)))
    (target,) = made
    epochs = []
    for calls in (target.calls[:4], target.calls[4:8], target.calls[8:12]):  # 180 samples in batches of 50
        label, idx, logits, p_tar = map(torch.cat, zip(*calls, strict=True))
        by_idx = idx.argsort()
        q = (logits / tau).double().softmax(1).numpy()
        epochs.append([np.asarray(value)[by_idx] for value in (label, q, p_tar)])
    (label, first, given), (_, second, once), (_, third, twice) = epochs
    assert len(label) == 180
    np.testing.assert_array_equal(given, np.eye(10)[label])
    np.testing.assert_allclose(once, first, atol=1e-6)
    np.testing.assert_allclose(twice, 0.75 * first + 0.25 * second, atol=1e-6)
    with open(folder / "metrics.csv", newline="") as f:
        losses = [float(row["train_loss"]) for row in csv.DictReader(f)]
    by_hand = [(p_tar * (1 - q**0.7) / 0.7).sum(1).mean() for _, q, p_tar in epochs]
    np.testing.assert_allclose(losses, by_hand, rtol=1e-5)
    table = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    saved = np.load(folder / "epoch_2.npy")
    np.testing.assert_allclose(saved[saved.sum(1) > 0], table, atol=1e-6)
    if script == "comparison":
        comparison = folder.parent.parent
        assert {path.name for path in folder.parent.iterdir()} == {"TE"}  # nothing had to teach it
        assert (comparison / "comparison.png").exists() and (comparison / "Ensembled.txt").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_taught_by_its_own_table_goes_on_where_it_was(quick, workplace, made, script, monkeypatch):
    main, *_ = SCRIPTS[script]
    names = {"comparison": "--path", "distill": "--run_name"}
    whole = main(quick(names[script], "whole"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Ensembled, "stop_after", 6)  # within the second epoch
        main(quick(names[script], "stopped"))
    stopped = main(quick(names[script], "stopped", "--resume"))
    for name in ("epoch_1.pt", "epoch_1.npy"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()
    if script == "comparison":
        assert read_json(whole / "result.json")["row"] == read_json(stopped / "result.json")["row"]


def test_later_methods_bring_what_teaches_them_and_remember_across_a_stop(quick, workplace, monkeypatch):
    chosen = ("--methods", "KD-SE", "PLL", "SELC", "SAT", "TE", "PS-KD", "ELR", "SelfFilterKD")
    whole = old_cifar_noisy.main(quick("--path", "whole", *chosen, "--epochs", 2))
    trained = {folder.name for folder in (whole / "seed_10086").iterdir()}
    assert trained == {"OHT", "SquaredError", *chosen[1:]}
    after_forward, calls = OwnAverage.after_forward, []

    def stop(self, *what):
        after_forward(self, *what)
        calls.append(self)
        if len(calls) == 6:  # within SELC's second epoch, the first that it averages
            interruption._noted = 15

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(OwnAverage, "after_forward", stop)
        old_cifar_noisy.main(quick("--path", "stopped", *chosen, "--epochs", 2))
    stopped = old_cifar_noisy.main(quick("--path", "stopped", *chosen, "--epochs", 2, "--resume"))
    assert (whole / "results.csv").read_text() == (stopped / "results.csv").read_text()


def test_students_may_start_from_other_weights_than_their_teachers(quick, workplace):
    methods_flag = ("--methods", "KD", "LS", "--ny_ratio", 0.4, "--epochs", 1)
    same, other = (old_cifar_noisy.main(quick("--path", s, "--start", s, *methods_flag)) for s in ("same", "other"))

    def read(folder, method, file="metrics.csv"):
        return (folder / "seed_10086" / method / file).read_text()

    assert [read(same, m).rsplit(",", 2)[0] == read(other, m).rsplit(",", 2)[0] for m in ("OHT", "LS", "KD")] == [
        1,
        1,
        0,
    ]
    labels = [np.load(run / "seed_10086" / "KD" / "labels.npz") for run in (same, other)]
    assert all((labels[0][name] == labels[1][name]).all() for name in ("ny", "idx", "valid_idx"))
    with open(other / "results.csv", newline="") as f:
        assert {row["seed"] for row in csv.DictReader(f)} == {"10086"}
