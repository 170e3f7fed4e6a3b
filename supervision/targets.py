"""The target distributions p_tar, all that OHT, LS, KD, ESKD and Filter-KD differ in, and METHODS, which names them.

A target is called as `target(x, label, idx, logits) -> (B, K)`: x (B, C, H, W) is the augmented batch that the
student sees, label (B,) the possibly noisy label, idx (B,) the sample's row in the training split, logits (B, K)
what the student says of x, detached (None where no student has looked: none of these targets asks for it). The rows
of the result are distributions, float32, on x's device, without gradient.

Adding a method is adding a target and its entry in METHODS; main_distill.py and old_cifar_noisy.py read them there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from supervision.losses import distillation_loss
from supervision.table import PredictionTable


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

    table: of any kind, or its values (N, K). Rows never visited (all zeros) fall back to the sample's own label:
    there is no prediction to learn from. `count_unvisited(idx)` says how many that are.
    """

    def __init__(self, table, tau=1.0):
        self.table, self.tau = PredictionTable.of(table) if isinstance(table, torch.Tensor) else table, tau

    def count_unvisited(self, idx):
        visited = self.table.visited
        return int((~visited[torch.as_tensor(idx, device=visited.device)]).sum())

    def __call__(self, x, label, idx, logits=None):
        rows = sharpen(self.table.rows(idx), self.tau)
        return torch.where(rows.sum(1, keepdim=True) > 0, rows, one_hot(label, rows.shape[1]))


class TrueDistribution:
    """GT: the true p*(y|x), or the best stand-in there is, such as human label distributions. (N, K) by idx."""

    def __init__(self, probs):
        self.probs = probs.float()

    def __call__(self, x, label, idx, logits=None):
        return self.probs[idx]


@dataclass
class Given:
    """What a method's target is made of.

    args: the script's flags. teacher: what Method.teacher names, on the device. forward: how a network is called.
    tau: the temperature that its predictions are yet to be brought to (1 where they were averaged at it).
    """

    num_classes: int
    args: object
    teacher: object = None
    forward: Callable | None = None
    tau: float = 1.0


@dataclass
class Method:
    """A method: make(Given) -> its target, and how it is trained and shown.

    color: in figures. teacher: "net", a trained network; "table", a trained network's table; "own
    table", the table that the student's training fills, which holds its earlier visits when the target is
    called; "truth", (N, K) true distributions, which old_cifar_noisy.py does not have; or None. moment: the teacher's
    epoch in old_cifar_noisy.py, its "last", or the "best" on validation. teach_type: its name in main_distill.py, where
    --teach_name says the moment; log_name: of its log; both its own name when not given. loss(logits, p_tar, tau): the
    same for all, so that step sizes compare, unless the loss is what the method is about.
    """

    make: Callable
    color: str
    teacher: str | None = None
    moment: str = "last"
    teach_type: str | None = None
    log_name: str | None = None
    loss: Callable = distillation_loss

    @property
    def has_temperature(self):
        """Whether --tau and --temp act on it: on what predictions teach."""
        return self.teacher in ("net", "table", "own table")

    @property
    def is_taught(self):
        """Whether another training has to come before."""
        return self.teacher in ("net", "table")


def _of_network(given):
    return TeacherNetwork(given.teacher, given.tau, given.forward)


def _of_table(given):
    return TeacherTable(given.teacher, given.tau)


# In the order in which they are trained. Okabe & Ito's palette, which colour-blind readers can tell apart.
METHODS = {
    "OHT": Method(lambda given: OneHot(given.num_classes), "#555555", teach_type="onehot"),
    "LS": Method(lambda given: SmoothedLabel(given.num_classes, given.args.ls_eps), "#E69F00", teach_type="smooth"),
    "KD": Method(_of_network, "#56B4E9", "net", "last", teach_type="net"),
    "ESKD": Method(_of_network, "#0072B2", "net", "best", teach_type="net"),
    "FilterKD": Method(_of_table, "#CC79A7", "table", "last", teach_type="table"),
    # the published name of its log
    "ES-FilterKD": Method(_of_table, "#D55E00", "table", "best", teach_type="table", log_name="Filter"),
    "GT": Method(lambda given: TrueDistribution(given.teacher), "#009E73", "truth", teach_type="true"),
}


def teach_types():
    """{--teach_type: Method}. Those that differ in the moment alone have one."""
    return {method.teach_type or name: method for name, method in METHODS.items()}
