"""Measures of learning paths: most are a probe of the prediction, folded over time (PER_STEP).

A path is (N, T, K): sample, step, class, as PathRecorder writes it; labels (N,) are the given ones. Everything is
computed in float32, in chunks of samples, so that a memory map of any size needs little memory. Rows never visited
(all zeros) are NaN in every measure; a step that a sample missed holds its prediction of the step before.

integral_difficulty and converged_difficulty have the paper's names and are larger for easier samples: they sum up, or
end with, the label's probability. base_difficulty and mean_cross_entropy are larger for harder ones.

    measures = compute(np.load("path.npy", mmap_mode="r"), labels)
    measures["confidence"]  # (N,)
"""

import numpy as np
import scipy.fft

from supervision.table import ema_step

# (K, T, n) float32 of 512 samples stays in the processor's cache for T = 200, K = 10; of a larger path fewer are taken
CHUNK, CHUNK_BYTES = 512, 32e6

# -------------------------------- probes: (K, T, n), (n,), the path's smallest() -> (T, n)


def label_probability(q, label, smallest=None):
    """q_t(y), the probability of the given label."""
    return np.take_along_axis(q, label[None, None], axis=0)[0]


def log_margin(q, label, smallest):
    """log q_t(y) - log of the best rival: the logit margin, which AUM averages (Pleiss et al. 2020)."""
    return log(label_probability(q, label), smallest) - log(rivals(q, label).max(0), smallest)


def margin_loss(q, label, smallest):
    """log(1 + exp(-margin)), the logistic loss of the log margin: next to nothing where the label wins clearly."""
    return np.logaddexp(0, -log_margin(q, label, smallest))


def cross_entropy(q, label, smallest):
    """-log q_t(y)."""
    return -log(label_probability(q, label), smallest)


def l2_error(q, label, smallest):
    """|q_t - e_y|, the L2 norm of the error vector (Paul et al. 2021)."""
    others = rivals(q, label)  # their sum keeps more digits than 1 - q(y)
    return np.sqrt(np.einsum("ktn,ktn->tn", others, others) + others.sum(0) ** 2)


def is_correct(q, label, smallest):
    """Whether the prediction is the given label."""
    return (q.argmax(0) == label).astype(np.float32)


# --------------------------------------------------------------------- folds over time: (T, n) -> (n,)


def mean(series):
    return series.mean(0)


def drops_or_never(series):
    """How often 1 is followed by 0; the number of steps where it never was 1, the largest score there is."""
    return np.where(series.any(0), (np.diff(series, axis=0) < 0).sum(0), len(series))


def first(series):
    """The first step that is 1; the number of steps where none is."""
    return np.where(series.any(0), series.argmax(0), len(series))


