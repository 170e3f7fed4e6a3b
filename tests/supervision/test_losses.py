"""The losses by hand, and the gradient that every student's step is made of."""

import math

import pytest
import torch

from supervision.losses import cross_entropy, distillation_loss, linear_loss, squared_error
from supervision.targets import one_hot

LOGITS = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])  # q = (1/2, 1/2) and (3/4, 1/4)


def test_the_loss_is_twice_the_mean_divergence():
    p_tar = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    first = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    second = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert distillation_loss(LOGITS, p_tar, 1.0).item() == pytest.approx(2 * (first + second) / 2)


def test_zeros_in_the_target_add_nothing():
    p_tar = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distillation_loss(LOGITS, p_tar, 1.0).item() == pytest.approx(math.log(2) + math.log(4))


def test_the_loss_is_zero_where_the_student_equals_the_target():
    p_tar = torch.softmax(LOGITS / 3, 1)
    assert distillation_loss(LOGITS, p_tar, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_tau_softens_the_student_and_its_square_keeps_the_size():
    tau = 2.0
    p_tar = torch.tensor([[0.25, 0.75]])
    q = math.sqrt(3) / (1 + math.sqrt(3))  # (3, 1) with square roots taken
    divergence = 0.25 * math.log(0.25 / q) + 0.75 * math.log(0.75 / (1 - q))
    assert distillation_loss(LOGITS[1:], p_tar, tau).item() == pytest.approx(2 * tau**2 * divergence)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_the_gradient_is_two_tau_times_student_minus_target(tau):
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    p_tar = torch.softmax(torch.randn(5, 4, dtype=torch.float64), 1)
    p_tar[0] = torch.tensor([0.0, 1, 0, 0])
    distillation_loss(logits, p_tar, tau).backward()
    expected = 2 * tau * (torch.softmax(logits.detach() / tau, 1) - p_tar) / 5  # the batch mean's 1/5
    torch.testing.assert_close(logits.grad, expected)


def test_one_hot_students_step_twice_as_far_as_with_cross_entropy():
    label = torch.tensor([1, 0, 3])
    grads = []
    for loss in (cross_entropy, lambda z, p: distillation_loss(z, p, 1.0)):
        logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss(logits, one_hot(label, 4)).backward()
        grads.append(logits.grad)
    torch.testing.assert_close(grads[1], 2 * grads[0])


def test_certain_and_wrong_students_have_a_finite_loss():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = distillation_loss(logits, torch.tensor([[0.0, 1.0]]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(4e4)
    assert torch.equal(logits.grad, torch.tensor([[2.0, -2.0]]))


def test_cross_entropy_by_hand():
    p_tar = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    expected = (math.log(2) + 0.5 * math.log(4 / 3) + 0.5 * math.log(4)) / 2
    assert cross_entropy(LOGITS, p_tar).item() == pytest.approx(expected)


def test_both_losses_are_scalars_and_means_over_the_batch():
    p_tar = torch.softmax(torch.randn(2, 2), 1)
    for loss in (cross_entropy, lambda z, p: distillation_loss(z, p, 2.0)):
        assert loss(LOGITS, p_tar).shape == ()
        torch.testing.assert_close(loss(LOGITS.repeat(3, 1), p_tar.repeat(3, 1)), loss(LOGITS, p_tar))


def test_squared_error_by_hand():
    p_tar = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert squared_error(LOGITS, p_tar, 1.0).item() == pytest.approx((2 * 0.25 + 2 / 16) / 2)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_the_linear_loss_steps_as_the_distillation_loss_and_takes_negative_entries(tau):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    p_tar = torch.softmax(torch.randn(4, 3, dtype=torch.float64), 1)
    p_tar[0] = torch.tensor([-0.5, 0.25, 1.25])
    (gradient,) = torch.autograd.grad(linear_loss(logits, p_tar, tau), logits)
    torch.testing.assert_close(gradient, 2 * tau * (torch.softmax(logits.detach() / tau, 1) - p_tar) / 4)
