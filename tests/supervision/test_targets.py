"""The target distributions p_tar: each method's by hand, and temperature changes that know zeros."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from supervision.losses import linear_loss
from supervision.targets import (
    EarlyRegularised,
    Given,
    OneHot,
    OwnPast,
    SelfAdaptive,
    SelfCorrected,
    SelfFiltered,
    SmoothedLabel,
    TeacherNetwork,
    TeacherTable,
    TemporalEnsemble,
    TopTwo,
    TrueDistribution,
    one_hot,
    sharpen,
)

X = torch.zeros(3, 1, 8, 8)  # a batch of images, for targets that do not look at them
LABEL = torch.tensor([1, 0, 2])
IDX = torch.tensor([4, 0, 2])
TAUS = st.floats(0.01, 1000)


def distributions():
    """(N, K) float64 arrays whose rows sum to 1, many of them with zeros."""
    entries = st.one_of(st.just(0.0), st.floats(1e-6, 1))
    weights = st.integers(2, 6).flatmap(lambda k: arrays(np.float64, (3, k), elements=entries))
    return weights.filter(lambda w: (w.sum(1) > 0).all()).map(lambda w: w / w.sum(1, keepdims=True))


# ------------------------------------------------------------------------------------- given by the label


def test_one_hot_puts_all_mass_on_the_given_label():
    expected = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert torch.equal(one_hot(LABEL, 3), expected)
    assert torch.equal(OneHot(3)(X, LABEL, IDX), expected)


def test_smoothing_spreads_epsilon_over_all_classes():
    p_tar = SmoothedLabel(3, epsilon=0.3)(X, LABEL, IDX)
    torch.testing.assert_close(p_tar, torch.tensor([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))


def test_smoothed_labels_sum_to_one():  # the published ones sum to 1.015
    p_tar = SmoothedLabel(10, epsilon=0.03)(X, LABEL, IDX)
    torch.testing.assert_close(p_tar.sum(1), torch.ones(3))


def test_smoothing_by_nothing_is_one_hot_and_by_one_is_uniform():
    assert torch.equal(SmoothedLabel(3, 0.0)(X, LABEL, IDX), one_hot(LABEL, 3))
    torch.testing.assert_close(SmoothedLabel(3, 1.0)(X, LABEL, IDX), torch.full((3, 3), 1 / 3))


# ------------------------------------------------------------------------------------------------ sharpen


def test_temperature_two_takes_square_roots():
    p = torch.tensor([[0.64, 0.36]])
    torch.testing.assert_close(sharpen(p, 2), torch.tensor([[0.8, 0.6]]) / 1.4)


def test_temperature_one_half_squares():
    p = torch.tensor([[0.6, 0.2, 0.2]])
    torch.testing.assert_close(sharpen(p, 0.5), torch.tensor([[0.36, 0.04, 0.04]]) / 0.44)


def test_zeros_stay_zeros():
    p = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    for tau in (0.01, 0.5, 1, 2, 1000):
        torch.testing.assert_close(sharpen(p, tau), p)


def test_a_row_of_zeros_stays_zeros_instead_of_nan():
    p = torch.tensor([[0.0, 0.0], [0.25, 0.75]])
    for tau in (0.01, 1, 3):
        assert torch.equal(sharpen(p, tau)[0], torch.zeros(2))
        assert sharpen(p, tau)[1].sum() == pytest.approx(1)


def test_a_small_temperature_leaves_the_largest_class():
    p = torch.tensor([[0.3, 0.31, 0.39], [0.5, 0.5, 0.0]])
    torch.testing.assert_close(sharpen(p, 1e-3), torch.tensor([[0.0, 0, 1], [0.5, 0.5, 0]]))


def test_a_small_temperature_does_not_underflow():
    p = torch.full((1, 100), 0.01)  # .01^1000 is zero in any floating point
    torch.testing.assert_close(sharpen(p, 1e-3), p)


def test_a_large_temperature_evens_out_what_is_not_zero():
    p = torch.tensor([[0.9, 0.1, 0.0]])
    torch.testing.assert_close(sharpen(p, 1e6), torch.tensor([[0.5, 0.5, 0.0]]))


def test_very_small_probabilities_keep_their_ratio():
    p = torch.tensor([[1.0, 1e-20, 1e-30]])
    torch.testing.assert_close(sharpen(p, 10), torch.tensor([[1.0, 1e-2, 1e-3]]) / 1.011)


@pytest.mark.parametrize("tau", [0, -1, float("nan")])
def test_a_temperature_that_is_not_positive_is_an_error(tau):
    with pytest.raises(ValueError, match="tau"):
        sharpen(torch.tensor([[0.5, 0.5]]), tau)


@settings(max_examples=100, deadline=None)
@given(distributions(), TAUS)
def test_sharpen_is_the_softmax_of_log_p_over_tau(p, tau):
    p = torch.from_numpy(p)
    torch.testing.assert_close(sharpen(p, tau), torch.softmax(p.log() / tau, 1), atol=1e-9, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(distributions(), TAUS)
def test_sharpened_rows_are_distributions_with_the_same_ranks(p, tau):
    sharpened = sharpen(torch.from_numpy(p).float(), tau).double().numpy()
    assert (sharpened >= 0).all()
    np.testing.assert_allclose(sharpened.sum(1), 1, atol=1e-5)
    for before, after in zip(p, sharpened, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= -1e-6).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (3, 4), elements=st.floats(-20, 20)), st.floats(0.2, 20), st.floats(0.2, 20))
def test_sharpening_a_softmax_changes_its_temperature(logits, first, second):
    logits = torch.from_numpy(logits)
    expected = torch.softmax(logits / (first * second), 1)
    torch.testing.assert_close(sharpen(torch.softmax(logits / first, 1), second), expected, atol=1e-6, rtol=1e-4)


# ------------------------------------------------------------------------------------------- by a teacher


def dropout_teacher():
    """A network that predicts the same only in eval mode, and whose BatchNorm moves only in train mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()


