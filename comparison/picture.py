"""comparison.png: the methods over training, and at the epochs that count."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from common.plots import figure, save
from supervision.targets import METHODS


def plot_comparison(results, curves, title, chooser, path):
    """comparison.png: test accuracy of each method by epoch, and at its last and its chosen epoch.

    results: a list of rows as of results.csv. curves: {method: (seeds, epochs) test accuracies}. chooser: what
    chose the epoch, in words.
    """
    fig, (left, right) = figure(columns=2, width=6, height=4.2)
    methods = list(curves)
    for method in methods:
        mean, spread = np.mean(curves[method], 0), _spread(curves[method])
        epochs = np.arange(len(mean))
        color = METHODS[method].color
        left.plot(epochs, mean, color=color, label=method, lw=2)
        left.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)
    left.set(xlabel="epoch", ylabel="test accuracy (clean labels)", title="over training")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(ncols=2)
    columns = {"test_acc_last": "last epoch", "test_acc_best": f"epoch chosen by {chooser}"}
    look = {"color": [METHODS[method].color for method in methods], "edgecolor": "white", "capsize": 3}
    for shift, hatch, (column, label) in zip((-0.2, 0.2), (None, "///"), columns.items(), strict=True):
        values = [np.array([row[column] for row in results if row["method"] == method]) for method in methods]
        means, spreads = [v.mean() for v in values], [float(_spread(v)) for v in values]
        right.bar(np.arange(len(methods)) + shift, means, 0.38, yerr=spreads, hatch=hatch, label=label, **look)
    values = [row[column] for row in results for column in columns]
    right.set_ylim(max(0, min(values) - 0.08), min(1, max(values) + 0.08))
    right.set_xticks(range(len(methods)), methods, rotation=20)
    right.set(title="at the end, and at the chosen epoch")
    right.legend()
    fig.suptitle(title)
    save(fig, path)


def _spread(values):
    """Standard deviation over seeds (axis 0); zero for a single one."""
    return np.std(values, axis=0, ddof=1) if len(values) > 1 else np.zeros(np.shape(values)[1:])
