"""Proposition 1 against steps that are really taken, against the full NTK, and each way of computing it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynamics import decompose_step, empirical_ntk, softmax_jacobian
from dynamics.kernels import jacobians
from models import build_model


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).double()


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    return x[:5], x[5:], torch.rand(6, 3, generator=generator, dtype=torch.float64).softmax(1)


def actual_change(model, x_observed, x_updated, target, lr):
    """What one plain SGD step really does to the probabilities: (O, K)."""
    stepped = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in stepped.parameters() if p.requires_grad], lr)
    (-(target * stepped(x_updated).log_softmax(1)).sum(1).mean()).backward()
    optimizer.step()
    with torch.no_grad():
        return stepped(x_observed).softmax(1) - model(x_observed).softmax(1)


@pytest.mark.parametrize("way", ["gradients", "push_forward", None])
def test_the_sum_over_the_batch_is_the_step_to_first_order(mlp, samples, way):
    x_observed, x_updated, target = samples
    errors = []
    for lr in (1e-2, 1e-3, 1e-4):
        actual = actual_change(mlp, x_observed, x_updated, target, lr)
        predicted = decompose_step(mlp, x_observed, x_updated, target, lr, way=way).predicted.sum(1)
        errors.append(float((predicted - actual).norm() / actual.norm()))
    assert errors[-1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)  # first order: the relative error shrinks with lr
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


def test_each_samples_part_is_the_step_on_that_sample_alone(mlp, samples):
    x_observed, x_updated, target = samples
    step = decompose_step(mlp, x_observed, x_updated, target, 1e-5)
    for u in range(6):
        alone = actual_change(mlp, x_observed, x_updated[u : u + 1], target[u : u + 1], 1e-5 / 6)
        torch.testing.assert_close(step.predicted[:, u], alone, rtol=1e-3, atol=1e-12)


def test_it_is_A_K_G_of_the_full_ntk(mlp, samples):
    x_observed, x_updated, target = samples
    step = decompose_step(mlp, x_observed, x_updated, target, 0.3)
    kernel = empirical_ntk(mlp, x_observed, x_updated, chunk_size=2)
    q = mlp(x_updated).softmax(1).detach()
    torch.testing.assert_close(step.G, q - target)
    expected = -0.3 / 6 * torch.einsum("okl,oulm,um->ouk", step.A, kernel, q - target)
    torch.testing.assert_close(step.predicted, expected)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_both_ways_agree_whatever_the_chunks(mlp, samples, chunk_size):
    found = [decompose_step(mlp, *samples, 0.1, chunk_size, way).predicted for way in ("gradients", "push_forward")]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found[0], decompose_step(mlp, *samples, 0.1).predicted)


def test_the_ntk_against_gradients_one_by_one(mlp, samples):
    x_observed, x_updated, _ = samples
    kernel = empirical_ntk(mlp, x_observed, x_updated)
    parameters = list(mlp.parameters())

    def gradient(x, k):
        return torch.cat([g.flatten() for g in torch.autograd.grad(mlp(x[None])[0, k], parameters)])

    for o, u, k, m in ((0, 0, 0, 0), (4, 5, 2, 1), (3, 1, 0, 2)):
        expected = gradient(x_observed[o], k) @ gradient(x_updated[u], m)
        assert float(kernel[o, u, k, m]) == pytest.approx(float(expected), rel=1e-10)
    own = empirical_ntk(mlp, x_observed, x_observed).permute(0, 2, 1, 3).reshape(15, 15)
    torch.testing.assert_close(own, own.T)
    assert torch.linalg.eigvalsh(own).min() > -1e-10


def test_A_is_the_derivative_of_softmax_and_positive_semi_definite():
    z = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = softmax_jacobian(z.softmax(1))
    for row, found in zip(z, A, strict=True):
        torch.testing.assert_close(found, torch.autograd.functional.jacobian(lambda v: v.softmax(0), row))
    assert torch.linalg.eigvalsh(A).min() > -1e-15
    torch.testing.assert_close(A.sum(2), torch.zeros(7, 4, dtype=torch.float64))


def test_frozen_parameters_are_not_updated(mlp, samples):
    mlp[0].requires_grad_(False)
    assert set(jacobians(mlp, samples[0])) == {"2.weight", "2.bias"}
    actual = actual_change(mlp, *samples, 1e-4)
    torch.testing.assert_close(decompose_step(mlp, *samples, 1e-4).predicted.sum(1), actual, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("net, norm", [("smallcnn", "batch"), ("smallcnn", "group"), ("resnet18", "batch")])
def test_networks_of_the_scripts_in_eval_mode(net, norm):
    torch.manual_seed(0)
    model = build_model(net, 3, 8, 1, norm=norm).double().eval()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    target = F.one_hot(torch.tensor([0, 1, 2]), 3).double()
    actual = actual_change(model, x[:2], x[2:], target, 1e-6)
    for way in ("gradients", "push_forward"):
        predicted = decompose_step(model, x[:2], x[2:], target, 1e-6, way=way).predicted.sum(1)
        torch.testing.assert_close(predicted, actual, rtol=1e-2, atol=1e-11)


@pytest.mark.parametrize(
    "layer, message",
    [
        (nn.BatchNorm1d(4), "takes its statistics from the batch"),
        (nn.Dropout(0.5), "drops at random"),
        (nn.BatchNorm1d(4, track_running_stats=False).eval(), "takes its statistics from the batch"),
    ],
)
def test_a_model_whose_output_depends_on_batch_or_chance_is_refused(layer, message, samples):
    model = nn.Sequential(layer, nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match=rf"0 \({type(layer).__name__}\) {message}"):
        decompose_step(model, *samples, 0.1)
    with pytest.raises(ValueError, match=message):
        empirical_ntk(model, *samples[:2])


def test_chance_that_no_module_tells_of_is_refused(samples):
    class Dropping(nn.Linear):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.5, self.training))

    model = Dropping(4, 3).double()
    for way in ("gradients", "push_forward"):
        with pytest.raises(ValueError, match="draws random numbers"):
            decompose_step(model, *samples, 0.1, way=way)
    with pytest.raises(ValueError, match="draws random numbers"):
        empirical_ntk(model, *samples[:2])
    decompose_step(model.eval(), *samples, 0.1)


def test_batchnorm_in_eval_mode_and_dropout_of_nothing_are_accepted(samples):
    model = nn.Sequential(nn.BatchNorm1d(4).eval(), nn.Dropout(0.0), nn.Linear(4, 3)).double()
    actual = actual_change(model, *samples, 1e-5)
    torch.testing.assert_close(decompose_step(model, *samples, 1e-5).predicted.sum(1), actual, rtol=1e-3, atol=1e-10)


def test_the_cheaper_way_is_taken(mlp, monkeypatch):
    from dynamics import decomposition

    taken = []

    def count(way):
        real = decomposition.WAYS[way]
        return lambda *a: taken.append(way) or real(*a)

    monkeypatch.setattr(decomposition, "WAYS", {way: count(way) for way in decomposition.WAYS})
    x = torch.randn(60, 4, dtype=torch.float64)
    target = torch.full((60, 3), 1 / 3, dtype=torch.float64)
    decompose_step(mlp, x[:1], x, target, 0.1)
    decompose_step(mlp, x, x[:1], target[:1], 0.1)
    assert taken == ["gradients", "push_forward"]
    taken.clear()
    # of many by many the batch's gradients are needed anew for every few x_o whose own are kept
    decompose_step(mlp, x[:40], x[:40], target[:40], 0.1, chunk_size=2)
    decompose_step(mlp, x[:40], x[:40], target[:40], 0.1, chunk_size=1000)
    assert taken == ["push_forward", "gradients"]


def test_targets_that_do_not_fit_are_refused(mlp, samples):
    x_observed, x_updated, target = samples
    with pytest.raises(ValueError, match="5 rows for 6"):
        decompose_step(mlp, x_observed, x_updated, target[:5], 0.1)
    with pytest.raises(ValueError, match=r"must have shape \(6, 3\)"):
        decompose_step(mlp, x_observed, x_updated, target[:, :2], 0.1)
