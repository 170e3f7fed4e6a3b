"""The look of every figure of the project: importing this sets matplotlib's style."""

import textwrap
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from common.files import whole_file

# Okabe & Ito's palette, which colour-blind readers can tell apart; a method's colour is in supervision/targets.py.
SPLIT_COLORS = {"train": "#555555", "valid": "#E69F00", "test": "#0072B2"}

# Of a learning path: the given label is red, the truth (clean label or p*) grey, the untrained network green.
GIVEN, TRUTH, START, RAW, FILTERED = "#D62728", "#6E6E6E", "#009E73", "#B0B0B0", "#0072B2"
ROLE_COLORS = {"given": GIVEN, "given and true": GIVEN, "true": TRUTH}
RIVAL_COLORS = ("#0072B2", "#E69F00")  # of classes that are neither given nor true
RIGHT, WRONG = "#56B4E9", "#D55E00"  # samples whose given label is right, or wrong

# Class names may be of any script: their letters come from these fonts, where one is installed, else they are boxes.
WIDE_FONTS = {"Arial Unicode MS", "Hiragino Sans", "Microsoft YaHei", "Noto Sans CJK JP", "Noto Sans CJK SC"}
warnings.filterwarnings("ignore", r"Glyph .* missing from")

matplotlib.rcParams.update(
    {
        "font.family": ["sans-serif", *sorted(WIDE_FONTS & set(fontManager.get_font_names()))],
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


def plain(text: str, most: int = 200) -> str:
    """Text as it is, on one line and no longer than `most`: a $ in a class name is no mathematics to matplotlib."""
    text = " ".join(str(text).split())
    return (text if len(text) <= most else text[: most - 1] + "…").replace("$", r"\$")


def wrapped(fig: Figure, text: str) -> str:
    """A figure's title, in as many lines as its width asks for."""
    return "\n".join(plain(line) for line in textwrap.wrap(str(text), max(20, int(9 * fig.get_figwidth()))))


def by_wrong(wrong, there, wrong_name):
    """[(name, rows, marker, color)] of the samples `there`, in scatter plots; the wrong ones last, so on top."""
    if wrong is None:
        return [("samples", np.full(len(there), True), "o", RIGHT)]
    wrong = np.asarray(wrong, bool)[there]
    return [("others", ~wrong, "o", RIGHT), (plain(wrong_name, 40), wrong, "X", WRONG)]


def some(count: int, most: int) -> np.ndarray:
    """At most `most` of count places, drawn at random, always alike."""
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of count places, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def save(fig: Figure, path: str | Path, title: str | None = None) -> None:
    """Write a figure as PNG, whole or not at all; under a title, where there is one."""
    if title:
        fig.suptitle(wrapped(fig, title))
    with whole_file(path) as f:
        fig.savefig(f, format="png")
