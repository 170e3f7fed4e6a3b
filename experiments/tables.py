"""Write the tables of RESULTS.md from the rows in experiments/raw; experiments/figures.py draws.

    python -m experiments.tables

Between <!-- rows NAME --> and <!-- /rows --> stands what CLAIMS (else comparison()) makes of raw/NAME.csv, or a table
of a notebook (TOY). Everywhere: differences are paired by seed; an interval is the 95 % t interval over seeds; a star
means p < .05 of the paired t test after Holm's correction over all comparisons of that table. One seed has neither.
Nothing is compared with a row that is not there.
"""

import csv
import json
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from comparison.results import interval, mean_and_spread
from supervision.targets import METHODS

HERE = Path(__file__).parent
RESULTS = HERE.parent / "RESULTS.md"
NOTEBOOK = HERE.parent / "notebooks" / "ToyGaussian_Part1_noisylabel.ipynb"
MEASURES = {
    "test accuracy, last epoch": "test_acc_last",
    "test accuracy, best-validation epoch": "test_acc_best",
    "test accuracy, oracle (best test epoch; for comparison with papers alone)": "test_acc_oracle",
    "ECE, last epoch": "ece_last",
    "NLL, last epoch": "nll_last",
}
TABLE, EARLY_TABLE = "table:0.05:last", "table:0.05:best"  # what from_path.py calls FilterKD and ES-FilterKD
STUDENTS = {TABLE: "FilterKD", EARLY_TABLE: "ES-FilterKD"}

# ------------------------------------------------------------------------------------------- what all share


def read_rows(name):
    with open(HERE / "raw" / f"{name}.csv", newline="") as f:
        return list(csv.DictReader(f))


def markdown(head, lines):
    first, *others = ("| " + " | ".join(map(str, line)) + " |" for line in [head, *lines])
    return "\n".join([first, "|---" * len(head) + "|", *others])


def holm(p_values):
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate(np.sort(p_values) * np.arange(len(p_values), 0, -1))
    return np.minimum(1, adjusted)[np.argsort(order)]


def stars(differences):
    """{key: " *" or ""} of {key: paired differences}."""
    p_values = [stats.ttest_1samp(d, 0).pvalue if len(d) > 1 and np.ptp(d) else 1.0 for d in differences.values()]
    return {key: " *" if p < 0.05 else "" for key, p in zip(differences, holm(p_values), strict=True)}


def paired_cell(differences, star, n):
    """interval(), with its star, and how many seeds it has where that is fewer than n."""
    fewer = f" (n = {len(differences)})" if 0 < len(differences) < n else ""
    return interval(differences) + star + fewer


def by_seed(rows, measure, *keys):
    """{(the keys' values): {seed: measure}}; a single key's value is no tuple."""
    found = defaultdict(dict)
    for row in rows:
        key = tuple(row[key] for key in keys) if len(keys) > 1 else row[keys[0]]
        found[key][row["seed"]] = float(row[measure])
    return found


def minus(theirs, ours):
    """The differences of the seeds that both have."""
    return np.array([theirs[seed] - ours[seed] for seed in theirs if seed in ours])


def rank_correlation(a, b):
    """Spearman's, in words, with its approximate 95 % interval (of Fisher's z, its variance 1.06 / (n - 3))."""
    rho, n = stats.spearmanr(a, b).statistic, len(a)
    low, high = np.tanh(np.arctanh(rho) + np.array([-1, 1]) * 1.96 * np.sqrt(1.06 / (n - 3))) if n > 3 else (-1, 1)
    return f"{rho:+.2f} [{low:+.2f}, {high:+.2f}]"


def series(row, name):
    """A column that has a number an epoch."""
    return np.array(row[name].split(), float)


def means(rows, measure, *keys):
    return {key: float(np.mean(list(found.values()))) for key, found in by_seed(rows, measure, *keys).items()}


