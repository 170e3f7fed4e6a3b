"""What a student loses with a sparse table: equal trainings fill a dense and a sparse one, a student learns from each.

python -m benchmarks.sparse_students --seeds 6          (digits; writes below ./results)
"""

import numpy as np

import main_distill
import main_gen_teacher
from common.files import read_json
from common.flags import CheckedParser, count
from runs.run_folder import read_metrics
from supervision.tables import FLAG

FLAGS = "--net smallcnn --batch_size 128 --epochs 12 --lr 0.05 --device cpu --amp off --overwrite".split()
TEACHER = "--dataset digits --ny_ratio 0.4 --smoothing 0.2 --save_epochs".split()
FIGURES = ("test_acc", "test_nll")


def figures_of_student(seed, kind):
    """(a student's figures, the error of the table that it is trained on)."""
    run = ["--seed", str(seed), "--proj_name", "sparse_students", "--run_name", f"{kind.replace(':', '')}_{seed}"]
    teacher = main_gen_teacher.main([*FLAGS, *TEACHER, *run, "--table", kind])
    taught = ["--teach_type", "table", "--teach_path", str(teacher), "--teach_name", "epoch_11"]
    last = read_metrics(main_distill.main([*FLAGS, *taught, *run]))[-1]
    return [last[figure] for figure in FIGURES], read_json(teacher / "epoch_11.json").get("error")


def main():
    parser = CheckedParser(description=__doc__)
    parser.add_argument("--seeds", type=count, default=6)
    parser.add_argument("--table", **{**FLAG, "default": "sparse:3"})
    args = parser.parse_args()
    found, lines = [], []
    for seed in range(1, args.seeds + 1):
        (dense, _), (sparse, error) = (figures_of_student(seed, kind) for kind in ("dense", args.table))
        found.append((dense, sparse, np.subtract(sparse, dense)))
        lines.append(f"seed {seed}: {error}")
    print(*lines, sep="\n")
    for what, values in zip(("dense", args.table, "difference"), np.array(found).transpose(1, 2, 0), strict=True):
        for figure, of_seeds in zip(FIGURES, values, strict=True):
            print(f"{figure}, {what}: {of_seeds.mean():.4f} ± {of_seeds.std(ddof=1):.4f}; {of_seeds.round(4)}")


if __name__ == "__main__":
    main()
