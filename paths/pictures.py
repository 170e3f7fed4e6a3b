"""Pictures of learning paths: samples in the probability simplex and over time, data maps, distances to p*.

Plain arrays in, a PNG out, written whole or not at all. Text is drawn as it is: a $ starts no mathematics.

    scene = Scene(np.load("path.npy", mmap_mode="r"), labels, class_names, clean=clean_labels)
    simplex_paths(scene, {"easy": [12, 40], "mislabelled": [7, 99]}, "simplex.png", "digits, 30 % wrong labels")
"""

import itertools
from dataclasses import dataclass

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from common import plots
from common.plots import figure, plain, save
from paths import simplex
from paths.measures import default_smoothing, low_pass

MOST_STEPS = 2000  # drawn of a longer path, evenly spaced; the filter sees every step
MOST_POINTS = 20_000  # drawn of a larger data map
MOST_IMAGES = 32
DIFFICULTIES = {  # the first three of them that there are
    "integral_difficulty": "integral: sum of q_t(y)\n(large: easy)",
    "converged_difficulty": "converged: q_T(y)\n(large: easy)",
    "base_difficulty": "base: |e_y - p*|\n(large: hard)",
    "mean_cross_entropy": "mean cross-entropy\n(large: hard)",
}
LARGE_IS_EASY = ("integral_difficulty", "converged_difficulty")  # whatever their names say


@dataclass
class Scene:
    """A run's learning paths, and what is known of its samples.

    path: (N, T, K), an array or memory map, of which only the rows drawn are read. given: (N,) given labels.
    class_names: K names. clean: (N,) clean labels. true_probs: (N, K) distributions p*. idx: (N,) numbers by which
    samples are named (their rows). smoothing: the filter's factor (default_smoothing(T)). From one step of the path
    to the next are step_size of what step_name says. early_stop: the step of the run's best epoch, marked on paths.
    """

    path: np.ndarray
    given: np.ndarray
    class_names: list
    clean: np.ndarray | None = None
    true_probs: np.ndarray | None = None
    idx: np.ndarray | None = None
    smoothing: float | None = None
    step_name: str = "epoch"
    step_size: int = 1
    early_stop: int | None = None

    def sample(self, row):
        """A row of the path as it is drawn, or None when it was never visited."""
        raw = np.asarray(self.path[row], np.float32)
        visited = np.flatnonzero(raw.any(1))
        if not len(visited):
            return None
        raw = raw[visited] / raw[visited].sum(1, keepdims=True)  # float16 rounds the sum
        filtered = low_pass(raw[None], self.smoothing or default_smoothing(self.path.shape[1]))[0]
        given, truth, p = int(self.given[row]), None, None
        if self.true_probs is not None:
            p = np.asarray(self.true_probs[row], np.float32)
            truth = int(p.argmax())
        if self.clean is not None:
            truth = int(self.clean[row])
            p = np.eye(raw.shape[1], dtype=np.float32)[truth] if p is None else p
        classes = [given] if truth in (None, given) else [given, truth]
        classes = (classes + [k for k in np.argsort(-raw.mean(0)).tolist() if k not in classes])[:3]
        roles = [
            " and ".join(role for role, label in (("given", given), ("true", truth)) if label == k) for k in classes
        ]
        drawn = plots.evenly(len(visited), MOST_STEPS)
        if self.early_stop is not None:  # the last step visited up to there
            drawn = np.union1d(drawn, max(np.searchsorted(visited, self.early_stop, side="right") - 1, 0))
        return Sample(
            name=int(row if self.idx is None else self.idx[row]),
            time=visited[drawn] / max(self.path.shape[1] - 1, 1),
            raw=raw[drawn],
            filtered=filtered[drawn],
            true_probs=p,
            classes=classes,
            names=[
                (role and f"{role}: ") + plain(self.class_names[k], 14) for role, k in zip(roles, classes, strict=True)
            ],
            colors=[plots.ROLE_COLORS.get(role, plots.RIVAL_COLORS[place - 1]) for place, role in enumerate(roles)],
            others=float(1 - raw[:, classes].sum(1).mean()),
            early_stop=None if self.early_stop is None else self.early_stop / max(self.path.shape[1] - 1, 1),
        )

    @property
    def end(self):
        """The last step, in units of step_name."""
        return max(self.path.shape[1] - 1, 1) * self.step_size


