"""The recorded path of a run's folder, with all that is known of its samples."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from data.datasets import fingerprint, open_dataset
from data.images import FolderImages
from errors import BadInput
from paths.loose_files import or_grey
from paths.recorded import Recorded, open_path
from paths.recorder import read_sidecar
from supervision.table import read_distributions
from training.run_folder import read_args

PATHS = {"PATH_TRAIN_COARSE": "PATH_BATCH_FINE", "PATH_ALL_COARSE": "PATH_ALL_FINE"}  # of all samples, of some finely


def open_run(folder, data_dir=None, with_images=True):
    """The Recorded path of a run's folder. data_dir: where its images lie now. BadInput when there is no path.

    Where the images are not to be had, a line on standard error says so; everything else works without them.
    """
    folder = Path(folder)
    settings = read_args(folder)
    coarse = next((name for name in PATHS if (folder / f"{name}.npy").is_file()), None)
    if coarse is None:
        raise BadInput(f"{folder}: has no {' or '.join(PATHS)} .npy; record one with main_gen_path.py")
    y, ny, files = _labels(folder / "labels.npz")
    true_probs = folder / "true_probs.npy"
    try:
        path, fine = open_path(folder / f"{coarse}.npy"), None
        if (folder / f"{PATHS[coarse]}.npy").is_file():
            fine = _fine(folder / f"{PATHS[coarse]}.npy", settings["fine_every"])
        probs = read_distributions(true_probs).numpy() if true_probs.is_file() else None
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    if path.shape[1] < settings["epochs"]:
        print(f"{folder}: {path.shape[1]} of {settings['epochs']} epochs are complete", file=sys.stderr)
    return Recorded(
        name=folder.resolve().name,
        path=path,
        given=ny,
        class_names=settings["resolved"]["class_names"],
        # labels that were corrected by hand: the old ones are no truth to compare with
        clean=None if (y == ny).all() or settings["resolved"].get("labels_corrected") else y,
        true_probs=probs,
        files=None if files is None else files.tolist(),
        images=_images_of(folder, settings, data_dir) if with_images else None,
        step_name="epoch",
        fine=fine,
    )


def _labels(file):
    try:
        with np.load(file, allow_pickle=False) as labels:
            return labels["y"], labels["ny"], labels.get("paths")
    except Exception as problem:  # whatever a damaged file makes numpy and zipfile say
        raise BadInput(f"{file}: cannot be read ({problem}); take an intact copy of the run") from None


def _fine(file, every):
    """The path of some samples between updates, or None while it has no complete step."""
    sidecar = read_sidecar(file)
    if not sidecar["complete"]:
        return None
    path = open_path(file)
    rows = np.arange(path.shape[0]) if sidecar["rows"] is None else np.array(sidecar["rows"])
    return path, rows, every


def _images_of(folder, settings, data_dir):
    """A function of (n,) idx that gives the run's images, or None, and a line that says why."""
    try:
        dataset = open_dataset(Namespace(**{**settings, "data_dir": data_dir or settings["data_dir"]}))
        if dataset.needs_download:
            raise BadInput(f"{settings['dataset']} is not there")
        if fingerprint(dataset.train.labels) != settings["resolved"]["y_sha256"]:
            raise BadInput("the data there has other labels")
    except BadInput as problem:
        print(f"warning: {folder}: no images ({problem}); give --data_dir", file=sys.stderr)
        return None
    images = dataset.train.images
    if isinstance(images, FolderImages):
        return lambda idx: [or_grey(lambda i=i: images.decode_row(i), images.paths[i]) for i in idx]
    return lambda idx: images[torch.as_tensor(idx)].numpy()
