"""The result of a comparison from one start: results.csv, the table with its intervals, comparison.png."""

import csv

import numpy as np
import torch
from scipy import stats

from common.files import whole_file
from common.untrusted import as_cell
from comparison.picture import plot_comparison
from training import distributed
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
def labels_recovered(target, loader, student=None):
    """The share of mislabelled training samples whose p_tar, on the clean image, peaks at the true label.

    target: a p_tar object. loader: the training loader. student: x -> logits, for targets that ask for them. None
    where no sample is mislabelled.
    """
    wrong = recovered = 0
    for x, y, ny, idx in loader.clean():
        mislabelled = ny != y
        wrong += int(mislabelled.sum())
        recovered += int((mislabelled & (target(x, ny, idx, student and student(x)).argmax(1) == y)).sum())
    wrong, recovered = distributed.total(wrong, recovered)
    return recovered / wrong if wrong else None


def result_row(method, args, data, state, recovered):
    """The row of results.csv: last is the last epoch, best the one that validation chose (the first on ties).

    oracle is the best test epoch: a number nobody could have picked, only to compare with papers that do.
    """
    last, best = state.rows[-1], state.rows[state.best["acc"][0]]
    return {
        "method": method,
        "seed": args.seed,
        "noise": as_cell(args.ny_file) if args.ny_file else args.ny_ratio,
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


def write_results(file, results):
    """results.csv: a row a method and seed; an empty cell where there is no figure. file: open for writing.

    Columns beside COLUMNS come last.
    """
    writer = csv.DictWriter(file, with_more(COLUMNS, results), restval="", lineterminator="\n")
    writer.writeheader()
    for row in results:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items() if v is not None})


def with_more(columns, rows):
    """columns, and what else rows have."""
    return list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))


def progress_line(row):
    """One line for the console when a method is done."""
    return (
        f"seed {row['seed']}  {row['method']:<12} test accuracy: last epoch {row['test_acc_last']:.4f}, "
        f"chosen epoch {row['test_acc_best']:.4f}"
    )


def report(results, args, curves, folder):
    """Draw comparison.png, write results.txt, and return the table: mean and deviation over seeds."""
    realised = np.mean([row["noise_realised"] for row in results])
    chooser = "the test set" if args.valid_size == 0 else "validation"
    noise = f"{noise_in_words(args)} (realised {realised:.3f})"
    head = f"{args.dataset}, {args.net}, {noise}, {args.epochs} epochs, {args.seeds} seeds"
    notes = [
        "mean and standard deviation over seeds",
        f"chosen: the epoch that {chooser} chose; oracle: the best test epoch, which nobody could have picked",
        "- OHT: paired difference of test accuracies to OHT's, 95 % t interval over seeds; ECE in 10 bins",
        "recovered: share of mislabelled training samples whose target peaks at the true label",
        "ES-FilterKD: the table of OHT's chosen epoch, the paper's Filter-KD; FilterKD: the table of its last epoch",
    ]
    plot_comparison(results, curves, head, chooser, folder / "comparison.png")
    tables = [line for columns in (ACCURACY, CALIBRATION) for line in ("", format_table(results, columns))]
    text = "\n".join([head, *tables, "", *notes])
    with whole_file(folder / "results.txt", "w") as f:
        f.write(text + "\n")
    return "\n" + text


# The printed tables: column titles and what a cell shows of a method's rows, given OHT's rows.
ACCURACY = {
    "test acc, last": lambda rows, oht: _values(rows, "test_acc_last"),
    "chosen": lambda rows, oht: _values(rows, "test_acc_best"),
    "oracle": lambda rows, oht: _values(rows, "test_acc_oracle"),
    "last - OHT": lambda rows, oht: _paired(rows, oht, "test_acc_last"),
    "chosen - OHT": lambda rows, oht: _paired(rows, oht, "test_acc_best"),
}
CALIBRATION = {
    "ECE, last": lambda rows, oht: _values(rows, "ece_last"),
    "ECE, chosen": lambda rows, oht: _values(rows, "ece_best"),
    "NLL, last": lambda rows, oht: _values(rows, "nll_last"),
    "Brier, last": lambda rows, oht: _values(rows, "brier_last"),
    "labels recovered": lambda rows, oht: _values(rows, "labels_recovered"),
}


def format_table(results, columns):
    """One of the tables above as aligned text, a line a method."""
    by_method = {}
    for row in results:
        by_method.setdefault(row["method"], []).append(row)
    lines = [["method", *columns]]
    for method, rows in by_method.items():
        lines.append([method, *(cell(rows, by_method.get("OHT")) for cell in columns.values())])
    return aligned(lines)


def aligned(lines):
    """Lines of cells as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = widths
    return "\n".join(
        "  ".join([line[0].ljust(first), *(cell.rjust(w) for cell, w in zip(line[1:], others, strict=True))])
        for line in lines
    )


def mean_and_spread(values) -> str:
    """`.957 ± .012`: mean and standard deviation; the value where there is one, - where there is none."""
    if not len(values):
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def interval(differences) -> str:
    """`+.050 [+.031, +.069]`: the mean difference and its t interval, of two seeds or more; - where there is none."""
    if not len(differences):
        return "-"
    mean, text = np.mean(differences), f"{np.mean(differences):+.3f}"
    if len(differences) == 1:
        return text
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{text} [{mean - half:+.3f}, {mean + half:+.3f}]"


def _values(rows, key):
    return mean_and_spread([row[key] for row in rows if row[key] is not None])


def _paired(rows, baseline, key):
    """interval() of the differences to OHT with the same seed."""
    if not baseline or rows[0]["method"] == "OHT":
        return "-"
    theirs = {row["seed"]: row[key] for row in baseline}
    return interval([row[key] - theirs[row["seed"]] for row in rows])