PER_STEP = {
    "confidence": (label_probability, mean),  # dataset cartography (Swayamdipta et al. 2020)
    "variability": (label_probability, lambda series: series.std(0)),
    "correctness": (is_correct, mean),
    "integral_difficulty": (label_probability, lambda series: series.sum(0)),  # the paper's integral
    "converged_difficulty": (label_probability, lambda series: series[-1]),
    "area_under_margin": (log_margin, mean),
    "el2n": (l2_error, mean),
    "forgetting": (is_correct, drops_or_never),  # Toneva et al. 2019, who put samples never learned last
    "first_learned": (is_correct, first),
    "mean_cross_entropy": (cross_entropy, mean),  # small loss, over the whole path
    "el2n_at_step": (l2_error, lambda series: series[len(series) // 10]),  # Paul et al. take epoch 20 of 200
}

# ------------------------------------------------------- measures of the path itself: (K, T, n) -> (n,)


def rival_mass(q, smoothing):
    """Zig-zag: the largest filtered mass of a class other than the one that the raw path ends at."""
    end = q[:, -1].argmax(0)
    reached = filtered(q, smoothing).max(1)
    np.put_along_axis(reached, end[None], 0, axis=0)
    return reached.max(0)


def detour(q, smoothing):
    """Zig-zag: the path's length over its displacement; 1 for a straight line, infinite for a closed one."""
    length = np.sqrt((np.diff(q, axis=1) ** 2).sum(0)).sum(0)
    displacement = np.sqrt(((q[:, -1] - q[:, 0]) ** 2).sum(0))
    return np.divide(length, displacement, out=np.where(length > 0, np.inf, 1.0), where=displacement > 0)


def flips(q, smoothing):
    """Zig-zag: how often the predicted class changes."""
    return (np.diff(q.argmax(0), axis=0) != 0).sum(0)


def high_frequency(q, smoothing):
    """Zig-zag: the share of the path's power, its mean removed, above a quarter of the sampling rate."""
    power = (np.abs(scipy.fft.fft(q - q.mean(1, keepdims=True), axis=1)) ** 2).sum(0)
    whole, fast = power.sum(0), power[np.abs(scipy.fft.fftfreq(q.shape[1])) > 0.25].sum(0)
    return np.divide(fast, whole, out=np.zeros_like(whole), where=whole > 1e-12)


PER_PATH = {"rival_mass": rival_mass, "detour": detour, "flips": flips, "high_frequency": high_frequency}

# ----------------------------------------------------------------------------------------- all of them


def default_smoothing(num_steps):
    """The filter's factor for a path of T steps: 1 - (1 - .05)^(200 / T), at most 1.

    The published .05 is made for 200 epochs; over 30 steps it would lag behind the path.
    """
    return min(1.0, 1 - 0.95 ** (200 / num_steps))


def compute(path, labels, reference=None, smoothing=None):
    """All measures of every sample: {name: (N,) float32}.

    path: (N, T, K), an array or memory map. labels: (N,) given labels. reference: (N, K) distributions p*, for
    base_difficulty, |e_y - p*|. smoothing: the filter's factor (default_smoothing(T)). Rows never visited are NaN.
    Raises ValueError for shapes that do not fit.
    """
    labels = checked(path, labels)
    num_samples, num_steps, num_classes = path.shape
    smoothing = default_smoothing(num_steps) if smoothing is None else smoothing
    measures = {name: np.full(num_samples, np.nan, np.float32) for name in (*PER_STEP, *PER_PATH)}
    probes = {probe for probe, _ in PER_STEP.values()}
    for rows, q in chunks(path):
        probed = {probe: probe(q, labels[rows], smallest(path)) for probe in probes}
        found = {name: fold(probed[probe]) for name, (probe, fold) in PER_STEP.items()}
        found |= {name: measure(q, smoothing) for name, measure in PER_PATH.items()}
        unvisited = ~q.any((0, 1))
        for name, values in found.items():
            measures[name][rows] = np.where(unvisited, np.nan, values)
    if reference is not None:
        reference = np.asarray(reference, np.float32)
        if reference.shape != (num_samples, num_classes):
            raise ValueError(f"reference must have shape {(num_samples, num_classes)}, not {reference.shape}")
        base = np.linalg.norm(np.eye(num_classes, dtype=np.float32)[labels] - reference, axis=1)
        measures["base_difficulty"] = np.where(np.isnan(measures["confidence"]), np.nan, base).astype(np.float32)
    return measures


def low_pass(path, smoothing=None):
    """The filtered path (N, T, K) float32: the moving average that Filter-KD's table keeps, at every step.

    NaN for rows never visited.
    """
    smoothing = default_smoothing(path.shape[1]) if smoothing is None else smoothing
    out = np.empty(path.shape, np.float32)
    for rows, q in chunks(path):
        out[rows] = np.where(q.any((0, 1)), filtered(q, smoothing), np.nan).transpose(2, 1, 0)
    return out


def distance_to(path, reference, smoothing=None, rows=None):
    """Mean distance to distributions p* at each step: {"raw_l2", "filtered_l2", "raw_kl", "filtered_kl"}: (T,).

    reference: (N, K). KL is KL(p* || q_t), q clipped at smallest(path). rows: (N,) bool, whom to average over
    (every row that was visited).
    """
    least = smallest(path)

    def l2(q, chosen):
        return np.sqrt(((q - np.asarray(reference[chosen], np.float32).T[:, None]) ** 2).sum(0))

    def kl(q, chosen):
        p = np.asarray(reference[chosen], np.float32).T[:, None]
        return (p * (log(p, least) - log(q, least))).sum(0)

    return _means(path, smoothing, rows, {"l2": l2, "kl": kl})


def accuracy_of(path, labels, smoothing=None, rows=None):
    """Share of samples whose prediction is their label at each step: {"raw_accuracy", "filtered_accuracy"}: (T,).

    labels: (N,), the given or the clean ones. rows: as in distance_to.
    """
    labels = checked(path, labels)
    return _means(path, smoothing, rows, {"accuracy": lambda q, chosen: q.argmax(0) == labels[chosen]})


def _means(path, smoothing, rows, probes):
    """{"raw_NAME", "filtered_NAME"}: (T,), means over the rows of each probe(q (K, T, n), idx (n,)) -> (T, n); NaN of
    none."""
    smoothing, count = default_smoothing(path.shape[1]) if smoothing is None else smoothing, 0
    sums = {f"{kind}_{name}": np.zeros(path.shape[1]) for kind in ("raw", "filtered") for name in probes}
    for chunk, q in chunks(path):
        chosen = q.any((0, 1)) if rows is None else q.any((0, 1)) & rows[chunk]
        count, idx = count + int(chosen.sum()), chunk.start + np.flatnonzero(chosen)
        for kind, values in (("raw", q), ("filtered", filtered(q, smoothing))):
            for name, probe in probes.items():
                sums[f"{kind}_{name}"] += probe(values[:, :, chosen], idx).sum(1)
    return {name: total / (count or np.nan) for name, total in sums.items()}


def chunks(path):
    """Pairs of a slice of samples and their path as (K, T, n) float32, samples innermost, as they lie on disk.

    Steps that a sample missed (all zeros) hold its prediction of the step before, or of its first one. A probability
    that float16 has rounded to 1, or near it, has its digits back.
    """
    num_samples, num_steps, num_classes = path.shape
    size = max(1, min(CHUNK, int(CHUNK_BYTES / (4 * num_steps * num_classes))))
    for start in range(0, num_samples, size):
        rows = slice(start, start + size)
        q = np.ascontiguousarray(path[rows].T, dtype=np.float32)
        if path.dtype == np.float16:
            _restore_digits(q)
        yield rows, _without_gaps(q)


def _restore_digits(q):
    """Make a class above .5 what the others leave, within its rounding: float16 keeps three digits of small ones."""
    top = q.argmax(0)[None]
    rounded = np.take_along_axis(q, top, 0)
    np.put_along_axis(q, top, 0, 0)
    left = np.clip(1 - q.sum(0, keepdims=True), rounded - 2**-12, rounded + 2**-12)
    np.put_along_axis(q, top, np.where(rounded > 0.5, left, rounded), 0)


def _without_gaps(q):
    there = q.any(0)  # (T, n)
    gaps = np.flatnonzero(there.any(0) & ~there.all(0))
    for sample in gaps:
        at = np.maximum.accumulate(np.where(there[:, sample], np.arange(len(there)), -1))
        at[at < 0] = np.argmax(there[:, sample])
        q[:, :, sample] = q[:, at, sample]
    return q


def rivals(q, label):
    """q with the given label's probability set to 0."""
    others = q.copy()
    np.put_along_axis(others, label[None, None], 0, axis=0)
    return others


def filtered(q, smoothing):
    """low_pass of a chunk (K, T, n)."""
    out = q.copy()
    for t in range(1, q.shape[1]):
        out[:, t] = ema_step(out[:, t - 1].copy(), q[:, t], np.float32(smoothing))
    return out


def smallest(path):
    """The smallest probability above 0 that the path's precision knows, where logarithms clip: 6e-8 in float16."""
    return max(float(np.finfo(path.dtype).smallest_subnormal), 1e-45)  # computed in float32


def log(p, smallest):
    """The logarithm of probabilities, clipped at `smallest`."""
    return np.log(np.maximum(p, np.float32(smallest)))


def checked(path, labels):
    labels = np.asarray(labels)
    if path.ndim != 3 or 0 in path.shape or path.shape[2] < 2 or labels.shape != path.shape[:1]:
        found = f"{path.shape} and {labels.shape}"
        raise ValueError(f"expected a path (N, T, K) of two classes or more and labels (N,), found {found}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= path.shape[2]:
        raise ValueError(f"labels must be whole numbers from 0 to {path.shape[2] - 1}")
    for start in range(0, len(labels), CHUNK):
        block = path[start : start + CHUNK]
        if not (fits := (block >= 0) & (block <= 1.001)).all():  # NaN is neither; rounding may lie above 1
            i, t, k = np.argwhere(~fits)[0]
            raise ValueError(f"path holds {block[i, t, k]} at {[int(start + i), int(t), int(k)]}: give probabilities")
    return labels.astype(np.int64)
