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


@pytest.mark.parametrize(
    "more", [{}, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}, {"precision": "bf16-mixed"}]
)
def test_a_run_with_it_is_the_run_without_it(more, observers, read, fit):
    recorder, table = observers("lightning")
    runs = []
    for callbacks in ([], [LearningPaths(recorder, table)]):
        module = Module(dropout=0.2)
        torch.manual_seed(1)
        fit(module, IndexedDataset(Dicts()), callbacks, shuffle=True, **more)
        runs.append(module.state_dict())
    recorder.close()
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())
    np.testing.assert_allclose(read("lightning").astype(np.float32).sum(2), 1, atol=2e-3)
    assert table.visited.all()


class Stop(lightning.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize("steps", [7, 14])  # an epoch, and two: from within one, Lightning goes on elsewhere
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(steps, observers, read, fit, tmp_path):
    def run(name, resume=False, callbacks=()):
        recorder, table = observers(name, resume)
        module, folder = Module(), tmp_path / name
        saving = lightning.callbacks.ModelCheckpoint(
            folder, "last", every_n_train_steps=steps, enable_version_counter=False
        )
        found = {"resume": str(folder / "last.ckpt") if resume else None}
        callbacks = [LearningPaths(recorder, table), saving, *callbacks]
        fit(module, IndexedDataset(Dicts()), callbacks, enable_checkpointing=True, **found)
        recorder.close()
        return module.state_dict(), table

    weights, table = run("whole")
    with pytest.raises(InterruptedError):
        run("cut", callbacks=[Stop(steps + 3)])
    resumed, table_too = run("cut", resume=True)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    np.testing.assert_array_equal(read("cut"), read("whole"))
    assert torch.equal(table.values, table_too.values)


def test_a_step_that_returns_no_logits_is_told(observers, fit, monkeypatch):
    monkeypatch.setattr(Module, "training_step", lambda self, batch, i: self.step(batch)["loss"])
    with pytest.raises(KeyError, match="logits"):
        fit(Module(), IndexedDataset(Dicts()), [LearningPaths(*observers("lightning"))])
