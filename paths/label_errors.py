"""Wrong labels found from learning paths: a ranking, a suggestion and a reason for each sample, and a guess how many.

    score, suggestion, num_errors = find_label_errors(np.load("path.npy", mmap_mode="r"), labels)
    suspects = np.argsort(-np.nan_to_num(score, nan=-np.inf))[:num_errors]

A network predicts something near the truth before it fits a wrong label, and its filtered path shows that best at one
moment: late in a run that never fits its wrong labels, early in one that fits them all. That moment is found from the
paths, and there each label is held against its best rival. Labels and paths are all that is read: no clean label, no
true distribution. How many labels are wrong no path tells for sure; paths.audit measures it.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.mixture import GaussianMixture

from paths import measures
from paths.measures import chunks, log_margin, margin_loss

SLOWER = 0.5  # times the filter's default factor: a wrong label is a lasting thing
FITTED = 0.9  # mean probability of the given labels at the end, from which on they are fitted
APART = 3  # standard deviations between the means of two groups that stand apart
BLOCKS = 200  # of samples alike, for a fit
LONGEST = 30  # steps: the telling step of a longer run is looked for with the filter of a run of these

# Every other score: a measure, and whether its small or its large values point at a wrong label.
WRONG_WHEN_SMALL = "confidence correctness converged_difficulty area_under_margin".split()
WRONG_WHEN_LARGE = "variability el2n el2n_at_step forgetting first_learned mean_cross_entropy".split()
WRONG_WHEN_LARGE += "rival_mass detour flips high_frequency".split()


class LessThanChance(ValueError):
    """Predictions agree with the labels less often than by chance: they are not of these samples or classes."""


class Told(NamedTuple):
    """What a path says of its labels: find_label_errors' score and suggestion, p (N,), the suggestion's probability,
    and guess (low, best, high) of the number of wrong labels."""

    score: np.ndarray
    suggestion: np.ndarray
    p: np.ndarray
    guess: tuple[int, int, int]


def find_label_errors(path: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(score, suggestion, num_errors): how likely each given label is wrong, what it should be, how many are wrong.

    path: (N, T, K) predictions over training, an array or memory map. labels: (N,) the given labels. score: (N,)
    float32, log q(best rival) - log q(given label) of the filtered path at its telling_step: above 0 where the
    rival is ahead, NaN where a row was never visited. suggestion: (N,) int64, that rival, -1 where never visited.
    num_errors: an int, the best guess of guess_errors. Raises ValueError for shapes that do not fit, for what is no
    probability, and LessThanChance.
    """
    found = told(path, labels)
    return found.score, found.suggestion, found.guess[1]


def guess_errors(path: np.ndarray, labels: np.ndarray) -> tuple[int, int, int]:
    """(low, best, high): a guess how many labels are wrong, from the path alone; high <= 4 low + .1 N.

    It assumes that samples a network is sure of are labelled as it predicts, but for the wrong ones, and that wrong
    labels are spread over easy and hard samples. Nothing in a path tells a few wrong labels of hard samples from none.
    The range can miss: of three runs with human labels it did so once (benchmarks/README.md).
    path, labels, errors: as find_label_errors.
    """
    return told(path, labels).guess


def told(path: np.ndarray, labels: np.ndarray) -> Told:
    """All of it at once; arguments as find_label_errors."""
    labels = measures.checked(path, labels)
    smoothing = SLOWER * measures.default_smoothing(path.shape[1])
    step, least = telling_step(path, labels, smoothing), measures.smallest(path)
    smoothing = max(smoothing, 1 / (step + 1))  # a window that is not full would be of the first prediction mostly
    score, p_top, margin, p = np.full((4, len(labels)), np.nan, np.float32)
    suggestion, top = np.full((2, len(labels)), -1, np.int64)
    own, end = np.zeros((2, len(labels)), np.float32)
    for rows, q in chunks(path):
        visited = q.any((0, 1))
        then = measures.filtered(q[:, : step + 1], smoothing)[:, -1:]
        score[rows] = np.where(visited, -log_margin(then, labels[rows], least)[0], np.nan)
        top[rows], two = then[:, 0].argmax(0), np.partition(then[:, 0], -2, axis=0)[-2:]
        p_top[rows], margin[rows] = two[1], np.diff(measures.log(two, least), axis=0)[0]
        own[rows] = measures.label_probability(then, labels[rows])[0]
        end[rows] = measures.label_probability(q[:, -1:], labels[rows])[0]
        np.put_along_axis(then, labels[rows][None, None], -1, axis=0)  # no rival, even where all of these are 0
        suggestion[rows], p[rows] = np.where(visited, (then[:, 0].argmax(0), then[:, 0].max(0)), [[-1], [np.nan]])
    visited = np.isfinite(score)
    _check_agreement(labels[visited], top[visited], path.shape[2])
    of_visited = (values[visited] for values in (score, labels, top, p_top, own, margin, end))
    return Told(score, suggestion, p, _guess(*of_visited, path.shape[2]))


