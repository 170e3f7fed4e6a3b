"""A learning path in the probability simplex of three classes."""

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from common import plots

TIME_COLORS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.93, 256)), "time")
MARKS = {
    "given": dict(marker="x", color=plots.GIVEN, ms=12, mew=3, ls="none", zorder=3),
    "truth": dict(marker="x", color=plots.TRUTH, ms=7.5, mew=2, ls="none", zorder=4),
    "start": dict(marker="D", color=plots.START, mec="black", mew=0.6, ms=6.5, ls="none", zorder=6),
    "early_stop": dict(marker="*", color=plots.RIVAL_COLORS[1], mec="black", mew=0.6, ms=12, ls="none", zorder=6.5),
    "end": dict(marker="o", color="white", mec="black", mew=0.9, ms=4.5, ls="none", zorder=7),
    "filtered_end": dict(marker="o", color="black", ms=4.5, ls="none", zorder=8),
}
TRIANGLE = np.array([[0.5, 3**0.5 / 2], [0, 0], [1, 0]])  # the corners of three classes


def barycentric(probs, classes):
    """Points (..., 2) of distributions (..., K) in the triangle of three classes.

    The linear map that takes the simplex' corners of these classes to the triangle's, and all other corners to its
    centre. So a point at a corner means that this class holds everything, and the filtered path is the filter of
    the raw path's points; renormalised to three classes, neither would be true.
    """
    q = probs[..., classes]
    return (q + (1 - q.sum(-1, keepdims=True)) / 3) @ TRIANGLE


class Trail:
    """A sample's moving path in axes: raw thin, filtered thick and coloured by time, its start and its ends.

    The sample's early_stop, a time, is marked on the raw path, once it is reached.
    """

    def __init__(self, ax, sample):
        self.time = sample.time
        self.raw, self.filtered = (sample.points(q, sample.time) for q in (sample.raw, sample.filtered))
        self.line = ax.plot([], [], color=plots.RAW, lw=0.8)[0]
        self.trail = LineCollection([], cmap=TIME_COLORS, norm=Normalize(0, 1), lw=2.2, capstyle="round", zorder=2.5)
        ax.add_collection(self.trail, autolim=False)
        self.ends = [ax.plot([], [], **MARKS[mark], clip_on=False)[0] for mark in ("end", "filtered_end")]
        ax.plot(*self.raw[0], **MARKS["start"], clip_on=False)
        self.early_stop = sample.early_stop
        if self.early_stop is not None:
            at = np.searchsorted(self.time, self.early_stop, side="right") - 1
            self.stop = ax.plot(*self.raw[max(at, 0)], **MARKS["early_stop"], clip_on=False)[0]

    def show(self, time):
        """Draw the path up to a time from 0 to 1."""
        n = max(np.searchsorted(self.time, time, side="right"), 1)
        self.line.set_data(*self.raw[:n].T)
        self.trail.set_segments(np.stack([self.filtered[: n - 1], self.filtered[1:n]], 1))
        self.trail.set_array(self.time[1:n])
        for end, points in zip(self.ends, (self.raw, self.filtered), strict=True):
            end.set_data(*points[n - 1 : n].T)
        if self.early_stop is not None:
            self.stop.set_visible(time >= self.early_stop)


def path_legend(fig, scene, fontsize=9):
    """The legend of paths, below everything, in as many columns as there is room for."""
    marks = {mark: dict(style, zorder=None) for mark, style in MARKS.items()}
    raw, filtered = dict(color=plots.RAW, lw=0.8), dict(color=TIME_COLORS(0.5), lw=2.2)
    step_name = plots.plain(scene.step_name, 20)
    entries = {f"start ({step_name} 0)": marks["start"]}
    if scene.early_stop is not None:
        entries[f"early stop ({step_name} {scene.early_stop * scene.step_size:,})"] = marks["early_stop"]
    for name, mark, line in (("raw", "end", raw), ("filtered", "filtered_end", filtered)):
        entries[f"{name} path and its end"] = dict(marks[mark], mfc=marks[mark]["color"], ls="-", **line)
    entries["given label"] = marks["given"]
    if scene.true_probs is not None or scene.clean is not None:
        entries["clean label" if scene.true_probs is None else "p*"] = marks["truth"]
    columns = next(n for n, width in ((6, 10.5), (5, 8.5), (3, 5.5), (2, 4), (1, 0)) if fig.get_figwidth() >= width)
    handles = [Line2D([], [], label=label, **style) for label, style in entries.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=fontsize)


def draw_simplex(ax, sample):
    """What does not move: the triangle, its corners' names, the given label and the truth."""
    ax.axis("off")
    if len(sample.classes) == 3:
        ax.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.12, 1.0))
        ax.fill(*TRIANGLE.T, facecolor="#FAFAFA", edgecolor="#999999", lw=0.8, zorder=1)
        places = [(0.5, 0.94, "center", "bottom"), (-0.06, -0.08, "left", "top"), (1.06, -0.08, "right", "top")]
    else:
        ax.set(xlim=(-0.08, 1.08), ylim=(-0.2, 1.2))
        ax.hlines([0, 1], 0, 1, color="#999999", lw=0.8)
        places = [(0, 1.06, "left", "bottom"), (0, -0.07, "left", "top")]
    for name, color, (x, y, ha, va) in zip(sample.names, sample.colors, places, strict=True):
        text = name.replace(": ", ":\n", len(name) > 14 and len(places) == 3 and y < 0)
        ax.text(x, y, text, color=color, ha=ha, va=va, fontsize=8.5, zorder=1)
    corner = np.eye(sample.raw.shape[1])[sample.classes[0]]
    for mark, probs in (("given", corner), ("truth", sample.true_probs)):
        if probs is not None:
            ax.plot(*sample.points(probs), **MARKS[mark], clip_on=False)
    others = f", other classes {sample.others:.0%}" if sample.raw.shape[1] > 3 else ""
    ax.set_title(f"sample {sample.name}{others}", fontsize=9)
