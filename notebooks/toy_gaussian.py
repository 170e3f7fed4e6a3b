"""What the toy notebooks share: Gaussian classes with a known p*(y|x), and many small networks trained at once.

data = draw_gaussians(seed=0)
oht = OneHot(3)(data.x[data.train], data.y[data.train], None)
run = train(Students(1, (30, 128, 128, 3), seed=0), data, oht[None], epochs=100, lr=5e-4, batch_size=32)
accuracy = evaluate(run.best, data, data.test)["accuracy"]   # (1,), of the epoch that validation chose
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from tqdm.auto import tqdm

from supervision.losses import distillation_loss
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
    def num_classes(self):
        return len(self.means)

    @property
    def bayes_accuracy(self):
        """What nobody can exceed on the test rows, in expectation over their labels: the mean of max_k p*(k|x)."""
        return float(self.p_star[self.test].max(1).values.mean())

    def to(self, device):
        """The same data on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("x", "y", "p_star", "means")}
        return Gaussians(**moved, **{name: getattr(self, name) for name in ("variance", "train", "valid", "test")})


def posterior(x, means, variance):
    """p*(k|x) = softmax_k(-|x - mu_k|^2 / 2 sigma^2), exact for classes of equal size: (N, K) float32."""
    distance = torch.cdist(x.double(), means.double()) ** 2
    return (-distance / (2 * variance)).softmax(1).float()


def draw_gaussians(num_samples=100_000, dim=30, variance=6.0, seed=0, means=None, num_classes=3, split=(0.05, 0.05)):
    """The paper's toy data: equally likely classes N(mu_k, sigma^2 I), each entry of mu_k drawn from {-1, 0, 1}.

    means: (K, D) to take instead. split: shares of training and validation rows; the rest is for testing.
    """
    generator = torch.Generator().manual_seed(seed)
    if means is None:
        means = torch.randint(-1, 2, (num_classes, dim), generator=generator).float()
    means = torch.as_tensor(means, dtype=torch.float32)
    y = torch.randint(len(means), (num_samples,), generator=generator)
    x = means[y] + math.sqrt(variance) * torch.randn(num_samples, means.shape[1], generator=generator)
    first, second = int(split[0] * num_samples), int(sum(split) * num_samples)
    rows = slice(0, first), slice(first, second), slice(second, num_samples)
    return Gaussians(x, y, posterior(x, means, variance), means, variance, *rows)


# ------------------------------------------------------------------------------------- noise on p_tar


def mix_with_label(p_star, y, share):
    """(1 - a) p* + a e_y for each of the shares a (S,): (S, N, K)."""
    share = torch.as_tensor(share, dtype=torch.float32, device=p_star.device)[:, None, None]
    return (1 - share) * p_star + share * one_hot(y, p_star.shape[1])


def add_gaussian_noise(p_star, variance, seed):
    """p* + N(0, v), clipped at 0 and renormalised, for each of the variances v (S,): (S, N, K).

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
    """|p - p*|, the L2 distance of each sample's distribution: (..., N)."""
    return (p - p_star).norm(dim=-1)


def frobenius(p_tar, p_star):
    """The published "distance" of a target: the Frobenius norm of p_tar - p* over the whole set, (...)."""
    return (p_tar - p_star).flatten(-2).norm(dim=-1)


# ---------------------------------------------------------------------------- many networks at once


