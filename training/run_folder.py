"""A run's folder: its arguments, labels, metrics, checkpoints and tables. It can be moved and copied.

args.json, environment.json, labels.npz (y, ny, idx trained on, valid_idx; paths for image folders),
metrics.csv, NAME.pt and NAME.npy (weights and table of the epochs kept), last.pt (all of it, to go on),
curves.png.
"""

import csv
import io
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

from data.noise import split_file_and_key
from errors import BadInput, RunFailure
from models import build_model
from training.figures import plot_curves
from training.files import read_json, whole_file, write_json

RESULTS = Path("results")
FIGURES = ("loss", "acc", "ece", "nll", "brier")
COLUMNS = [
    "epoch",
    "lr",
    "train_loss",
    "train_acc_noisy",
    "train_acc_clean",
    *(f"valid_{f}" for f in FIGURES),
    *(f"test_{f}" for f in FIGURES),
    "seconds",
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
)
NEEDED = (*INHERITED, "data_dir", "net", "width", "norm", "pretrained", "num_work")
RESOLVED = ("num_samples", "num_classes", "class_names", "channels", "image_size", "mean", "std", "y_sha256")


def check_free(path, args):
    """BadInput when the folder already holds something, unless it is a run and --overwrite is given."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not args.overwrite:
            raise BadInput(f"{path}: is not empty; choose another name, or give --overwrite to replace the run in it")
        if not (path / "args.json").is_file():
            raise BadInput(
                f"{path}: is not a run's folder (no args.json), so --overwrite leaves it alone; "
                "choose another name or move it away"
            )
        inputs = {"ny_file": args.ny_file and split_file_and_key(args.ny_file)[0]}
        inputs |= {name: getattr(args, name, None) for name in ("data_dir", "human_probs")}
        for name, file in inputs.items():
            if file and path.resolve() in Path(file).resolve().parents:
                raise BadInput(f"--{name} {file}: lies in {path}, which --overwrite replaces; move it out first")


class RunFolder:
    """Writes a run's files. Each is written whole or not at all."""

    def __init__(self, path):
        self.path = Path(path)
        self.save_epochs, self.last_epoch, self.table_metadata, self.keeps_best = (), None, {}, True

    @classmethod
    def create(cls, path, args, data, hardware, with_labels=True, **resolved):
        """Make the folder (replacing a run there: see check_free) and write what is known before training."""
        run = cls(path)
        if run.path.exists():
            shutil.rmtree(run.path)
        run.path.mkdir(parents=True)
        run.save_epochs, run.last_epoch = set(args.save_epochs), args.epochs - 1
        noise = {
            "ny_ratio": args.ny_ratio,
            "ny_kind": args.ny_kind,
            "ny_file": args.ny_file,
            "realised": data.noise_realised,
        }
        run.table_metadata = {"dataset": args.dataset, **data.fingerprints(), "noise": noise, **resolved}
        write_json(
            run.path / "args.json",
            {
                "script": Path(sys.argv[0]).name,
                **{name: value for name, value in vars(args).items() if name != "given"},
                "resolved": {
                    **{
                        name: getattr(data.dataset, name)
                        for name in ("num_classes", "class_names", "channels", "image_size", "mean", "std")
                    },
                    "num_samples": len(data.y),
                    "noise_realised": data.noise_realised,
                    "labels_corrected": data.corrected,
                    **data.fingerprints(),
                    **resolved,
                },
            },
        )
        write_json(run.path / "environment.json", {**environment(), **hardware.describe()})
        if with_labels:
            paths = {"paths": np.array(data.dataset.train_paths)} if data.dataset.train_paths else {}
            with whole_file(run.path / "labels.npz") as f:
                np.savez(f, y=data.y, ny=data.ny, idx=data.train_idx, valid_idx=data.valid_idx, **paths)
        return run

    def save_epoch(self, state, epoch, new_best):
        """Write the epoch's checkpoints and tables where it is one to keep, then last.pt, then metrics.csv."""
        names = list(new_best) if self.keeps_best else []
        if epoch in self.save_epochs or epoch == self.last_epoch:
            names.append(f"epoch_{epoch}")
        if names:
            weights = io.BytesIO()
            torch.save(_on_cpu(state.model.state_dict()), weights)
        for name in names:
            with whole_file(self.path / f"{name}.pt") as f:
                f.write(weights.getbuffer())
            if state.table is not None:
                state.table.save(self.path / f"{name}.npy", {**self.table_metadata, "epoch": epoch})
        try:
            with whole_file(self.path / "last.pt") as f:
                torch.save(state.state_dict(), f)
        except RuntimeError as problem:  # what torch.save makes of a full disk
            raise RunFailure(f"{self.path / 'last.pt'}: cannot be written, is the disk full? ({problem})") from problem
        write_metrics(self.path / "metrics.csv", state.rows)

    def finish(self, state):
        plot_curves(state.rows, self.path / "curves.png")


def write_metrics(path, rows):
    """metrics.csv: a line an epoch; empty cells where there is nothing to report."""
    with whole_file(path, "w") as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read_args(folder):
    """The contents of a run's args.json. BadInput when there is none or it is damaged."""
    args = read_json(Path(folder) / "args.json")
    resolved = args.get("resolved")
    lacking = [name for name in NEEDED if name not in args]
    lacking += [name for name in RESOLVED if not isinstance(resolved, dict) or name not in resolved]
    if lacking:
        raise BadInput(f"{folder}/args.json: has no {', '.join(lacking)}; take an intact copy, or make the run anew")
    return args


def check_sizes(name, resolved, dataset):
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


def network_of(settings):
    """The network that a run's args.json describes, on the CPU, ready for load_weights."""
    resolved = settings["resolved"]
    return build_model(
        settings["net"],
        resolved["num_classes"],
        resolved["image_size"],
        resolved["channels"],
        width=settings["width"],
        norm=settings["norm"],
        pretrained=settings["pretrained"],
        fetch=False,
    )


def checkpoint_path(folder, flag, name, ending=".pt"):
    """folder/NAME.pt (or .npy); BadInput that lists what there is when that is missing."""
    path = Path(folder) / f"{name}{ending}"
    if not path.is_file() or name == "last":  # which is not for use, but to go on with
        if methods := sorted(Path(folder).glob("seed_*/*/args.json")):
            raise BadInput(f"{folder}: holds a comparison; give the folder of one seed and method, {methods[0].parent}")
        there = ", ".join(sorted(p.stem for p in Path(folder).glob(f"*{ending}") if p.stem != "last")) or "none"
        found = "last.pt is there to go on from, not to use" if name == "last" else f"{folder} has no {path.name}"
        raise BadInput(f"{flag} {name}: {found}; it has: {there}")
    return path


def environment():
    """Versions and the code's git commit, for environment.json."""
    try:
        where = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=True)
        commit = commit.stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without its history
        commit = None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "git_commit": commit,
    }


def _on_cpu(state_dict):
    # contiguous: a checkpoint does not depend on the memory layout of the machine that wrote it
    return {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