def notebook_table(head):
    """The first table with these words in its head among the stored outputs of the notebook on toy Gaussians."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = (output.get("data", {}).get("text/markdown", "") for cell in cells for output in cell.get("outputs", []))
    lines = next(text for text in map("".join, outputs) if head in text.split("\n")[0]).split("\n")
    return "\n".join(line for line in lines if line.startswith("|"))


# ------------------------------------------------------------------------------- 1: the methods, side by side


def noise_of(row):
    if float(row["noise_realised"]) == 0:
        return "none"
    name = Path(row["noise"]).name.replace("CIFAR-10_human.pt:", "CIFAR-10N ") if row["noise_kind"] == "file" else None
    return name or f"{row['noise']} {row['noise_kind']}"


def conditions(rows):
    """{condition: its rows}, in the order of the rows; with the augmentation where not all have the same."""
    found, several = defaultdict(list), len({row["augment"] for row in rows}) > 1
    for row in rows:
        found[noise_of(row) + (f", augment {row['augment']}" if several else "")].append(row)
    return found


def differences(rows, measure):
    """{condition: OHT's values} and {(condition, method): paired differences to OHT's}."""
    values = {name: by_seed(found, measure, "method") for name, found in conditions(rows).items()}
    baseline = {name: np.array(list(found["OHT"].values())) for name, found in values.items()}
    return baseline, {
        (name, method): minus(of_method, found["OHT"])
        for name, found in values.items()
        for method, of_method in found.items()
        if method != "OHT"
    }


def table(rows, title, measure):
    baseline, paired = differences(rows, measure)
    star = stars(paired)
    methods, lines = list(dict.fromkeys(method for _, method in paired)), []
    for name, of in baseline.items():
        line = [name, len(of), mean_and_spread(of)]
        for method in methods:
            line.append(paired_cell(paired.get((name, method), []), star.get((name, method), ""), len(of)))
        lines.append(line)
    return f"**{title}**\n\n" + markdown(["wrong labels", "n", "OHT", *(f"{m} - OHT" for m in methods)], lines)


def comparison(rows):
    return [table(rows, title, measure) for title, measure in MEASURES.items()]


def of_students(rows):
    """comparison() of main_distill.py's students, whose teacher is at its best-validation epoch."""
    names = {"onehot": "OHT", "net": "ESKD", "table": "ES-FilterKD"}
    return comparison([{**row, "method": names[row["method"]]} for row in rows if row["method"] in names])


def of_images():
    """All rows of 10,000 CIFAR-10 images; students of a recorded path (cifar10.csv) by the names of their methods."""
    more = [{**row, "method": STUDENTS.get(row["method"], row["method"])} for row in read_rows("cifar10")]
    return [*read_rows("cifar10_smallcnn"), *more]


def of_kind(is_human, rows):
    """comparison() of those with human labels, or of the others."""
    return comparison([row for row in of_images() if (row["noise_kind"] == "file") == is_human])


# -------------------------------------------------------------------------------- 2: when filtering pays

CONDITION = ("noise", "augment", "epochs", "norm", "width", "train_size")


def flag(row, name, default):
    found = re.search(rf"--{name} (\S+)", row["command"])
    return found[1] if found else default


def points(rows):
    """A dict a condition, of means over its seeds: what OHT fitted, what the path says, what the students gained."""
    found = defaultdict(list)
    for row in rows:
        more = {"norm": flag(row, "norm", "batch"), "train_size": flag(row, "train_size", "1437")}
        found[tuple({**row, **more}[name] for name in CONDITION)].append(row)
    for key, of in sorted(found.items()):
        oht = [row for row in of if row["method"] == "OHT"]
        point = dict(zip(CONDITION, key, strict=True), n=len(oht))
        point["fitted"] = np.mean([series(row, "fitted_wrong")[-1] for row in oht])
        for name in ("suspects_fitted", "fitted_against_mean"):
            point[name] = np.mean([float(row[name]) for row in oht])
        for moment in ("last", "best"):
            accuracy = by_seed(of, f"test_acc_{moment}", "method")
            for student in (TABLE, EARLY_TABLE):
                gains = minus(accuracy[student], accuracy["OHT"])
                point[f"{student} {moment}"], point[f"{student} {moment} seeds"] = gains.mean(), gains
        yield point


