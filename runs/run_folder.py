"""A run's folder: its arguments, labels, metrics, checkpoints and tables. It can be moved and copied.

args.json, environment.json, labels.npz (y, ny, idx trained on, valid_idx; paths for image folders;
mark where ny come from marks.csv), metrics.csv, NAME.pt and NAME.npy or .npz (weights and table of
the epochs kept), last.pt (all of it, to go on), curves.png; checksums.json of all but the tables, which have
theirs beside them, and the picture.
"""

import contextlib
import csv
import io
import os
import platform
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torchvision

from common.errors import BadInput, RunFailure, is_out_of_memory
from common.files import CHECKSUMS, PARTIAL, CheckedFiles, as_json, check_intact, read_json
from common.flags import as_flags
from common.hardware import DECIDING
from common.untrusted import reason
from data.datasets import TEST_SIZE, Dataset, fingerprint, open_dataset
from data.label_files import split_file_and_key
from models import build_model
from runs.figures import plot_curves
from runs.lock import FolderLock
from runs.resuming import check_resolved, has_progress, read_last
from supervision.sparse_table import SparseTable

RESULTS = Path("results")
FIGURES = ("loss", "acc", "ece", "nll", "brier")
COLUMNS = [
    "epoch",
    "lr",
    "train_loss",
    "train_acc_noisy",
    "train_acc_clean",
    "train_ece",
    *(f"valid_{f}" for f in FIGURES),
    *(f"test_{f}" for f in FIGURES),
    "seconds",
    "seconds_waited",
]

# What a student inherits from its teacher's args.json, so that both see the same rows with the same labels.
INHERITED = (
    "dataset",
    "train_on",
    "image_size",
    "train_size",
    "valid_size",
    "valid_rows",
    "ny_ratio",
    "ny_kind",
    "ny_file",
    "data_seed",
    "skip_bad",
    "test_size",
)
NEEDED = (*INHERITED, "data_dir", "net", "width", "norm", "pretrained", "num_work")
RESOLVED = (
    *("num_samples", "num_classes", "class_names", "channels", "image_size", "mean", "std"),
    *("y_sha256", "ny_sha256"),
)


def check_free(path: Path, args):
    """BadInput when the folder already holds something, unless it is a run and --overwrite or --resume is given."""
    if not path.exists():
        return
    if getattr(args, "only_seed", None) is None:  # else the process that started this one holds the folder
        FolderLock(path).release()
    _check_content(path, args)


def _check_content(path, args):
    if path.is_dir() and all(_is_leftover(file) for file in path.iterdir()):
        return
    if not args.overwrite and not args.resume:
        raise BadInput(
            f"{path}: is not empty; choose another name, or give --resume to go on with the run in it, "
            "or --overwrite to replace it"
        )
    if not (path / "args.json").is_file():
        flag = "--overwrite" if args.overwrite else "--resume"
        raise BadInput(
            f"{path}: is not a run's folder (no args.json), so {flag} leaves it alone; "
            "choose another name or move it away"
        )
    inputs = {"ny_file": args.ny_file and split_file_and_key(args.ny_file)[0]}
    inputs |= {name: getattr(args, name, None) for name in ("data_dir", "human_probs")}
    for name, file in inputs.items():
        if args.overwrite and file and path.resolve() in Path(file).resolve().parents:
            raise BadInput(f"--{name} {file}: lies in {path}, which --overwrite replaces; move it out first")


def _is_leftover(file):
    """Of a start that was killed before it had written anything whole."""
    return file.name == CHECKSUMS or file.name.endswith(PARTIAL)