def test_a_teacher_network_teaches_its_softmax_at_tau():
    teacher = nn.Identity()
    logits = torch.tensor([[2.0, 0.0, -4.0]])
    torch.testing.assert_close(TeacherNetwork(teacher, tau=2)(logits, None, None), torch.softmax(logits / 2, 1))


def test_a_teacher_network_runs_in_eval_mode_on_the_students_batch():
    teacher, x = dropout_teacher(), torch.randn(5, 6)
    target = TeacherNetwork(teacher, tau=1)
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert torch.equal(target(x, None, None), target(x, None, None))
    assert all(torch.equal(state[name], value) for name, value in teacher.state_dict().items())
    torch.testing.assert_close(target(x, None, None), teacher.eval()(x).softmax(1))


def test_a_teacher_network_draws_from_no_generator():
    target, x = TeacherNetwork(dropout_teacher(), tau=1), torch.randn(5, 6)
    before = torch.get_rng_state()
    target(x, None, None)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_gradient_reaches_the_teacher_or_the_images():
    x = torch.randn(5, 6, requires_grad=True)
    teacher = dropout_teacher()
    p_tar = TeacherNetwork(teacher, tau=1)(x, None, None)
    assert not p_tar.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_network_is_called_through_forward_and_answers_in_float32():
    target = TeacherNetwork(nn.Identity(), tau=1, forward=lambda x: x.half() + torch.tensor([0.0, 1.0]).half())
    p_tar = target(torch.zeros(1, 2), None, None)
    assert p_tar.dtype == torch.float32
    torch.testing.assert_close(p_tar, torch.softmax(torch.tensor([[0.0, 1.0]]), 1))


TABLE = torch.tensor([[0.2, 0.3, 0.5], [0, 0, 0], [0.1, 0.8, 0.1], [0, 0, 0], [0.7, 0.2, 0.1]])


def test_a_teacher_table_is_looked_up_by_idx():
    p_tar = TeacherTable(TABLE)(X, LABEL, IDX)
    torch.testing.assert_close(p_tar, TABLE[[4, 0, 2]])


def test_a_teacher_tables_rows_are_sharpened_by_tau():
    p_tar = TeacherTable(TABLE, tau=2)(X, LABEL, IDX)
    torch.testing.assert_close(p_tar, torch.softmax(TABLE[[4, 0, 2]].log() / 2, 1))