def condition(rows):
    """When does filtering pay: by the share of wrong labels fitted, and by what the path alone says."""
    found = list(points(rows))
    fitted = np.array([p["fitted"] for p in found])
    gains = {name: student for student, name in STUDENTS.items()}
    lines, edges = [], (0, 0.2, 0.4, 0.6, 0.8, 1.01)
    for low, high in zip(edges, edges[1:], strict=False):
        inside = [p for p in found if low <= p["fitted"] < high]
        line = [f"{low:g} to {min(high, 1):g}", len(inside)]
        for student in gains.values():
            for moment in ("last", "best"):
                g = [p[f"{student} {moment}"] for p in inside]
                line.append(
                    f"{np.mean(g):+.3f} ({min(g):+.3f} to {max(g):+.3f}; {sum(v > 0 for v in g)})" if g else "-"
                )
        lines.append(line)
    head = ["wrong labels fitted", "conditions"]
    head += [f"{name} - OHT, {moment}" for name in gains for moment in ("last", "best-validation")]
    parts = [
        "Mean gain in test accuracy (smallest to largest; in how many conditions above 0):\n\n" + markdown(head, lines)
    ]
    known = {
        "wrong labels fitted (needs clean labels)": fitted,
        "suspects fitted (the path alone)": [p["suspects_fitted"] for p in found],
        "fitted against the mean path (the path alone)": [p["fitted_against_mean"] for p in found],
    }
    columns = {f"{name} - OHT, {moment}": f"{s} {moment}" for name, s in gains.items() for moment in ("last", "best")}
    lines = [
        [name, *(rank_correlation(values, [p[column] for p in found]) for column in columns.values())]
        for name, values in known.items()
    ]
    head = ["rank correlation with the gain", *(name.replace("best", "best-validation") for name in columns)]
    parts.append(markdown(head, lines))
    return [*parts, rule(found), exceptions(found), on_images(read_rows("cifar10"))]


def on_images(rows):
    """The same figures of CIFAR-10 images, on which no threshold was chosen."""
    names = {row["noise"]: noise_of(row) for row in rows}
    lines = [
        [
            f"{names[p['noise']]}, augment {p['augment']}, n = {p['n']}",
            *(f"{p[name]:.3f}" for name in ("fitted", "suspects_fitted")),
            *(interval(p[f"{student} {moment} seeds"]) for student in STUDENTS for moment in ("last", "best")),
        ]
        for p in points([row for row in rows if float(row["noise_realised"])])
    ]
    head = ["wrong labels", "wrong labels fitted", "suspects fitted"]
    head += [f"{name} - OHT, {moment}" for name in STUDENTS.values() for moment in ("last", "best-validation")]
    return f"10,000 CIFAR-10 images (the runs of claims 1 and 4 that recorded OHT's path):\n\n{markdown(head, lines)}"


def rule(found):
    """Thresholds on what the path alone says, chosen on every other condition and judged on the rest."""
    lines, chosen, judged = [], slice(0, None, 2), slice(1, None, 2)
    for statistic in ("suspects_fitted", "fitted_against_mean"):
        for moment in ("last", "best"):
            says = np.array([p[statistic] for p in found])
            pays = np.array([p[f"{TABLE} {moment}"] > 0 for p in found])
            line = [statistic.replace("_", " "), moment.replace("best", "best-validation")]
            if min(len(set(pays[chosen])), len(set(pays[judged]))) < 2:
                lines.append([*line, "-", "-", f"{pays.sum()} of {len(pays)} pay"])
                continue
            threshold = max(np.unique(says[chosen]), key=lambda t: sum(told_right(says >= t, pays, chosen)))  # noqa: B023
            told = " / ".join(f"{share:.2f}" for share in told_right(says >= threshold, pays, judged))
            lines.append([*line, f"{threshold:.3f}", told, f"{pays[judged].sum()} pay, {(~pays[judged]).sum()} do not"])
    head = ["share of samples", "epoch", "threshold", "told right: of those that pay / that do not", "judged on"]
    return (
        "The rule: FilterKD pays where this share is at least the threshold, which was chosen on every other condition:"
        f"\n\n{markdown(head, lines)}"
    )


