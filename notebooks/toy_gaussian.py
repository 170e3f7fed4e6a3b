"""What the notebooks share: Gaussian classes with a known p*(y|x), many small networks trained at once, intervals.

data = draw_gaussians(seed=0)
p_tar = training_targets(data, [OneHot(3), SmoothedLabel(3, 0.03)])
run = train(Students(2, (30, 128, 128, 3), seed=0), data, p_tar, epochs=100, lr=5e-4, batch_size=32)
accuracy = evaluate(run.best, data, data.test)["accuracy"]   # (2,), of the epochs that validation chose
"""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import stats
from torch import nn
from tqdm import tqdm

from supervision.targets import one_hot
from utils import expected_calibration_error

# ---------------------------------------------------------------------------------------------- data


@dataclass
class Gaussians:
    """x (N, D) float32 of K Gaussian classes, y (N,) the class it was drawn from, p_star (N, K) = p*(y|x).

    train, valid, test: slices of the rows. means: (K, D). variance: sigma^2, the same in all directions.
    """

    x: torch.Tensor
    y: torch.Tensor
    p_star: torch.Tensor
    means: torch.Tensor
    variance: float
    train: slice
    valid: slice
    test: slice

    @property
    def bayes_accuracy(self):
        """What nobody can exceed on the test rows, in expectation over their labels: the mean of max_k p*(k|x)."""
        return float(self.p_star[self.test].max(1).values.mean())

    def to(self, device):
        """The same data on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("x", "y", "p_star", "means")})


def posterior(x, means, variance):
    """p*(k|x) = softmax_k(-|x - mu_k|^2 / 2 sigma^2), exact for classes of equal size: (N, K) float32."""
    distance = torch.cdist(x.double(), means.double()) ** 2
    return (-distance / (2 * variance)).softmax(1).float()


def draw_gaussians(num_samples=100_000, dim=30, variance=6.0, seed=0, means=None, split=(0.05, 0.05)):
    """The paper's toy data: three equally likely classes N(mu_k, sigma^2 I), entries of mu_k drawn from {-1, 0, 1}.

    means: (K, D) to take instead. split: shares of training and validation rows; the rest is for testing.
    """
    generator = torch.Generator().manual_seed(seed)
    if means is None:
        means = torch.randint(-1, 2, (3, dim), generator=generator).float()
    means = torch.as_tensor(means, dtype=torch.float32)
    y = torch.randint(len(means), (num_samples,), generator=generator)
    x = means[y] + math.sqrt(variance) * torch.randn(num_samples, means.shape[1], generator=generator)
    first, second = int(split[0] * num_samples), int(sum(split) * num_samples)
    rows = slice(0, first), slice(first, second), slice(second, num_samples)
    return Gaussians(x, y, posterior(x, means, variance), means, variance, *rows)


# ------------------------------------------------------------------------------------------------ p_tar


def training_targets(data, targets):
    """(S, n, K): what each of the p_tar objects of supervision.targets says of the n training rows."""
    x, y = data.x[data.train], data.y[data.train]
    idx = torch.arange(len(x), device=x.device)
    return torch.stack([target(x, y, idx) for target in targets])


def mix_with_label(p_star, y, share):
    """(1 - a) p* + a e_y for each of the shares a (S,): (S, n, K)."""
    share = torch.as_tensor(share, dtype=torch.float32, device=p_star.device)[:, None, None]
    return (1 - share) * p_star + share * one_hot(y, p_star.shape[1])


def add_gaussian_noise(p_star, variance, seed):
    """p* + N(0, v), clipped at 0 and renormalised, for each of the variances v (S,): (S, n, K).

    Drawn once for each sample: drawn anew at each visit, it would average out. Where clipping leaves nothing the
    noise is drawn again.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = []
    for v in variance:
        p = torch.zeros_like(p_star)
        while (empty := p.sum(1) == 0).any():
            noise = math.sqrt(v) * torch.randn(int(empty.sum()), p.shape[1], generator=generator)
            p[empty] = (p_star[empty] + noise.to(p_star)).clamp_min(0)
        noisy.append(p / p.sum(1, keepdim=True))
    return torch.stack(noisy)


def distance(p, p_star):
    """|p - p*|, the L2 distance of each sample's distribution: (..., n)."""
    return (p - p_star).norm(dim=-1)


def frobenius(p_tar, p_star):
    """The published "distance" of a target: the Frobenius norm of p_tar - p* over the whole set, (...)."""
    return (p_tar - p_star).flatten(-2).norm(dim=-1)