def test_rows_never_visited_fall_back_to_the_samples_own_label():
    p_tar = TeacherTable(TABLE, tau=3)(X, torch.tensor([2, 0, 1]), torch.tensor([1, 2, 3]))
    assert torch.equal(p_tar[0], torch.tensor([0.0, 0, 1]))
    assert torch.equal(p_tar[2], torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(p_tar[1], torch.softmax(TABLE[2].log() / 3, 0))


def test_rows_never_visited_are_counted_among_the_samples_in_use():
    target = TeacherTable(TABLE)
    assert target.count_unvisited(np.arange(5)) == 2
    assert target.count_unvisited(np.array([0, 1, 2])) == 1
    assert target.count_unvisited(np.array([], dtype=np.int64)) == 0


def test_a_teacher_table_leaves_the_table_as_it_was():
    values = TABLE.clone()
    TeacherTable(values, tau=2)(X, LABEL, IDX)
    assert torch.equal(values, TABLE)


def test_the_true_distribution_is_looked_up_by_idx():
    probs = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1, 0]], dtype=torch.float64)
    p_tar = TrueDistribution(probs)(X, LABEL, torch.tensor([2, 0]))
    assert torch.equal(p_tar, torch.tensor([[1.0, 0], [0.2, 0.8]]))


# ---------------------------------------------------------------------------------------- of later papers

GIVEN = Given(3, SimpleNamespace(epochs=10), num_samples=5)
Q = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [[0.2, 0.2, 0.6], [0.6, 0.2, 0.2]]])  # two visits, two samples
ROWS, GIVEN_LABEL = torch.tensor([4, 1]), torch.tensor([1, 0])


def visit(target, number, epoch=None):
    """What the target says at a visit of both samples, which it then remembers."""
    epoch = number if epoch is None else epoch
    target.before_epoch(epoch, None)
    p_tar = target(None, GIVEN_LABEL, ROWS, Q[number].log())
    assert torch.equal(target(None, GIVEN_LABEL, ROWS, Q[number].log()), p_tar)  # asking changes nothing
    target.after_forward(number, epoch, ROWS, Q[number].log())
    return p_tar


def test_selc_fades_the_label_into_its_own_average():
    target, label = SelfCorrected(GIVEN, 0.9), one_hot(GIVEN_LABEL, 3)
    torch.testing.assert_close(visit(target, 0), 0.9 * label + 0.1 * Q[0])
    torch.testing.assert_close(visit(target, 1), 0.81 * label + 0.09 * Q[0] + 0.1 * Q[1])


def test_selc_teaches_the_label_before_it_begins_and_remembers_nothing_of_it():
    target, label = SelfCorrected(GIVEN, 0.9, begin=6), one_hot(GIVEN_LABEL, 3)
    assert torch.equal(visit(target, 0, epoch=5), label)
    torch.testing.assert_close(visit(target, 1, epoch=6), 0.9 * label + 0.1 * Q[1])


def test_sat_weighs_a_sample_by_its_targets_largest_entry():
    target, logits = SelfAdaptive(GIVEN, 0.9), Q[1].log().requires_grad_()
    visit(target, 0)
    t = 0.81 * one_hot(GIVEN_LABEL, 3) + 0.09 * Q[0] + 0.1 * Q[1]
    w = t.amax(1)  # .857 and .879
    by_hand = -(w * (t * logits.log_softmax(1)).sum(1)).sum() / w.sum()
    loss = linear_loss(logits, target(None, GIVEN_LABEL, ROWS, logits.detach()), 1.0)
    torch.testing.assert_close(loss, 2 * by_hand)


def test_pskd_leans_more_on_the_prediction_of_the_epoch_before_from_epoch_to_epoch():
    target, label = OwnPast(GIVEN, 0.8), one_hot(GIVEN_LABEL, 3)
    assert torch.equal(visit(target, 0), label)
    torch.testing.assert_close(visit(target, 1), (1 - 0.16) * label + 0.16 * Q[0])  # .8 * 2 of 10
    target.before_epoch(9, None)
    torch.testing.assert_close(target(None, GIVEN_LABEL, ROWS), 0.2 * label + 0.8 * Q[1])


