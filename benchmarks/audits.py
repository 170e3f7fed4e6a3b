"""How many labels are wrong: whether the guess and an audit's interval cover it, and how wide these are.

    python -m benchmarks.audits results/label_errors/run_*

The wrong labels are those that differ from a recorded run's clean ones. Each run's ranking is audited many times by
somebody who is always right. Two tables, as Markdown; --times 0: that of the guesses alone.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.label_errors import Run
from paths import audit
from paths.label_errors import told


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
    runs = {folder.name: Run(folder) for folder in args.runs}
    print("| run | samples | wrong | guess | best | inside |\n|---|---|---|---|---|---|")
    rankings = {}
    for name, run in runs.items():
        found, wrong = told(run.path, run.given), run.wrong.sum()
        rankings[name] = run.wrong[np.argsort(-found.score, kind="stable")].astype(float)
        low, best, high = found.guess
        inside = "yes" if low <= wrong <= high else "**no**"
        print(f"| {name} | {len(run.wrong):,} | {wrong:,} | {low:,} to {high:,} | {best:,} | {inside} |")
    if not args.times:
        return
    print("\n| run | wrong | cards | covered | median interval | median best |\n|---|---|---|---|---|---|")
    for name, wrong in rankings.items():
        for cards in args.cards:
            low, best, high = simulate(wrong, cards, args.times).T
            covered = np.mean((low <= wrong.sum()) & (wrong.sum() <= high))
            width = f"{np.median(low):,.0f} to {np.median(high):,.0f}"
            cells = name, f"{wrong.sum():,.0f}", cards, f"{covered:.3f}", width, f"{np.median(best):,.0f}"
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
