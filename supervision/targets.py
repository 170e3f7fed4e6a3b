"""The target distributions p_tar: all that OHT, LS, KD, ESKD and Filter-KD differ in.

A target is called as `target(x, label, idx, logits) -> (B, K)`: x (B, C, H, W) is the augmented batch that the
student sees, label (B,) the possibly noisy label, idx (B,) the sample's row in the training split, logits (B, K)
what the student says of x, detached (None where no student has looked: none of these targets asks for it). The rows
of the result are distributions, float32, on x's device, without gradient. Adding a method is adding one.
"""

import torch
import torch.nn.functional as F


def one_hot(label, num_classes):
    """label (B,) int64 -> (B, K) float32. F.one_hot synchronises a GPU to look for bad labels; this does not."""
    return torch.zeros(len(label), num_classes, device=label.device).scatter_(1, label[:, None], 1.0)


def sharpen(p, tau):
    """softmax(log p / tau) along the last axis: a distribution's temperature changed after the fact.

    p: (..., K), entries >= 0. A zero stays zero (log 0 = -inf has no mass), and a row of zeros, which a table
    row never visited is, stays a row of zeros instead of turning into NaN. tau > 0.
    """
    if not tau > 0:
        raise ValueError(f"tau must be a positive number, not {tau}")
    if tau == 1:  # no power, but rows are still normalised
        powered = p
    else:  # dividing by the largest entry first keeps p^(1/tau) from underflowing for a small tau
        powered = (p / p.amax(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)) ** (1 / tau)
    total = powered.sum(-1, keepdim=True)
    return torch.where(total > 0, powered / total.clamp_min(torch.finfo(p.dtype).tiny), 0.0)


class OneHot:
    """OHT: all mass on the given label."""

    def __init__(self, num_classes):
        self.num_classes = num_classes

    def __call__(self, x, label, idx, logits=None):
        return one_hot(label, self.num_classes)


class SmoothedLabel:
    """LS: (1 - epsilon) e_label + epsilon / K (Szegedy et al. 2016, section 7)."""

    def __init__(self, num_classes, epsilon):
        self.num_classes, self.epsilon = num_classes, epsilon

    def __call__(self, x, label, idx, logits=None):
        return one_hot(label, self.num_classes) * (1 - self.epsilon) + self.epsilon / self.num_classes


class TeacherNetwork:
    """KD with a converged teacher, ESKD with an early-stopped one: softmax(teacher(x) / tau).

    The teacher runs in eval mode, on the very batch that the student sees. `forward` (default: the teacher
    itself) is how it is called: under autocast, compiled, ...
    """

    def __init__(self, teacher, tau, forward=None):
        self.teacher, self.tau = teacher.eval().requires_grad_(False), tau
        self.forward = forward or teacher

    @torch.no_grad()
    def __call__(self, x, label, idx, logits=None):
        return F.softmax(self.forward(x).float() / self.tau, dim=1)


class TeacherTable:
    """Filter-KD: row idx of the table of moving averages (q_smooth), sharpened by tau.

    values: (N, K). Rows never visited (all zeros) fall back to the sample's own label: there is no
    prediction to learn from. `count_unvisited(idx)` says how many that are.
    """

    def __init__(self, values, tau=1.0):
        self.values = sharpen(values.float(), tau)
        self.visited = self.values.sum(1) > 0

    def count_unvisited(self, idx):
        return int((~self.visited[torch.as_tensor(idx, device=self.visited.device)]).sum())

    def __call__(self, x, label, idx, logits=None):
        rows = self.values[idx]
        return torch.where(self.visited[idx, None], rows, one_hot(label, rows.shape[1]))


class TrueDistribution:
    """GT: the true p*(y|x), or the best stand-in there is, such as human label distributions. (N, K) by idx."""

    def __init__(self, probs):
        self.probs = probs.float()

    def __call__(self, x, label, idx, logits=None):
        return self.probs[idx]
