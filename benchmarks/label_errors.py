"""How well do learning paths find wrong labels, beside what people use today?

    python -m benchmarks.label_errors digits
    python -m benchmarks.label_errors cifar10n --data_dir cifar10.npz --human CIFAR-10_human.pt
    python -m benchmarks.label_errors noise_levels

Trains what is not there yet (results/label_errors; stop and start again as you like) and prints the tables of
benchmarks/README.md. Clean labels are read here alone, to judge. Needs the cleanlab package: pip install cleanlab.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import main_gen_path
from benchmarks.out_of_fold import out_of_fold
from comparison.results import mean_and_spread
from paths.label_errors import all_scores, find_label_errors

PROJECT = "label_errors"
RECOMMENDED = "telling_margin"
DIGITS = "--dataset digits --net smallcnn --epochs 30 --batch_size 128 --augment none".split()
CIFAR = "--dataset npz --net smallcnn --width 2 --train_size 10000 --epochs 30 --batch_size 64 --fine_every 20".split()
BOOTSTRAPS = 1000


def experiments(args):
    """{name: flags} of what is judged."""
    if args.what == "digits":
        noise = ["--ny_kind", "symmetric_exclusive", "--ny_ratio"]
        return {f"digits {share} %": [*DIGITS, *noise, share / 100] for share in (20, 40)}
    data = [*CIFAR, "--data_dir", args.data_dir]
    return {f"CIFAR-10N {key}": [*data, "--ny_file", f"{args.human}:{key}"] for key in ("aggre", "worse")}


def trained(name, flags):
    """The run folder of an experiment, which is trained if it is not there."""
    run_name = name.replace(" %", "").replace(", seed ", "_s").replace(" ", "_")
    folder = Path("results") / PROJECT / f"run_{run_name}"
    if not (folder / "cpu_seconds.json").exists():
        started = time.process_time()
        main_gen_path.main([*map(str, flags), "--proj_name", PROJECT, "--run_name", run_name, "--overwrite"])
        (folder / "cpu_seconds.json").write_text(json.dumps(time.process_time() - started))
    return folder


class Run:
    """A run's path, of the samples trained on; given labels; which are wrong; the clean ones, to judge."""

    def __init__(self, folder):
        self.folder, self.path = folder, np.load(folder / "PATH_TRAIN_COARSE.npy", mmap_mode="r")
        with np.load(folder / "labels.npz") as kept:
            idx, self.given, self.clean = kept["idx"], kept["ny"][kept["idx"]], kept["y"][kept["idx"]]
        self.path, self.wrong = np.asfortranarray(self.path[idx]), self.given != self.clean

    def seconds(self, predictions="last epoch"):
        """CPU seconds of the training that these predictions need."""
        name = "out_of_fold.json" if predictions == "out of fold" else "cpu_seconds.json"
        return json.loads((self.folder / name).read_text())

    def predictions(self):
        """{name: (N, K)}: what confident learning can be fed with; out of fold only where that has been trained."""
        found = {"last epoch": self.path[:, -1], "mean path": self.path.mean(1, dtype=np.float32)}
        if (self.folder / "out_of_fold.npy").exists():
            found["out of fold"] = np.load(self.folder / "out_of_fold.npy")
        return {name: p.astype(np.float64) / p.sum(1, keepdims=True, dtype=np.float64) for name, p in found.items()}


def peer_scores(run):
    """{name: (N,)}: the cleanlab package's rankings, higher = more likely wrong."""
    from cleanlab.rank import get_label_quality_scores

    return {
        f"cleanlab {method}, {name}": -get_label_quality_scores(run.given, p, method=method)
        for name, p in run.predictions().items()
        for method in ("self_confidence", "normalized_margin")
    }


def judge(scores, wrong):
    """{name: {"AP", "AUROC", "precision"}}; precision among as many as there are errors."""
    scores = {name: np.nan_to_num(score) for name, score in scores.items()}  # a closed path's detour is infinite
    return {
        name: {
            "AP": average_precision_score(wrong, score),
            "AUROC": roc_auc_score(wrong, score),
            "precision": wrong[np.argsort(-score, kind="stable")[: wrong.sum()]].mean(),
        }
        for name, score in scores.items()
    }


def lead_interval(ours, first, wrongs, rng):
    """95 % interval of the mean over seeds of AP(ours) - AP(first), resampling samples, paired."""
    differences = []
    for _ in range(BOOTSTRAPS):
        total = 0
        for a, b, wrong in zip(ours, first, wrongs, strict=True):
            rows = rng.integers(len(wrong), size=len(wrong))
            ours_ap, first_ap = (average_precision_score(wrong[rows], np.nan_to_num(s[rows])) for s in (a, b))
            total += ours_ap - first_ap
        differences.append(total / len(wrongs))
    return np.quantile(differences, [0.025, 0.975])