class Students:
    """S multi-layer perceptrons of one shape: a layer of all of them is one batched matrix product.

    sizes: (D, hidden, ..., K), ReLU between. Weights are drawn as nn.Linear draws them. same_start: all from one
    initial network, so that they differ in what they are trained on alone.
    """

    def __init__(self, num, sizes, seed, same_start=True, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        self.parameters = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            for rows in (inputs, 1):  # a weight (S, inputs, outputs), a bias (S, 1, outputs)
                draw = torch.rand(1 if same_start else num, rows, outputs, generator=generator)
                draw = ((2 * draw - 1) / math.sqrt(inputs)).expand(num, rows, outputs)
                self.parameters.append(draw.clone().to(device).requires_grad_())

    def __len__(self):
        return len(self.parameters[0])

    def logits(self, x):
        """x: (B, D), the same for all, or (S, B, D). Returns (S, B, K)."""
        h = x.expand(len(self), *x.shape) if x.ndim == 2 else x
        last = len(self.parameters) - 2
        for layer in range(0, len(self.parameters), 2):
            h = torch.baddbmm(self.parameters[layer + 1], h, self.parameters[layer])
            h = h if layer == last else h.relu()
        return h

    @torch.no_grad()
    def predict(self, x, chunk_size=2000):
        """Probabilities (S, N, K) of x (N, D)."""
        return torch.cat([self.logits(part).softmax(2) for part in x.split(chunk_size)], 1)

    def copy(self):
        other = object.__new__(Students)
        other.parameters = [p.detach().clone().requires_grad_() for p in self.parameters]
        return other

    def pick(self, which):
        """Some of the students, as Students of their own. which: int64 (n,)."""
        other = object.__new__(Students)
        other.parameters = [p.detach()[which].clone().requires_grad_() for p in self.parameters]
        return other


@dataclass
class Run:
    """A training of Students: at its start, at each one's best epoch by validation accuracy, at its end."""

    start: Students
    last: Students
    best: Students
    best_epoch: torch.Tensor  # (S,), the first on ties
    valid_accuracy: list = field(default_factory=list)  # an (S,) tensor an epoch


def train(students, data, targets, *, epochs, lr, batch_size, momentum=0.9, seed=0, watch=None, label="training"):
    """Train all students on their own p_tar by SGD on plain KL, with the same batches; returns a Run.

    targets: (S, n, K) or (1, n, K), for the n training rows. watch(update, students) is called before every update
    (and once after the last), such as to record paths.
    """
    x, valid_x, valid_y = data.x[data.train], data.x[data.valid], data.y[data.valid]
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(students.parameters, lr, momentum=momentum)
    run = Run(students.copy(), students, students.copy(), torch.full((len(students),), -1, device=x.device))
    best_accuracy = torch.full((len(students),), -1.0, device=x.device)
    targets = targets.expand(len(students), *targets.shape[1:])
    update = 0
    for epoch in tqdm(range(epochs), desc=label, unit="epoch", disable=None):
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):
            if watch:
                watch(update, students)
            logits, p_tar = students.logits(x[rows]), targets[:, rows]
            # plain KL is half of what the scripts minimise; times S, so that each student has its own batch mean
            loss = 0.5 * len(students) * distillation_loss(logits.flatten(0, 1), p_tar.flatten(0, 1), 1.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            update += 1
        accuracy = (students.predict(valid_x).argmax(2) == valid_y).float().mean(1)
        run.valid_accuracy.append(accuracy)
        better = accuracy > best_accuracy
        best_accuracy = torch.where(better, accuracy, best_accuracy)
        run.best_epoch = torch.where(better, epoch, run.best_epoch)
        with torch.no_grad():
            for kept, now in zip(run.best.parameters, students.parameters, strict=True):
                kept.copy_(torch.where(better[:, None, None], now, kept))
    if watch:
        watch(update, students)
    return run


def evaluate(students, data, rows):
    """{"accuracy", "ece" (10 bins), "ece_3" (the published 3), "distance" (mean |q - p*|)}: (S,) arrays."""
    y, p_star, found = data.y[rows], data.p_star[rows], []
    for s in range(len(students)):
        q = students.pick(torch.tensor([s])).predict(data.x[rows])[0]
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


def spearman(a, b, seed=0):
    """(rho, low, high): Spearman's rank correlation and its 95 % bootstrap interval over pairs."""
    rho = stats.spearmanr(a, b).statistic
    resampled = stats.bootstrap(
        (a, b), lambda x, y: stats.spearmanr(x, y).statistic, paired=True, vectorized=False, n_resamples=2000, rng=seed
    )
    return float(rho), float(resampled.confidence_interval.low), float(resampled.confidence_interval.high)
