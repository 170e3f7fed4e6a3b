"""The target distributions p_tar, all that OHT, LS, KD, ESKD and Filter-KD differ in, and METHODS, which names them.

A target is called as `target(x, label, idx, logits) -> (B, K)`: x (B, C, H, W) is the augmented batch that the
student sees, label (B,) the possibly noisy label, idx (B,) the sample's row in the training split, logits (B, K)
what the student says of x, detached (None where no student has looked: none of these targets asks for it). The rows
of the result are distributions, float32, on x's device, without gradient.

A target that has to remember something from one visit of a sample to the next is an observer, too (training.loop):
after_forward() alone changes it, and it has a state_dict().

Adding a method is adding a target and its entry in METHODS; main_distill.py and old_cifar_noisy.py read them there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F

from supervision.losses import distillation_loss, linear_loss, squared_error
from supervision.table import PredictionTable, ema_step


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


# ----------------------------------------------------------------------------- later methods, of other papers


class TopTwo:
    """PLL: one half on each of the teacher's two largest outputs (Jeong and Chung 2025, 2402.10482)."""

    def __init__(self, teacher, forward=None):
        self.teacher = TeacherNetwork(teacher, 1.0, forward)

    def __call__(self, x, label, idx, logits=None):
        p = self.teacher(x, label, idx)
        return torch.zeros_like(p).scatter_(1, p.topk(2, 1).indices, 0.5)


class OwnAverage:
    """What a training remembers of its own predictions: average[idx] = keep * average[idx] + (1 - keep) * softmax.

    It starts at zero, so that a row that was visited n times sums to 1 - keep^n; what it lacks is the weight of what
    came before. begin: the first epoch that is averaged.
    """

    def __init__(self, given, keep, begin=0):
        self.average = torch.zeros(given.num_samples, given.num_classes, device=given.device)
        self.keep, self.begin, self.epochs, self.epoch = keep, begin, given.args.epochs, 0

    def renewed(self, idx, logits):
        """The rows of idx once this visit is in them."""
        rows = self.average[idx]
        if self.epoch < self.begin:
            return rows
        return ema_step(rows, F.softmax(logits, dim=1), 1 - self.keep)

    def before_epoch(self, epoch, model):
        self.epoch = epoch

    def after_forward(self, update, epoch, idx, logits):
        self.average[idx] = self.renewed(idx, logits)

    def state_dict(self):
        return {"average": self.average, "epoch": self.epoch}

    def load_state_dict(self, state):
        self.average.copy_(state["average"])
        self.epoch = state["epoch"]


class SelfCorrected(OwnAverage):
    """SELC: t = keep * t + (1 - keep) * prediction, from t = label on (Lu and He 2022, 2205.01156, section 3)."""

    def __call__(self, x, label, idx, logits):
        rows = self.renewed(idx, logits)
        return rows + (1 - rows.sum(1, keepdim=True)) * one_hot(label, rows.shape[1])


class SelfAdaptive(SelfCorrected):
    """SAT: SELC's target, each row times its largest entry, scaled to a batch mean of 1 (Huang et al. 2020, 2002.10319,
    algorithm 1); with --accumulate to a mean of 1 over a part. Rows do not sum to 1: the sum is the sample's weight,
    so its loss is linear_loss."""

    def __call__(self, x, label, idx, logits):
        target = super().__call__(x, label, idx, logits)
        weight = target.amax(1, keepdim=True)
        total = weight.sum(dtype=logits.dtype)
        total = torch.stack([total, torch.full_like(total, len(weight))])
        if dist.is_initialized():  # the batch is that of all processes
            dist.all_reduce(total)
        return target * weight / (total[0] / total[1])


class OwnPast(OwnAverage):
    """PS-KD: (1 - a) label + a * the prediction at the last visit, a = most * (epoch + 1) / epochs (Kim et al. 2021,
    2006.12000, section 3). At the first visit the label alone."""

    def __init__(self, given, most):
        super().__init__(given, keep=0.0)
        self.most = most

    def __call__(self, x, label, idx, logits=None):
        past, share = self.average[idx], self.most * (self.epoch + 1) / self.epochs
        label = one_hot(label, past.shape[1])
        return torch.where(past.sum(1, keepdim=True) > 0, (1 - share) * label + share * past, label)


class EarlyRegularised(OwnAverage):
    """ELR: cross-entropy + strength * log(1 - <t, q>), t = keep * t + (1 - keep) * prediction, from 0 on (Liu et al.
    2020, 2007.00151, section 4).

    As a target, that of the same gradient: label - strength * q * (<t, q> - t) / (1 - <t, q>) (their lemma 2). It may
    have negative entries.
    """

    def __init__(self, given, keep, strength):
        super().__init__(given, keep)
        self.strength = strength

    def __call__(self, x, label, idx, logits):
        t, q = self.renewed(idx, logits), F.softmax(logits, dim=1)
        agreement = (t * q).sum(1, keepdim=True)
        return one_hot(label, q.shape[1]) - self.strength * q * (agreement - t) / (1 - agreement).clamp_min(1e-4)


class TemporalEnsemble(OwnAverage):
    """TE: cross-entropy + w * mean over classes of (q - z)^2, z the bias-corrected average of the earlier visits, w
    rising over the first 80 of 300 epochs as most * exp(-5 (1 - s)^2) (Laine and Aila 2017, 1610.02242, algorithm 2).

    As a target, that of the same gradient, which may have negative entries. w is 0 at a sample's first visit.
    """

    def __init__(self, given, keep, most):
        super().__init__(given, keep)
        self.most = most

    def __call__(self, x, label, idx, logits):
        rows, q = self.average[idx], F.softmax(logits, dim=1)
        total, rise = rows.sum(1, keepdim=True), min(1, self.epoch / (self.epochs * 80 / 300))
        weight = self.most * math.exp(-5 * (1 - rise) ** 2) * (total > 0)
        gap = q - rows / total.clamp_min(torch.finfo(q.dtype).tiny)
        pulled = q * (gap - (q * gap).sum(1, keepdim=True))  # the softmax's Jacobian times the gap
        return one_hot(label, q.shape[1]) - weight * 2 / q.shape[1] * pulled


