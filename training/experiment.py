"""What stands between a script's flags and its training: checks, hardware, data, loaders, fresh networks.

Everything is checked before anything is written or downloaded; then `start()` makes it ready.
"""

import copy
import json
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from common.errors import BadInput
from common.hardware import Hardware
from data import augment
from data.datasets import open_dataset
from data.labels import LabelledData, check_data, load_data
from data.noise import realised_rate
from data.seeds import role_seed, with_weight_seed
from models import build_model, check_net
from runs.resuming import take_over
from runs.run_folder import OnlookersFolder, RunFolder, check_free
from supervision.losses import cross_entropy
from supervision.table import PredictionTable
from supervision.tables import kept_classes, new_table
from training import distributed
from training.loop import TrainingState, fit, make_optimizer
from training.observers import EpochLog, ProgressBar, TableUpdater, WandbTracker, check_tracking
from utils import get_loaders, noise_in_words


class Experiment:
    """One script's settings, checked, and what start() makes of them.

    hardware, dataset: known after the checks, data (LabelledData) too where nothing has to be downloaded.
    train_loader, valid_loader, test_loader: after start().
    """

    def __init__(
        self,
        args: Namespace,
        folder: Path,
        also_check: Callable[[LabelledData], None] = lambda data: None,
        selects: bool = True,
    ):
        """BadInput for the first thing that is wrong, of what can be checked without a download.

        selects: whether best epochs are chosen and a table is kept; the path scripts do neither.
        also_check: called with the LabelledData once it is there, to raise BadInput.
        """
        self.args, self.folder, self.also_check, self.selects = args, Path(folder), also_check, selects
        if distributed.WORLD_SIZE == 1:
            self.before = self._look_at_folder()
        else:
            distributed.start(args)
            found = distributed.of_first(lambda: (self._look_at_folder(), self.folder, vars(args)))
            self.before, self.folder, settings = found
            vars(args).update(settings)
            distributed.check(args)
        if args.data_seed is None:
            args.data_seed = args.seed
        if args.batch_size < 2 * distributed.WORLD_SIZE and args.norm == "batch":
            raise BadInput(
                f"--batch_size {args.batch_size}: BatchNorm needs two samples in each process; give more, or "
                "--norm group"
            )
        self.hardware = Hardware.choose(args, self.before)
        self.dataset = open_dataset(args)
        self._options = dict(
            channels=self.dataset.channels, width=args.width, norm=args.norm, pretrained=args.pretrained
        )
        check_net(args.net, self.dataset.image_size, **self._options)
        check_data(args, self.dataset)
        if selects and (kept_classes(args.table) or 0) > self.dataset.num_classes:
            raise BadInput(
                f"--table {args.table}: there are {self.dataset.num_classes} classes; give at most that many"
            )
        self.data = None if self.dataset.needs_download else self._load_data()
        if args.wandb == "online":
            check_tracking()

    def _look_at_folder(self):
        """environment.json of the run to go on with, whose settings args get; else None. BadInput where the folder is
        not to be written to."""
        check_free(self.folder, self.args)
        return take_over(self.args, self.folder) if self.args.resume else None

    def _load_data(self):
        data = load_data(self.args, self.dataset)
        self.also_check(data)
        return data

    def print_settings(self) -> None:
        """For --check: the resolved settings, a line each."""
        kind = augment.resolve(self.args.augment, self.dataset.image_size, self.dataset.channels)
        settings = {**vars(self.args), "augment": kind, **self.hardware.describe()}
        for name, value in settings.items():
            if name not in ("given", "check"):
                print(f"{name}: {json.dumps(value)}")
        if self.data:
            print(self._summary())
        else:
            print(f"{self.args.dataset} is not in {self.args.data_dir or './datasets'}: a run downloads it first")
        print(f"all checks passed; nothing started; a run would write {self.folder}")

    def start(self) -> "Experiment":
        """Load the data (downloading what is absent), say what it is, make the loaders."""
        self.hardware.apply()
        if self.args.resume and not self.before:
            print(f"{self.folder}: there is nothing to resume yet; the run starts")
        if distributed.WORLD_SIZE == 1:
            self._make_loaders()
        else:
            with distributed.first_alone():
                self._make_loaders()
            for loader in filter(None, (self.train_loader, self.valid_loader, self.test_loader)):
                loader.rank, loader.world_size = distributed.RANK, distributed.WORLD_SIZE
            distributed.barrier()  # a mistake that another rank alone has found ends all before anything is written
            print(distributed.advice(self.args))
        print(self._summary())
        if self.valid_loader is None and self.selects:
            print("--valid_size 0: the test set chooses the best epochs, as published; its best figures are optimistic")
        if self.hardware.compiled is None:
            self.hardware.decide_compile(self._seconds_per_step, self.args.epochs * len(self.train_loader))
            self.hardware.compiled = distributed.of_first(lambda: self.hardware.compiled)
        print(f"running on {self.hardware}")
        if self.before and (differ := self.hardware.differences(self.before)):
            print(f"the run so far had {differ}: it continues, but not bit for bit")
        return self

    def _make_loaders(self):
        if self.data is None:
            self.data = self._load_data()
        if self.args.pretrained:  # fetches the weights: a download that fails must leave nothing written
            self._build_model()
        self.train_loader, self.valid_loader, self.test_loader = get_loaders(self.args, self.data)

    def _summary(self):
        args, data, dataset = self.args, self.data, self.dataset
        held_out = f"{len(data.valid_idx)} for validation"
        if dataset.valid and args.valid_size:
            held_out = f"{len(dataset.valid.usable)} for validation (the set's own split)"
        noise = noise_in_words(args)
        if data.corrected:
            dropped = int((data.marks.mark == "drop").sum())
            noise += f": they correct {realised_rate(data.y, data.ny):.4f} of all labels; {dropped} samples are dropped"
        elif data.noise_realised:
            trained = realised_rate(data.y[data.train_idx], data.ny[data.train_idx])
            noise += f": {data.noise_realised:.4f} of all labels are wrong, {trained:.4f} of those trained on"
        lines = [
            f"{args.dataset}: {len(data.train_idx)} training samples, {held_out}, {len(dataset.test.usable)} for "
            f"testing, {dataset.num_classes} classes; {noise}",
            *dataset.notes,
        ]
        if args.skip_bad:
            lines.append(f"{dataset.num_skipped} images that cannot be read are left out")
        if lacking := data.not_trained_on:
            lines.append(
                f"{len(lacking)} classes have no training sample ({', '.join(lacking[:5])}); give them more samples, "
                "a smaller --valid_size, or another --data_seed"
            )
        return "\n".join(lines)

    def with_seed(self, seed: int) -> "Experiment":
        """The same experiment under another --seed; noise and split follow it unless --data_seed was given."""
        other = copy.copy(self)
        other.args = copy.copy(self.args)
        other.args.seed = seed
        if "data_seed" not in self.args.given:
            other.args.data_seed, other.data = seed, None
        return other

    def new_run(self, path: Path | None = None, **resolved) -> RunFolder:
        """A RunFolder at path (default: the experiment's folder)."""
        run = None
        if distributed.RANK == 0:
            path, resolved["augment"] = path or self.folder, self.train_loader.augment_kind
            run = RunFolder(path, self.args, self.data, self.hardware, **resolved)
        if distributed.WORLD_SIZE > 1:
            shared = distributed.of_first(lambda: run.shared())
            run = run or OnlookersFolder(shared)
        return run

    def new_table(self) -> PredictionTable:
        """A table of the kind that --table names, for train() to fill."""
        sizes = self.dataset.num_train, self.dataset.num_classes
        settings = {"in_use": self.data.train_idx, "scratch": self.folder}
        return new_table(self.args.table, *sizes, self.args.smoothing, self.hardware.device, **settings)

    def train(
        self,
        target: Callable,
        loss: Callable = cross_entropy,
        *,
        table: PredictionTable | None = None,
        temperature: float = 1.0,
        path: Path | None = None,
        watch: Callable = lambda run, state: [],
        log: Callable[[str], None] = print,
        label: str = "",
        **resolved,
    ) -> tuple[RunFolder, TrainingState]:
        """Train a fresh network on a p_tar object, or resume its training.

        A target with a state_dict() is an observer, too.

        table: the new_table() to fill, where the target has to know it. temperature: of the predictions that it
        averages. path: of the run folder (the experiment's when not given). watch(run, state) -> more observers. log:
        gets a line of figures an epoch. label: for the progress bar. resolved: more for args.json.
        """
        args, observers = self.args, []
        if self.selects:
            resolved["filt_tau"] = temperature
            table = table or self.new_table()
            observers.append(TableUpdater(table, temperature))
        if hasattr(target, "state_dict"):
            observers.append(target)
        with self.new_run(path, **resolved) as run:
            state = self.new_state(table)
            bar = ProgressBar(state, len(self.train_loader), args.epochs, label)
            state.observers = [*observers, *watch(run, state), bar, EpochLog(state, args.epochs, log)]
            if run.resumes:
                run.restore(state)
                print(f"{run.path}: {_progress(state, args)}")
            if args.wandb != "disabled" and state.epoch < args.epochs and distributed.RANK == 0:
                state.observers.append(WandbTracker(state, args, run.path))
            fit(state, run, args, self.hardware, target, self.valid_loader, self.test_loader, loss=loss)
            run.finish(state)
        distributed.barrier()  # what rank 0 wrote can be read
        return run, state

    def tell_result(self, run: RunFolder, state: TrainingState, *commands: str) -> None:
        """At the end: what came out, and what can be done with it."""
        last = state.rows[-1]
        print(f"last epoch, {last['epoch']}: {_accuracies(last)}")
        if self.selects:
            epoch, _ = state.best["acc"]
            print(f"best epoch, {epoch}: {_accuracies(state.rows[epoch])}")
        for command in commands:
            print(f"next: python {command}")
        print(run.path)

    def new_state(self, table: PredictionTable | None = None) -> TrainingState:
        """A TrainingState at its start: fresh network, optimiser and loader generators, from the seed alone."""
        args = self.args
        model = with_weight_seed(args.seed, self._build_model)
        if args.sync_bn:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.hardware.place(model)
        self.train_loader.seed(args.seed)
        torch.manual_seed(role_seed(args.seed, "dropout"))
        distributed.own_dropout()
        return TrainingState(model, make_optimizer(model, args), self.hardware.scaler(), self.train_loader, table)

    def _seconds_per_step(self, num_steps=10):
        """Of a network that is thrown away, after as many to warm up; draws from no generator of the run."""
        model = self.hardware.place(with_weight_seed(self.args.seed, self._build_model))
        optimizer, forward = make_optimizer(model, self.args), self.hardware.forward_of(model)
        x, _, ny, _ = next(iter(self.train_loader.clean()))
        for step in range(2 * num_steps):
            if step == num_steps:
                torch.cuda.synchronize()
                started = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(forward(x), ny).backward()
            optimizer.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / num_steps

    def _build_model(self):
        sizes = self.dataset.num_classes, self.dataset.image_size
        return build_model(self.args.net, *sizes, **self._options)


def _accuracies(row):
    named = {"valid_acc": "validation", "test_acc": "test"}
    return ", ".join(f"{what} accuracy {row[name]:.4f}" for name, what in named.items() if name in row)


def _progress(state, args):
    """Where a resumed run stands, in words."""
    if state.epoch >= args.epochs:
        return f"is finished, all {args.epochs} epochs; nothing is left to do"
    within = f" and {state.so_far.updates} updates" if state.so_far else ""
    return f"goes on after {state.epoch} of {args.epochs} epochs{within}"
