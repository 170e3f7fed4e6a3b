"""Figures of a run: curves, reliability, confusion."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from common.plots import SPLIT_COLORS, figure, plain, save

CURVES = {  # of curves.png: {title: {figure: (label, style)}}
    "accuracy": {
        "train_acc_noisy": ("training, given labels", "-"),
        "train_acc_clean": ("training, clean labels", "--"),
        "valid_acc": ("validation, given labels", "-"),
        "test_acc": ("test", "-"),
    },
    "loss": {
        "train_loss": ("training", "-"),
        "valid_loss": ("validation, cross-entropy", "-"),
        "test_loss": ("test, cross-entropy", "-"),
    },
    "expected calibration error (10 bins)": {"valid_ece": ("validation, given labels", "-"), "test_ece": ("test", "-")},
}


def plot_curves(rows, path):
    """curves.png of a run: accuracies, losses and calibration error by epoch, from its metrics rows."""
    fig, axes = figure(columns=3, width=4.4)
    epochs = [row["epoch"] for row in rows]

    for ax, (title, curves) in zip(axes, CURVES.items(), strict=True):
        for key, (label, style) in curves.items():
            if key in rows[0]:
                marker = "." if len(rows) < 3 else None
                color = SPLIT_COLORS[key.split("_")[0]]
                ax.plot(epochs, [row[key] for row in rows], style, color=color, label=label, marker=marker)
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
    save(fig, path)


def plot_reliability(confidence, correct, ece, path, n_bins=10):
    """A reliability diagram: accuracy against confidence in equal bins, and how many samples each holds."""
    fig, (top, bottom) = figure(rows=2, height=2.9, sharex=True, height_ratios=(2.2, 1))
    edges = np.arange(n_bins + 1) / n_bins
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(bins, minlength=n_bins)
    accuracy = np.bincount(bins, weights=correct, minlength=n_bins) / np.maximum(count, 1)
    centre = (edges[:-1] + edges[1:]) / 2
    top.bar(centre[count > 0], accuracy[count > 0], 0.092, color="#0072B2", label="accuracy in the bin")
    top.plot([0, 1], [0, 1], "--", color="#555555", label="perfectly calibrated")
    top.set(ylabel="accuracy", ylim=(0, 1), title=f"reliability on the test set, ECE {ece:.4f}")
    fig.legend(loc="outside lower center", ncols=2)
    bottom.bar(centre, count, 0.092, color="#999999")
    bottom.set(xlabel="confidence", ylabel="test samples", xlim=(0, 1))
    save(fig, path)


def plot_confusion(counts, class_names, path):
    """A confusion matrix (K, K) of counts, rows the true class, as shares of each row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(12, 2.5 + 0.4 * len(class_names))
    fig, ax = figure(width=size, height=size * 0.88)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(class_names) <= 20:
        ticks, names = range(len(class_names)), [plain(name, 30) for name in class_names]
        ax.set_xticks(ticks, names, rotation=45, ha="right")
        ax.set_yticks(ticks, names)
        for i, j in np.argwhere(shares >= 0.005):
            color = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=8, color=color)
    ax.grid(False)
    ax.set(xlabel="predicted class", ylabel="true class", title="test samples, % of each true class")
    fig.colorbar(image, ax=ax, shrink=0.8)
    save(fig, path)
