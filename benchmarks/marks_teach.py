"""Whether a person's marks improve the ranking of the rest: average precision before and after.

    python -m benchmarks.marks_teach results/label_errors/run_rows_*

A logistic regression on the score and, one-hot, the given and the suggested class is fitted to the marks, half of which
are from the top of the ranking and half random; what is ranked anew is the unmarked rest. A line a run and number of
marks, over draws of the random half, as Markdown.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from benchmarks.label_errors import Run
from paths.label_errors import find_label_errors


def gains(run, marks, draws):
    """(draws, 2) average precision of the unmarked rest: by the score, and by what the marks taught."""
    score, suggestion, _ = find_label_errors(run.path, run.given)
    classes = np.eye(run.path.shape[2])
    x = np.concatenate([(score / score.std())[:, None], classes[run.given], classes[suggestion]], axis=1)
    order, found = np.argsort(-score, kind="stable"), []
    for seed in range(draws):
        some = np.random.default_rng(seed).permutation(order[marks // 2 :])[: marks // 2]
        marked = np.concatenate([order[: marks // 2], some])
        rest = np.setdiff1d(order, marked)
        taught = LogisticRegression(max_iter=1000).fit(x[marked], run.wrong[marked]).decision_function(x[rest])
        found.append([average_precision_score(run.wrong[rest], s) for s in (score[rest], taught)])
    return np.array(found)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--marks", nargs="+", type=int, default=[100, 200, 400])
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args(argv)
    print("| run | marks | AP of the rest | taught | gain ± its deviation over draws |\n|---|---|---|---|---|")
    for folder in args.runs:
        run = Run(folder)
        for marks in args.marks:
            before, after = gains(run, marks, args.draws).T
            gain = after - before
            means = f"{before.mean():.3f} | {after.mean():.3f} | {gain.mean():+.3f} ± {gain.std(ddof=1):.3f}"
            print(f"| {folder.name} | {marks} | {means} |", flush=True)


if __name__ == "__main__":
    main()
