"""Train on the labels, record the learning path, and train students on targets that are made of that path.

    python experiments/from_path.py --dataset digits --net smallcnn --ny_ratio 0.4 --students table:0.05:last net:best+1

A student is KIND:MOMENT or KIND:SMOOTHING:MOMENT. Kinds: net, the network at that epoch's end; table, the moving
average of the predictions up to that epoch; corrected, the same with weights smoothing * (1 - smoothing)^age, scaled to
sum to 1; mean, the plain mean. Moments: last, best (the epoch that validation chose), best-2, best+1, or an epoch's
number. And without a moment: clean, the clean labels; truth, the distributions of --true_probs.

results.csv is old_cifar_noisy.py's with more columns. Of a student: distance, the mean over training samples of
|p_tar - p*|, p* the distributions of --true_probs, else e_y, y the clean label; change, the mean of |p_tar - that of
the epoch before|. Of OHT, of its path: see path_figures(); and its distance.
"""

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":  # run as a script: the path starts at experiments/
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import errors, flags
from comparison import methods
from comparison import results as comparison
from old_cifar_noisy import write_results
from paths import measures
from paths.label_errors import find_label_errors
from runs.path_recording import PathFiles
from runs.run_folder import RESULTS, read_metrics
from runs.teacher import Teacher
from supervision.losses import distillation_loss
from supervision.targets import OneHot, TeacherNetwork, TeacherTable, TrueDistribution, one_hot
from training.experiment import Experiment
from training.loop import best_epochs
from training.observers import TrainingPath
from utils import experiment_parser, read_true_distributions, run_name

PATH = "PATH_TRAIN_COARSE"
FORM = re.compile(r"(net|mean|(?:table|corrected):(?:0?\.\d+|1)):(last|best|best[+-]\d+|\d+)|clean|truth")


def make_parser():
    parser = experiment_parser(__doc__, dataset="digits", net="smallcnn", batch_size=128, proj_name="from_path")
    flag = parser.add_argument_group("the students").add_argument
    student = flags.value("expected KIND:MOMENT or KIND:SMOOTHING:MOMENT (--help)", str, FORM.fullmatch)
    flag("--true_probs", metavar="FILE", help="p*: (N, K) .npy of distributions, row = idx")
    flag("--students", nargs="*", type=student, default=[], help="what to train on beside the labels")
    flag("--seeds", type=flags.count, default=1, help="runs, with seeds --seed, --seed + 1, ...")
    flag("--start", **methods.START)
    parser.set_defaults(path_dtype="float16", smoothing=0.05, table="dense", methods=["OHT"])
    return parser


def epoch_of(moment, best, epochs):
    """The epoch that a moment names, within the run."""
    if moment == "last":
        return epochs - 1
    epoch = best + int(moment.removeprefix("best") or 0) if moment.startswith("best") else int(moment)
    return min(max(epoch, 0), epochs - 1)


def average(path, kind, smoothing):
    """(N, K) of (N, T, K): the table at its last step, the same bias-corrected, or the plain mean."""
    ages = np.arange(path.shape[1])[::-1]
    weights = np.ones(len(ages)) if kind == "mean" else smoothing * (1 - smoothing) ** ages
    if kind == "table":
        weights[0] = (1 - smoothing) ** ages[0]  # the first prediction is stored whole
    return np.einsum("ntk,t->nk", path, (weights / weights.sum()).astype(np.float32))


class Taught:
    """The students of a trained OHT: their targets and what is to be said of these."""

    def __init__(self, experiment, folder):
        self.experiment, self.folder = experiment, folder
        self.best, _ = best_epochs(read_metrics(folder))["acc"]
        self.rows = experiment.data.train_idx
        self.clean = one_hot(torch.from_numpy(experiment.data.y), experiment.dataset.num_classes)
        self.truth = self.clean
        if experiment.args.true_probs:
            self.truth = read_true_distributions("--true_probs", experiment.args.true_probs, experiment.dataset)
        self.path = np.load(folder / f"{PATH}.npy")[self.rows].astype(np.float32)

    def target(self, student, earlier=0):
        """The p_tar object; earlier: of so many epochs before."""
        if student == "OHT":
            return OneHot(self.experiment.dataset.num_classes)
        if student in ("clean", "truth"):
            return TrueDistribution(getattr(self, student).to(self.experiment.hardware.device))
        kind, *smoothing, moment = student.split(":")
        epoch = max(0, epoch_of(moment, self.best, self.path.shape[1]) - earlier)
        if kind == "net":
            args, dataset, hardware = self.experiment.args, self.experiment.dataset, self.experiment.hardware
            network = hardware.place(Teacher(self.folder, "net", f"epoch_{epoch}").read_network(args, dataset))
            return TeacherNetwork(network, 1.0, hardware.forward_of(network))
        values = np.zeros((len(self.experiment.data.y), self.path.shape[2]), np.float32)
        values[self.rows] = average(self.path[:, : epoch + 1], kind, *map(float, smoothing or [0]))
        return TeacherTable(torch.from_numpy(values).to(self.experiment.hardware.device))

    def distances(self, student):
        now, before, truth = [], [], []
        target, one_before = self.target(student), self.target(student, earlier=1)
        for x, _, ny, idx in self.experiment.train_loader.clean():
            now.append(target(x, ny, idx))
            before.append(one_before(x, ny, idx))
            truth.append(self.truth.to(now[-1].device)[idx])
        now, before, truth = map(torch.cat, (now, before, truth))
        return {"distance": float((now - truth).norm(dim=1).mean()), "change": float((now - before).norm(dim=1).mean())}


