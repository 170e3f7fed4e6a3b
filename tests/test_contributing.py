"""The examples of CONTRIBUTING.md, run as they stand there."""

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchvision

import main_distill
import main_gen_teacher
import old_cifar_noisy
from common import interruption
from common.errors import Interrupted
from data import datasets
from supervision import targets
from supervision.targets import METHODS
from training import loop
from training.experiment import Experiment

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(section, module):
    """Run a section's first block at the end of a module; returns the names it has then."""
    code = re.search(rf"## {section}\n.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL)[1]
    names = dict(vars(module))
    exec(code, names)
    return names


@pytest.fixture
def bootstrapping():
    with patch.dict(METHODS):
        yield example("Add a method", targets)["Bootstrapping"]


def test_the_example_of_a_method_mixes_label_and_prediction(bootstrapping):
    logits = torch.tensor([[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]]).log()
    p_tar = bootstrapping(3, beta=0.8)(None, torch.tensor([0, 2]), None, logits)
    torch.testing.assert_close(p_tar, torch.tensor([[0.84, 0.06, 0.1], [0.05, 0.05, 0.9]]))


def test_the_example_of_a_method_is_a_method_of_both_scripts(bootstrapping, quick, workplace):
    student = main_distill.main(quick("--teach_type", "Bootstrapping", "--epochs", 1))
    assert student.name == "Bootstrapping_digits_cosine"
    compared = old_cifar_noisy.main(quick("--methods", "Bootstrapping", "--epochs", 1, "--ny_ratio", 0.4))
    assert (compared / "results.csv").read_text().splitlines()[1].startswith("Bootstrapping,")
    assert (compared / "comparison.png").exists()


class FakeSVHN:
    """Torchvision's, but for its size and for where it downloads from."""

    downloads = []

    def __init__(self, root, split, download):
        if download:
            self.downloads.append(split)
        elif split not in self.downloads:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        rng, size = np.random.default_rng(0), {"train": 300, "test": 60}[split]
        self.data = rng.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
        self.labels = np.arange(size, dtype=np.int64) % 10


def test_the_example_of_a_data_set_downloads_when_it_may_and_not_before(quick, workplace, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "SVHN", FakeSVHN)
    monkeypatch.setattr(FakeSVHN, "downloads", [])
    open_svhn = example("Add a data set", datasets)["svhn"]

    def svhn(args):
        dataset = open_svhn(args)
        assert (dataset.num_train, dataset.num_test) == (73_257, 26_032)
        dataset.num_train, dataset.num_test = 300, 60
        return dataset

    monkeypatch.setitem(datasets.DATASETS, "svhn", svhn)
    flags = [*quick("--epochs", 1), "--dataset", "svhn"]
    main_gen_teacher.main([*flags, "--check"])
    assert FakeSVHN.downloads == [] and not list(workplace.iterdir())
    run = main_gen_teacher.main(flags)
    assert FakeSVHN.downloads == ["train", "test"]
    with np.load(run / "labels.npz") as kept:
        np.testing.assert_array_equal(kept["y"], np.arange(300) % 10)


@pytest.mark.parametrize("update", [2, 5, 8])  # 4 updates an epoch; at 8, stopped in the evaluation after them
def test_the_example_of_an_observer_survives_a_stop_and_its_resuming(quick, workplace, monkeypatch, update):
    code = re.search(r"```python\n(class Entropy:.*?)```", CONTRIBUTING, re.DOTALL)[1]
    names = {"torch": torch, "print": lambda *what: said.append(what)}
    exec(code, names)
    train = Experiment.train
    watch = lambda run, state: [names["Entropy"]()]  # noqa: E731
    monkeypatch.setattr(Experiment, "train", lambda *a, **more: train(*a, **{**more, "watch": watch}))
    said = []
    main_gen_teacher.main(quick("--run_name", "whole"))
    whole, said = said, []
    end_update, evaluate = loop.end_update, loop.evaluate

    def stop_after_an_update(state, *what):
        end_update(state, *what)
        if state.update == update:
            interruption._noted = 15

    def stop_in_an_evaluation(*what):
        if said:
            interruption._noted = 15
        return evaluate(*what)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        name, stop = ("evaluate", stop_in_an_evaluation) if update == 8 else ("end_update", stop_after_an_update)
        patch.setattr(loop, name, stop)
        main_gen_teacher.main(quick("--run_name", "stopped"))
    main_gen_teacher.main(quick("--run_name", "stopped", "--resume"))
    assert said == whole and [epoch for epoch, _ in said] == [0, 1]