# ------------------------------------------------------------------------------------------- a method of our own


class SelfFiltered(OwnAverage):
    """Filter-KD in one training: the label until memorising begins, from then on mostly the own average.

    Then the target is a * label + (1 - a) * sharpen(average, tau), a = (1 - (epoch + 1) / epochs)^2. Memorising begins
    where, within an epoch, the predictions are at the given label more often than their average is, by over two
    standard deviations (a sign test on the samples at which one of the two is). While a network learns, its average, an
    ensemble of epochs, is right the more often; a wrong label that is being fitted leaves its average behind. It takes
    the path and the given labels alone. Where nothing is memorised it does not begin.
    """

    def __init__(self, given, keep, tau):
        super().__init__(given, keep)
        self.labels = torch.as_tensor(given.labels, device=given.device)
        self.alone = torch.zeros(2, device=given.device)  # this epoch: only the prediction, only the average at it
        self.tau, self.begun = tau, False

    def __call__(self, x, label, idx, logits):
        hard = one_hot(label, logits.shape[1])
        if not self.begun:
            return hard
        share = (1 - (self.epoch + 1) / self.epochs) ** 2
        return share * hard + (1 - share) * sharpen(self.renewed(idx, logits), self.tau)

    def before_epoch(self, epoch, model):
        super().before_epoch(epoch, model)
        prediction, average = self.alone.tolist()
        self.begun |= prediction - average > 2 * math.sqrt(prediction + average)
        self.alone.zero_()

    def after_forward(self, update, epoch, idx, logits):
        super().after_forward(update, epoch, idx, logits)
        prediction, average = (p.argmax(1) == self.labels[idx] for p in (logits, self.average[idx]))
        self.alone += torch.stack([(prediction & ~average).sum(), (average & ~prediction).sum()])

    def state_dict(self):
        return {**super().state_dict(), "alone": self.alone, "begun": self.begun}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.alone.copy_(state["alone"])
        self.begun = state["begun"]


# ---------------------------------------------------------------------------------------------- the registry


@dataclass
class Given:
    """What a method's target is made of.

    args: the script's flags. teacher: what Method.teacher names, on the device. forward: how a network is called.
    tau: the temperature that its predictions are yet to be brought to (1 where they were averaged at it). num_samples:
    N, of all rows. labels: (N,) the given ones. device: of the training.
    """

    num_classes: int
    args: object
    teacher: object = None
    forward: Callable | None = None
    tau: float = 1.0
    num_samples: int = 0
    labels: object = None
    device: object = "cpu"


@dataclass
class Method:
    """A method: make(Given) -> its target, and how it is trained and shown.

    color: in figures. teacher: "net", a trained network; "table", a trained network's table; "own
    table", the table that the student's training fills, which holds its earlier visits when the target is
    called; "truth", (N, K) true distributions, which old_cifar_noisy.py does not have; or None. taught_by, moment: in
    old_cifar_noisy.py the method that trains the teacher, and its epoch, "last", or the "best" on validation.
    teach_type: its name in main_distill.py, where --teach_name says the moment; log_name: of its log; both its own name
    when not given. loss(logits, p_tar, tau): the same for all, so that step sizes compare, unless the loss is what the
    method is about. later: of a later paper; old_cifar_noisy.py trains it when asked.
    """

    make: Callable
    color: str
    teacher: str | None = None
    moment: str = "last"
    taught_by: str = "OHT"
    teach_type: str | None = None
    log_name: str | None = None
    loss: Callable = distillation_loss
    later: bool = False

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


def _share(given, epoch, epochs):
    """The epoch of this training that stands where `epoch` of `epochs` stands in another."""
    return round(given.args.epochs * epoch / epochs)


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
    # Constants are their papers', but for TE's 30, which common reimplementations have. Epochs of their schedules
    # are taken as shares of ours.
    "SELC": Method(lambda given: SelfCorrected(given, 0.9, begin=_share(given, 60, 200)), "#332288", later=True),
    "SAT": Method(
        lambda given: SelfAdaptive(given, 0.9, begin=_share(given, 60, 200)), "#AA4499", loss=linear_loss, later=True
    ),
    "TE": Method(lambda given: TemporalEnsemble(given, 0.6, most=30), "#882255", loss=linear_loss, later=True),
    "PS-KD": Method(lambda given: OwnPast(given, 0.8), "#DDCC77", later=True),
    "ELR": Method(lambda given: EarlyRegularised(given, 0.7, 3), "#999933", loss=linear_loss, later=True),
    "PLL": Method(lambda given: TopTwo(given.teacher, given.forward), "#44AA99", "net", "last", later=True),
    "SquaredError": Method(lambda given: OneHot(given.num_classes), "#CC6677", loss=squared_error, later=True),
    "KD-SE": Method(_of_network, "#661100", "net", "last", taught_by="SquaredError", teach_type="net", later=True),
    # its constants were chosen on digits with wrong labels, seed 11
    "SelfFilterKD": Method(lambda given: SelfFiltered(given, 0.9, tau=1 / 3), "#117733", later=True),
}


def teach_types():
    """{--teach_type: Method}. Those that differ in the moment alone have one."""
    return {method.teach_type or name: method for name, method in METHODS.items()}