@dataclass
class Sample:
    """A sample's path as it is drawn: up to three classes of its distributions."""

    name: int
    time: np.ndarray  # (n,) of its steps, from 0 to 1
    raw: np.ndarray  # (n, K)
    filtered: np.ndarray  # (n, K)
    true_probs: np.ndarray | None  # p*, or the clean label's corner
    classes: list  # the given one, the true one where it is another, those with the largest mean probability
    names: list
    colors: list
    others: float  # mean mass of all other classes on the raw path
    early_stop: float | None = None  # a time, from 0 to 1

    def points(self, probs, time=1.0):
        """Points (..., 2) of distributions (..., K): in the triangle; of two classes the first one's over time."""
        if len(self.classes) == 3:
            return simplex.barycentric(probs, self.classes)
        return np.stack(np.broadcast_arrays(time, probs[..., self.classes[0]]), -1)


# ------------------------------------------------------------------------------------- paths of single samples


def simplex_paths(scene, groups, out, title):
    """Samples' paths in the probability simplex, a row of panels a group. groups: {title: rows of the path}.

    Samples that were never visited are left out; ValueError when none remains.
    """
    fig, axes, panels = _grid(scene, groups, 3, 2.9, -6)
    for ax, sample in panels:
        simplex.draw_simplex(ax, sample)
        simplex.Trail(ax, sample).show(1)
    time = ScalarMappable(Normalize(0, scene.end), simplex.TIME_COLORS)
    fig.colorbar(time, ax=axes, label=plain(scene.step_name), shrink=0.6, aspect=30)
    simplex.path_legend(fig, scene)
    save(fig, out, title)


def probabilities_over_time(scene, groups, out, title):
    """q_t of the same samples and classes over training, raw and filtered; p* dotted. Arguments as simplex_paths."""
    fig, axes, panels = _grid(scene, groups, 4.2, 2.6, -52, sharex=True, sharey=True)
    styles = {"raw path": dict(lw=0.7), "filtered path": dict(lw=2.2)}
    styles |= {"p*": dict(ls=":", lw=1.4)} if scene.true_probs is not None else {}
    for ax, sample in panels:
        lines = []
        for k, color in zip(sample.classes, sample.colors, strict=True):
            ax.plot(sample.time * scene.end, sample.raw[:, k], color=color, alpha=0.6, **styles["raw path"])
            lines += ax.plot(sample.time * scene.end, sample.filtered[:, k], color=color, **styles["filtered path"])
            if "p*" in styles:
                ax.axhline(sample.true_probs[k], color=color, **styles["p*"])
        place = dict(loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=3)
        ax.legend(lines, sample.names, fontsize=7.5, handlelength=1, columnspacing=1, borderpad=0, **place)
        ax.set_title(f"sample {sample.name}", fontsize=10, pad=18)
    axes[0, 0].set(ylim=(-0.02, 1.02), xlim=(0, scene.end))
    for ax in axes[:, 0]:
        ax.set_ylabel("probability")
    for ax in axes[-1]:
        ax.set_xlabel(plain(scene.step_name))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], color="black", label=name, **style) for name, style in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    save(fig, out, title)