def test_elrs_target_has_its_losses_gradient():
    target, logits = EarlyRegularised(GIVEN, 0.7, 3), Q[1].double().log().requires_grad_()
    visit(target, 0)
    t = 0.7 * 0.3 * Q[0] + 0.3 * Q[1]
    loss = F.cross_entropy(logits, GIVEN_LABEL) + 3 * (1 - (t * logits.softmax(1)).sum(1)).log().mean()
    (expected,) = torch.autograd.grad(2 * loss, logits)
    (found,) = torch.autograd.grad(linear_loss(logits, target(None, GIVEN_LABEL, ROWS, logits.detach()), 1.0), logits)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_temporal_ensembling_has_its_losses_gradient():
    target, logits = TemporalEnsemble(GIVEN, 0.6, most=30), Q[1].double().log().requires_grad_()
    assert torch.equal(visit(target, 0), one_hot(GIVEN_LABEL, 3))
    target.before_epoch(1, None)
    w = 30 * math.exp(-5 * (1 - 1 / (10 * 80 / 300)) ** 2)
    loss = F.cross_entropy(logits, GIVEN_LABEL) + w * (logits.softmax(1) - Q[0]).square().mean()  # .4 Q / (1 - .6)
    (expected,) = torch.autograd.grad(2 * loss, logits)
    (found,) = torch.autograd.grad(linear_loss(logits, target(None, GIVEN_LABEL, ROWS, logits.detach()), 1.0), logits)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def path_of_fitted_labels(begins, steps=4, n=12):
    """Logits (steps, n, 3) of samples with label 0: at class 1 before the step `begins`, at the label from then on."""
    fitted = torch.arange(steps)[:, None] >= begins
    return 4.0 * F.one_hot(torch.where(fitted, 0, 1).expand(steps, n), 3)


@pytest.mark.parametrize(("fitted", "begun"), [(4, False), (5, True)])
def test_self_filtering_begins_when_predictions_leave_their_average_for_the_label(fitted, begun):
    """Of 12 samples, `fitted` turn to their label, 0, at their fourth visit: a sign test needs over 2 sqrt(n)."""
    target = SelfFiltered(Given(3, SimpleNamespace(epochs=6), num_samples=12, labels=np.zeros(12, int)), 0.9, 0.5)
    path, rows, label = path_of_fitted_labels(3), torch.arange(12), torch.zeros(12, dtype=torch.int64)
    path[3, fitted:] = path[2, fitted:]
    for epoch, logits in enumerate(path):
        target.before_epoch(epoch, None)
        assert torch.equal(target(None, label, rows, logits), one_hot(label, 3))
        for batch in rows.split(5):
            target.after_forward(0, epoch, batch, logits[batch])
    copied = SelfFiltered(Given(3, SimpleNamespace(epochs=6), num_samples=12, labels=np.zeros(12, int)), 0.9, 0.5)
    copied.load_state_dict(target.state_dict())
    for resumed in (target, copied):
        resumed.before_epoch(4, None)
        p_tar = resumed(None, label, rows, path[0])
        weights = torch.tensor([0.9**4, 0.9**3, 0.9**2, 0.9, 1.0])
        average = (weights[:, None, None] * torch.cat([path, path[:1]]).softmax(2)).sum(0)
        by_hand = 35 / 36 * average**2 / (average**2).sum(1, keepdim=True) + 1 / 36 * one_hot(label, 3)  # (1/6)^2
        torch.testing.assert_close(p_tar, by_hand if begun else one_hot(label, 3))
    target.after_forward(4, 4, rows, path[0 if begun else 3])
    target.before_epoch(5, None)  # an epoch counts by itself, and what has begun goes on
    assert torch.equal(target(None, label, rows, path[3]), one_hot(label, 3)) != begun


def test_partial_labels_are_the_teachers_two_best():
    p_tar = TopTwo(nn.Identity())(torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]), None, None)
    assert torch.equal(p_tar, torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5]]))


def test_what_a_target_remembers_can_be_saved():
    target, other = SelfCorrected(GIVEN, 0.9), SelfCorrected(GIVEN, 0.9)
    visit(target, 0)
    other.load_state_dict(target.state_dict())
    assert torch.equal(visit(other, 1), visit(target, 1))


TARGETS = {
    "OHT": OneHot(3),
    "LS": SmoothedLabel(3, 0.1),
    "KD": TeacherNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 2.0),
    "FilterKD": TeacherTable(TABLE, 2.0),
    "GT": TrueDistribution(torch.full((5, 3), 1 / 3)),
    "PLL": TopTwo(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
    "SELC": SelfCorrected(GIVEN, 0.9),
    "PS-KD": OwnPast(GIVEN, 0.8),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_every_method_gives_float32_distributions_without_gradient(target):
    p_tar = target(X, LABEL, torch.tensor([1, 2, 3]), torch.zeros(3, 3))
    assert p_tar.shape == (3, 3) and p_tar.dtype == torch.float32 and not p_tar.requires_grad
    assert (p_tar >= 0).all()
    torch.testing.assert_close(p_tar.sum(1), torch.ones(3))
