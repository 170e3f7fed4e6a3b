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
from data import datasets
from supervision import targets
from supervision.targets import METHODS

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