def _check_agreement(labels, top, num_classes):
    if not len(labels):
        return
    shares = [np.bincount(each, minlength=num_classes) / len(labels) for each in (labels, top)]
    chance, agreement = shares[0] @ shares[1], np.mean(labels == top)
    if agreement < chance - 3 * np.sqrt(chance * (1 - chance) / len(labels)):
        raise LessThanChance(
            f"its predictions agree with the labels in {agreement:.1%} of the samples, by chance it would be "
            f"{chance:.1%}: rows or classes are in another order than the labels; give those that belong together"
        )


def telling_step(path, labels, smoothing):
    """The step at which the filtered path tells most: where its margin losses vary most with the whole path's.

    A sample's loss over the whole path is the mean of its loss relative to all samples' at that step, so
    that losing counts for more when few do. Taken is the step of the largest covariance, over samples, with that:
    losses vary little once every label is fitted. Steps before the filter's window of 1 / smoothing steps is full
    are left out: what they hold is hardly filtered, and of right labels many are not learned yet. Seven at most, as
    of a run of 30 steps: a longer run has fitted its wrong labels before a share of it is over.
    """
    num_steps = path.shape[1]
    smoothing = max(smoothing, SLOWER * measures.default_smoothing(LONGEST))
    raw, filtered, products, total, count = np.zeros(num_steps), np.zeros(num_steps), np.zeros(num_steps), 0.0, 0
    least = measures.smallest(path)
    for rows, q in chunks(path):
        raw += margin_loss(q, labels[rows], least)[:, q.any((0, 1))].sum(1, dtype=np.float64)
    weights = 1 / np.maximum(raw, 1e-12)
    for rows, q in chunks(path):
        visited = q.any((0, 1))
        q, label = q[:, :, visited], labels[rows][visited]
        whole = weights @ margin_loss(q, label, least)
        loss = margin_loss(measures.filtered(q, smoothing), label, least).astype(np.float64)
        filtered += loss.sum(1)
        products += loss @ whole
        total += whole.sum()
        count += len(label)
    covariance = products - filtered * (total / max(count, 1))
    first = min(int(np.ceil(1 / smoothing)), num_steps - 1)
    return first + int(np.argmax(covariance[first:]))


def _guess(score, labels, top, p_top, own, margin, end, num_classes):
    """(low, best, high) from what is known of the visited samples (n,) at the telling step; end: p(label) at the last.

    Where the scores fall into two groups that stand apart, the worse group is counted. Else right labels of hard
    samples hide the wrong ones, and what is said rests on confident predictions of another class, of which hard
    samples have some though their labels are right. Where labels are not fitted in the end, these are held
    against the disagreement that stays as predictions become surer. The shares were chosen on digits and CIFAR-10
    images, see benchmarks/README.md.
    """
    n = len(score)
    if n < 10 or np.ptp(score) == 0:
        return 0, 0, n // 10
    hit = top == labels
    if (count := _worse_group(score)) is not None:
        low, best, high = 0.8 * count - 0.01 * n, count, 1.25 * count + 0.02 * n
    else:
        confident, scaled = _confident_others(labels, top, p_top, own, num_classes)
        if np.mean(~hit) < 0.05:  # so few that each of them may be wrong
            best = np.sum(~hit)
        elif end.mean() < FITTED:
            best = np.sqrt(confident * _lasting_disagreement(margin, hit))
        else:  # where most predictions were of other classes, little had been learned then
            best = scaled - 0.18 * n if hit.mean() > 0.5 else 0
        low, high = 0.6 * (best - 0.06 * n), n
    low = int(max(low, 0))
    high = int(min(high, 4 * low + 0.1 * n, n))
    return low, int(np.clip(best, low, high)), high


def _worse_group(score):
    """How many scores lie above 0 and in the worse of two Gaussians fitted to them; None where these overlap."""
    score = score.astype(np.float64)[:, None]
    groups = GaussianMixture(2, random_state=0).fit(score)
    means, variances = groups.means_[:, 0], groups.covariances_[:, 0, 0]
    if np.ptp(means) < APART * np.sqrt(variances.mean()):
        return None
    return int(((groups.predict(score) == means.argmax()) & (score[:, 0] > 0)).sum())