def _grid(scene, groups, width, height, margin, **settings):
    """(figure, axes, [(ax, Sample)]): a row of axes for each group with samples, its title `margin` to the left."""
    rows = {name: [s for s in map(scene.sample, chosen) if s is not None] for name, chosen in groups.items()}
    rows = {name: samples for name, samples in rows.items() if samples}
    if not rows:
        raise ValueError("no sample to draw: the groups are empty, or none of their samples was visited")
    columns = max(map(len, rows.values()))
    width, height = max(width + 0.6 / columns, 5 / columns), height + 0.9 / len(rows)  # for legend and title
    fig, axes = figure(columns, len(rows), width, height, squeeze=False, **settings)
    panels = []
    for line, (name, samples) in zip(axes, rows.items(), strict=True):
        panels += zip(line, samples, strict=False)
        for ax in line[len(samples) :]:
            ax.set_visible(False)
        style = dict(rotation=90, ha="center", va="center", weight="bold")
        line[0].annotate(plain(name, 30), (0, 0.5), (margin, 0), "axes fraction", "offset points", **style)
    return fig, axes, panels


# ------------------------------------------------------------------------------------------------ all samples


def data_map(measures, wrong, out, title, wrong_name="given label wrong"):
    """Dataset cartography: confidence against variability, coloured by correctness (Swayamdipta et al. 2020).

    measures: as measures.compute gives them. wrong: (N,) bool, marked and counted under wrong_name; None when
    nobody knows. Rows that are NaN are left out; of more than 20,000 a random part is drawn, and all are counted.
    """
    table = np.stack([np.asarray(measures[name], float) for name in ("variability", "confidence", "correctness")])
    there = np.flatnonzero(np.isfinite(table).all(0))
    x, y, correct = table[:, there]
    drawn = np.isin(np.arange(len(x)), plots.some(len(x), MOST_POINTS))
    fig, (ax, side) = figure(columns=2, width=4.4, height=5, sharey=True, width_ratios=(3.2, 1))
    size = np.clip(30_000 / max(drawn.sum(), 1), 5, 24)
    look = dict(cmap="cividis", vmin=0, vmax=1, alpha=0.75, linewidths=0.5, rasterized=True)
    for name, rows, marker, color in plots.by_wrong(wrong, there, wrong_name):
        part, edge = rows & drawn, color if marker == "X" else "none"
        kind = dict(marker=marker, label=f"{name} ({rows.sum():,})")
        shown = ax.scatter(x[part], y[part], size, correct[part], edgecolors=edge, **kind, **look)
        weights = np.full(rows.sum(), 1 / max(rows.sum(), 1))
        bars = dict(orientation="horizontal", color=color, alpha=0.55)
        side.hist(y[rows], np.linspace(0, 1, 31), weights=weights, label=name, **bars)
    ax.set(xlabel="variability of q_t(y)", xlim=(-0.01, 0.52), ylabel="confidence, mean of q_t(y)", ylim=(-0.02, 1.02))
    for handle in ax.legend(loc="upper right", fontsize=9).legend_handles:
        handle.set(sizes=[28], alpha=1)
    side.set_xlabel("share of samples")
    side.legend(loc="lower right", fontsize=8)
    fig.colorbar(shown, ax=side, label="correctness, share of the steps")
    if len(x) > MOST_POINTS:
        fig.supxlabel(f"{MOST_POINTS:,} of {len(x):,} samples are drawn", fontsize=9, color=plots.TRUTH)
    save(fig, out, title)


