"""How often the interval of an audit covers the number of wrong labels, and how wide it is.

    python -m benchmarks.audits results/label_errors/run_rows_*

Each recorded run's ranking is audited many times by somebody who is always right; the wrong labels are those that
differ from the run's clean ones. A line a run and number of cards, as Markdown.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.label_errors import Run
from paths import audit
from paths.label_errors import find_label_errors


def simulate(wrong, cards, times):
    """(times, 3) intervals of audits of a ranking whose wrong labels (M,) are known."""
    found = []
    for seed in range(times):
        drawn = audit.draw(len(wrong), cards, seed)
        said = np.full(len(wrong), np.nan)
        said[drawn] = wrong[drawn]
        found.append(audit.estimate(said, drawn).wrong)
    return np.array(found)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--cards", nargs="+", type=int, default=[100, 200])
    parser.add_argument("--times", type=int, default=1000)
    args = parser.parse_args(argv)
    print("| run | samples | wrong | cards | covered | median interval | median best |\n|---|---|---|---|---|---|---|")
    for folder in args.runs:
        run = Run(folder)
        wrong = run.wrong[np.argsort(-find_label_errors(run.path, run.given)[0], kind="stable")].astype(float)
        for cards in args.cards:
            low, best, high = simulate(wrong, cards, args.times).T
            covered = np.mean((low <= wrong.sum()) & (wrong.sum() <= high))
            width = f"{np.median(low):,.0f} to {np.median(high):,.0f}"
            cells = [folder.name, f"{len(wrong):,}", f"{wrong.sum():,.0f}", cards, f"{covered:.3f}", width]
            print(f"| {' | '.join(map(str, cells))} | {np.median(best):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
