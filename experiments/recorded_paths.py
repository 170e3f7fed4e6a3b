"""Rows of recorded runs, for claim 8: where the paths of mislabelled, hard and easy samples are, by epoch.

    python -m experiments.recorded_paths results/label_errors/run_cifar10n_* --csv experiments/raw/cifar10_paths.csv

A run is that of main_gen_path.py; its row has from_path.path_figures() of the samples that it was trained on.
"""

import argparse
from pathlib import Path

import numpy as np

import sweep
from experiments.from_path import path_figures
from runs.recorded_run import open_run


def row_of(folder):
    """The row of a finished run's folder."""
    (row,), finished = sweep.rows_of(folder)
    if not finished:
        raise SystemExit(f"{folder}: is not finished")
    recorded, rows = open_run(folder, with_images=False), np.load(folder / "labels.npz")["idx"]
    path, y, ny = (values[rows] for values in (recorded.path, recorded.original, recorded.given))
    return {**row, **path_figures(path.astype(np.float32), y, ny)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--csv", required=True, type=Path)
    args = parser.parse_args(argv)
    sweep.write_rows(args.csv, [row_of(folder) for folder in args.runs])
    print(args.csv)


if __name__ == "__main__":
    main()