def measures_against_each_other(measures, wrong, out, title, wrong_name="given label wrong"):
    """Spearman's rank correlation of all measures, and the difficulty measures against each other.

    measures: as measures.compute gives them; rows where one is NaN are left out, infinite values count as ranks.
    wrong: (N,) bool, marked in the scatter plots under wrong_name, or None.
    """
    names, table = list(measures), np.stack([np.asarray(values, float) for values in measures.values()])
    there = np.flatnonzero(~np.isnan(table).any(0))
    table = table[:, there]
    rho = spearman(table)
    fig = Figure(figsize=(13.5, 8.2), layout="constrained")
    axes = fig.subplot_mosaic([["map", 0], ["map", 1], ["map", 2]], width_ratios=(2.2, 1))
    ax = axes["map"]
    ax.grid(False)
    shown = ax.imshow(rho, cmap="PuOr", vmin=-1, vmax=1)
    fig.colorbar(shown, ax=ax, shrink=0.6, label="Spearman's rho")
    labels = [plain(name.replace("_", " "), 30) + "\n(large: easy)" * (name in LARGE_IS_EASY) for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), labels)
    ax.set_title(f"rank correlation over {len(there):,} samples", fontsize=11)
    for i, j in np.ndindex(rho.shape):
        text, color = f"{rho[i, j]:.2f}", "white" if abs(rho[i, j]) > 0.7 else "black"
        ax.text(j, i, text.replace("nan", "–"), ha="center", va="center", fontsize=8, color=color)
    chosen = [name for name in DIFFICULTIES if name in names][:3]
    drawn = plots.some(len(there), MOST_POINTS // 4)
    for place, (a, b) in enumerate(itertools.combinations(chosen, 2)):
        i, j = names.index(a), names.index(b)
        for name, rows, marker, color in plots.by_wrong(wrong, there, wrong_name):
            part = drawn[rows[drawn]]
            axes[place].scatter(table[i, part], table[j, part], 8, color, marker=marker, lw=0, alpha=0.5, label=name)
        axes[place].set(xlabel=DIFFICULTIES[a], ylabel=DIFFICULTIES[b])
        axes[place].set_title(f"rho {rho[i, j]:.2f}", fontsize=10)
    note = f"{len(drawn):,} samples are drawn" if len(drawn) < len(there) else None
    axes[0].legend(fontsize=8, markerscale=2, title=note, title_fontsize=8)
    save(fig, out, title)


def spearman(table):
    """Spearman's rank correlations (D, D) of the rows of a table (D, N); NaN for a row that is constant."""
    with np.errstate(invalid="ignore"):
        return np.corrcoef(rankdata(table, axis=1))


def distance_over_training(
    distances, out, title, step_name="epoch", step_size=1, label_distance=None, reference_name="p*"
):
    """Mean distance to p* (or another reference) over training, raw against filtered; the smallest is marked.

    distances: {title: what measures.distance_to gives}. label_distance: {title: the given labels' own mean L2
    distance to p*}.
    """
    fig, axes = figure(len(distances), 2, 5, 3.2, squeeze=False, sharex="col", sharey="row")
    for column, (name, curves) in zip(axes.T, distances.items(), strict=True):
        for ax, unit in zip(column, ("l2", "kl"), strict=True):
            for kind, color, lw in (("raw", "#777777", 1.2), ("filtered", plots.FILTERED, 2.2)):
                curve = np.asarray(curves[f"{kind}_{unit}"])
                best, steps = int(curve.argmin()), np.arange(len(curve)) * step_size
                label = f"{kind}: smallest {curve[best]:.3g} at {plain(step_name)} {steps[best]:,}"
                ax.plot(steps, curve, color=color, lw=lw, label=label)
                ax.plot(steps[best], curve[best], "o", color=color, mec="black", ms=7, zorder=5)
            if unit == "l2" and name in (label_distance or {}):
                label = f"given labels: {label_distance[name]:.3g}"
                ax.axhline(label_distance[name], color=plots.GIVEN, ls="--", label=label)
            ax.legend(fontsize=8.5)
        column[0].set_title(plain(name, 60), fontsize=11)
        column[1].set_xlabel(plain(step_name))
        column[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(f"L2 distance |q_t - {plain(reference_name)}|")
    axes[1, 0].set_ylabel(f"KL({plain(reference_name)} || q_t)")
    save(fig, out, title)


def sample_images(images, captions, out, title):
    """Up to 32 images in rows of eight, each under its caption. images: a list of (H, W) or (H, W, C) uint8."""
    images = images[:MOST_IMAGES]
    fig, axes = figure(8, -(-len(images) // 8), 1.5, 1.75, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, images, captions, strict=False):
        ax.imshow(np.squeeze(image), cmap="gray", vmin=0, vmax=255)
        ax.set_title("\n".join(plain(line, 24) for line in str(caption).splitlines()), fontsize=8)
    save(fig, out, title)
