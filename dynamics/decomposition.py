"""One step of SGD as the sum of what each of its samples does to each prediction (the paper's Proposition 1).

After a plain SGD step on cross-entropy averaged over U samples, a sample x_o's probabilities have changed by about

    sum over u of  -lr/U  A(x_o) K(x_o, x_u) G(x_u),     G(x_u) = q(x_u) - p_tar(x_u)

K itself, K x K for each pair, is never formed: K(x_o, x_u) G(x_u) is the product of x_o's Jacobian and x_u's gradient.

    step = decompose_step(model.eval(), x_observed, x_batch, target, lr=0.1)
    step.predicted[o].sum(-1)   # what pulled x_o where
"""

import math
from dataclasses import dataclass

import torch
from torch.func import grad, jvp

from dynamics.kernels import (
    call,
    check_deterministic,
    for_each_sample,
    jacobians,
    logits_of,
    plain_steps,
    softmax_jacobian,
    split_parameters,
)


@dataclass
class StepDecomposition:
    """What one step does. predicted: (O, U, K), the change of x_o's probabilities that x_u causes, to first order;
    its sum over U is the step's. A: (O, K, K). G: (U, K) = q(x_u) - p_tar(x_u)."""

    predicted: torch.Tensor
    A: torch.Tensor
    G: torch.Tensor


def decompose_step(model, x_observed, x_updated, target, lr, chunk_size=8, way=None):
    """The StepDecomposition of one SGD step of `model` on (x_updated, target).

    model: x -> logits (B, K), in eval mode, or with neither BatchNorm nor dropout; only parameters with
    requires_grad are updated. x_observed: (O, ...). x_updated: (U, ...). target: (U, K) distributions p_tar. lr: the
    step's learning rate, without momentum and weight decay, which it would add the same to whatever x_u is.
    chunk_size: how many gradients are in memory at once; with the observed samples' own K it sets the memory, which
    grows with neither O nor U. way: "gradients" (each x_o's K gradients are kept, and each x_u's multiplied with
    them) or "push_forward" (each x_u's gradient is pushed forward through all x_o); the cheaper when not given, or
    "gradients" where an operation has no forward derivative (grid_sample, EmbeddingBag). Attention and recurrent
    layers are computed in plain steps, not by fused kernels. The model is left as it was. Raises ValueError where the
    assumptions do not hold.
    """
    if target.shape[0] != len(x_updated):
        raise ValueError(f"target has {target.shape[0]} rows for {len(x_updated)} updated samples")
    check_deterministic(model, x_observed)
    q_observed, q_updated = (
        torch.cat([logits_of(model, x).softmax(1) for x in samples.split(max(chunk_size, 64))])
        for samples in (x_observed, x_updated)
    )
    if target.shape != q_updated.shape:
        raise ValueError(f"target must have shape {tuple(q_updated.shape)}, not {tuple(target.shape)}")
    target = target.to(q_updated)
    if not ((target.sum(1) - 1).abs() < 1e-3).all():
        raise ValueError("the rows of target must sum to 1: they are distributions p_tar")
    num_observed, num_updated, num_classes = len(x_observed), len(x_updated), target.shape[1]
    chosen = way
    if chosen is None:
        # in forward passes of a sample: a gradient costs about 3, a push-forward about 2
        groups = math.ceil(num_observed / _kept_at_once(chunk_size, num_classes))
        gradients = 3 * (num_observed * num_classes + groups * num_updated)
        chosen = "gradients" if gradients <= num_updated * (3 + 2 * num_observed) else "push_forward"
    A = softmax_jacobian(q_observed)
    # (O, U, K): K(x_o, x_u) G(x_u), the change of logits per unit of -lr/U
    samples = (model, x_observed, x_updated, target, chunk_size)
    try:
        products = WAYS[chosen](*samples)
    except NotImplementedError:
        if way is not None:
            raise
        products = WAYS["gradients"](*samples)
    predicted = -lr / num_updated * torch.einsum("okl,oul->ouk", A, products)
    return StepDecomposition(predicted, A, q_updated - target)


def _kept_at_once(chunk_size, num_classes):
    """Of how many x_o the K gradients are kept at once; for each such group the batch's are computed anew."""
    return max(1, chunk_size // num_classes)


def _by_gradients(model, x_observed, x_updated, target, chunk_size):
    rows = []
    for observed in x_observed.split(_kept_at_once(chunk_size, target.shape[1])):
        kept = {name: j.flatten(2) for name, j in jacobians(model, observed).items()}  # (o, K, P)
        columns = []
        for x, p in zip(x_updated.split(chunk_size), target.split(chunk_size), strict=True):
            gradients = _gradients(model, x, p)
            columns.append(sum(torch.einsum("okp,up->ouk", j, gradients[name].flatten(1)) for name, j in kept.items()))
        rows.append(torch.cat(columns, 1))
    return torch.cat(rows)


def _by_push_forward(model, x_observed, x_updated, target, chunk_size):
    trained, others = split_parameters(model)
    columns = []
    for x, p in zip(x_updated.split(1), target.split(1), strict=True):
        gradient = {name: g[0] for name, g in _gradients(model, x, p).items()}
        with plain_steps(model):
            pushed = [
                jvp(lambda parameters, x=observed: call(model, parameters | others, x), (trained,), (gradient,))[1]
                for observed in x_observed.split(chunk_size)
            ]
        columns.append(torch.cat(pushed))
    return torch.stack(columns, 1)


def _gradients(model, x, target):
    """{name: (B, *shape)}: each sample's own gradient of cross-entropy, J(x_u)^T G(x_u)."""
    return for_each_sample(grad, lambda logits, p: -(p * logits.log_softmax(0)).sum(), model, x, target)


WAYS = {"gradients": _by_gradients, "push_forward": _by_push_forward}
