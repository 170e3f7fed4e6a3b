"""Proposition 1 against steps that are really taken, against the full NTK, and each way of computing it."""

import contextlib
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
    optimizer = torch.optim.SGD([p for p in stepped.parameters() if p.requires_grad], abs(lr), maximize=lr < 0)
    (-(target * stepped(x_updated).log_softmax(1)).sum(1).mean()).backward()
    optimizer.step()
    with torch.no_grad():
        return stepped(x_observed).softmax(1) - model(x_observed).softmax(1)


def test_the_sum_over_the_batch_is_the_step_to_first_order(mlp, samples):
    x_observed, x_updated, target = samples
    errors = []
    for lr in (1e-2, 1e-3, 1e-4):
        actual = actual_change(mlp, x_observed, x_updated, target, lr)
        predicted = decompose_step(mlp, x_observed, x_updated, target, lr).predicted.sum(1)
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
def test_it_is_the_same_whatever_the_chunks(mlp, samples, chunk_size):
    found = decompose_step(mlp, *samples, 0.1, chunk_size).predicted
    torch.testing.assert_close(found, decompose_step(mlp, *samples, 0.1).predicted, rtol=1e-10, atol=1e-14)


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
    predicted = decompose_step(model, x[:2], x[2:], target, 1e-6).predicted.sum(1)
    torch.testing.assert_close(predicted, actual, rtol=1e-2, atol=1e-11)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4, track_running_stats=False).eval()]
)
def test_a_model_whose_output_depends_on_batch_or_chance_is_refused(layer, samples):
    model = nn.Sequential(layer, nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        decompose_step(model, *samples, 0.1)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        empirical_ntk(model, *samples[:2])


def test_chance_that_no_module_tells_of_is_refused(samples):
    class Dropping(nn.Linear):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.5, self.training))

    model = Dropping(4, 3).double()
    with pytest.raises(ValueError):
        decompose_step(model, *samples, 0.1)
    with pytest.raises(ValueError):
        empirical_ntk(model, *samples[:2])
    decompose_step(model.eval(), *samples, 0.1)


def test_batchnorm_in_eval_mode_and_dropout_of_nothing_are_accepted(samples):
    model = nn.Sequential(nn.BatchNorm1d(4).eval(), nn.Dropout(0.0), nn.Linear(4, 3)).double()
    actual = actual_change(model, *samples, 1e-5)
    torch.testing.assert_close(decompose_step(model, *samples, 1e-5).predicted.sum(1), actual, rtol=1e-3, atol=1e-10)


class Sequences(nn.Module):
    """A classifier of sequences (B, 5, 4): a layer that mixes their steps, then a linear one."""

    def __init__(self, layer, width=4):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x):
        if isinstance(self.layer, nn.MultiheadAttention):
            x, _ = self.layer(x, x, x, need_weights=False)
        elif isinstance(self.layer, nn.RNNBase):
            x, _ = self.layer(x)
        else:
            x = self.layer(x)
        return self.head(x.mean(1))


class FunctionalAttention(nn.Linear):
    def forward(self, x):
        return F.scaled_dot_product_attention(*super().forward(x).chunk(3, -1))


class Cells(nn.LSTMCell):
    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = super().forward(step, state)
        return state[0][:, None]


class Shared(nn.Module):
    """One module under two names, and a weight that two modules hold."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(self.second(self.first(x).tanh()).tanh())


SEQUENCES = {
    "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    "attention as a function": lambda: FunctionalAttention(4, 12),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "lstm": lambda: nn.LSTM(4, 4, num_layers=2, batch_first=True),
    "gru": lambda: nn.GRU(4, 2, bidirectional=True, batch_first=True),
    "lstm cells": lambda: Cells(4, 4),
    "shared and tied": Shared,
}


def all_of(model):
    """What a call must leave as it was: every place of a parameter or buffer, the very tensor and its values."""
    kept = [
        (prefix, name, tensor, tensor.detach().clone(), tensor.requires_grad, module.training)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for name, tensor in {**module._parameters, **module._buffers}.items()
        if tensor is not None
    ]
    return [(p, n, id(t), grad, mode) for p, n, t, _, grad, mode in kept], [values for _, _, _, values, _, _ in kept]


def central_difference(model, x_observed, x_updated, target, lr, h):
    """The change of probabilities to first order, without any derivative but the step's own: (O, K)."""
    ahead, back = (actual_change(model, x_observed, x_updated, target, step) for step in (h, -h))
    return (ahead - back) / (2 * h) * lr


