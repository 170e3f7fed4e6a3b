"""The callback for Lightning: the paths of a plain loop, and a run that it changes in nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

lightning = pytest.importorskip("lightning.pytorch", reason="pip install -r requirements-dev.txt")

from integrations.indexed import IndexedDataset  # noqa: E402
from integrations.lightning import LearningPaths  # noqa: E402

from .conftest import EPOCHS, Texts  # noqa: E402


class Pairs(Texts):
    def __getitem__(self, i):
        return torch.tensor(self.tokens[i] / 20, dtype=torch.float32), int(self.labels[i])


class Dicts(Pairs):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"x": x, "labels": y}


def network(dropout=0.0):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 3)
    )


class Module(lightning.LightningModule):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.model = network(dropout)

    def step(self, batch):
        x, y = (batch["x"], batch["labels"]) if isinstance(batch, dict) else batch[:2]
        logits = self.model(x)
        return {"loss": F.cross_entropy(logits, y), "logits": logits}

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        return self.step(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


@pytest.fixture
def fit(tmp_path):
    """fit(module, data, callbacks, shuffle=..., ...): a quick run on the CPU; returns its trainer."""

    def run(module, data, callbacks, shuffle=False, resume=None, **more):
        quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=1)
        quiet |= dict(default_root_dir=tmp_path, enable_checkpointing=False, max_epochs=EPOCHS)
        trainer = lightning.Trainer(**{**quiet, **more}, callbacks=callbacks)
        held_out = DataLoader(data.__class__(type(data.dataset)(20, seed=1)), 8)
        trainer.fit(module, DataLoader(data, 8, shuffle=shuffle), held_out, ckpt_path=resume, weights_only=True)
        return trainer

    return run


@pytest.mark.parametrize("data", [Pairs, Dicts])
def test_the_path_and_the_table_are_those_of_a_plain_loop_and_validations_are_not_in_them(
    data, plain_loop, observers, read, fit
):
    expected, average = plain_loop(network(), Dicts(), logits_of=lambda model, batch: model(batch["x"]))
    recorder, table = observers("lightning")
    fit(Module(), IndexedDataset(data()), [LearningPaths(recorder, table)], val_check_interval=3)
    recorder.close()
    assert expected.any(2).all() and np.abs(np.diff(expected, axis=1)).max() > 0.05
    np.testing.assert_array_equal(read("lightning"), expected)
    assert torch.equal(table.values, average.values)