def told_right(says_so, pays, part):
    """The share told right of the conditions that pay, and of those that do not."""
    return [np.mean(says_so[part][pays[part] == sign] == sign) for sign in (True, False)]


def exceptions(found):
    odd = []
    for p in found:
        gain = p[f"{TABLE} last"]
        if (p["fitted"] >= 0.5 and gain <= 0) or (p["fitted"] < 0.2 and gain > 0.02):
            odd.append([*(p[name] for name in CONDITION), f"{p['fitted']:.2f}", interval(p[f"{TABLE} last seeds"])])
    head = [*CONDITION, "fitted", "FilterKD - OHT, last"]
    text = "Exceptions (half of the wrong labels fitted and no gain, or less than a fifth and a gain of over 2 points)"
    return f"{text}:\n\n{markdown(head, odd)}" if odd else f"{text}: none."


# ---------------------------------------------------------------------------------------- 3: the table's memory


def memory(rows):
    """Smoothing by epochs: a student's accuracy, and what its table recovers."""
    epochs = sorted({row["epochs"] for row in rows}, key=int)
    students = [row["method"] for row in rows if row["epochs"] == epochs[0]]
    students, parts = list(dict.fromkeys(students)), []
    seeds = {e: len({row["seed"] for row in rows if row["epochs"] == e}) for e in epochs}
    shown = {title: MEASURES[title] for title in list(MEASURES)[:2]}
    shown["share of wrong labels whose target peaks at the true class"] = "labels_recovered"
    for title, measure in shown.items():
        found = means(rows, measure, "method", "epochs")
        lines = [[s, *(f"{found[s, e]:.3f}" if (s, e) in found else "-" for e in epochs)] for s in students]
        parts.append(f"**{title}**\n\n" + markdown(["target", *(f"{e} epochs, n = {seeds[e]}" for e in epochs)], lines))
    return parts


def by_distance(rows):
    """7, on digits: does a student do better the nearer its target is to the clean labels?"""
    lines = []
    for epochs in sorted({row["epochs"] for row in rows}, key=int):
        of = [row for row in rows if row["epochs"] == epochs and row["method"] != "OHT"]
        distance = list(means(of, "distance", "method").values())
        line = [epochs, len(distance)]
        for measure in ("test_acc_last", "test_acc_best", "ece_last", "nll_last"):
            line.append(rank_correlation(distance, list(means(of, measure, "method").values())))
        lines.append(line)
    head = ["epochs", "targets", "accuracy, last", "accuracy, best-validation", "ECE, last", "NLL, last"]
    return ["Rank correlation of |p_tar - clean label| with a student's:\n\n" + markdown(head, lines)]


def by_target(rows):
    """7, on images that many people labelled: students, by the distance of their targets to the human p*."""
    names = {"OHT": "the noisy labels", "clean": "CIFAR-10's labels", "truth": "people's distributions"}
    measures = ("distance", "test_acc_last", "test_acc_best", "nll_last", "ece_last")
    of = [by_seed(rows, measure, "method") for measure in measures]
    lines = [
        [names.get(m, m), len(found), *(mean_and_spread(list(values[m].values())) for values in of)]
        for m, found in sorted(of[0].items(), key=lambda item: np.mean(list(item[1].values())))
    ]
    head = [
        "trained on",
        "n",
        "distance to p*",
        "accuracy, last",
        "accuracy, best-validation",
        "NLL, last",
        "ECE, last",
    ]
    return [markdown(head, lines)]


# --------------------------------------------------------------------------------------- 5: later methods


