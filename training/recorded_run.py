"""The recorded path of a finished run, or of loose files, with all that is known of its samples."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from data.datasets import fingerprint, open_dataset
from data.images import FolderImages, decode, is_image
from errors import BadInput, Problems
from paths.recorded import Recorded, open_path
from supervision.table import read_distributions
from training.run_folder import read_args

PATHS = {"PATH_TRAIN_COARSE": "PATH_BATCH_FINE", "PATH_ALL_COARSE": "PATH_ALL_FINE"}  # of all samples, of some finely
SIDE = 64  # pixels that images of a folder are decoded to


def open_run(folder, data_dir=None, with_images=True):
    """The Recorded path of a run's folder. data_dir: where its images lie now. BadInput when there is no path.

    Where the images are not to be had, a line on standard error says so; everything else works without them.
    """
    folder = Path(folder)
    settings = read_args(folder)
    coarse = next((name for name in PATHS if (folder / f"{name}.npy").is_file()), None)
    if coarse is None:
        raise BadInput(f"{folder}: has no {' or '.join(PATHS)} .npy; record one with main_gen_path.py")
    with np.load(folder / "labels.npz", allow_pickle=False) as labels:
        y, ny, files = labels["y"], labels["ny"], labels.get("paths")
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
        name=folder.name,
        path=path,
        given=ny,
        class_names=settings["resolved"]["class_names"],
        clean=None if (y == ny).all() else y,
        true_probs=probs,
        files=None if files is None else files.tolist(),
        images=_images_of(folder, settings, data_dir) if with_images else None,
        step_name="epoch",
        fine=fine,
    )


def _fine(file, every):
    """The path of some samples between updates, or None while it has no complete step."""
    sidecar = json.loads(file.with_suffix(".json").read_text())
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
        return lambda idx: [images.decode_row(i) for i in idx]
    return lambda idx: images[torch.as_tensor(idx)].numpy()


def open_files(args):
    """The Recorded path of args.path and of --labels, --images, --class_names, --true_probs. BadInput names all
    that is wrong."""
    problems, path, given, names, probs, images = Problems(), None, None, None, None, (None, None)
    with problems.collect():
        try:
            path = open_path(args.path)
        except ValueError as problem:
            raise BadInput(str(problem)) from None
    if args.labels is None:
        problems.add("--labels: give the labels that the samples were trained on, a .npy of shape (N,)")
    elif path is not None:
        with problems.collect():
            given = _labels(args.labels, path)
    if path is not None and args.class_names:
        with problems.collect():
            names = _names(args.class_names, path.shape[2])
    if path is not None and args.true_probs:
        with problems.collect():
            probs = _probs(args.true_probs, path)
    if path is not None and args.images:
        with problems.collect():
            images = _images(args.images, len(path))
    problems.stop_if_any()
    return Recorded(
        name=Path(args.path).stem,
        path=path,
        given=given,
        class_names=names or [str(k) for k in range(path.shape[2])],
        true_probs=probs,
        files=images[1],
        images=images[0],
    )


def _array(flag, file):
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise BadInput(f"{flag} {file}: not a readable .npy array ({problem}); give an intact one") from None


def _labels(file, path):
    labels = np.asarray(_array("--labels", file))
    if labels.shape != path.shape[:1] or labels.dtype.kind not in "iu":
        raise BadInput(
            f"--labels {file}: has shape {labels.shape} of {labels.dtype}, the path has {len(path)} samples; "
            "give a whole number for each, in the same order"
        )
    if labels.min() < 0 or labels.max() >= path.shape[2]:
        wrong = labels[(labels < 0) | (labels >= path.shape[2])][0]
        raise BadInput(f"--labels {file}: has the label {wrong}, the path has classes 0 to {path.shape[2] - 1}")
    return labels.astype(np.int64)


def _names(file, num_classes):
    try:
        names = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"--class_names {file}: cannot be read ({problem}); give a text file, a name a line") from None
    if len(names) != num_classes:
        raise BadInput(
            f"--class_names {file}: has {len(names)} lines, the path has {num_classes} classes; give a name a line"
        )
    return names


def _probs(file, path):
    try:
        probs = read_distributions(file).numpy()
    except ValueError as problem:
        raise BadInput(f"--true_probs {problem}") from None
    if probs.shape != path.shape[::2]:
        raise BadInput(f"--true_probs {file}: has shape {probs.shape}, the path needs {path.shape[::2]}")
    return probs


def _images(source, num_samples):
    """(function of idx, file names or None) of a .npy of images, or of a folder, in sorted relative-path order."""
    source = Path(source)
    if source.is_dir():
        files = sorted(f.relative_to(source).as_posix() for f in source.rglob("*") if is_image(f))
        found = len(files)
        images = (lambda idx: [decode(source / files[i], SIDE, 3) for i in idx]), files
    else:
        array = _array("--images", source)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in (3, 4):
            raise BadInput(f"--images {source}: expected uint8 (N, H, W) or (N, H, W, 1 or 3)")
        found = len(array)
        images = (lambda idx: array[idx].reshape(len(idx), *array.shape[1:3], -1)), None
    if found != num_samples:
        raise BadInput(f"--images {source}: has {found} images, the path has {num_samples} samples; give one for each")
    return images
