"""The look of every figure of the project: importing this sets matplotlib's style."""

import os
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Okabe & Ito's palette, which colour-blind readers can tell apart; a method has one colour everywhere.
METHOD_COLORS = {
    "OHT": "#555555",
    "LS": "#E69F00",
    "KD": "#56B4E9",
    "ESKD": "#0072B2",
    "FilterKD": "#CC79A7",
    "ES-FilterKD": "#D55E00",
    "GT": "#009E73",
}
SPLIT_COLORS = {"train": "#555555", "valid": "#E69F00", "test": "#0072B2"}

matplotlib.rcParams.update(
    {
        "figure.dpi": 110,
        "savefig.dpi": 150,
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "axes.axisbelow": True,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
    }
)


def figure(columns=1, rows=1, width=5.2, height=3.8, **settings):
    """(figure, axes): a grid of axes, each width x height inches; settings go to Figure.subplots.

    Made without pyplot, so that it needs no display and nothing has to be closed.
    """
    fig = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return fig, fig.subplots(rows, columns, **settings)


def save(fig, path):
    """Write a figure as PNG, whole or not at all."""
    partial = Path(f"{path}.partial")
    try:
        fig.savefig(partial, format="png")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