def later_methods(rows):
    last, best = (by_seed(rows, f"test_acc_{moment}", "method") for moment in ("last", "best"))
    ece, nll = (means(rows, f"{name}_last", "method") for name in ("ece", "nll"))
    paired = {m: minus(found, last["OHT"]) for m, found in last.items() if m != "OHT"}
    to_filter = {m: minus(found, last["FilterKD"]) for m, found in last.items() if m not in ("OHT", "FilterKD")}
    star, star_filter = stars(paired), stars(to_filter)
    lines = []
    for method, found in last.items():
        lines.append(
            [
                *(method, 1 + METHODS[method].is_taught, len(found)),
                *(mean_and_spread(list(of[method].values())) for of in (last, best)),
                interval(paired.get(method, [])) + star.get(method, ""),
                interval(to_filter.get(method, [])) + star_filter.get(method, ""),
                *(f"{of[method]:.3f}" for of in (ece, nll)),
            ]
        )
    head = [
        "method",
        "trainings",
        "n",
        "accuracy, last",
        "best-validation",
        "last: - OHT",
        "last: - FilterKD",
        "ECE",
        "NLL",
    ]
    return [markdown(head, lines)]


# ------------------------------------------------------------------------------------- 6: a method of our own

OURS = "SelfFilterKD"


def own_method(rows, beside=("digits_noise", "later_methods")):
    """Ours less each other method, paired by seed; beside: where the rows of the others are that were run before."""
    asked = {(noise_of(row), row["augment"]) for row in rows}
    others = [row for name in beside for row in read_rows(name) if (noise_of(row), row["augment"]) in asked]
    found = conditions([*rows, *others])
    last, best, ece = (
        {name: by_seed(of, measure, "method") for name, of in found.items()}
        for measure in ("test_acc_last", "test_acc_best", "ece_last")
    )
    compared = [m for m in ("OHT", "FilterKD", "SELC", "ELR") if any(m in of for of in last.values())]
    paired = {(name, m): minus(last[name][OURS], last[name].get(m, {})) for name in found for m in compared}
    star, lines = stars({key: d for key, d in paired.items() if len(d)}), []
    for name in found:
        ours = [list(of[name][OURS].values()) for of in (last, best)]
        line = [name, len(ours[0]), *map(mean_and_spread, ours)]
        for m in compared:
            line.append(paired_cell(paired[name, m], star.get((name, m), ""), len(ours[0])))
        same_seeds = [
            [v for seed, v in ece[name].get(m, {}).items() if seed in last[name][OURS]] for m in [*compared, OURS]
        ]
        lines.append([*line, " / ".join(f"{np.mean(values):.3f}" if values else "-" for values in same_seeds)])
    head = ["wrong labels", "n", f"{OURS}, last", "best-validation", *(f"last: - {m}" for m in compared)]
    return [markdown([*head, f"ECE of {' / '.join([*compared, 'ours'])}"], lines)]


# -------------------------------------------------------------------------------------------------- 8: paths


def epoch_shares(rows):
    """Of the mislabelled training samples: where prediction, table and mean are, by epoch; and the zig-zag."""
    parts = []
    for name, of in conditions([row for row in rows if row.get("true_raw")]).items():
        columns = {
            "prediction at the true class": "true_raw",
            "table (.05)": "true_table",
            "mean path": "true_mean",
            "prediction at the wrong given label": "fitted_wrong",
        }
        values = {title: np.array([series(row, column) for row in of]) for title, column in columns.items()}
        count = next(iter(values.values())).shape[1]
        steps = sorted({0, 1, 2, 4, 9, 14, 19, 29, 39, count - 1} & set(range(count)))
        lines = [[t, *(mean_and_spread(v[:, t]) for v in values.values())] for t in steps]
        parts.append(f"**{name}, n = {len(of)}**\n\n" + markdown(["epoch", *values], lines))
        groups = {"mislabelled": "wrong", "hardest tenth of the others": "hard", "easiest tenth": "easy"}
        lines = [
            [title, *(mean_and_spread([float(row[f"{m}_{group}"]) for row in of]) for m in ("rival_mass", "detour"))]
            for title, group in groups.items()
        ]
        parts.append(markdown(["median zig-zag", "rival_mass", "detour"], lines))
    return parts


