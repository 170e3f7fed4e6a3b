"""How well AUM's package ranks digits, and how many wrong labels its own rule finds.

    python -m benchmarks.aum_count

The rule of Pleiss et al. (2020): N / (K + 1) samples get a class of their own that does not exist; what has a smaller
area under the margin than 99 % of them is called mislabelled. A second training, with other threshold samples, judges
those of the first. Needs the runs of benchmarks.label_errors digits, and the aum package.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from aum import AUMCalculator
from sklearn.metrics import average_precision_score

import main_gen_path
from benchmarks.label_errors import DIGITS, PROJECT, Run
from paths.measures import log, smallest
from runs.recorded_run import open_run

QUANTILE = 0.99  # of the threshold samples


def areas(path, labels):
    """The package's area under the margin (N,) of a path (N, T, K): log-probabilities have the margins of logits."""
    calculator, rows = AUMCalculator("unused"), list(range(len(labels)))
    for step in range(path.shape[1]):
        logits = log(np.asarray(path[:, step], np.float32), smallest(path))
        calculator.update(torch.from_numpy(logits), torch.from_numpy(labels), rows)
    return np.array([calculator.sums[i] / calculator.counts[i] for i in rows])


def called_wrong(images, labels, threshold_rows, num_classes, seed, name):
    """(N,) bool, of the samples that are not among threshold_rows."""
    data = Path("results") / PROJECT / f"{name}.npz"
    given = labels.copy()
    given[threshold_rows] = num_classes
    np.savez(data, train_images=images, train_labels=given, test_images=images[:100], test_labels=given[:100])
    flags = [*DIGITS[2:], "--dataset", "npz", "--data_dir", data, "--valid_size", 0, "--seed", seed]
    flags += ["--proj_name", PROJECT, "--run_name", name, "--overwrite"]
    run = main_gen_path.main([str(flag) for flag in flags])
    area = areas(np.load(run / "PATH_TRAIN_COARSE.npy"), given)
    return area < np.quantile(area[threshold_rows], QUANTILE)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("| run | AP | errors | called wrong by AUM's rule | precision | recall |\n|---|---|---|---|---|---|")
    for folder in sorted((Path("results") / PROJECT).glob("run_digits_[24]0_s[123]")):
        recorded, run = open_run(folder), Run(folder)
        images, seed = np.stack(recorded.images(np.arange(len(run.given)))), int(folder.name[-1])
        num_classes = run.path.shape[2]
        order = np.random.default_rng(seed).permutation(len(run.given))
        halves = np.split(order[: 2 * (len(order) // (num_classes + 1))], 2)
        found = [
            called_wrong(images, run.given, rows, num_classes, seed, f"aum_{folder.name}_{half}")
            for half, rows in enumerate(halves)
        ]
        wrong = np.where(np.isin(np.arange(len(order)), halves[0]), found[1], found[0])
        ap = average_precision_score(run.wrong, -areas(run.path, run.given))
        hits = (wrong & run.wrong).sum()
        print(
            f"| {folder.name} | {ap:.3f} | {run.wrong.sum()} | {wrong.sum()} | {hits / max(wrong.sum(), 1):.3f} | "
            f"{hits / run.wrong.sum():.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
