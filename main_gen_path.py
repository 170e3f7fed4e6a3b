"""Train a network with cross-entropy and record the learning paths of its training samples.

    python main_gen_path.py --dataset cifar10 --net resnet18 --epochs 10

Writes PATH_TRAIN_COARSE (N, E, K), every training sample in each epoch's training pass, and of some fixed samples
PATH_BATCH_COARSE (n, E, K), at each epoch's end, and PATH_BATCH_FINE (n, T, K), before every --fine_every-th
update. Recording changes nothing of what is learned.
"""

import contextlib
from pathlib import Path

import torch

import errors
from paths.recorder import PathRecorder
from supervision.targets import OneHot
from training.experiment import Experiment
from training.observers import TrainingPath, WatchedPath
from training.run_folder import RESULTS
from utils import experiment_parser, generator, run_name


def make_parser():
    parser = experiment_parser(__doc__, epochs=10, seed=1, proj_name="Gen_path", valid_size=0)
    flag = parser.add_argument_group("the paths").add_argument
    flag(
        "--record",
        default="train",
        help="PATH_TRAIN_COARSE from the training pass, or from a clean pass in eval mode at each epoch's end",
        **errors.one_of(["train", "eval", "none"]),
    )
    flag("--fine_every", type=errors.count, default=1, help="updates from one step of PATH_BATCH_FINE to the next")
    flag("--fine_samples", type=errors.count, default=None, help="fixed samples to follow (a batch when not given)")
    flag("--path_dtype", default="float16", help="of the arrays", **errors.one_of(["float16", "float32"]))
    return parser


def fixed_samples(args, data):
    """The first samples that the training order draws: sample idx, (n,)."""
    order = torch.randperm(len(data.train_idx), generator=generator(args.seed, "order"))
    return torch.from_numpy(data.train_idx)[order[: args.fine_samples or args.batch_size]]


def make_observers(args, experiment, run, state, open_recorder):
    """The observers that record; open_recorder(name, num_samples, num_steps, step, rows) -> PathRecorder."""
    num_samples, loader = len(experiment.data.y), experiment.train_loader
    forward = experiment.hardware.forward_of(state.model)
    chosen = fixed_samples(args, experiment.data)
    steps = -(-args.epochs * len(loader) // args.fine_every)
    coarse = open_recorder("PATH_BATCH_COARSE", len(chosen), args.epochs, "the end of an epoch", chosen)
    fine = open_recorder(
        "PATH_BATCH_FINE", len(chosen), steps, f"before every update number {args.fine_every} * step", chosen
    )
    observers = [WatchedPath(loader.of_samples(chosen), forward, coarse, fine, args.fine_every)]
    if args.record == "train":
        observers.append(
            TrainingPath(
                open_recorder("PATH_TRAIN_COARSE", num_samples, args.epochs, "the training pass of an epoch", None)
            )
        )
    else:
        recorder = open_recorder("PATH_TRAIN_COARSE", num_samples, args.epochs, "the end of an epoch, eval mode", None)
        observers.append(WatchedPath(loader.clean(), forward, recorder))
    return observers


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args, problems = make_parser().parse_collecting(argv)
    experiment = Experiment(args, problems, RESULTS / args.proj_name / f"run_{run_name(args)}", selects=False)
    if experiment.data and (args.fine_samples or 0) > len(experiment.data.train_idx):
        problems.add(f"--fine_samples {args.fine_samples}: there are {len(experiment.data.train_idx)} training samples")
    problems.stop_if_any()
    if args.check:
        return experiment.print_settings()

    experiment.start()
    num_classes = experiment.dataset.num_classes
    with contextlib.ExitStack() as stack:

        def watch(run, state):
            def open_recorder(name, num_samples, num_steps, step, rows):
                return stack.enter_context(
                    PathRecorder(
                        run.path / f"{name}.npy",
                        num_samples,
                        num_steps,
                        num_classes,
                        args.path_dtype,
                        rows,
                        metadata={"step": step},
                    )
                )

            return [] if args.record == "none" else make_observers(args, experiment, run, state, open_recorder)

        run, _ = experiment.train(OneHot(num_classes), watch=watch)
    print(run.path)
    return run.path


if __name__ == "__main__":
    errors.run_script(main)
