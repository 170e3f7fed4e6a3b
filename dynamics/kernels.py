"""The two matrices of Proposition 1: A(x_o), how probabilities follow logits, and the empirical NTK K(x_o, x_u)."""

import contextlib

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


def softmax_jacobian(q):
    """A = diag(q) - q q^T of distributions q (..., K): (..., K, K), symmetric and positive semi-definite."""
    return torch.diag_embed(q) - q[..., :, None] * q[..., None, :]


def empirical_ntk(model, x_observed, x_updated, chunk_size=64):
    """K(x_o, x_u) = J(x_o) J(x_u)^T of the logits' Jacobians J by the parameters: (O, U, K, K).

    model: x (B, ...) -> logits (B, K), whose parameters with requires_grad count. For small networks: the Jacobians
    of chunk_size observed and as many updated samples are in memory at once, K gradients each. Raises ValueError
    for a model whose output for a sample depends on the batch or on chance (see check_deterministic).
    """
    check_deterministic(model, x_observed)
    rows = []
    for observed in x_observed.split(chunk_size):
        jacobian = jacobians(model, observed)
        rows.append(torch.cat([_products(jacobian, jacobians(model, u)) for u in x_updated.split(chunk_size)], 1))
    return torch.cat(rows)


def jacobians(model, x):
    """{name: (B, K, *shape)}: the logits' derivatives by each trainable parameter, for each sample of x."""
    return for_each_sample(jacrev, lambda logits: logits, model, x)


def for_each_sample(derivative, function, model, x, *more):
    """{name: (B, ...)}: derivative (grad, jacrev) of function(logits (K,), ...) by each trainable parameter, for
    each sample of x and of what else function takes. ValueError where the model draws random numbers.
    """
    trained, others = split_parameters(model)

    def of_sample(parameters, others, sample, *more):
        return function(call(model, parameters | others, sample[None])[0], *more)

    shared = None
    if recurrent(model):
        # They add in place to the product of weights and a first state, which has to be each sample's own
        trained, others = ({n: p.expand(len(x), *p.shape) for n, p in part.items()} for part in (trained, others))
        shared = 0
    try:
        with plain_steps(model):
            return vmap(derivative(of_sample), (shared, shared, *[0] * (1 + len(more))))(trained, others, x, *more)
    except RuntimeError as problem:
        if "randomness" not in str(problem):  # vmap's word for it
            raise
        raise ValueError(
            "the model draws random numbers in its forward pass (dropout?): the decomposition of a step needs "
            "model.eval(), or a network without"
        ) from problem


def split_parameters(model):
    """({name: parameter that is trained}, {name: what is not, buffers too}), both detached."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    return trained, frozen | {name: b.detach() for name, b in model.named_buffers()}


def call(model, tensors, x):
    """model(x) with the tensors of split_parameters in place of its own, which are as before afterwards.

    A module or weight that is used in several places is told to functional_call place by place: by itself it leaves
    a shared module without its parameters. A buffer that the forward pass writes to is a copy.
    """
    names, places = {}, {}
    for prefix, module in model.named_modules():  # a shared one once
        for place, p in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            places[place] = tensors[names.setdefault(id(p), place)]
        for place, b in module.named_buffers(prefix, recurse=False, remove_duplicate=False):
            places[place] = tensors[names.setdefault(id(b), place)].clone()
    return functional_call(model, places, (x,), tie_weights=False)


def check_deterministic(model, x):
    """ValueError where the first sample of x has other logits in another batch, as with BatchNorm in training mode.

    That a sample's logits depend on that sample and the parameters alone is what the decomposition assumes. Dropout
    draws alike for both batches: for_each_sample refuses it.
    """
    first, devices = x[:1], [x.device] if x.is_cuda else []
    found = []
    for other in (first, torch.zeros_like(first)):
        with torch.random.fork_rng(devices):
            found.append(logits_of(model, torch.cat([first, other]))[0])
    rounding = torch.finfo(found[0].dtype).eps ** 0.5 * found[0].abs().max()
    if (found[0] - found[1]).abs().max() > rounding:
        raise ValueError(
            f"{type(model).__name__}'s logits for a sample change with the other samples of its batch (BatchNorm?): "
            "the decomposition of a step needs model.eval(), or a network without such layers (--norm group)"
        )


def logits_of(model, x):
    """The model's logits, its buffers left as they are whatever its forward pass does to them."""
    trained, others = split_parameters(model)
    with torch.no_grad():
        return call(model, trained | others, x)


def recurrent(model):
    return any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in model.modules())


@contextlib.contextmanager
def plain_steps(model):
    """Attention and recurrent layers step by step: their fused kernels have no forward derivative, and none for each
    sample."""
    fast, off = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.flags(enabled=False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), off if recurrent(model) else contextlib.nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _products(left, right):
    """Sum over all parameters of the products of Jacobians (O, K, ...) and (U, K, ...): (O, U, K, K)."""
    return sum(torch.einsum("okp,ulp->oukl", left[name].flatten(2), right[name].flatten(2)) for name in left)
