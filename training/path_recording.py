"""What the two scripts that record learning paths share: their flags, the fixed samples, recorders in a run folder."""

import contextlib

import torch

import errors
from paths.recorder import PathRecorder
from training.observers import PathBeforeUpdates
from utils import generator

PASSES_OF_TRAINING = 3  # forward passes that a sample costs in training: one forward, about two backward


def add_path_flags(parser, fine_every, fine_samples):
    """--fine_every, --fine_samples, --path_dtype; returns the group's add_argument, for more of them.

    fine_samples: in words, how many when the flag is not given.
    """
    flag = parser.add_argument_group("the paths").add_argument
    flag(
        "--fine_every", type=errors.count, default=fine_every, help="updates from one step of the FINE path to the next"
    )
    flag("--fine_samples", type=errors.count, default=None, help=f"fixed samples to follow ({fine_samples})")
    flag("--path_dtype", default="float16", help="of the arrays", **errors.one_of(["float16", "float32"]))
    return flag


def check_path_flags(args, data):
    """BadInput when more fixed samples are asked for than are trained on."""
    if (args.fine_samples or 0) > len(data.train_idx):
        raise errors.BadInput(
            f"--fine_samples {args.fine_samples}: there are {len(data.train_idx)} training samples; give at most that"
        )


def fixed_samples(args, data, count):
    """The first `count` samples that the training order draws: sample idx, (count,)."""
    order = torch.randperm(len(data.train_idx), generator=generator(args.seed, "order"))
    return torch.from_numpy(data.train_idx)[order[:count]]


class PathFiles:
    """Opens recorders of a run's paths, and closes them at the end: a context manager.

    A context left by an exception does not complete the steps that were open (PathRecorder).
    """

    def __init__(self, args, experiment):
        self.args, self.experiment, self._stack = args, experiment, contextlib.ExitStack()

    def open(self, run, name, num_steps, step, rows=None):
        """A PathRecorder of NAME.npy in the run's folder. step: in words, what a step is. rows: (M,) idx, or all."""
        return self._stack.enter_context(
            PathRecorder(
                run.path / f"{name}.npy",
                len(self.experiment.data.y) if rows is None else len(rows),
                num_steps,
                self.experiment.dataset.num_classes,
                self.args.path_dtype,
                rows,
                metadata={"step": step},
            )
        )

    def fine(self, run, state, name, rows, loader):
        """The observer that records NAME.npy before every --fine_every-th update; says so when that costs much."""
        args, every = self.args, self.args.fine_every
        updates = args.epochs * len(self.experiment.train_loader)
        recorder = self.open(run, name, -(-updates // every), f"before every update number {every} * step", rows)
        self._print_cost(name, recorder.shape, loader.num_samples)
        return PathBeforeUpdates(recorder, loader, self.experiment.hardware.forward_of(state.model), every)

    def _print_cost(self, name, shape, followed):
        trained = PASSES_OF_TRAINING * self.args.epochs * self.experiment.train_loader.num_samples
        cost = shape[1] * followed / trained
        if cost > 0.5:
            affordable = max(1, int(followed * 0.1 / cost))
            size = shape[0] * shape[1] * shape[2] * (2 if self.args.path_dtype == "float16" else 4)
            print(
                f"{name}: {followed} samples at {shape[1]} moments cost about {cost:.1f} times the arithmetic of the "
                f"training itself ({size / 1e6:.0f} MB); --fine_samples {affordable} would cost 0.1"
            )

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        return self._stack.__exit__(*problem)
