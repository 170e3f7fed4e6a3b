"""Write the tables of RESULTS.md from the rows in experiments/raw: python -m experiments.tables

Between <!-- rows NAME --> and <!-- /rows --> stand the tables of raw/NAME.csv: a line a condition, OHT's mean and
standard deviation over seeds, and of each other method the paired difference to OHT's with its 95 % t interval. A star
means p < .05 of the paired t test after Holm's correction over all comparisons of that table. One seed has neither.
"""

import csv
import itertools
import re
from pathlib import Path

import numpy as np
from scipy import stats

HERE = Path(__file__).parent
RESULTS = HERE.parent / "RESULTS.md"
MEASURES = {
    "test accuracy, last epoch": "test_acc_last",
    "test accuracy, best-validation epoch": "test_acc_best",
    "test accuracy, oracle (best test epoch; for comparison with papers alone)": "test_acc_oracle",
    "ECE, last epoch": "ece_last",
    "NLL, last epoch": "nll_last",
}


def read_rows(name):
    with open(HERE / "raw" / f"{name}.csv", newline="") as f:
        return list(csv.DictReader(f))


def holm(p_values):
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate(np.sort(p_values) * np.arange(len(p_values), 0, -1))
    return np.minimum(1, adjusted)[np.argsort(order)]


def differences(rows, measure):
    """{(condition, method): (differences to OHT of the seeds that both have, n)} and {condition: OHT's values}."""
    values = {}
    for row in rows:
        condition = "none" if float(row["noise"]) == 0 else f"{row['noise']} {row['noise_kind']}"
        values.setdefault(condition, {}).setdefault(row["method"], {})[row["seed"]] = float(row[measure])
    baseline = {condition: np.array(list(by["OHT"].values())) for condition, by in values.items()}
    return baseline, {
        (condition, method): np.array([found[seed] - by["OHT"][seed] for seed in found])
        for condition, by in values.items()
        for method, found in by.items()
        if method != "OHT"
    }


def table(rows, title, measure):
    """One table as Markdown."""
    baseline, paired = differences(rows, measure)
    adjusted = dict(
        zip(paired, holm([stats.ttest_1samp(d, 0).pvalue if len(d) > 1 else 1.0 for d in paired.values()]), strict=True)
    )
    conditions, methods = list(baseline), list(dict.fromkeys(method for _, method in paired))
    lines = [f"**{title}**", "", "| wrong labels | n | OHT | " + " | ".join(f"{m} - OHT" for m in methods) + " |"]
    lines.append("|---" * (3 + len(methods)) + "|")
    for condition in conditions:
        of = baseline[condition]
        spread = f" ± {of.std(ddof=1):.3f}" if len(of) > 1 else ""
        cells = [condition, str(len(of)), f"{of.mean():.3f}{spread}"]
        for method in methods:
            d = paired[condition, method]
            if len(d) == 1:
                cells.append(f"{d[0]:+.3f}")
                continue
            half = stats.t.ppf(0.975, len(d) - 1) * stats.sem(d)
            star = " *" if adjusted[condition, method] < 0.05 else ""
            cells.append(f"{d.mean():+.3f} [{d.mean() - half:+.3f}, {d.mean() + half:+.3f}]{star}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def written(text):
    """RESULTS.md's text with its tables made anew."""

    def block(found):
        rows = read_rows(found[1])
        tables = (table(rows, title, measure) for title, measure in MEASURES.items())
        return "\n\n".join(itertools.chain([f"<!-- rows {found[1]} -->"], tables, ["<!-- /rows -->"]))

    return re.sub(r"<!-- rows (\w+) -->.*?<!-- /rows -->", block, text, flags=re.DOTALL)


if __name__ == "__main__":
    RESULTS.write_text(written(RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    print(RESULTS)
