"""What CIFAR10_path_analysis needs beside paths/: small recordings, groups of images, differences and their intervals.

runs = open_runs({"noisy": "results/Gen_path/run_cifar10_cosine_n0.4", "clean": None})
filtered, raw = (error_at(runs["noisy"], smoothing, step=19) for smoothing in (0.1, 1))
for title, who in groups_of(runs["noisy"]).items():
    print(title, compared(filtered[who], raw[who], "raw is nearer", "filtered is nearer"))
"""

import contextlib
import io
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from toy_gaussian import sign, table

import main_gen_path
from paths import measures
from paths.analysis import DISAGREED, Analysis, most_disputed
from runs.recorded_run import open_run

# ---------------------------------------------------------------------------------------------- recordings

RECORDINGS = {  # flags, epochs and, to try things out, fewer epochs
    "digits": ("--net smallcnn --batch_size 128 --fine_samples 64 --fine_every 2 --augment none", 30, 15),
    "cifar10": (
        "--net smallcnn --width 2 --batch_size 64 --train_size 1500 --fine_samples 64 --fine_every 8 --augment none",
        80,
        2,
    ),
}


def record(dataset, folder, data_dir, fast=False, ny_ratio=0.0):
    """Record a small run of main_gen_path.py below a folder; returns the run's folder."""
    flags, epochs, few = RECORDINGS[dataset]
    flags = [*flags.split(), "--dataset", dataset, "--data_dir", str(data_dir), "--ny_ratio", str(ny_ratio)]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        return Path(folder, main_gen_path.main([*flags, "--epochs", str(few if fast else epochs)]))


# --------------------------------------------------------------------------------------- runs and their images


def open_runs(folders, data_dir=None):
    """{name: Analysis} of {name: a run's folder, or None for none}; "noisy" without known wrong labels is "main"."""
    runs = {name: Analysis(open_run(folder, data_dir)) for name, folder in folders.items() if folder}
    return {"main" if name == "noisy" and run.recorded.wrong is None else name: run for name, run in runs.items()}


def followed(run):
    """(N,) bool: the images that were trained on, so that they have a path."""
    return np.isfinite(run.score)


def mislabelled(run):
    """(N,) bool: the images followed whose given label is known to be wrong."""
    wrong = run.recorded.wrong
    return followed(run) & (np.zeros(len(run.score), bool) if wrong is None else wrong)


def predictions(run, smoothing=1):
    """(N, T): the class predicted at each step of the path, filtered with a factor; 1 is the raw path."""
    return np.concatenate([measures.filtered(q, smoothing).argmax(0).T for _, q in measures.chunks(run.recorded.path)])


def zigzags(run, smoothing=1):
    """(N,) bool: mislabelled, predicted as the clean class at some step and as the given label at the end."""
    predicted = predictions(run, smoothing)
    reached = (predicted == truth(run)[:, None]).any(1)
    return mislabelled(run) & reached & (predicted[:, -1] == run.recorded.given)


def clearest_zigzags(run, most):
    """At most so many rows: of the filtered path's zig-zags, those where it gives the clean class most at a step."""
    factor = default_factor(run)
    found = np.flatnonzero(zigzags(run, factor))
    filtered = measures.low_pass(run.recorded.path[found], factor)
    peak = filtered[np.arange(len(found)), :, truth(run)[found]].max(1)
    return found[np.argsort(-peak, kind="stable")[:most]]


def truth(run):
    """(N,) clean labels; where no wrong ones are known, the given ones."""
    return run.recorded.given if run.recorded.clean is None else run.recorded.clean


def groups_of(run):
    """{title: (N,) bool}: all images, and the ones whose labels are worst: those people disagree on, mislabelled."""
    found = {"all images": followed(run)}
    if (p_star := run.recorded.true_probs) is not None:
        if followed(run).sum() > DISAGREED:
            found[f"the {DISAGREED:,} people disagree on most"] = most_disputed(p_star, followed(run))
    if mislabelled(run).any():
        found["mislabelled images"] = mislabelled(run)
    return found


def overview(runs):
    """A table in Markdown: what each run holds."""
    rows = []
    for name, run in runs.items():
        r, n, wrong = run.recorded, followed(run).sum(), mislabelled(run).sum()
        rows.append(
            [
                f"{name}: `{r.name}`",
                f"{n:,}",
                f"{r.path.shape[1]:,} {r.step_name}s",
                str(r.path.shape[2]),
                "none" if r.fine is None else f"{r.fine[0].shape[0]:,} images, {r.fine[0].shape[1]:,} steps",
                "none known" if r.wrong is None else f"{wrong:,} ({wrong / n:.1%})",
                r.reference[0].replace("p*", "people's votes"),
            ]
        )
    columns = ["run", "images followed", "steps", "classes", "fine path", "wrong labels", "compared with"]
    return table(columns, rows)


# --------------------------------------------------------------------------------------- numbers of single images


def last_step(run):
    return run.recorded.path.shape[1] - 1


def prediction_at(run, smoothing, step):
    """(N, K) float32: the path, filtered with a factor, at a step. A factor of 1 filters nothing: the raw path."""
    path = run.recorded.path[:, : step + 1]
    return np.concatenate([measures.filtered(q, smoothing)[:, -1].T for _, q in measures.chunks(path)])


def right_at(run, smoothing, step):
    """(N,) bool: whether that prediction is the clean label."""
    return prediction_at(run, smoothing, step).argmax(1) == truth(run)


def error_at(run, smoothing, step):
    """(N,): the L2 distance of that prediction to p*, or to the clean label."""
    return np.linalg.norm(prediction_at(run, smoothing, step) - run.recorded.reference[1], axis=1)


def default_factor(run):
    return measures.default_smoothing(run.recorded.path.shape[1])


# ---------------------------------------------------------------------------------------------------- statements


def gap(a, b):
    """(mean, low, high) of a - b over the images, with the 95 % interval of the mean."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    half = 1.96 * difference.std() / np.sqrt(max(len(difference), 1))
    return difference.mean(), difference.mean() - half, difference.mean() + half


def compared(a, b, larger, smaller):
    """Texts: both means, the difference with its interval, and `larger`, `smaller` or that nobody can tell."""
    mean, low, high = gap(a, b)
    word = sign((mean, low, high), smaller, larger, "not distinguishable")
    form = "+.3f" if max(abs(low), abs(high)) > 0.001 or low == high else "+.0e"
    return [f"{np.mean(a):.3f}", f"{np.mean(b):.3f}", f"{mean:{form}} [{low:{form}}, {high:{form}}]", word]


def by_verdict(rows):
    """Rows of a table that end in what `compared` gives, after run and images, as one sentence for each verdict."""
    found = {}
    for name, group, *_, a, b, _, verdict in rows:
        found.setdefault(verdict, []).append(f"{name} run, {group} ({a} against {b})")
    return "; ".join(f"**{verdict}**: {', '.join(cases)}" for verdict, cases in found.items())


def share(hits):
    """A share of (n,) bool in words, with its 95 % interval (Wilson's)."""
    if not len(hits):
        return "none"
    low, high = binomtest(int(np.sum(hits)), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.1%} [{low:.1%}, {high:.1%}]"
