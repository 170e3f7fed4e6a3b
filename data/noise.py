"""What noise does to labels.

Much of the field's confusion about noise rates is between `symmetric` and `symmetric_exclusive`, so whoever
trains under noise prints realised_rate() beside the kind's name.
"""

import numpy as np

KINDS = ("symmetric", "symmetric_exclusive", "pair")


def add_label_noise(labels: np.ndarray, num_classes: int, ratio: float, kind: str, seed: int) -> np.ndarray:
    """Noisy copy of labels (N,), int64: int(N * ratio + 1e-9) samples, drawn without repetition, are relabelled.

    kind: `symmetric` (as published) draws the new label uniformly from all classes, so that it may be the old
    one and a share of ratio * (1 - 1/K) really changes; `symmetric_exclusive` draws it from the other classes,
    so that a share of ratio changes; `pair` moves class k to k + 1 (the last to 0). The result depends on the
    arguments alone. Raises ValueError for a ratio outside [0, 1] or an unknown kind.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must lie in [0, 1], not {ratio}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind}")
    noisy = np.array(labels, dtype=np.int64)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(noisy))[: int(len(noisy) * ratio + 1e-9)]  # .29 * 100 is 28.999…
    if kind == "symmetric":
        noisy[chosen] = rng.integers(num_classes, size=len(chosen))
    elif kind == "symmetric_exclusive":
        noisy[chosen] = (noisy[chosen] + rng.integers(1, num_classes, size=len(chosen))) % num_classes
    else:
        noisy[chosen] = (noisy[chosen] + 1) % num_classes
    return noisy


def realised_rate(labels: np.ndarray, noisy: np.ndarray) -> float:
    """The share of labels that the noise really changed."""
    return float(np.mean(np.asarray(labels) != np.asarray(noisy)))