class RunFolder:
    """Writes a run's files, each whole or not at all, and holds the folder's lock: a context manager, to let it go.

    resumes: whether it goes on with the run that is there. closing: an ExitStack, of what is closed with the run.
    """

    writes = True

    def __init__(self, path: Path, args, data, hardware, with_labels: bool = True, **resolved):
        """Make the folder and write what is known before training; --overwrite replaces a run that is there.

        With --resume, where something is saved, the run there is kept: BadInput when data, labels or teacher are no
        longer its own.
        """
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as closing:
            closing.callback(FolderLock(self.path).release)
            self._prepare(args, data, hardware, with_labels, resolved)
            self.closing = closing.pop_all()  # nothing is closed yet, unless something failed

    def shared(self) -> dict:
        """What an OnlookersFolder is made of."""
        return {name: value for name, value in vars(self).items() if name not in ("closing", "files")}

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.closing.__exit__(*problem)

    def _prepare(self, args, data, hardware, with_labels, resolved):
        _check_content(self.path, args)  # once more, now that nobody else can write
        self.args, self._saved_at = args, time.monotonic()
        self.hardware, self.resumes = hardware.describe(), args.resume and has_progress(self.path)
        noise = {name: getattr(args, name) for name in ("ny_ratio", "ny_kind", "ny_file")}
        resolved = {**data.fingerprints(), **resolved}
        self.table_metadata = {"dataset": args.dataset, "noise": {**noise, "realised": data.noise_realised}, **resolved}
        settings = _settings(args, data, resolved)
        if self.resumes:
            self._go_on(settings)
        else:
            _clear(self.path)
            self._begin(settings, data, with_labels)

    def _begin(self, settings, data, with_labels):
        self.files = CheckedFiles(self.path)
        with self.files.together() as open_file:
            with open_file("args.json", "w") as f:
                f.write(as_json(settings))
            with open_file("environment.json", "w") as f:
                f.write(as_json({**environment(), **self.hardware}))
            if with_labels:
                paths = {"paths": np.array(data.dataset.train_paths)} if data.dataset.train_paths else {}
                marks = {"mark": data.marks.mark} if data.corrected else {}
                with open_file("labels.npz") as f:
                    np.savez(f, y=data.y, ny=data.ny, idx=data.train_idx, valid_idx=data.valid_idx, **paths, **marks)

    def _go_on(self, settings):
        saved = read_args(self.path)
        check_resolved(self.path, saved["resolved"], settings["resolved"])
        for file in self.path.glob(f"*{PARTIAL}"):  # what a kill left half-written
            file.unlink()
        self.files = CheckedFiles(self.path)
        if settings["epochs"] != saved["epochs"]:
            with self.files.together() as open_file, open_file("args.json", "w") as f:
                f.write(as_json({**saved, "epochs": settings["epochs"]}))

    def restore(self, state):
        """Bring a TrainingState to where the run was saved."""
        file = self.path / "last.pt"
        last = read_last(file)
        try:
            hardware = last.pop("hardware")
            differ = [name for name in DECIDING if hardware[name] != self.hardware[name]]
            state.load_state_dict(last)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as problem:
            if is_out_of_memory(problem):
                raise
            raise BadInput(
                f"{file}: does not belong to this run, or an earlier version wrote it ({reason(problem)}); "
                "take an intact copy, or start anew with --overwrite"
            ) from None
        if differ:
            raise BadInput(f"{file}: was made with another {', '.join(differ)} than environment.json says")
        state.saved_at = state.update
        with self.files.together() as open_file:  # which may be behind
            self._write_metrics(state, open_file)

    def time_to_save(self) -> bool:
        """Whether --save_minutes have passed since the last time."""
        return time.monotonic() - self._saved_at >= 60 * self.args.save_minutes

    def save(self, state):
        """Write last.pt, then metrics.csv."""
        self._save_together(state)

    def save_epoch(self, state, epoch, new_best):
        """Write the epoch's checkpoints and tables where it is one to keep, then last.pt, then metrics.csv.

        Best epochs are kept where there is a table: the path scripts keep neither.
        """
        names, is_last = list(new_best) if state.table is not None else [], epoch + 1 == self.args.epochs
        if epoch in self.args.save_epochs or is_last:
            names.append(f"epoch_{epoch}")
        if state.table is not None:
            for name in names if self.writes or state.table.collective else ():
                state.table.save(self.path / f"{name}{state.table.ending}", {**self.table_metadata, "epoch": epoch})
            if names and self.writes and isinstance(state.table, SparseTable):
                print(f"{state.table.error_in_words()} ({', '.join(names)})")
        is_due = (epoch + 1) % self.args.save_every == 0 or is_last
        if names or is_due:
            self._save_together(state, names, is_due)

    def _save_together(self, state, names=(), with_last=True):
        weights = io.BytesIO()
        if names:
            torch.save(_on_cpu(state.model.state_dict()), weights)
        try:
            with self.files.together() as open_file:
                for name in names:
                    with open_file(f"{name}.pt") as f:
                        f.write(weights.getbuffer())
                if with_last:
                    with open_file("last.pt") as f:
                        torch.save({**state.state_dict(), "hardware": self.hardware}, f)
                    self._write_metrics(state, open_file)
            if with_last:
                self._saved_at, state.saved_at = time.monotonic(), state.update
        except RuntimeError as problem:
            if "inline_container" not in str(problem) and "unexpected pos" not in str(problem):
                raise
            # what torch.save makes of a full disk
            raise RunFailure(f"{self.path / 'last.pt'}: cannot be written, is the disk full? ({problem})") from problem

    def _write_metrics(self, state, open_file):
        with open_file("metrics.csv", "w") as f:
            write_metrics(f, state.rows[: state.epoch])

    def finish(self, state):
        plot_curves(state.rows, self.path / "curves.png")


