"""Raw and filtered paths against human label distributions, for several smoothing factors.

    python cifar10h_gen_path.py --dataset npz --data_dir cifar10.npz --net smallcnn --width 2 --epochs 20 \
        --augment crop_flip --batch_size 64 --fine_samples 1000 --fine_every 16
    python -m benchmarks.human_distance results/Gen_path/run_npzh_cosine
"""

import argparse

import numpy as np

from paths.analysis import DISAGREED, most_disputed
from paths.measures import default_smoothing, distance_to
from runs.recorded_run import open_run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir")
    args = parser.parse_args()
    run = open_run(args.run_dir, with_images=False)
    p, labels = run.true_probs, np.eye(run.path.shape[2])[run.given]
    everyone = np.full(len(p), True)
    default = default_smoothing(run.path.shape[1])
    factors = sorted({0.05, 0.1, 0.2, 0.3, 0.5, 0.7, round(default, 3)})
    print("| images | path | smallest L2 (epoch) | L2 at the end | smallest KL (epoch) | KL at the end |")
    print("|---|---|---|---|---|---|")
    for whom, rows in (("all", everyone), (f"the {DISAGREED:,} most disputed", most_disputed(p, everyone))):
        own = np.linalg.norm(labels - p, axis=1)[rows].mean()
        print(f"| {whom} | given label | {own:.3f} | {own:.3f} | | |")
        for factor in [None, *factors]:
            found = distance_to(run.path, p, factor or default, rows)
            kind = "filtered" if factor else "raw"
            name = f"filtered, {factor:g}{' (default)' if factor == round(default, 3) else ''}" if factor else "raw"
            cells = []
            for unit in ("l2", "kl"):
                curve = found[f"{kind}_{unit}"]
                cells += [f"{curve.min():.3f} ({curve.argmin()})", f"{curve[-1]:.3f}"]
            print(f"| {whom} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
