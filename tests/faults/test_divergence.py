"""A loss that is no longer finite: the message says where, nothing that is kept has learned from it, and the run goes
on from what it had saved."""

import re

import numpy as np
import pytest
import torch

from tests.faults import runs
from tests.faults.calls import call
from tests.faults.chain import CHAIN, prepare
from training import loop

UPDATES = {"main_gen_teacher": 6, "main_gen_path": 6, "cifar10h_gen_path": 8}  # of an epoch
AT = 2  # the epoch whose learning rate is absurd


@pytest.fixture
def explode(tmp_path, no_drawing):
    """explode(script, rate, *flags) -> (message, the run's folder): the learning rate is that from epoch AT on."""
    prepare(tmp_path)

    def run(script, rate, *flags):
        sound = loop.learning_rate
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "learning_rate", lambda epoch, args: rate if epoch >= AT else sound(epoch, args))
            code, _, err = call(script, [*CHAIN[script], *flags], tmp_path)
        (line,) = err.splitlines()
        assert code == 1 and line.startswith("error: "), err
        return line, tmp_path / runs.RUNS[script]

    return run


def tensors(state):
    """All floats in a state dict."""
    for value in state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else []:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield value
        else:
            yield from tensors(value)


@pytest.mark.parametrize("script", UPDATES)
def test_a_loss_that_explodes_is_told_and_the_run_goes_on_from_what_it_had(script, explode, undisturbed, tmp_path):
    line, run = explode(script, 1e30, "--save_minutes", 10)  # between epochs alone: weights explode before losses do
    found = re.search(r"update (\d+) \(epoch (\d+), learning rate (\S+)\).*last\.pt, saved after update (\d+)", line)
    assert found, line
    update, epoch, rate, saved = map(float, found.groups())
    first = AT * UPDATES[script]  # made with sound weights: the loss of the next one is the first to suffer
    assert (epoch, rate, saved) == (AT, 1e30, first) and first < update <= first + UPDATES[script], line
    for file in run.glob("*.pt"):
        assert all(value.isfinite().all() for value in tensors(torch.load(file, weights_only=True))), file
    for file in run.glob("*.npy"):
        assert np.isfinite(np.load(file)).all(), file
    code, _, err = call(script, [*CHAIN[script], "--resume"], tmp_path)
    assert code == 0, err
    assert runs.differs(script, undisturbed[0], tmp_path) == []


@pytest.mark.parametrize("script", UPDATES)
def test_nothing_is_saved_or_recorded_after_a_loss_that_was_not_finite(script, explode):
    """Saved after every update: what is saved last is the update before. Its weights have exploded, but are numbers."""
    line, run = explode(script, 1e30, "--save_minutes", 1e-9)
    last = torch.load(run / "last.pt", weights_only=True)
    assert last["update"] == AT * UPDATES[script] + 1 and f"saved after update {last['update']}" in line
    assert all(value.isfinite().all() for value in tensors(last))
    for file in run.glob("*.npy"):
        assert np.isfinite(np.load(file)).all(), file