class OnlookersFolder(RunFolder):
    """A run's folder for processes that train with the one that writes: they restore what it saved, and write nothing.

    shared: as of the RunFolder of that one.
    """

    writes = False

    def __init__(self, shared):
        vars(self).update(shared)
        self.files, self.closing = _Discarded(), contextlib.ExitStack()

    def time_to_save(self) -> bool:
        return False

    def _save_together(self, state, names=(), with_last=True):
        if with_last:
            if state.table is not None and state.table.collective:
                state.table.state_dict()
            state.saved_at = state.update

    def finish(self, state):
        pass


class _Discarded:
    """In place of CheckedFiles."""

    @contextlib.contextmanager
    def together(self):
        yield lambda name, mode="wb": io.BytesIO() if "b" in mode else io.StringIO()


def _settings(args, data, resolved):
    """The contents of args.json."""
    described = ("num_classes", "class_names", "channels", "image_size", "mean", "std", "test_size")
    return {
        "script": Path(sys.argv[0]).name,
        **vars(args),
        "given": sorted(args.given),
        "resolved": {
            **{name: getattr(data.dataset, name) for name in described},
            "num_samples": len(data.y),
            "noise_realised": data.noise_realised,
            "labels_corrected": data.corrected,
            **resolved,
        },
    }


def _clear(folder):
    """Empty a folder, args.json last: until then it is known as a run's, and can be replaced."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == "args.json"):
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def write_metrics(file, rows: list[dict]):
    """metrics.csv: a line an epoch; empty cells where there is nothing to report. file: open for writing."""
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read_metrics(folder: Path) -> list[dict]:
    """The lines of a run's metrics.csv, numbers, without empty cells; none where there is no file."""
    file = Path(folder) / "metrics.csv"
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as f:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(f)]


def read_args(folder: Path) -> dict:
    """The contents of a run's args.json. BadInput when there is none or it is damaged."""
    came_later = {"skip_bad": False, "test_size": TEST_SIZE, "data_backend": "auto", "cache_dir": None}
    args = {**came_later, **read_json(check_intact(Path(folder) / "args.json"))}
    resolved = args.get("resolved")
    lacking = [name for name in NEEDED if name not in args]
    lacking += [name for name in RESOLVED if not isinstance(resolved, dict) or name not in resolved]
    if lacking:
        raise BadInput(f"{folder}/args.json: has no {', '.join(lacking)}; take an intact copy, or make the run anew")
    return args


def command_again(settings: dict, **changes) -> list[str]:
    """The command of a run (its read_args(), or {}) as words, script first, with some flags changed; without those of
    its labels, name and where it was tracked."""
    other = "ny_ratio ny_kind ny_file noisy_level run_name path overwrite resume wandb data_dir check".split()
    values = {name: settings[name] for name in settings.get("given", []) if name not in {*other, *changes}}
    return [settings.get("script") or "main_gen_path.py", *as_flags(values), *as_flags(changes)]


