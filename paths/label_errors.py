"""Wrong labels found from learning paths: a ranking, a suggestion and a reason for each sample, and how many there are.

    score, suggestion, num_errors = find_label_errors(np.load("path.npy", mmap_mode="r"), labels)
    suspects = np.argsort(-np.nan_to_num(score, nan=-np.inf))[:num_errors]

A network predicts something near the truth before it fits a wrong label, and its filtered path shows that best at one
moment: late in a run that never fits its wrong labels, early in one that fits them all. That moment is found from the
paths, and there each label is held against its best rival. Labels and paths are all that is read: no clean label, no
true distribution.
"""

import numpy as np
from sklearn.mixture import GaussianMixture

from paths import measures
from paths.measures import chunks, log_margin, margin_loss

SLOWER = 0.5  # times the filter's default factor: a wrong label is a lasting thing
LONGEST = 30  # steps: the telling step of a longer run is looked for with the filter of a run of these

# Every other score: a measure, and whether its small or its large values point at a wrong label.
WRONG_WHEN_SMALL = ("confidence", "correctness", "converged_difficulty", "area_under_margin")
WRONG_WHEN_LARGE = (
    "variability",
    "el2n",
    "el2n_at_step",
    "forgetting",
    "first_learned",
    "mean_cross_entropy",
    "rival_mass",
    "detour",
    "flips",
    "high_frequency",
)


def find_label_errors(path, labels):
    """(score, suggestion, num_errors): how likely each given label is wrong, what it should be, how many are wrong.

    path: (N, T, K) predictions over training, an array or memory map. labels: (N,) the given labels. score: (N,)
    float32, log q(best rival) - log q(given label) of the filtered path at its telling_step: above 0 where the
    rival is ahead, NaN where a row was never visited. suggestion: (N,) int64, that rival, -1 where never visited.
    num_errors: an int, estimate_errors(score): a rough guess. Raises ValueError for shapes that do not fit and for
    what is no probability.
    """
    labels = measures.checked(path, labels)
    smoothing = SLOWER * measures.default_smoothing(path.shape[1])
    step, least = telling_step(path, labels, smoothing), measures.smallest(path)
    smoothing = max(smoothing, 1 / (step + 1))  # a window that is not full would be of the first prediction mostly
    score = np.full(len(labels), np.nan, np.float32)
    suggestion = np.full(len(labels), -1, np.int64)
    for rows, q in chunks(path):
        visited = q.any((0, 1))
        then = measures.filtered(q[:, : step + 1], smoothing)[:, -1:]
        score[rows] = np.where(visited, -log_margin(then, labels[rows], least)[0], np.nan)
        np.put_along_axis(then, labels[rows][None, None], -1, axis=0)  # no rival, even where all of these are 0
        suggestion[rows] = np.where(visited, then[:, 0].argmax(0), -1)
    return score, suggestion, estimate_errors(score)


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


def estimate_errors(score):
    """A rough guess of how many labels are wrong, from the scores (N,) of find_label_errors: how many lie above 0, and
    in the worse of two Gaussians that are fitted to the scores. 0 where there are too few scores to split.

    Either condition alone overestimates: the first where a network has learned little, the second where few labels
    are wrong. On images that are hard to learn both together do so, too, or miss half: several times off.
    """
    score = score[np.isfinite(score)].astype(np.float64)[:, None]
    if len(score) < 10 or np.ptp(score) == 0:
        return 0
    groups = GaussianMixture(2, random_state=0).fit(score)
    worse = groups.predict(score) == groups.means_[:, 0].argmax()
    return int((worse & (score[:, 0] > 0)).sum())


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