def _confident_others(labels, top, p_top, own, num_classes):
    """How many samples are predicted, as surely as samples of that class are on average, to be of another class than
    the given (confident learning's off-diagonal; Northcutt et al. 2021), and that count scaled up to all samples."""
    count = np.bincount(labels, minlength=num_classes)
    sure = p_top >= (np.bincount(labels, own, num_classes) / np.maximum(count, 1))[top]
    sure &= count[top] > 0  # a class without samples has no surety of its own
    wrong = np.bincount(labels[sure & (top != labels)], minlength=num_classes)
    scaled = wrong / np.maximum(np.bincount(labels[sure], minlength=num_classes), 1) @ count
    return int(wrong.sum()), float(scaled)


def _lasting_disagreement(margin, hit):
    """n (1 - A) of P(top class is the label) = A sigmoid(a margin + b), fitted by maximum likelihood."""
    blocks = np.array_split(np.argsort(margin, kind="stable"), min(BLOCKS, len(margin)))
    g, share = (np.array([values[block].mean() for block in blocks]) for values in (margin, hit))
    size = np.array([len(block) for block in blocks]) / len(margin)

    def loss(parameters):
        scale, slope, offset = parameters
        p = np.clip(scale / (1 + np.exp(-np.clip(slope * g + offset, -50, 50))), 1e-9, 1 - 1e-9)
        return -size @ (share * np.log(p) + (1 - share) * np.log(1 - p))

    fitted = minimize(loss, (0.9, 1.0, 0.0), method="L-BFGS-B", bounds=((1e-3, 1), (0, 1e3), (-50, 50)))
    return len(margin) * (1 - fitted.x[0])


def all_scores(path, labels, smoothing=None):
    """{name: (N,)}: every way to rank samples by their paths, higher = more likely wrong, the recommended one first.

    telling_margin is find_label_errors'. Those named after a measure of paths.measures are that measure, its sign
    turned where small values point at a wrong label. Of the rest margin_loss is the mean logistic loss of the
    margin, first_half and second_half are mean cross-entropies, filtered_end and mean_path margins of the filtered
    path's last and of the mean prediction. NaN where never visited.
    """
    labels = measures.checked(path, labels)
    smoothing = measures.default_smoothing(path.shape[1]) if smoothing is None else smoothing
    found = measures.compute(path, labels, smoothing=smoothing)
    scores = {"telling_margin": find_label_errors(path, labels)[0]}
    scores |= {name: -found[name] for name in WRONG_WHEN_SMALL} | {name: found[name] for name in WRONG_WHEN_LARGE}
    half, least = path.shape[1] // 2, measures.smallest(path)
    more = {
        "margin_loss": lambda q, label: margin_loss(q, label, least).mean(0),
        "filtered_end": lambda q, label: -log_margin(measures.filtered(q, smoothing)[:, -1:], label, least)[0],
        "first_half": lambda q, label: measures.cross_entropy(q, label, least)[: max(half, 1)].mean(0),
        "second_half": lambda q, label: measures.cross_entropy(q, label, least)[half:].mean(0),
        "mean_path": lambda q, label: -log_margin(q.mean(1, keepdims=True), label, least)[0],
    }
    scores |= {name: np.full(len(labels), np.nan, np.float32) for name in more}
    for rows, q in chunks(path):
        for name, score in more.items():
            scores[name][rows] = np.where(q.any((0, 1)), score(q, labels[rows]), np.nan)
    return scores


def reasons(path, labels, suggestion, class_names, step_name="step"):
    """What in each sample's path speaks for the suggestion: N sentences, empty where never visited."""
    labels, texts = measures.checked(path, labels), []
    for rows, q in chunks(path):
        label, other = labels[rows], np.maximum(suggestion[rows], 0)
        p_label, p_other = measures.label_probability(q, label), measures.label_probability(q, other)
        ahead, predicted = (p_other > p_label).sum(0), q.argmax(0) == label
        means = p_label.mean(0), p_other.mean(0)
        found = (q.any((0, 1)), label, other, ahead, *means, predicted.any(0), predicted.argmax(0))
        for visited, given, better, steps, mean, better_mean, ever, first in zip(*found, strict=True):
            given, better = class_names[given], class_names[better]
            text = (
                f"{better} was ahead of {given} at {steps} of {q.shape[1]} {step_name}s (mean probability "
                f"{better_mean:.2f} against {mean:.2f}); the given label was "
                + (f"first predicted at {step_name} {first}" if ever else "never predicted")
            )
            texts.append(text if visited else "")
    return texts
