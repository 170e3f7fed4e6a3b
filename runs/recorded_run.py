"""The recorded path of a run's folder, with all that is known of its samples."""

import sys
from pathlib import Path

import numpy as np
import torch

from common.errors import BadInput
from common.files import check_intact
from common.untrusted import load_npz, valid_text
from data.datasets import fingerprint
from data.images import FolderImages
from data.label_files import Marks
from paths.loose_files import pictures_in
from paths.recorded import Recorded, open_path
from paths.recorder import read_sidecar
from runs.run_folder import data_of, read_args
from supervision.table import read_distributions

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
    y, ny, files, marks = _labels(check_intact(folder / "labels.npz"), settings)
    path, fine, true_probs = open_path(folder / f"{coarse}.npy"), None, folder / "true_probs.npy"
    try:
        if (folder / f"{PATHS[coarse]}.npy").is_file():
            fine = _fine(folder / f"{PATHS[coarse]}.npy", settings["fine_every"])
        probs = read_distributions(check_intact(true_probs)).numpy() if true_probs.is_file() else None
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    shape = (len(ny), settings["resolved"]["num_classes"])
    if path.shape[::2] != shape or (probs is not None and probs.shape != shape):
        raise BadInput(f"{folder}: its path is not of the {shape[0]} samples and {shape[1]} classes of args.json")
    if path.shape[1] < settings["epochs"]:
        print(f"{folder}: {path.shape[1]} of {settings['epochs']} epochs are complete", file=sys.stderr)
    images = _images_of(folder, settings, data_dir) if with_images else None
    return Recorded(
        name=valid_text(folder.resolve().name),
        path=path,
        given=ny,
        class_names=[valid_text(str(name)) for name in settings["resolved"]["class_names"]],
        # labels that were corrected by hand: the old ones are no truth to compare with
        clean=None if (y == ny).all() or marks else y,
        true_probs=probs,
        original=y,
        marks=marks,
        files=files,
        files_in=folder_of_files(images, settings["resolved"]),
        images=pictures_of(images),
        step_name="epoch",
        fine=fine,
    )


def _labels(file, settings):
    """y, ny (N,), the files' names where the run's data are an image folder, relative to the one with train/, and the
    Marks where it was trained on some."""
    arrays, resolved = load_npz(file, ["y", "ny", "paths", "mark"]), settings["resolved"]
    y, ny, files = (arrays.get(key) for key in ("y", "ny", "paths"))
    for key, labels in (("y_sha256", y), ("ny_sha256", ny)):
        if labels is None or fingerprint(labels) != resolved[key]:
            raise BadInput(f"{file}: has not the labels that args.json speaks of; take an intact copy of the run")
    marks = None
    if resolved.get("labels_corrected"):
        # earlier versions kept no marks, but what differs is what was corrected
        mark = arrays.get("mark", np.where(y == ny, "", "right"))
        marks = Marks(y, ny, ny, mark, audit=np.full(len(y), ""))  # an audit is of one ranking, this is another
    if files is None or resolved.get("test_size"):  # a folder that had no train/ and test/
        return y, ny, files if files is None else files.tolist(), marks
    return y, ny, [f"{settings['train_on']}/{name}" for name in files.tolist()], marks


def _fine(file, every):
    """The path of some samples between updates, or None while it has no complete step."""
    sidecar = read_sidecar(file)
    if not sidecar["complete"]:
        return None
    path, rows = open_path(file), sidecar.get("rows")
    return path, np.arange(len(path)) if rows is None else np.array(rows), every


def _images_of(folder, settings, data_dir):
    """The run's images (a uint8 tensor or FolderImages), or None, and a line that says why."""
    try:
        return data_of(folder, {**settings, "skip_bad": False}, data_dir).train.images  # a bad image is shown as grey
    except BadInput as problem:
        print(f"warning: no images ({problem})", file=sys.stderr)
        return None


def pictures_of(images):
    """A function of (n,) idx that gives uint8 images (H, W, C); None where there are none."""
    if isinstance(images, FolderImages):
        return pictures_in(images.root, images.paths)
    return images if images is None else lambda idx: images[torch.as_tensor(idx)].numpy()


def folder_of_files(images, resolved):
    """The folder that files are named from: the one with train/ in it, where there is one; None of what is no folder of
    images. resolved: of the run's args.json."""
    if isinstance(images, FolderImages):
        return images.root if resolved.get("test_size") else images.root.parent
