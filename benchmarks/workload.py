"""What the sections of the benchmark share: sizes, made-up data, our training and a bare loop."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.side_by_side import in_turns
from common.hardware import Hardware
from common.interruption import stop_if_asked
from data.loader import IndexedLoader
from main_gen_teacher import make_parser
from models import build_model
from supervision.losses import cross_entropy
from supervision.table import PredictionTable
from supervision.targets import OneHot
from training.experiment import Experiment
from training.loop import TrainingState, train_epoch
from training.observers import ProgressBar, TableUpdater

NETS = ["smallcnn", "resnet18"]
CLASSES = 10


class Workload:
    """Sizes, device and data of all sections.

    quick: everything tiny, to see that it runs. data_dir: a .npz of images, or None: made-up ones, since speed does not
    depend on what is in them. folder: for scratch files. nets: of those that are measured.
    """

    def __init__(self, folder, quick=False, device="auto", amp="auto", data_dir=None, nets=NETS):
        self.folder, self.quick, self.device_flags = Path(folder), quick, ["--device", device, "--amp", amp]
        self.hardware = Hardware.choose(make_parser().parse_args(self.device_flags))
        self.device = self.hardware.device
        self.nets = nets[:1] if quick else nets
        self.batch_size, self.num_samples, self.image_size = (10, 200, 16) if quick else (250, 50_000, 32)
        self.data_dir = data_dir or self._make_up()

    def _make_up(self):
        rng, file = np.random.default_rng(0), self.folder / "images.npz"
        shape = (self.image_size, self.image_size, 3)
        arrays = {}
        for split, size in (("train", self.num_samples), ("test", 10 * CLASSES)):
            arrays[f"{split}_images"] = rng.integers(256, size=(size, *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(size) % CLASSES
        np.savez(file, **arrays)
        return str(file)

    def race(self, contenders, turns, seconds=0, warm_up=True):
        """in_turns(), after a call of each where they warm up."""
        turns, seconds = (2, 0) if self.quick else (turns, seconds)
        if warm_up:
            for contender in contenders.values():
                contender()
        return in_turns(contenders, turns, self.wait, seconds)

    def updates(self, on_cpu):
        """Updates a turn: on_cpu of them, or a whole epoch of CIFAR-10 on a GPU, where all that an epoch costs once
        would weigh too much against a few fast steps."""
        if self.quick:
            return 2
        return on_cpu if self.device.type == "cpu" else 180

    def wait(self):
        """Until the device has done all that it was given."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def experiment(self, net, updates):
        """A started Experiment of main_gen_teacher.py whose epochs have so many updates; its table has all rows."""
        flags = [
            *("--dataset", "npz", "--data_dir", self.data_dir, "--net", net, "--valid_size", "0", "--lr", "0.01"),
            *("--batch_size", str(self.batch_size), "--train_size", str(updates * self.batch_size)),
            *self.device_flags,
        ]
        experiment = Experiment(make_parser().parse_args(flags), self.folder / "unused")
        with contextlib.redirect_stdout(io.StringIO()):
            return experiment.start()


def made_up_training(hardware, net, size, num_classes, side, batch_size, **share):
    """A TrainingState on `size` made-up images, with its table. share: rank and world_size, of several processes."""
    images = torch.randint(256, (size, side, side, 3), dtype=torch.uint8)
    y, idx = torch.arange(size) % num_classes, torch.arange(size)
    order, augmentation = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    settings = {"order": order, "augmentation": augmentation, "augment_kind": "crop_flip", **share}
    loader = IndexedLoader(images, y, y, idx, batch_size, [0.5] * 3, [0.25] * 3, hardware.device, **settings)
    model = hardware.place(build_model(net, num_classes, side))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    table = PredictionTable(size, num_classes, 0.05, hardware.device)
    return TrainingState(model, optimizer, hardware.scaler(), loader, table)


class Ours:
    """Our own training, wired as Experiment.train() does it; evaluation and saving apart. A call of epoch()
    is an epoch of the experiment's few updates, with what an epoch costs at its start and end.

    more: further observers. target, loss: those of main_gen_teacher.py where not given.
    """

    def __init__(self, experiment, more=(), target=None, loss=cross_entropy):
        args, table = experiment.args, experiment.new_table()
        self.state, self.lr, self.loss = experiment.new_state(table), args.lr, loss
        self.forward = experiment.hardware.forward_of(self.state.model)
        self.target = target or OneHot(experiment.dataset.num_classes)
        nothing_evaluated = SimpleNamespace(rows=[])
        bar = ProgressBar(nothing_evaluated, len(experiment.train_loader), args.epochs)
        self.observers = [TableUpdater(table, args.filt_tau), *more, bar]

    def epoch(self):
        state = self.state
        train_epoch(state, self.forward, self.target, self.loss, self.lr, self.observers, stop_if_asked)
        self.observers[-1].after_epoch(state.epoch, state.model)
        state.end_epoch()


class Bare:
    """The same batches, ready on the device, and nothing but forward, cross-entropy, backward and step."""

    def __init__(self, experiment):
        state = experiment.new_state()
        self.model, self.optimizer = state.model, state.optimizer
        self.forward = experiment.hardware.forward_of(self.model)
        self.batches = [(x, ny) for x, _, ny, _ in experiment.train_loader]

    def epoch(self):
        self.model.train()
        for x, y in self.batches:
            value = F.cross_entropy(self.forward(x), y)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()


class Operations(TorchDispatchMode):
    """number: of PyTorch's operations while the block runs, but for views of memory, which cost a device nothing."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        return func(*args, **(kwargs or {}))


def operations_of_an_update(work, net, kind):
    """What an update of kind, Ours or Bare, hands to the device: what an epoch of six has more than one of three."""
    found = []
    for steps in (3, 6):
        contender = kind(work.experiment(net, steps))
        contender.epoch()  # the table's first visits, the optimiser's first step
        with Operations() as counted:
            contender.epoch()
        found.append(counted.number)
    return (found[1] - found[0]) / 3
