"""Animations of learning paths as GIFs: difficulty against distance to p*, zig-zags in the simplex.

The Scene is that of paths.pictures; a GIF is written whole or not at all.

    scene = Scene(np.load("path.npy", mmap_mode="r"), labels, class_names, true_probs=people)
    distance_against_difficulty(scene, "distance.gif", measures["base_difficulty"], people)
    zigzag(scene, [12, 40, 7, 99], "zigzag.gif", "four digits", seconds_per_step=0.4)
"""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from common import plots
from common.files import whole_file
from common.plots import plain
from paths import simplex

MOST_FRAMES = 60
MOST_POINTS = 2000
BINS = 12  # of the running median
LAST_HELD, LONGEST = 2.0, 30.0  # seconds: of the last frame, and of the others together
SHORTEST = 0.03  # seconds of a frame; browsers slow down what is shorter


def distance_against_difficulty(
    scene,
    out,
    difficulty,
    reference,
    wrong=None,
    difficulty_name="base difficulty",
    reference_name="p*",
    wrong_name="given label wrong",
):
    """|q_t(x) - reference| against difficulty, moving over training, with its running median.

    difficulty: (N,); samples where it is not finite are left out. reference: (N, K) distributions.
    wrong: (N,) bool, marked under wrong_name, or None. Of more than 2,000 samples a random part is drawn. ValueError
    when there is no sample.
    """
    difficulty, num_steps = np.asarray(difficulty, np.float32), scene.path.shape[1]
    known = np.flatnonzero(np.isfinite(difficulty))
    if not len(known):
        raise ValueError("no sample to draw: the difficulty of none is finite")
    rows = known[plots.some(len(known), MOST_POINTS)]
    x, reference = difficulty[rows], np.asarray(reference)[rows]
    edges = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)))  # equal counts, but for ties
    bins = np.unique(np.searchsorted(edges[1:-1], x, side="right"), return_inverse=True)[1]
    centres = [np.median(x[bins == b]) for b in range(bins.max() + 1)]

    fig = Figure(figsize=(4.8, 4.2), dpi=100, layout="constrained")
    ax = fig.subplots()
    margin = 0.03 * (np.ptp(x) or 1)
    ax.set(xlim=(x.min() - margin, x.max() + margin), ylim=(0, 1.45), xlabel=plain(difficulty_name, 60))
    ax.set_ylabel(f"L2 distance |q_t - {plain(reference_name, 30)}|")
    clouds = []
    for name, part, marker, color in plots.by_wrong(wrong, rows, wrong_name):
        look = dict(marker=marker, lw=0, alpha=0.6, label=f"{name} ({part.sum():,})")
        clouds.append((ax.scatter(x[part], x[part], 9, color, **look), part))
    median = ax.plot(centres, centres, ".-", color="black", lw=2, label="running median")[0]
    fig.legend(loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.3, columnspacing=1)
    heading = fig.suptitle(" ", fontsize=11)
    part = f", {len(rows):,} of {len(known):,} samples" if len(rows) < len(known) else ""

    def show(step):
        q = np.asarray(scene.path[rows, step], np.float32)
        y = np.where(q.any(1), np.linalg.norm(q - reference, axis=1), np.nan)
        for cloud, chosen in clouds:
            cloud.set_offsets(np.stack([x[chosen], y[chosen]], 1))
        groups = [y[(bins == b) & ~np.isnan(y)] for b in range(len(centres))]
        median.set_ydata([np.median(group) if len(group) else np.nan for group in groups])
        heading.set_text(f"{plain(scene.step_name, 20)} {step * scene.step_size:,}{part}")

    moving = [*(cloud for cloud, _ in clouds), median, heading]
    seconds = min(0.5, 8 / num_steps)
    _film(fig, moving, show, num_steps, seconds, out)


def zigzag(scene, samples, out, title, seconds_per_step=0.3):
    """Up to four samples' paths moving through their simplices. samples: rows of the path.

    A long path is drawn whole, in at most 60 frames. Samples never visited are left out; ValueError when none
    remains.
    """
    samples = [sample for sample in map(scene.sample, samples) if sample is not None][:4]
    if not samples:
        raise ValueError("no sample to draw: there are none, or none was visited")
    columns, lines = min(len(samples), 2), (len(samples) + 1) // 2
    fig = Figure(figsize=(2 + 1.9 * columns, 1.5 + 2.1 * lines), dpi=100, layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    trails = []
    for ax, sample in zip(axes, samples, strict=False):
        simplex.draw_simplex(ax, sample)
        trails.append(simplex.Trail(ax, sample))
    simplex.path_legend(fig, scene, fontsize=8)
    last = scene.path.shape[1] - 1
    title = plots.wrapped(fig, title)
    heading = fig.suptitle(title, fontsize=11)

    def show(step):
        for trail in trails:
            trail.show(step / max(last, 1))
        heading.set_text(f"{title}\n{plain(scene.step_name, 20)} {step * scene.step_size:,}")

    moving = [artist for ax in axes for artist in (*ax.lines, *ax.collections)] + [heading]
    _film(fig, moving, show, last + 1, seconds_per_step, out)


# --------------------------------------------------------------------------------------------------- the GIF


def _film(fig, moving, show, num_steps, seconds, out):
    """Write what show(step) draws of up to 60 steps; of the figure, only the artists `moving` are drawn anew."""
    canvas = FigureCanvasAgg(fig)
    steps = plots.evenly(num_steps, MOST_FRAMES)
    show(steps[0])
    canvas.draw()  # lays the figure out, with everything in it
    fig.set_layout_engine("none")
    for artist in moving:
        artist.set_animated(True)  # which the next drawing leaves out
    canvas.draw()
    still = canvas.copy_from_bbox(fig.bbox)
    frames = []
    for step in steps:
        show(step)
        canvas.restore_region(still)
        for artist in sorted(moving, key=Artist.get_zorder):
            fig.draw_artist(artist)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    palette = frames[-1].quantize(64, Image.Quantize.MAXCOVERAGE)  # one for all: what stays takes no bytes
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    shown = min(seconds * (num_steps - 1), LONGEST) / max(len(frames) - 1, 1)
    durations = [int(1000 * max(shown, SHORTEST))] * (len(frames) - 1) + [int(1000 * LAST_HELD)]
    with whole_file(out) as f:
        frames[0].save(f, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
