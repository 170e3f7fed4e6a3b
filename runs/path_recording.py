"""What scripts that record learning paths share: their flags, the fixed samples, recorders in a run folder."""

import shutil
from pathlib import Path

import numpy as np
import torch

from common import errors, flags
from data.loader import num_batches
from data.seeds import generator
from paths.recorder import PathRecorder

PASSES_OF_TRAINING = 3  # forward passes that a sample costs in training: one forward, about two backward


PATH_DTYPE = dict(default="float16", help="of the arrays", **flags.one_of(["float16", "float32"]))


def path_flags(fine_every: int, fine_samples: str) -> dict:
    """--fine_every, --fine_samples, --path_dtype; fine_samples: in words, how many when the flag is not given."""
    return {
        "--fine_every": dict(
            type=flags.count, default=fine_every, help="updates from one step of the FINE path to the next"
        ),
        "--fine_samples": dict(type=flags.count, help=f"fixed samples to follow ({fine_samples})"),
        "--path_dtype": PATH_DTYPE,
    }


def record_flags(whose: str) -> dict:
    """--record_paths, --path_dtype: for scripts that have something else to do."""
    said = f"also record PATH_TRAIN_COARSE, as main_gen_path.py does, {whose}; for analyze_paths.py"
    return {"--record_paths": dict(action="store_true", help=said), "--path_dtype": PATH_DTYPE}


def check_path_flags(args, data, folder, shapes):
    """BadInput when more fixed samples are asked for than are trained on, or when the paths will not fit on the disk.

    shapes: the (samples, steps) of each array.
    """
    if (getattr(args, "fine_samples", None) or 0) > len(data.train_idx):
        raise errors.BadInput(
            f"--fine_samples {args.fine_samples}: there are {len(data.train_idx)} training samples; give at most that"
        )
    needed = sum(n * t for n, t in shapes) * data.dataset.num_classes * np.dtype(args.path_dtype).itemsize
    there = sum(file.stat().st_blocks * 512 for file in Path(folder).rglob("PATH_*.npy"))  # of the run before
    place = next(place for place in (Path(folder), *Path(folder).absolute().parents) if place.is_dir())
    free = shutil.disk_usage(place).free + there
    if needed > free:
        or_less = "a larger --fine_every, a smaller --fine_samples, or " if hasattr(args, "fine_every") else ""
        raise errors.BadInput(
            f"{folder}: the paths need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free there; make room, or give "
            f"{or_less}--path_dtype float16"
        )


def num_updates(args, data):
    """Updates of a whole run."""
    return args.epochs * num_batches(len(data.train_idx), args.batch_size)


def num_fine_steps(args, data):
    """T of a FINE path: the number of updates over --fine_every, rounded up."""
    return -(-num_updates(args, data) // args.fine_every)


def fixed_samples(args, data, count):
    """The first `count` samples that the training order draws: sample idx, (count,)."""
    order = torch.randperm(len(data.train_idx), generator=generator(args.seed, "order"))
    return torch.from_numpy(data.train_idx)[order[:count]]


class Unrecorded:
    """In place of a PathRecorder, in processes whose predictions another one records."""

    def __init__(self, shape):
        self.shape = shape

    def record(self, step, idx, prob):
        pass


class PathFiles:
    """Opens recorders of a run's paths in its folder; each is part of its TrainingState, and closed with the run."""

    def __init__(self, experiment, run, state):
        self.args, self.experiment, self.run, self.state = experiment.args, experiment, run, state

    def open(self, name, num_steps, step, rows=None):
        """A PathRecorder of NAME.npy. step: in words, what a step is. rows: (M,) idx, or all.

        In a run that is resumed, the file must be there.
        """
        run, path = self.run, self.run.path / f"{name}.npy"
        num_samples = len(self.experiment.data.y) if rows is None else len(rows)
        shape = num_samples, num_steps, self.experiment.dataset.num_classes
        if not run.writes:
            return Unrecorded(shape)
        if run.resumes and not path.is_file():
            raise errors.BadInput(f"{path}: is missing; take an intact copy of the run, or start anew with --overwrite")
        try:
            recorder = PathRecorder(
                path, *shape, self.args.path_dtype, rows, resume=run.resumes, metadata={"step": step}
            )
        except ValueError as problem:
            raise errors.BadInput(str(problem)) from None
        self.state.recorders[name] = run.closing.enter_context(recorder)
        return recorder

    def open_training(self):
        """open() for PATH_TRAIN_COARSE, every training sample in each epoch's training pass."""
        return self.open("PATH_TRAIN_COARSE", self.args.epochs, "the training pass of an epoch")

    def open_fine(self, name, rows, loader):
        """open() for a step before every --fine_every-th update of the loader's samples; says what costs much."""
        step = f"before every update number {self.args.fine_every} * step"
        recorder = self.open(name, num_fine_steps(self.args, self.experiment.data), step, rows)
        followed, trained = loader.num_samples, self.args.epochs * self.experiment.train_loader.num_samples
        cost = recorder.shape[1] * followed / (PASSES_OF_TRAINING * trained)
        if cost > 0.5:
            print(
                f"{name}: {followed} samples at {recorder.shape[1]} moments cost about {cost:.1f} times the arithmetic "
                f"of the training itself; --fine_samples {max(1, int(followed * 0.1 / cost))} would cost 0.1"
            )
        return recorder
