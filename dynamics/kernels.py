"""The two matrices of Proposition 1: A(x_o), how probabilities follow logits, and the empirical NTK K(x_o, x_u)."""

import contextlib

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def softmax_jacobian(q):
    """A = diag(q) - q q^T of distributions q (..., K): (..., K, K), symmetric and positive semi-definite."""
    return torch.diag_embed(q) - q[..., :, None] * q[..., None, :]


def empirical_ntk(model, x_observed, x_updated, chunk_size=64):
    """K(x_o, x_u) = J(x_o) J(x_u)^T of the logits' Jacobians J by the parameters: (O, U, K, K).

    model: x (B, ...) -> logits (B, K), whose parameters with requires_grad count. For small networks: the Jacobians
    of chunk_size observed and as many updated samples are in memory at once, K gradients each. Raises ValueError
    for a model whose output for a sample depends on the batch or on chance (see check_deterministic).
    """
    check_deterministic(model)
    rows = []
    for observed in x_observed.split(chunk_size):
        jacobian = jacobians(model, observed)
        rows.append(torch.cat([_products(jacobian, jacobians(model, u)) for u in x_updated.split(chunk_size)], 1))
    return torch.cat(rows)


def jacobians(model, x):
    """{name: (B, K, *shape)}: the logits' derivatives by each trainable parameter, for each sample of x."""
    trained, others = split_parameters(model)

    def logits(parameters, sample):
        return functional_call(model, {**parameters, **others}, (sample[None],))[0]

    with chance_refused():
        return vmap(jacrev(logits), (None, 0))(trained, x)


def split_parameters(model):
    """({name: parameter that is trained}, {name: what is not, buffers too}), both detached."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    return trained, frozen | {name: b.detach() for name, b in model.named_buffers()}


def check_deterministic(model):
    """ValueError unless a sample's logits depend on that sample and the parameters alone.

    That is what the decomposition assumes: BatchNorm in eval mode (frozen statistics), no dropout at work.
    """
    for name, module in model.named_modules():
        of_batch = isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats)
        by_chance = isinstance(module, _DropoutNd) and module.training and module.p > 0
        by_chance |= type(module).__name__ == "StochasticDepth" and module.training
        if of_batch or by_chance:
            what = "takes its statistics from the batch" if of_batch else "drops at random"
            raise ValueError(
                f"{name or 'the model'} ({type(module).__name__}) {what}: the decomposition of a step needs "
                "model.eval(), or a network without such layers (--norm group)"
            )


@contextlib.contextmanager
def chance_refused():
    """ValueError for what no module's type tells: a function in forward() that draws random numbers."""
    try:
        yield
    except RuntimeError as problem:
        if "randomness" not in str(problem):  # vmap's word for it
            raise
        raise ValueError(
            "the model draws random numbers in its forward pass (dropout as a function?): the decomposition of a step "
            "needs model.eval(), or a network without"
        ) from problem


def _products(left, right):
    """Sum over all parameters of the products of Jacobians (O, K, ...) and (U, K, ...): (O, U, K, K)."""
    return sum(torch.einsum("okp,ulp->oukl", left[name].flatten(2), right[name].flatten(2)) for name in left)