def path_figures(path, y, ny):
    """What is to be said of OHT's path (n, T, K), its samples' clean labels y and given labels ny (n,).

    A number an epoch: over the mislabelled samples, the share whose prediction (true_raw), moving average (.05,
    true_table) and mean so far (true_mean) is at the true class, and whose prediction is at the given one
    (fitted_wrong); over all, the share whose prediction is at the given label (fitted_all). Once, from path and given
    labels alone: how many find_label_errors suspects; of these, the share whose last prediction is the given label
    (suspects_fitted); of all, the share fitted although the mean path is elsewhere (fitted_against_mean). And the
    median zig-zag of mislabelled samples and of the hardest and easiest tenth of the others, by integral_difficulty.
    """
    wrong, mean = y != ny, np.cumsum(path, 1) / np.arange(1, path.shape[1] + 1)[None, :, None]
    tables = np.stack([average(path[:, : t + 1], "table", 0.05) for t in range(path.shape[1])], 1)
    at = {name: p.argmax(2) for name, p in (("raw", path), ("table", tables), ("mean", mean))}
    series = {f"true_{name}": found[wrong] == y[wrong, None] for name, found in at.items()}
    series |= {"fitted_wrong": at["raw"][wrong] == ny[wrong, None], "fitted_all": at["raw"] == ny[:, None]}
    said = {name: " ".join(f"{v:.4f}" for v in values.mean(0)) for name, values in series.items() if len(values)}
    score, _, errors_counted = find_label_errors(path, ny)
    fitted = at["raw"][:, -1] == ny
    suspects = np.argsort(-score)[:errors_counted]
    said |= {"suspects": errors_counted, "suspects_fitted": float(fitted[suspects].mean()) if errors_counted else 0.0}
    said["fitted_against_mean"] = float((fitted & (at["mean"][:, -1] != ny)).mean())
    found = measures.compute(path, ny)
    right = np.flatnonzero(~wrong)
    by_ease = right[
        np.argsort(found["integral_difficulty"][right])
    ]  # the given label's probability, summed: hard first
    groups = {"wrong": wrong, "hard": by_ease[: len(by_ease) // 10], "easy": by_ease[-(len(by_ease) // 10) :]}
    for name in ("rival_mass", "detour"):
        for group, rows in groups.items():
            said[f"{name}_{group}"] = float(np.median(found[name][rows])) if len(found[name][rows]) else ""
    return said


def train(name, experiment, folder):
    """(row, test accuracies) of OHT or of a student; what is done already is read."""
    args, data, seed_folder = experiment.args, experiment.data, folder / f"seed_{experiment.args.seed}"
    own_folder, oht_folder = seed_folder / name.replace(":", "_"), seed_folder / "OHT"
    done = methods.read_result(own_folder)
    settings = dict(log=lambda line: None, loss=partial(distillation_loss, tau=1.0))
    if name == "OHT":
        target, where = OneHot(experiment.dataset.num_classes), experiment
        settings["watch"] = lambda run, state: [TrainingPath(PathFiles(experiment, run, state).open_training())]
    else:
        taught = Taught(experiment, oht_folder)
        target, where = taught.target(name), methods.elsewhere(experiment) if args.start == "other" else experiment
    if not done:
        done = methods.train_on(target, experiment=where, folder=own_folder, seed=args.seed, **settings)
    if name == "OHT":
        rows, own = data.train_idx, Taught(experiment, own_folder)
        figures = path_figures(own.path, data.y[rows], data.ny[rows])
        figures["distance"] = own.distances(name)["distance"]
    else:
        figures = taught.distances(name)
    return {**done["row"], "method": name, **figures}, done["test_acc"]


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    args.methods = ["OHT", *args.students]
    if any(student.startswith("net:") for student in args.students):
        args.save_epochs = list(range(args.epochs))
    folder = RESULTS / args.proj_name / f"run_{run_name(args)}"
    experiment = Experiment(args, folder)
    if "truth" in args.students and not args.true_probs:
        raise errors.BadInput("--students truth: give the distributions with --true_probs FILE")
    if args.true_probs:  # a mistake is told before anything is written
        read_true_distributions("--true_probs", args.true_probs, experiment.dataset)
    if args.check:
        return experiment.print_settings()

    experiment.start()
    results = []
    with experiment.new_run(with_labels=False) as whole:
        for seed in range(args.seed, args.seed + args.seeds):
            of_seed = experiment if seed == args.seed else experiment.with_seed(seed).start()
            for name in args.methods:
                row, _ = train(name, of_seed, folder)
                results.append(row)
                print(comparison.progress_line(row), flush=True)
            write_results(whole, results)
    print(folder)
    return folder


if __name__ == "__main__":
    errors.run_script(main)