# --------------------------------------------------------------------------------------------- 9: snapshots


def snapshots(rows):
    """Neighbouring teachers: how much p_tar moves from epoch to epoch, how far it is off, how their students jump."""
    lines, jumps = [], {}
    for kind, title in (("net", "network"), ("table:0.05", "table (.05)")):
        of = defaultdict(list)  # of each seed, in the order of the epochs
        for row in rows:  # the first epoch has none before it, and stands for all that the run does not have
            if row["method"].startswith(f"{kind}:") and float(row["change"]) > 0:
                of[row["seed"]].append(row)
        line = [title, len(of), " + ".join(str(len(found)) for found in of.values())]
        for name in ("change", "distance"):
            line.append(mean_and_spread([np.mean([float(row[name]) for row in found]) for found in of.values()]))
        for moment in ("last", "best"):
            accuracy = {seed: [float(row[f"test_acc_{moment}"]) for row in found] for seed, found in of.items()}
            jumps[kind, moment] = {seed: np.abs(np.diff(values)).mean() for seed, values in accuracy.items()}
            line.append(mean_and_spread([np.mean(values) for values in accuracy.values()]))
            line.append(mean_and_spread(list(jumps[kind, moment].values())))
        lines.append(line)
    head = ["teacher", "n", "neighbours", "change of p_tar an epoch", "distance to the truth"]
    head += [f"students' accuracy, {name}" for name in ("last", "best-validation")]
    head[6:6] = ["mean jump between neighbours"]
    less = minus(jumps["table:0.05", "last"], jumps["net", "last"])
    text = f"Mean jump of the table's students less that of the network's, last epoch: {interval(less)}."
    return [markdown([*head, "mean jump between neighbours"], lines), text]


# ------------------------------------------------------------------------------------------------- 10: start


def start(rows):
    """Students from other weights less students from their teacher's own."""
    starts = {name: [row for row in rows if f"--start {name}" in row["command"]] for name in ("same", "other")}
    lines, paired = [], {}
    for title, measure in list(MEASURES.items())[:2]:
        same, other = (by_seed(starts[name], measure, "method") for name in ("same", "other"))
        for method in same:
            if method != "OHT":
                paired[method, title] = (same[method], other[method], minus(other[method], same[method]))
    star = stars({key: d for key, (_, _, d) in paired.items()})
    for (method, title), (same, other, d) in paired.items():
        cells = [mean_and_spread(list(values.values())) for values in (same, other)]
        lines.append([method, title, len(d), *cells, interval(d) + star[method, title]])
    return [markdown(["student", "measure", "n", "same start", "other start", "other - same"], lines)]


CLAIMS = {
    "cifar10_smallcnn": partial(of_kind, False),
    "cifar10_smallcnn_human": partial(of_kind, True),
    "tiny_imagenet": of_students,
    "condition": condition,
    "memory": memory,
    "memory_distance": by_distance,
    "cifar10h": by_target,
    "later_methods": later_methods,
    "own_method": own_method,
    "own_method_cifar10": partial(own_method, beside=("cifar10_smallcnn",)),
    "digits_paths": epoch_shares,
    "cifar10": epoch_shares,
    "cifar10_paths": epoch_shares,
    "snapshots": snapshots,
    "start": start,
}
TOY = {"toy_distance": "with mean L2 distance", "toy_start": "initial weights"}  # a notebook's tables, by their heads


def written(text):
    """RESULTS.md's text with its tables made anew."""

    def block(found):
        name = found[1]
        if name in TOY:
            parts = [notebook_table(TOY[name])]
        else:
            parts = CLAIMS.get(name, comparison)(read_rows(re.sub("_(distance|human)$", "", name)))
        return "\n\n".join([f"<!-- rows {name} -->", *parts, "<!-- /rows -->"])

    return re.sub(r"<!-- rows (\w+) -->.*?<!-- /rows -->", block, text, flags=re.DOTALL)


if __name__ == "__main__":
    RESULTS.write_text(written(RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    print(RESULTS)