# ---------------------------------------------------------------------------- many networks at once


class Students:
    """S multi-layer perceptrons of one shape: a layer of all of them is one batched matrix product.

    sizes: (D, hidden, ..., K), ReLU between. Weights are drawn as nn.Linear draws them. same_start: all from one
    initial network, so that they differ in what they are trained on alone. parameters: a weight (S, inputs, outputs)
    and a bias (S, 1, outputs) for each layer.
    """

    def __init__(self, num, sizes, seed, same_start=True, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        self.parameters = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            for rows in (inputs, 1):
                draw = torch.rand(1 if same_start else num, rows, outputs, generator=generator)
                draw = ((2 * draw - 1) / math.sqrt(inputs)).expand(num, rows, outputs)
                self.parameters.append(draw.clone().to(device))

    def __len__(self):
        return len(self.parameters[0])

    @property
    def layers(self):
        """[(weight, bias)], from the input on."""
        return list(zip(self.parameters[::2], self.parameters[1::2], strict=True))

    def predict(self, x):
        """Probabilities (S, N, K) of x (N, D)."""
        return self.logits(x).softmax(2)

    def logits(self, x):
        """(S, N, K) of x (N, D), student by student: for many rows that is the faster order."""
        found = []
        for s in range(len(self)):
            h = x
            for weight, bias in self.layers:
                h = torch.addmm(bias[s], h if h is x else h.relu_(), weight[s])
            found.append(h)
        return torch.stack(found)

    def network(self, which):
        """One of the students as an nn.Sequential, with a copy of its weights; without gradient."""
        modules = []
        for weight, bias in self.layers:
            linear = nn.utils.skip_init(nn.Linear, *weight.shape[1:], device=weight.device, dtype=weight.dtype)
            linear.weight.data.copy_(weight[which].T)
            linear.bias.data.copy_(bias[which, 0])
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1]).requires_grad_(False)

    def pick(self, which):
        """Students of their own: copies of some, or with a slice, the very weights of those. which: (n,) int64."""
        other = object.__new__(Students)
        other.parameters = [p[which] for p in self.parameters]
        return other

    def copy(self):
        return self.pick(torch.arange(len(self)))


@dataclass
class Run:
    """A training of Students: at its start, at each one's best epoch by validation accuracy, at its end."""

    start: Students
    last: Students
    best: Students
    best_epoch: torch.Tensor  # (S,), from 0, the first on ties
    valid_accuracy: list = field(default_factory=list)  # an (S,) tensor an epoch


@torch.no_grad()
def train(students, data, targets, *, epochs, lr, batch_size, momentum=0.9, seed=0, watch=None, label="training"):
    """Train all students on their own p_tar by SGD on plain KL, all with the same batches; returns a Run.

    targets: (S, n, K) or (1, n, K), for the n training rows. watch(update, students) is called before every update
    (and once after the last), such as to record paths. The students' own weights are changed.
    """
    x, valid_x, valid_y = data.x[data.train], data.x[data.valid], data.y[data.valid]
    order = torch.Generator().manual_seed(seed)
    run = Run(students.copy(), students, students.copy(), torch.full((len(students),), -1, device=x.device))
    best_accuracy = torch.full((len(students),), -1.0, device=x.device)
    targets = targets.expand(len(students), *targets.shape[1:]).transpose(0, 1).contiguous()  # a batch lies together
    velocity = [torch.zeros_like(p) for p in students.parameters]
    # On a CPU, threads train blocks of students whose weights stay in its cache: a third of the time of all in step
    at_once = watch or x.device.type != "cpu"
    workers, size = (1, len(students)) if at_once else (torch.get_num_threads(), 16)
    blocks = [slice(start, start + size) for start in range(0, len(students), size)]

    def train_block(block):
        part, moving = students.pick(block), [v[block] for v in velocity]
        for done, rows in enumerate(batches):
            if watch:
                watch(update + done, students)
            sgd_step(part, moving, x[rows], targets[rows, block].transpose(0, 1), lr, momentum)
        return (part.logits(valid_x).argmax(2) == valid_y).float().mean(1)

    update = 0
    with threads(workers) as each:
        for epoch in tqdm(range(epochs), desc=label, unit="epoch"):
            batches = torch.randperm(len(x), generator=order).to(x.device).split(batch_size)
            accuracy = torch.cat(list(each(train_block, blocks)))
            update += len(batches)
            run.valid_accuracy.append(accuracy)
            better = accuracy > best_accuracy
            best_accuracy = torch.where(better, accuracy, best_accuracy)
            run.best_epoch = torch.where(better, epoch, run.best_epoch)
            for kept, now in zip(run.best.parameters, students.parameters, strict=True):
                kept.copy_(torch.where(better[:, None, None], now, kept))
    if watch:
        watch(update, students)
    return run


