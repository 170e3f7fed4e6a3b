"""The look of every figure of the project."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # figures are files: no display is needed, and none is opened

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

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def figure(columns=1, rows=1, width=5.2, height=3.8, **settings):
    """(figure, axes) in the project's style; axes as matplotlib.pyplot.subplots gives them."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained", **settings)


def save(fig, path):
    """Write a figure as PNG, whole or not at all, and close it."""
    import matplotlib.pyplot as plt

    partial = Path(f"{path}.partial")
    try:
        with plt.rc_context(STYLE):
            fig.savefig(partial, format="png")
        os.replace(partial, path)
    finally:
        plt.close(fig)
        partial.unlink(missing_ok=True)
