"""The losses. All take logits (B, K) and a target distribution p_tar (B, K) and return a scalar."""

import torch.nn.functional as F

# Batch mean of -sum_k p_tar_k log q_k with q = softmax(logits): what teachers are trained with
cross_entropy = F.cross_entropy


def distillation_loss(logits, p_tar, tau):
    """Batch mean of 2 tau^2 KL(p_tar || softmax(logits / tau)): what every student is trained with.

    logits: (B, K). p_tar: (B, K), rows sum to 1, already sharpened. tau: temperature, > 0. Returns a scalar.
    tau^2 keeps the size of the gradient as tau changes (Hinton et al. 2015, section 2); the 2 is the
    published code's.
    """
    log_q = F.log_softmax(logits / tau, dim=1)
    return 2 * tau**2 * F.kl_div(log_q, p_tar, reduction="batchmean")


def squared_error(logits, p_tar, tau):
    """Batch mean of |p_tar - softmax(logits)|^2: what a teacher is trained with in Hamidi et al. 2024 (2407.18041)."""
    return (F.softmax(logits / tau, dim=1) - p_tar).square().sum(1).mean()


def linear_loss(logits, p_tar, tau):
    """Batch mean of -2 tau^2 sum_k p_tar_k log q_k, q = softmax(logits / tau): distillation_loss's gradient in the
    logits, 2 tau (q - p_tar), for a p_tar with negative entries, too, whose rows sum to 1."""
    return -2 * tau**2 * (p_tar * F.log_softmax(logits / tau, dim=1)).sum(1).mean()
