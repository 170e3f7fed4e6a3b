"""Train a network with cross-entropy and record the learning paths of its training samples.

    python main_gen_path.py --dataset cifar10 --net resnet18 --epochs 10

Writes PATH_TRAIN_COARSE (N, E, K), every training sample in each epoch's training pass, and of some fixed samples
PATH_BATCH_COARSE (n, E, K), at each epoch's end, and PATH_BATCH_FINE (n, T, K), before every --fine_every-th
update. Recording changes nothing of what is learned.
"""

from functools import partial
from pathlib import Path
from shlex import quote

from common import errors, flags
from runs.path_recording import PathFiles, check_path_flags, fixed_samples, num_fine_steps, path_flags
from runs.run_folder import RESULTS
from supervision.targets import OneHot
from training import distributed
from training.experiment import Experiment
from training.observers import PathAfterEpochs, PathBeforeUpdates, TrainingPath
from utils import experiment_parser, run_name

FLAGS = {
    "the paths": path_flags(fine_every=1, fine_samples="a batch when not given")
    | {
        "--record": dict(
            default="train",
            help="PATH_TRAIN_COARSE from the training pass, or from a clean pass in eval mode at each epoch's end",
            **flags.one_of(["train", "eval", "none"]),
        )
    }
}


def make_parser():
    return experiment_parser(__doc__, epochs=10, seed=1, proj_name="Gen_path", valid_size=0).add_flags(FLAGS)


def check_paths(args, folder, data):
    """BadInput when what is to be recorded cannot be."""
    fixed = args.fine_samples or args.batch_size
    shapes = [(len(data.y), args.epochs), (fixed, args.epochs), (fixed, num_fine_steps(args, data))]
    check_path_flags(args, data, folder, [] if args.record == "none" else shapes)


def make_observers(args, experiment, run, state):
    """The observers that record."""
    loader, forward = experiment.train_loader, experiment.hardware.forward_of(state.model)
    chosen = fixed_samples(args, experiment.data, args.fine_samples or args.batch_size)
    files, batch = PathFiles(experiment, run, state), loader.of_samples(chosen)
    at_ends = files.open("PATH_BATCH_COARSE", args.epochs, "the end of an epoch", chosen)
    fine = files.open_fine("PATH_BATCH_FINE", chosen, batch)
    observers = [
        PathAfterEpochs(at_ends, batch, forward),
        PathBeforeUpdates(fine, batch, forward, args.fine_every),
    ]
    if args.record == "train":
        return [*observers, TrainingPath(files.open_training())]
    everyone = files.open("PATH_TRAIN_COARSE", args.epochs, "the end of an epoch, eval mode")
    return [*observers, PathAfterEpochs(everyone, loader.clean(), forward)]


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    folder = RESULTS / args.proj_name / f"run_{run_name(args)}"
    experiment = Experiment(args, folder, partial(check_paths, args, folder), selects=False)
    if args.check:
        return experiment.print_settings()

    def watch(run, state):
        return [] if args.record == "none" else make_observers(args, experiment, run, state)

    experiment.start()
    run, state = experiment.train(OneHot(experiment.dataset.num_classes), watch=watch)
    evaluate = f"evaluate.py {quote(str(run.path))} --checkpoint epoch_{args.epochs - 1}"
    analyze = f"analyze_paths.py {quote(str(run.path))}"
    experiment.tell_result(run, state, evaluate if args.record == "none" else analyze)
    return run.path


if __name__ == "__main__":
    errors.run_script(distributed.on_all_ranks(main))
