"""One step of SGD as the sum of what each of its samples does to each prediction (the paper's Proposition 1).

After a plain SGD step on cross-entropy averaged over U samples, a sample x_o's probabilities have changed by about

    sum over u of  -lr/U  A(x_o) K(x_o, x_u) G(x_u),     G(x_u) = q(x_u) - p_tar(x_u)

K itself, K x K for each pair, is never formed: K(x_o, x_u) G(x_u) is the product of x_o's Jacobian and x_u's gradient.

    step = decompose_step(model.eval(), x_observed, x_batch, target, lr=0.1)
    step.predicted[o].sum(-1)   # what pulled x_o where
"""

from dataclasses import dataclass

import torch
from torch.func import grad

from dynamics.kernels import check_deterministic, for_each_sample, jacobians, logits_of, softmax_jacobian


@dataclass
class StepDecomposition:
    """What one step does. predicted: (O, U, K), the change of x_o's probabilities that x_u causes, to first order;
    its sum over U is the step's. A: (O, K, K). G: (U, K) = q(x_u) - p_tar(x_u)."""

    predicted: torch.Tensor
    A: torch.Tensor
    G: torch.Tensor


def decompose_step(model, x_observed, x_updated, target, lr, chunk_size=None):
    """The StepDecomposition of one SGD step of `model` on (x_updated, target).

    model: x -> logits (B, K), in eval mode, or with neither BatchNorm nor dropout; only parameters with
    requires_grad are updated. x_observed: (O, ...). x_updated: (U, ...). target: (U, K) distributions p_tar. lr: the
    step's learning rate, without momentum and weight decay, which it would add the same to whatever x_u is.
    chunk_size: how many gradients of the batch are in memory at once, beside the K gradients of each of chunk_size / K
    observed samples; for these the batch's are computed anew, so that more is faster (when not given: 8, or as many as
    are ten million numbers). Attention and recurrent layers are computed in plain steps, not by fused kernels. The
    model is left as it was. Raises ValueError where the assumptions do not hold.
    """
    check_deterministic(model, x_observed)
    chunk_size = chunk_size or max(8, 10_000_000 // sum(p.numel() for p in model.parameters()))
    q_observed, q_updated = (
        torch.cat([logits_of(model, x).softmax(1) for x in samples.split(max(chunk_size, 64))])
        for samples in (x_observed, x_updated)
    )
    if target.shape != q_updated.shape:
        raise ValueError(f"target must have shape {tuple(q_updated.shape)}, not {tuple(target.shape)}")
    target = target.to(q_updated)
    if not ((target.sum(1) - 1).abs() < 1e-3).all():
        raise ValueError("the rows of target must sum to 1: they are distributions p_tar")
    A, rows = softmax_jacobian(q_observed), []
    for observed in x_observed.split(max(1, chunk_size // target.shape[1])):
        kept = {name: j.flatten(2) for name, j in jacobians(model, observed).items()}  # (o, K, P)
        columns = []
        for x, p in zip(x_updated.split(chunk_size), target.split(chunk_size), strict=True):
            gradients = for_each_sample(grad, _cross_entropy, model, x, p)  # J(x_u)^T G(x_u)
            columns.append(sum(torch.einsum("okp,up->ouk", j, gradients[name].flatten(1)) for name, j in kept.items()))
        rows.append(torch.cat(columns, 1))
    # (O, U, K): K(x_o, x_u) G(x_u), the change of logits per unit of -lr/U
    products = torch.cat(rows)
    predicted = -lr / len(x_updated) * torch.einsum("okl,oul->ouk", A, products)
    return StepDecomposition(predicted, A, q_updated - target)


def _cross_entropy(logits, p):
    return -(p * logits.log_softmax(0)).sum()
