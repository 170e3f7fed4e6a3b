"""A detector trained on the paths of labels made wrong on purpose, and carried over to others.

After detectors of label noise by recurrent networks on training dynamics; here a logistic regression on features that
depend neither on the order of classes nor on the number of steps.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from paths.measures import chunks, label_probability, margin_loss, rivals, smallest

BINS = 8  # of time


class Detector:
    """Call it on a run (its .path and .given): (N,) log odds that the label is wrong."""

    def __init__(self, weights, bias):
        self.weights, self.bias = weights, bias

    @classmethod
    def fit(cls, runs):
        """Train on runs whose .wrong labels are known."""
        x, wrong = np.concatenate([features(r) for r in runs]), np.concatenate([r.wrong for r in runs])
        model = LogisticRegression(C=0.1, max_iter=1000).fit(x, wrong)
        return cls(model.coef_[0], model.intercept_[0])

    def __call__(self, run):
        return features(run) @ self.weights + self.bias


def features(run):
    """(N, 3 * BINS + 2): margin loss, p of the label and p of the strongest rival over time, and two deviations.

    Each is centred and scaled within its run, so that runs of different lengths and data are alike.
    """
    found = []
    for rows, q in chunks(run.path):
        label = run.given[rows]
        strongest = rivals(q, label).mean(1).argmax(0)
        loss = margin_loss(q, label, smallest(run.path))
        own, rival = label_probability(q, label), label_probability(q, strongest)
        edges = np.linspace(0, len(loss), BINS + 1).round().astype(int)
        binned = [
            s[a : max(a + 1, b)].mean(0) for s in (loss, own, rival) for a, b in zip(edges, edges[1:], strict=False)
        ]
        found.append(np.stack([*binned, loss.std(0), own.std(0)], 1))
    x = np.concatenate(found)
    return (x - np.median(x, 0)) / (x.std(0) + 1e-6)