def check_sizes(name: str, resolved: dict, dataset):
    """BadInput when a run's resolved settings (of its args.json) are of data of other sizes than `dataset`."""
    ours = {
        "num_samples": (dataset.num_train, "samples"),
        "num_classes": (dataset.num_classes, "classes"),
        "image_size": (dataset.image_size, "pixels"),
        "channels": (dataset.channels, "channels"),
    }
    differ = {key: size for key, size in ours.items() if resolved[key] != size[0]}
    if differ:
        there = ", ".join(f"{resolved[key]} {what}" for key, (_, what) in differ.items())
        here = ", ".join(f"{size} {what}" for size, what in differ.values())
        raise BadInput(
            f"{name}: was trained on {there}, this data set has {here}; "
            "give the data it was trained on with --data_dir, or take another run"
        )


def data_of(folder: Path, settings: dict, data_dir: str | None = None, download: bool = False) -> Dataset:
    """The loaded Dataset that a run (its read_args()) was trained on, with its normalisation; BadInput where what lies
    there is another. data_dir: where it lies now. download: whether to fetch what is absent."""
    resolved = settings["resolved"]
    dataset = open_dataset(Namespace(**{**settings, "data_dir": data_dir or settings["data_dir"]}))
    check_sizes(folder, resolved, dataset)
    if dataset.needs_download and not download:
        raise BadInput(f"{folder}: its data, {dataset.name}, are not there; give --data_dir")
    same_labels = fingerprint(dataset.load().train.labels) == resolved["y_sha256"]
    if not same_labels or dataset.class_names != resolved["class_names"]:
        raise BadInput(f"{folder}: was trained on data with other labels or class names; give --data_dir")
    dataset.mean, dataset.std = resolved["mean"], resolved["std"]
    return dataset


def network_of(folder: Path, settings: dict | None = None) -> torch.nn.Module:
    """The network that a run's args.json (read_args()) describes, on the CPU, ready for load_weights."""
    settings = settings or read_args(folder)
    sizes = [settings["resolved"][name] for name in ("num_classes", "image_size", "channels")]
    options = {name: settings[name] for name in ("width", "norm", "pretrained")}
    try:
        return build_model(settings["net"], *sizes, fetch=False, **options)
    except Exception as problem:  # of as many kinds as there are odd values
        raise BadInput(
            f"{folder}/args.json: describes no network ({reason(problem)}); take an intact copy, or make the run anew"
        ) from None


def last_kept(folder: Path) -> str:
    """The name of the last epoch's checkpoint that a run kept; best_acc where it kept none."""
    epochs = [int(file.stem.removeprefix("epoch_")) for file in Path(folder).glob("epoch_*.pt")]
    return f"epoch_{max(epochs)}" if epochs else "best_acc"


def checkpoint_path(folder: Path, flag: str, name: str, ending: str = ".pt") -> Path:
    """folder/NAME.pt (or .npy); BadInput that lists what there is when that is missing."""
    path = Path(folder) / f"{name}{ending}"
    if not path.is_file() or name == "last":  # which is not for use, but to go on with
        if methods := sorted(Path(folder).glob("seed_*/*/args.json")):
            raise BadInput(f"{folder}: holds a comparison; give the folder of one seed and method, {methods[0].parent}")
        there = ", ".join(sorted(p.stem for p in Path(folder).glob(f"*{ending}") if p.stem != "last")) or "none"
        found = "last.pt is there to go on from, not to use" if name == "last" else f"{folder} has no {path.name}"
        raise BadInput(f"{flag} {name}: {found}; it has: {there}")
    return check_intact(path)


def environment() -> dict:
    """Versions and the code's git commit, for environment.json."""
    try:
        settings = dict(cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **settings).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without its history
        commit = None
    return {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, torchvision, np)},
        "platform": platform.platform(),
        "git_commit": commit,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }


def _on_cpu(state_dict):
    # contiguous: a checkpoint does not depend on the memory layout of the machine that wrote it
    return {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
