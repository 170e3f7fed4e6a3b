"""What stands between a script's flags and its training: checks, hardware, data, loaders, fresh networks.

Everything is checked before anything is written or downloaded; then `start()` makes it ready.
"""

import copy
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from common.errors import Problems
from common.hardware import Hardware
from data import augment
from data.datasets import open_dataset
from data.labels import check_data, load_data
from data.noise import realised_rate
from data.seeds import generator, role_seed, with_weight_seed
from models import build_model, check_net
from runs.resuming import take_over
from runs.run_folder import OnlookersFolder, RunFolder, check_free
from supervision.losses import cross_entropy
from supervision.tables import kept_classes, new_table
from training import distributed
from training.loop import TrainingState, fit, make_optimizer
from training.observers import EpochLog, ProgressBar, TableUpdater, WandbTracker, check_tracking
from utils import get_loaders, noise_in_words

# With a flag of these unread, what opening the data or checking it says would only mislead.
SOURCE_FLAGS = {"dataset", "data_dir", "image_size"}
SPLIT_FLAGS = {"train_size", "valid_size", "batch_size", "ny_ratio", "ny_kind", "ny_file", "data_seed", "seed"}


class Experiment:
    """One script's settings, checked, and what start() makes of them.

    hardware, dataset: known after the checks, data (LabelledData) too where nothing has to be downloaded.
    train_loader, valid_loader, test_loader: after start().
    """

    def __init__(self, args, problems: Problems, folder, also_check=None, selects=True):
        """Check all that can be checked without a download; what is wrong is added to problems.

        selects: whether best epochs are chosen and a table is kept; the path scripts do neither.
        also_check: called with the LabelledData once it is there, to raise BadInput.
        """
        distributed.start(args)
        self.args, self._also_check, self.selects = args, also_check, selects
        self.hardware = self.dataset = self.data = None
        self.train_loader = self.valid_loader = self.test_loader = None

        def from_disk():
            before = take_over(args, Path(folder), problems)  # environment.json of the run to go on with, or None
            return Path(folder), before, vars(args)

        self.folder, self.before, settings = distributed.of_first(from_disk)
        vars(args).update(settings)
        if args.data_seed is None:
            args.data_seed = args.seed
        with problems.collect():
            self.hardware = Hardware.choose(args, self.before)
        if not problems.broken & SOURCE_FLAGS:
            with problems.collect():
                self.dataset = open_dataset(args)
        if self.dataset and not problems.broken & SPLIT_FLAGS:
            with problems.collect():
                check_data(args, self.dataset)
                if not self.dataset.needs_download:
                    self.data = load_data(args, self.dataset)
        with problems.collect():
            distributed.check(args)
            check_tracking(args)
        if args.batch_size == 1 and args.norm == "batch":
            problems.add("--batch_size 1: BatchNorm needs two samples; give 2 or more, or --norm group")
        if self.dataset and selects and (kept_classes(args.table) or 0) > self.dataset.num_classes:
            problems.add(f"--table {args.table}: there are {self.dataset.num_classes} classes; give at most that many")
        if self.dataset and not problems.broken & {"net", "width", "norm"}:
            with problems.collect():
                check_net(
                    args.net,
                    self.dataset.image_size,
                    channels=self.dataset.channels,
                    width=args.width,
                    norm=args.norm,
                    pretrained=args.pretrained,
                )
        if self.data and also_check:
            with problems.collect():
                also_check(self.data)
        with problems.collect():
            distributed.of_first(check_free, self.folder, args)

    @property
    def ready(self):
        """Whether hardware and data set are known, so that what depends on them can be made and checked."""
        return self.hardware is not None and self.dataset is not None

    def print_settings(self):
        """For --check: the resolved settings, a line each."""
        resolved = augment.resolve(self.args.augment, self.dataset.image_size, self.dataset.channels)
        settings = {**vars(self.args), "augment": resolved, **self.hardware.describe()}
        for name, value in settings.items():
            if name not in ("given", "check"):
                print(f"{name}: {json.dumps(value)}")
        if self.data:
            print(self._summary())
        else:
            print(f"{self.args.dataset} is not in {self.args.data_dir or './datasets'}: a run downloads it first")
        print(f"all checks passed; nothing started; a run would write {self.folder}")

    def start(self):
        """Load the data (downloading what is absent), say what it is, make the loaders."""
        self.hardware.apply()
        if self.args.resume and not self.before:
            print(f"{self.folder}: there is nothing to go on with yet; the run starts")
        with distributed.first_alone():
            if self.data is None:
                self.data = load_data(self.args, self.dataset)
                if self._also_check:
                    self._also_check(self.data)
            if self.args.pretrained:  # fetches the weights: a download that fails must leave nothing written
                self._build_model()
            loaders = get_loaders(self.args, self.data)
        for loader in filter(None, loaders):
            loader.rank, loader.world_size = distributed.RANK, distributed.WORLD_SIZE
        self.train_loader, self.valid_loader, self.test_loader = loaders
        print(self._summary())
        if self.valid_loader is None and self.selects:
            print("--valid_size 0: the test set chooses the best epochs, as published; its best figures are optimistic")
        self.hardware.decide_compile(self._seconds_per_step, self.args.epochs * len(self.train_loader))
        self.hardware.compiled = distributed.of_first(lambda: self.hardware.compiled)
        print(f"running on {self.hardware}")
        if distributed.WORLD_SIZE > 1:
            print(distributed.advice(self.args))
        if self.before and (differ := self.hardware.differences(self.before)):
            print(f"the run so far had {differ}: it goes on, but not bit for bit as it would have")
        return self

    def _summary(self):
        args, data, dataset = self.args, self.data, self.dataset
        held_out = f"{len(data.valid_idx)} for validation"
        if dataset.valid and args.valid_size:
            held_out = f"{len(dataset.valid.usable)} for validation (the set's own split)"
        wrong, skipped = "", ""
        if dataset.num_skipped:
            skipped = f"; {dataset.num_skipped} images that cannot be read are left out"
        if data.corrected:
            wrong = f": they correct {realised_rate(data.y, data.ny):.4f} of all labels"
            if dropped := int((data.marks.mark == "drop").sum()):
                wrong += f"; {dropped} samples marked drop are left out"
        if data.noise_realised:
            trained = realised_rate(data.y[data.train_idx], data.ny[data.train_idx])
            wrong = f": {data.noise_realised:.4f} of all labels are wrong, {trained:.4f} of those trained on"
        notes = list(dataset.notes)
        if lacking := data.not_trained_on:
            notes.append(
                f"no sample of {len(lacking)} classes is trained on ({', '.join(lacking[:5])}): none is left beside "
                "validation; give them more samples, a smaller --valid_size, or another --data_seed"
            )
        summary = (
            f"{args.dataset}: {len(data.train_idx)} training samples, {held_out}, {len(dataset.test.usable)} for "
            f"testing, {dataset.num_classes} classes; {noise_in_words(args)}{wrong}{skipped}"
        )
        return "\n".join([summary, *notes])

    def with_seed(self, seed):
        """The same experiment under another --seed; noise and split follow it unless --data_seed was given."""
        other = copy.copy(self)
        other.args = copy.copy(self.args)
        other.args.seed = seed
        if "data_seed" not in self.args.given:
            other.args.data_seed, other.data = seed, None
        return other

    def new_run(self, path=None, **resolved):
        """A RunFolder at path (default: the experiment's folder)."""
        resolved["augment"] = augment.resolve(self.args.augment, self.dataset.image_size, self.dataset.channels)
        path, run = path or self.folder, None
        if distributed.RANK == 0:
            run = RunFolder.open(path, self.args, self.data, self.hardware, **resolved)
        resumes = distributed.of_first(lambda: run.resumes)
        return run or OnlookersFolder(path, self.hardware, resumes)

    def new_table(self):
        """A table of the kind that --table names, for train() to fill."""
        sizes = self.dataset.num_train, self.dataset.num_classes
        settings = {"in_use": self.data.train_idx, "scratch": self.folder}
        return new_table(self.args.table, *sizes, self.args.smoothing, self.hardware.device, **settings)

    def train(
        self,
        target,
        loss=cross_entropy,
        *,
        table=None,
        temperature=1.0,
        path=None,
        watch=None,
        log=print,
        label="",
        **resolved,
    ):
        """Train a fresh network on a p_tar object, or resume its training. Returns (RunFolder, TrainingState).

        A target with a state_dict() is an observer, too.

        table: the new_table() to fill, where the target has to know it. temperature: of the predictions that it
        averages. path: of the run folder (the experiment's when not
        given). watch(run, state) -> more observers. log: gets a line of figures an epoch. label: for the progress
        bar. resolved: more for args.json.
        """
        args = self.args
        if self.selects:
            resolved["filt_tau"] = temperature
            table = table or self.new_table()
        with self.new_run(path, **resolved) as run:
            run.keeps_best = self.selects
            state = self.new_state(table)
            state.observers = observers = [
                *([TableUpdater(table, temperature)] if self.selects else []),
                *([target] if hasattr(target, "state_dict") else []),
                *(watch(run, state) if watch else []),
                ProgressBar(state, len(self.train_loader), args.epochs, label),
                EpochLog(state, args.epochs, log),
            ]
            run.restore(state)
            if state.update:
                print(f"{run.path}: {_progress(state, args)}")
            if args.wandb != "disabled" and state.epoch < args.epochs and distributed.RANK == 0:
                observers.append(WandbTracker(state, args, run.path))
            fit(
                state,
                run,
                args,
                self.hardware,
                target,
                self.valid_loader,
                self.test_loader,
                loss=loss,
                observers=observers,
            )
            run.finish(state)
        distributed.barrier()  # what rank 0 wrote can be read
        return run, state

    def tell_result(self, run, state, *commands):
        """At the end: what came out, and what can be done with it."""
        last = state.rows[-1]
        print(f"last epoch, {last['epoch']}: {_accuracies(last)}")
        if self.selects:
            epoch, _ = state.best["acc"]
            print(f"best epoch, {epoch}: {_accuracies(state.rows[epoch])}")
        for command in commands:
            print(f"next: python {command}")

    def new_state(self, table=None):
        """A TrainingState at its start: fresh network, optimiser and loader generators, from the seed alone."""
        args = self.args
        model = with_weight_seed(args.seed, self._build_model)
        if args.sync_bn:
            model = distributed.with_sync_bn(model)
        self.train_loader.order = generator(args.seed, "order")
        self.train_loader.augmentation = generator(args.seed, "augmentation")
        torch.manual_seed(role_seed(args.seed, "dropout"))
        distributed.own_dropout()
        self.hardware.place(model)
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
        args, dataset = self.args, self.dataset
        return build_model(
            args.net,
            dataset.num_classes,
            dataset.image_size,
            dataset.channels,
            width=args.width,
            norm=args.norm,
            init=args.init,
            pretrained=args.pretrained,
        )


def _accuracies(row):
    named = {"valid_acc": "validation", "test_acc": "test"}
    return ", ".join(f"{what} accuracy {row[name]:.4f}" for name, what in named.items() if name in row)


def _progress(state, args):
    """Where a resumed run stands, in words."""
    if state.epoch >= args.epochs:
        return f"is finished, all {args.epochs} epochs; nothing is left to do"
    within = f" and {state.so_far.updates} updates" if state.so_far else ""
    return f"goes on after {state.epoch} of {args.epochs} epochs{within}"
