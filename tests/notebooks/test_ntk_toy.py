"""notebooks/ntk_toy.py: its hand-written SGD against PyTorch's, the linearised network against a linear one."""

import copy

import ntk_toy
import pytest
import torch
from torch import nn

from data.loader import IndexedLoader
from dynamics import decompose_step, empirical_ntk
from supervision.losses import cross_entropy
from supervision.targets import OneHot
from training.loop import TrainingState, train_epoch


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    return x, torch.rand(7, 3, generator=generator, dtype=torch.float64).softmax(1)


def test_weights_have_the_published_deviations():
    W, b, V, c = (p.detach() for p in ntk_toy.network(4000, seed=0).parameters())
    assert W.shape == (4000, 2) and V.shape == (3, 4000)
    assert W.dtype == torch.float64
    assert float(W.std()) == pytest.approx(1, rel=0.05) and float(b.std()) == pytest.approx(1, rel=0.05)
    assert float(V.std()) == pytest.approx(1 / 4000, rel=0.05) and float(c.abs().max()) < 5 / 4000


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    order = ntk_toy.visiting_order(20, epochs=3, seed=0)
    epochs = [order[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order == ntk_toy.visiting_order(20, epochs=3, seed=0) != ntk_toy.visiting_order(20, epochs=3, seed=1)


def test_training_is_plain_sgd(samples):
    x, p_tar = samples
    model = ntk_toy.network(30, seed=0)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), 0.05)
    order, expected = ntk_toy.visiting_order(7, epochs=2, seed=0), []
    for u in order:
        expected.append(reference(x).softmax(1).detach())
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference(x[[u]]), p_tar[[u]]).backward()
        optimizer.step()
    path, kept = ntk_toy.train(model, x, p_tar, order, 0.05, every=1, keep=[5, 14])
    torch.testing.assert_close(path[:, :-1], torch.stack(expected, 1))
    torch.testing.assert_close(path[:, -1], reference(x).softmax(1).detach())
    torch.testing.assert_close(kept[5](x).softmax(1).detach(), expected[5])
    torch.testing.assert_close(list(kept[14].parameters()), list(reference.parameters()))


def test_the_path_has_every_so_manieth_update_and_the_end(samples):
    x, p_tar = samples
    order = ntk_toy.visiting_order(7, epochs=2, seed=0)
    whole, _ = ntk_toy.train(ntk_toy.network(10, 0), x, p_tar, order, 0.05, every=1)
    coarse, _ = ntk_toy.train(ntk_toy.network(10, 0), x, p_tar, order, 0.05, every=7)
    assert torch.equal(coarse, whole[:, ::7])


def test_of_a_linear_network_the_linearised_path_is_the_real_one(samples):
    x, p_tar = samples
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    order = ntk_toy.visiting_order(7, epochs=4, seed=0)
    linear = ntk_toy.linearised_path(empirical_ntk(model, x, x), model(x).detach(), p_tar, order, 0.3, every=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for update, u in enumerate(order):
        if update % 2 == 0:
            torch.testing.assert_close(linear[:, update // 2], model(x).softmax(1).detach())
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[[u]]), p_tar[[u]]).backward()
        optimizer.step()
    torch.testing.assert_close(linear[:, -1], model(x).softmax(1).detach())


def test_linearised_and_real_paths_come_together_with_width(samples):
    x, p_tar = samples
    order, gaps = ntk_toy.visiting_order(7, epochs=5, seed=0), []
    for width in (10, 1000):
        model = ntk_toy.network(width, seed=0)
        kernel, logits = empirical_ntk(model, x, x), model(x).detach()
        linear = ntk_toy.linearised_path(kernel, logits, p_tar, order, 0.2 / width, every=1)
        real, _ = ntk_toy.train(model, x, p_tar, order, 0.2 / width, every=1)
        gaps.append(float((linear - real).norm(dim=2).max()))
    assert gaps[1] < gaps[0] / 100


def test_a_step_taken_leaves_the_model_and_is_what_the_decomposition_says(samples):
    x, p_tar = samples
    model = ntk_toy.network(30, seed=0)
    before = copy.deepcopy(model)
    logits, probs = ntk_toy.step_taken(model, x, x[:2], p_tar[:2], 1e-5)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    predicted = decompose_step(model, x, x[:2], p_tar[:2], 1e-5).predicted.sum(1)
    assert ntk_toy.relative_error(predicted, probs) < 1e-3
    torch.testing.assert_close((model(x).detach() + logits).softmax(1) - model(x).detach().softmax(1), probs)


def test_relative_error_is_relative_to_the_real_change():
    actual = torch.tensor([[3.0, 4.0]])
    assert ntk_toy.relative_error(1.1 * actual, actual) == pytest.approx(0.1)
    assert ntk_toy.relative_error(0 * actual, actual) == 1


def test_kept_updates_explain_themselves():
    """The weights after a kept update are those before it, moved by its batch's gradient, momentum and decay."""
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (10, 2, 2, 1), dtype=torch.uint8), torch.arange(10) % 3
    draws = {"order": torch.Generator().manual_seed(1), "augmentation": torch.Generator()}
    loader = IndexedLoader(images, labels, labels, torch.arange(10), 4, (0.5,), (0.5,), "cpu", **draws)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    state = TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), loader)
    updates = ntk_toy.UpdatesKept(state, [0, 4, 5])  # the first one; the last of an epoch; that and the one before it
    for epoch in range(2):
        train_epoch(state, model, OneHot(3), cross_entropy, 0.1, [updates])
        updates.after_epoch(epoch, model)
        state.end_epoch()
    assert sorted(updates.kept) == [0, 4, 5]
    assert updates.kept[0]["momentum"] is None
    assert torch.equal(updates.kept[4]["after"][1].weight, updates.kept[5]["before"][1].weight)
    assert torch.equal(updates.kept[5]["after"][1].weight, model[1].weight)
    assert [len(updates.kept[update]["idx"]) for update in (0, 4, 5)] == [4, 4, 2]
    for update in (4, 5):
        kept = updates.kept[update]
        ((x, _, ny, _),) = loader.of_samples(kept["idx"])
        cross_entropy(kept["before"](x), OneHot(3)(x, ny, None)).backward()
        for p, after, buffer in zip(
            kept["before"].parameters(), kept["after"].parameters(), kept["momentum"], strict=True
        ):
            step = p.grad + 0.9 * buffer + 0.01 * p
            torch.testing.assert_close(after.detach(), (p - kept["lr"] * step).detach())
