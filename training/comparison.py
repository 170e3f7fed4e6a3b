"""The result of a comparison from one start: results.csv, the table with its intervals, comparison.png."""

import csv

import numpy as np
import torch
from scipy import stats

from training.figures import plot_comparison
from training.files import whole_file
from utils import noise_in_words

COLUMNS = [
    "method",
    "seed",
    "noise",
    "noise_kind",
    "noise_realised",
    "test_acc_last",
    "test_acc_best",
    "test_acc_oracle",
    "ece_last",
    "ece_best",
    "nll_last",
    "brier_last",
    "labels_recovered",
]


@torch.no_grad()
def labels_recovered(target, loader):
    """The share of mislabelled training samples whose p_tar, on the clean image, peaks at the true label.

    target: a p_tar object. loader: the training loader. None where no sample is mislabelled.
    """
    wrong = recovered = 0
    for x, y, ny, idx in loader.clean():
        mislabelled = ny != y
        wrong += int(mislabelled.sum())
        recovered += int((mislabelled & (target(x, ny, idx).argmax(1) == y)).sum())
    return recovered / wrong if wrong else None


def result_row(method, args, data, state, recovered):
    """The row of results.csv: last is the last epoch, best the one that validation chose (the first on ties).

    oracle is the best test epoch: a number nobody could have picked, only to compare with papers that do.
    """
    last, best = state.rows[-1], state.rows[state.best["acc"][0]]
    return {
        "method": method,
        "seed": args.seed,
        "noise": args.ny_file or args.ny_ratio,
        "noise_kind": "file" if args.ny_file else args.ny_kind,
        "noise_realised": data.noise_realised,
        "test_acc_last": last["test_acc"],
        "test_acc_best": best["test_acc"],
        "test_acc_oracle": max(row["test_acc"] for row in state.rows),
        "ece_last": last["test_ece"],
        "ece_best": best["test_ece"],
        "nll_last": last["test_nll"],
        "brier_last": last["test_brier"],
        "labels_recovered": recovered,
    }


def write_results(path, results):
    """results.csv: a row a method and seed; an empty cell where there is no figure."""
    with whole_file(path, "w") as f:
        writer = csv.DictWriter(f, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in results:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items() if v is not None})


def progress_line(row):
    """One line for the console when a method is done."""
    return (
        f"seed {row['seed']}  {row['method']:<12} test accuracy: last epoch {row['test_acc_last']:.4f}, "
        f"chosen epoch {row['test_acc_best']:.4f}"
    )


def report(results, args, curves, folder):
    """Draw comparison.png, write results.txt, and return the table: mean and deviation over seeds."""
    realised = np.mean([row["noise_realised"] for row in results])
    chooser = "the test set (--valid_size 0)" if args.valid_size == 0 else "validation"
    noise = f"{noise_in_words(args)} (realised {realised:.3f})"
    head = f"{args.dataset}, {args.net}, {noise}, {args.epochs} epochs, {args.seeds} seeds"
    table = format_table(results)
    notes = [
        "mean and standard deviation over seeds",
        f"chosen: the epoch that {chooser} chose; oracle: the best test epoch, which nobody could have picked",
        "- OHT: paired difference of test accuracies to OHT's, 95 % t interval over seeds; ECE in 10 bins",
        "recovered: share of mislabelled training samples whose target peaks at the true label",
    ]
    plot_comparison(results, curves, head, folder / "comparison.png")
    text = "\n".join([head, table, *notes])
    with whole_file(folder / "results.txt", "w") as f:
        f.write(text + "\n")
    return "\n" + text


def format_table(results):
    """The table as aligned text, a line a method."""
    columns = [
        ("test acc, last", "test_acc_last"),
        ("chosen", "test_acc_best"),
        ("oracle", "test_acc_oracle"),
        ("ECE, last", "ece_last"),
        ("chosen", "ece_best"),
        ("NLL, last", "nll_last"),
        ("Brier", "brier_last"),
        ("recovered", "labels_recovered"),
    ]
    methods = list(dict.fromkeys(row["method"] for row in results))
    by_method = {m: [row for row in results if row["method"] == m] for m in methods}
    lines = [["method", *(title for title, _ in columns), "- OHT, last", "- OHT, chosen"]]
    for method in methods:
        cells = [_mean_and_spread([row[key] for row in by_method[method]]) for _, key in columns]
        cells += [
            _paired_difference(by_method[method], by_method.get("OHT"), key)
            for key in ("test_acc_last", "test_acc_best")
        ]
        lines.append([method, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _mean_and_spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _paired_difference(rows, baseline, key):
    """`+.050 [+.031, +.069]`: mean over seeds of the difference to OHT with the same seed, and its t interval."""
    if not baseline or len(rows) < 2 or rows[0]["method"] == "OHT":
        return "-"
    theirs = {row["seed"]: row[key] for row in baseline}
    differences = np.array([row[key] - theirs[row["seed"]] for row in rows])
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{differences.mean():+.3f} [{differences.mean() - half:+.3f}, {differences.mean() + half:+.3f}]"
