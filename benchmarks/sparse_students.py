"""What a student loses with a sparse table: one training fills a dense and a sparse one, a student is trained on each.

python -m benchmarks.sparse_students --seeds 6          (digits; writes below ./results)
"""

import numpy as np

import main_distill
import main_gen_teacher
from common.flags import CheckedParser, count
from runs.run_folder import RESULTS, read_metrics
from supervision.tables import FLAG, new_table
from supervision.targets import OneHot
from training.experiment import Experiment
from training.observers import TableUpdater

FLAGS = "--net smallcnn --batch_size 128 --epochs 12 --lr 0.05 --device cpu --amp off".split()
TEACHER = "--dataset digits --ny_ratio 0.4 --smoothing 0.2 --save_epochs".split()
FIGURES = ("test_acc", "test_nll")


def train_teacher(seed, kind):
    """(the run's folder with epoch_11.npy and sparse.npz, the sparse table's error)."""
    args = main_gen_teacher.make_parser().parse_args([*FLAGS, *TEACHER, "--seed", str(seed)])
    experiment = Experiment(args, RESULTS / "sparse_students" / str(seed)).start()
    sizes = experiment.dataset.num_train, experiment.dataset.num_classes
    sparse = new_table(kind, *sizes, args.smoothing, "cpu", experiment.data.train_idx)
    run, _ = experiment.train(OneHot(sizes[1]), watch=lambda run, state: [TableUpdater(sparse)], log=lambda line: None)
    sparse.save(run.path / "sparse.npz", run.table_metadata)
    return run.path, sparse.error()


def figures_of_student(seed, teacher, name):
    where = ["--teach_path", str(teacher), "--teach_name", name, "--proj_name", f"sparse_students_{seed}"]
    run = main_distill.main([*FLAGS, *where, "--teach_type", "table", "--seed", str(seed)])
    last = read_metrics(run)[-1]
    return [last[figure] for figure in FIGURES]


def main():
    parser = CheckedParser(description=__doc__)
    parser.add_argument("--seeds", type=count, default=6)
    parser.add_argument("--table", **{**FLAG, "default": "sparse:3"})
    args = parser.parse_args()
    found, lines = [], []
    for seed in range(1, args.seeds + 1):
        teacher, error = train_teacher(seed, args.table)
        found.append([figures_of_student(seed, teacher, name) for name in ("epoch_11", "sparse")])
        lines.append(f"seed {seed}: {error}")
    dense, sparse = np.swapaxes(found, 0, 1)
    print(*lines, sep="\n")
    for place, figure in enumerate(FIGURES):
        for what, values in (("dense", dense), (args.table, sparse), ("difference", sparse - dense)):
            print(f"{figure}, {what}: {values[:, place].mean():.4f} ± {values[:, place].std(ddof=1):.4f}")


if __name__ == "__main__":
    main()
