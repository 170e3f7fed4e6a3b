"""Labels made wrong as people get them wrong: hard samples more often, and in favour of what they look like.

    python -m benchmarks.instance_noise results/Gen_path/run_second --ratio .1 --out confused_.1.npy

A second network, trained on clean labels, says which samples are hard and what each could be taken for. The file
(N,) is for --ny_file; samples that the second network was not trained on keep their labels.
"""

import argparse
from pathlib import Path

import numpy as np

LAST = 3  # epochs of the second network whose predictions are averaged


def confused(q, labels, ratio, seed):
    """A noisy copy of labels (n,), of which a share of `ratio`, on average, is drawn from predictions q (n, K).

    The label itself is never drawn. A sample's chance to be wrong is proportional to 1 - q(label).
    """
    rng, rows = np.random.default_rng(seed), np.arange(len(labels))
    others = q.astype(np.float64)
    others[rows, labels] = 0
    doubt = others.sum(1)
    wrong = rng.random(len(labels)) < ratio * doubt / doubt.mean()
    drawn = (others / doubt[:, None]).cumsum(1)
    drawn = (rng.random((len(labels), 1)) > drawn).sum(1).clip(max=q.shape[1] - 1)
    return np.where(wrong, drawn, labels)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder of main_gen_path.py, trained on clean labels")
    parser.add_argument("--ratio", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    with np.load(args.run / "labels.npz") as kept:
        labels, idx = kept["y"].copy(), kept["idx"]
    q = np.load(args.run / "PATH_TRAIN_COARSE.npy", mmap_mode="r")[:, -LAST:].mean(1, dtype=np.float32)[idx]
    labels[idx] = confused(q, labels[idx], args.ratio, args.seed)
    np.save(args.out, labels)


if __name__ == "__main__":
    main()