@contextlib.contextmanager
def threads(workers):
    """Yield a map(function, items) that runs in so many threads, each with one thread for its tensor operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield pool.map if workers > 1 else map
    finally:
        torch.set_num_threads(before)


def sgd_step(students, velocity, x, p_tar, lr, momentum):
    """A step of each student on its batch mean of KL(p_tar || q), half of distillation_loss at tau 1.

    x: (B, D). p_tar: (S, B, K). velocity: a tensor a parameter. The gradient is written out: KL's by the logits is
    q - p_tar, and a product that adds to a matrix is momentum and gradient in one. Half of autograd's time.
    """
    inputs, h = [], x.expand(len(students), *x.shape)
    for weight, bias in students.layers:
        inputs.append(h.relu_() if inputs else h)
        h = torch.baddbmm(bias, inputs[-1], weight)
    gradient = (h.softmax(2) - p_tar) / len(x)
    for layer in reversed(range(len(inputs))):
        h, weight = inputs[layer], students.parameters[2 * layer]
        velocity[2 * layer].baddbmm_(h.transpose(1, 2), gradient, beta=momentum)
        velocity[2 * layer + 1].mul_(momentum).add_(gradient.sum(1, keepdim=True))
        if layer:
            gradient = torch.bmm(gradient, weight.transpose(1, 2)).mul_(h > 0)
    for p, v in zip(students.parameters, velocity, strict=True):
        p.add_(v, alpha=-lr)


def evaluate(students, data, rows):
    """{"accuracy", "ece" (10 bins), "ece_3" (the published 3), "distance" (mean |q - p*|)}: (S,) arrays."""
    y, p_star, found = data.y[rows], data.p_star[rows], []
    for s in range(len(students)):
        q = students.pick(slice(s, s + 1)).predict(data.x[rows])[0]
        confidence, predicted = q.max(1)
        right = predicted == y
        found.append(
            {
                "accuracy": float(right.float().mean()),
                "ece": expected_calibration_error(confidence, right, 10),
                "ece_3": expected_calibration_error(confidence, right, 3),
                "distance": float(distance(q, p_star).mean()),
            }
        )
    return {name: np.array([row[name] for row in found]) for name in found[0]}


# ------------------------------------------------------------------------------- numbers for statements


def spearman(a, b, seed=0, resamples=500):
    """(rho, low, high): Spearman's rank correlation and its 95 % bootstrap interval over pairs (percentiles)."""
    a, b = np.asarray(a), np.asarray(b)
    drawn = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (a, b)]
    ranks = [r - r.mean(1, keepdims=True) for r in ranks]
    scale = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    known = scale > 0  # where not all pairs drawn are alike
    low, high = np.quantile((ranks[0] * ranks[1]).sum(1)[known] / scale[known], [0.025, 0.975])
    return float(stats.spearmanr(a, b).statistic), float(low), float(high)


def mean_difference(a, b, seed=0, resamples=2000):
    """(mean of a - mean of b, low, high), with the 95 % bootstrap interval over two independent samples."""
    rng = np.random.default_rng(seed)
    means = [np.asarray(v)[rng.integers(len(v), size=(resamples, len(v)))].mean(1) for v in (a, b)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(np.mean(a) - np.mean(b)), float(low), float(high)


def over_seeds(values):
    """(mean, low, high): the 95 % t-interval of a mean over seeds; two at least."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def sign(interval, below, above, unclear):
    """The words for (value, low, high): by the side of 0 on which its whole interval lies."""
    return below if interval[2] < 0 else above if interval[1] > 0 else unclear


def table(columns, rows):
    """A table in Markdown. rows: lists of texts, as many as columns."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(text).replace("|", "\\|") for text in line) + " |" for line in lines)


def running_median(x, y, bins=12):
    """(centres, medians): of y, in bins of x with equally many samples each."""
    parts = np.array_split(np.argsort(x, kind="stable"), bins)
    return [np.median(x[part]) for part in parts], [np.median(y[part]) for part in parts]