def ranking_table(name, runs, all_of_them):
    """Markdown: a line a score, mean ± standard deviation over the seeds that have it, best AP first."""
    judged = [judge(scores, run.wrong) for run, scores in zip(runs, all_of_them, strict=True)]

    def figures(score, figure):
        return [of_seed[score][figure] for of_seed in judged if score in of_seed]

    order = sorted(dict.fromkeys(itertools.chain(*judged)), key=lambda score: -np.mean(figures(score, "AP")))
    lines = [f"**{name}**, {len(runs)} seeds, {np.mean([r.wrong.mean() for r in runs]):.1%} wrong", ""]
    lines += ["| score | AP | AUROC | precision at the number of errors | seeds |", "|---|---|---|---|---|"]
    for score in order:
        cells = [mean_and_spread(figures(score, figure)) for figure in ("AP", "AUROC", "precision")]
        shown = f"**{score}**" if score == RECOMMENDED else score
        lines.append(f"| {shown} | {' | '.join(cells)} | {len(figures(score, 'AP'))} |")
    rivals = [score for score in order if score != RECOMMENDED and len(figures(score, "AP")) == len(runs)]
    at_one_training = next(score for score in rivals if not score.endswith("out of fold"))
    for what, rival in (("at one training", at_one_training), ("of all", rivals[0])):
        ours, theirs = ([scores[key] for scores in all_of_them] for key in (RECOMMENDED, rival))
        low, high = lead_interval(ours, theirs, [run.wrong for run in runs], np.random.default_rng(0))
        lines += ["", f"AP of {RECOMMENDED} less that of the best other {what}, {rival}: [{low:+.4f}, {high:+.4f}]"]
    return lines


def counting_table(named_runs):
    """Markdown: estimated beside true numbers of errors, right suggestions, cleanlab's sets, the training they need."""
    from cleanlab.filter import find_label_issues

    lines = ["| run | errors | found by | number | precision | recall | right suggestion | CPU s of training |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, run in named_runs:
        score, suggestion, num_errors = find_label_errors(run.path, run.given)
        found = np.isin(np.arange(len(score)), np.argsort(-score, kind="stable")[:num_errors])
        ways = {"paths": (found, suggestion, run.seconds())}
        for kind, p in run.predictions().items():
            rivals = p.copy()
            rivals[np.arange(len(p)), run.given] = -1
            found, seconds = find_label_issues(run.given, p, n_jobs=1), run.seconds(kind)
            ways[f"cleanlab find_label_issues, {kind}"] = found, rivals.argmax(1), seconds
        for how, (found, suggested, seconds) in ways.items():
            hits, right = (found & run.wrong).sum(), (suggested == run.clean)[run.wrong].mean()
            lines.append(
                f"| {name} | {run.wrong.sum()} | {how} | {found.sum()} | {hits / max(found.sum(), 1):.3f} | "
                f"{hits / run.wrong.sum():.3f} | {right:.3f} | {seconds:.0f} |"
            )
    return lines


def noise_levels_table():
    """Markdown: the recommended score and the estimate on digits from no noise to much, trained in several ways."""
    ways = {
        "batch 128, 30 epochs": ["--epochs", 30, "--batch_size", 128],
        "batch 20, 10 epochs": ["--epochs", 10, "--batch_size", 20],
        "batch 50, 20 epochs, --record eval": ["--epochs", 20, "--batch_size", 50, "--record", "eval"],
        "batch 128, 100 epochs": ["--epochs", 100, "--batch_size", 128],
    }
    lines = [
        "| training | noise | errors | estimated | AP of telling_margin | best other score |",
        "|---|---|---|---|---|---|",
    ]
    for way, flags in ways.items():
        for ratio in (0, 0.01, 0.05, 0.2, 0.4):
            noise = ["--ny_kind", "symmetric_exclusive", "--ny_ratio", ratio] if ratio else []
            name = f"levels {way.replace(',', '').replace('--', '')} {ratio}"
            run = Run(trained(name, [*DIGITS, *flags, *noise, "--seed", 21]))
            cells = [way, f"{ratio:.0%}", run.wrong.sum(), find_label_errors(run.path, run.given)[2], "", ""]
            if ratio:
                ap = {key: figures["AP"] for key, figures in judge(all_scores(run.path, run.given), run.wrong).items()}
                ours = ap.pop(RECOMMENDED)
                best = max(ap, key=ap.get)
                cells[4:] = f"{ours:.3f}", f"{ap[best]:.3f} ({best})"
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["digits", "cifar10n", "noise_levels"])
    parser.add_argument("--data_dir", help="cifar10n: a .npz of CIFAR-10 in its original order")
    parser.add_argument("--human", help="cifar10n: CIFAR-10_human.pt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fold_seeds", type=int, default=1, help="seeds that get five trainings out of fold, too")
    args = parser.parse_args()
    if args.what == "noise_levels":
        return print("\n".join(noise_levels_table()))
    tables, named_runs = [], []
    for name, flags in experiments(args).items():
        runs = []
        for seed in range(1, args.seeds + 1):
            folder = trained(f"{name}, seed {seed}", [*flags, "--seed", seed])
            if seed <= args.fold_seeds and not (folder / "out_of_fold.npy").exists():
                out_of_fold([str(flag) for flag in [*flags, "--seed", seed]], folder)
            runs.append(Run(folder))
            named_runs.append((f"{name}, seed {seed}", runs[-1]))
        scores = [all_scores(r.path, r.given) | peer_scores(r) for r in runs]
        tables += ["", *ranking_table(name, runs, scores)]
    print("\n".join([*tables, "", *counting_table(named_runs)]))


if __name__ == "__main__":
    main()
