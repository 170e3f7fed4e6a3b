"""Record how a network learns images whose true label distribution is known: CIFAR-10H, or any such test split.

    python data/download.py cifar10h
    python cifar10h_gen_path.py --net resnet18 --epochs 100

Trains on the data set's *test* split (the images that people labelled), without augmentation unless --augment asks
for it, and tests on its training split. Writes
PATH_ALL_COARSE (N, E, K), all images before each epoch, and PATH_ALL_FINE (n, T, K), all images or --fine_samples
of them before every --fine_every-th update, in eval mode and without augmentation; true_probs.npy (N, K), the human
label distributions. Here idx, labels and noise are the test split's rows.
"""

from pathlib import Path
from shlex import quote

from common import errors
from common.files import sha256_of
from data.label_files import agree_by_chance
from runs.path_recording import PathFiles, check_path_flags, fixed_samples, num_fine_steps, path_flags
from runs.run_folder import RESULTS
from supervision.targets import OneHot
from training import distributed
from training.experiment import Experiment
from training.observers import PathBeforeEpochs, PathBeforeUpdates
from utils import experiment_parser, read_true_distributions, run_name

HUMAN_PROBS = "cifar10h-probs.npy"

FLAGS = {
    "the paths": path_flags(fine_every=4, fine_samples="all when not given")
    | {
        "--human_probs": dict(
            metavar="FILE",
            help=f"(N, K) .npy of label distributions, row by row ({HUMAN_PROBS} in --data_dir when not given)",
        )
    }
}


def make_parser():
    published = dict(epochs=100, batch_size=200, seed=1, proj_name="Gen_path", valid_size=0, augment="none")
    return experiment_parser(__doc__, train_on="test", **published).add_flags(FLAGS)


def find_human_probs(args):
    """The file with the human distributions. BadInput when there is none."""
    where = Path(args.data_dir or "./datasets")
    path = Path(args.human_probs) if args.human_probs else (where if where.is_dir() else where.parent) / HUMAN_PROBS
    if not path.is_file():
        raise errors.BadInput(
            f"--human_probs: there is no {path}; fetch it with python data/download.py cifar10h, "
            "or name a file of distributions"
        )
    return path


def check_human_probs(path, data):
    """BadInput unless the file holds a distribution for each row that is trained on, in the same order."""
    likeliest = read_true_distributions("--human_probs", path, data.dataset).argmax(1).numpy()
    if agree_by_chance(data.y, likeliest, data.dataset.num_classes):
        raise errors.BadInput(
            f"--human_probs {path}: agrees with the clean labels no more often than chance would: its rows are in "
            "another order; give the file that belongs to this data set"
        )


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    human_probs = find_human_probs(args)
    args.human_probs = str(human_probs)

    def check(data):
        shapes = [(len(data.y), args.epochs), (args.fine_samples or len(data.y), num_fine_steps(args, data))]
        check_path_flags(args, data, folder, shapes)
        check_human_probs(human_probs, data)

    folder = RESULTS / args.proj_name / f"run_{run_name(args, 'h')}"
    experiment = Experiment(args, folder, check, selects=False)
    if args.check:
        return experiment.print_settings()

    experiment.start()
    content = human_probs.read_bytes()

    def watch(run, state):
        with run.files.together() as open_file, open_file("true_probs.npy") as f:
            f.write(content)
        files, everyone = PathFiles(experiment, run, state), experiment.train_loader.clean()
        forward = experiment.hardware.forward_of(state.model)
        coarse = files.open("PATH_ALL_COARSE", args.epochs, "before an epoch")
        rows = args.fine_samples and fixed_samples(args, experiment.data, args.fine_samples)
        some = everyone if rows is None else everyone.of_samples(rows)
        fine = files.open_fine("PATH_ALL_FINE", rows, some)
        return [PathBeforeEpochs(coarse, everyone, forward), PathBeforeUpdates(fine, some, forward, args.fine_every)]

    target = OneHot(experiment.dataset.num_classes)
    run, state = experiment.train(target, watch=watch, human_probs_sha256=sha256_of(human_probs))
    experiment.tell_result(run, state, f"analyze_paths.py {quote(str(run.path))}")
    return run.path


if __name__ == "__main__":
    errors.run_script(distributed.on_all_ranks(main))