@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "head trained"])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_any_classifier_is_decomposed_as_finite_differences_say_and_left_as_it_was(kind, frozen):
    torch.manual_seed(0)
    model = Sequences(SEQUENCES[kind]()).double().eval()
    model.layer.requires_grad_(not frozen)
    x = torch.randn(5, 5, 4, dtype=torch.float64)
    target = torch.rand(3, 3, dtype=torch.float64).softmax(1)
    expected = central_difference(model, x[:2], x[2:], target, 0.1, 1e-4)
    before, values = all_of(model)
    predicted = decompose_step(model, x[:2], x[2:], target, 0.1).predicted.sum(1)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-10)
    after, others = all_of(model)
    assert after == before
    assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True))
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.cuda.flash_sdp_enabled()
    torch.testing.assert_close(central_difference(model, x[:2], x[2:], target, 0.1, 1e-4), expected)  # it still trains


class Texts(nn.Module):
    """A classifier of token numbers (B, 6): a small transformer, the mean over its steps, a linear layer."""

    def __init__(self, num_tokens=20, width=8):
        super().__init__()
        self.tokens, self.places = nn.Embedding(num_tokens, width), nn.Embedding(6, width)
        layer = nn.TransformerEncoderLayer(width, 2, 16, activation="gelu", batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(width, 3)

    def forward(self, x):
        hidden = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        return self.head(self.encoder(hidden).mean(1))


def test_a_transformer_on_random_text_is_decomposed_text_by_text():
    """Against steps that are really taken: all texts at once, and each of them alone."""
    torch.manual_seed(0)
    model, texts = Texts().double().eval(), torch.randint(20, (11, 6))
    observed, updated = texts[:7], texts[7:]
    target = F.one_hot(torch.tensor([0, 1, 2, 1]), 3).double()
    step = decompose_step(model, observed, updated, target, 0.1)
    expected = central_difference(model, observed, updated, target, 0.1, 1e-4)
    torch.testing.assert_close(step.predicted.sum(1), expected, rtol=1e-5, atol=1e-10)
    for u in range(4):
        alone = central_difference(model, observed, updated[u : u + 1], target[u : u + 1], 0.1 / 4, 1e-4)
        torch.testing.assert_close(step.predicted[:, u], alone, rtol=1e-5, atol=1e-10)


class Counting(nn.Linear):
    """Has a buffer that each forward pass changes, and fails when it is told to."""

    def __init__(self, fails_at):
        super().__init__(4, 3)
        self.fails_at = fails_at
        self.register_buffer("calls", torch.zeros(()))
        self.calls_of_python = 0

    def forward(self, x):
        self.calls += 1
        self.calls_of_python += 1
        if self.calls_of_python == self.fails_at:
            raise RuntimeError("out of memory")
        return super().forward(x)


@pytest.mark.parametrize("fails_at", [1, 3, 5, 6, None])  # while checking, predicting, differentiating; never
def test_a_model_is_left_as_it_was_also_where_its_forward_pass_fails(fails_at, samples):
    model = Counting(fails_at).double().train()
    before, values = all_of(model)
    with contextlib.nullcontext() if fails_at is None else pytest.raises(RuntimeError, match="out of memory"):
        decompose_step(model, *samples, 0.1)
    after, others = all_of(model)
    assert after == before and all(torch.equal(a, b) for a, b in zip(values, others, strict=True))
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.cuda.flash_sdp_enabled()


class Centred(nn.Linear):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Normalised(nn.Linear):
    def forward(self, x):
        return super().forward(F.batch_norm(x, None, None, training=self.training))


@pytest.mark.parametrize("model", [Centred(4, 3), Normalised(4, 3)])
def test_a_forward_pass_that_depends_on_its_batch_is_found(model, samples):
    model, random = model.double(), torch.get_rng_state()
    with pytest.raises(ValueError, match=type(model).__name__):
        decompose_step(model, *samples, 0.1)
    with pytest.raises(ValueError):
        empirical_ntk(model, *samples[:2])
    assert torch.equal(torch.get_rng_state(), random)


def test_dropout_within_attention_and_recurrent_layers_is_refused():
    x, target = torch.randn(3, 5, 4), torch.full((2, 3), 1 / 3)
    layers = nn.MultiheadAttention(4, 2, 0.5, batch_first=True), nn.LSTM(4, 4, 2, dropout=0.5, batch_first=True)
    for layer in layers:
        with pytest.raises(ValueError):
            decompose_step(Sequences(layer), x[:1], x[1:], target, 0.1)
        decompose_step(Sequences(layer).eval(), x[:1], x[1:], target, 0.1)


def test_targets_that_do_not_fit_are_refused(mlp, samples):
    x_observed, x_updated, target = samples
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        decompose_step(mlp, x_observed, x_updated, target[:5], 0.1)
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        decompose_step(mlp, x_observed, x_updated, target[:, :2], 0.1)
    for wrong in (target / 2, 2 * target - 0.5, target.new_full((6, 3), float("nan")), target.log()):
        with pytest.raises(ValueError):
            decompose_step(mlp, x_observed, x_updated, wrong, 0.1)
