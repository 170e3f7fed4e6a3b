"""A recorded path of anybody's, from loose files: a path, labels, images, class names, true distributions."""

import sys
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.untrusted import check_range, class_numbers, load_npy, valid_text
from data.images import decode, find_images
from paths.recorded import Recorded, open_path
from supervision.table import read_distributions

SIDE = 64  # pixels that images of a folder are decoded to


def open_files(args):
    """The Recorded path of args.path and of --labels, --images, --class_names, --true_probs. BadInput names the
    first that is wrong."""
    try:
        path = open_path(args.path)
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    if args.labels is None:
        raise BadInput("--labels: give the labels that the samples were trained on, a .npy of shape (N,)")
    given = _labels(args.labels, path)
    images, files = _images(args.images, len(path)) if args.images else (None, None)
    return Recorded(
        name=valid_text(Path(args.path).stem),
        path=path,
        given=given,
        class_names=_names(args.class_names, path.shape[2]),
        true_probs=_probs(args.true_probs, path) if args.true_probs else None,
        files=files,
        images=images,
    )


def _array(flag, file):
    return load_npy(file, f"{flag} {file}: not a readable .npy array", mapped=True)


def _labels(file, path):
    labels = class_numbers(np.asarray(_array("--labels", file)), f"--labels {file}")
    if len(labels) != len(path):
        raise BadInput(f"--labels {file}: has {len(labels)} labels, the path {len(path)} samples; give one for each")
    check_range(labels, path.shape[2], f"--labels {file}")
    return labels


def _names(file, num_classes):
    if file is None:
        return [str(k) for k in range(num_classes)]
    try:
        names = Path(file).read_text(encoding="utf-8-sig").splitlines()
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
    source, notes = Path(source), []
    if source.is_dir():
        files, _, notes = find_images(source)
        found = len(files)
        images = (lambda idx: [or_grey(lambda i=i: decode(source / files[i], SIDE, 3), files[i]) for i in idx]), files
    else:
        array = _array("--images", source)
        fits = array.dtype == np.uint8 and 0 not in array.shape
        if not fits or array.ndim not in (3, 4) or array.shape[3:] not in ((), (1,), (3,)):
            found = f"{array.shape} of {array.dtype}"
            raise BadInput(f"--images {source}: expected uint8 (N, H, W) or (N, H, W, 1 or 3), found {found}")
        found = len(array)
        images = (lambda idx: array[idx].reshape(len(idx), *array.shape[1:3], -1)), None
    if found != num_samples:
        passed = "".join(f"; {note}" for note in notes)
        raise BadInput(
            f"--images {source}: has {found} images, the path has {num_samples} samples; give one for each{passed}"
        )
    return images


def or_grey(read, name):
    """read()'s image, or a grey one and a warning where the file cannot be read: one bad image spoils no analysis."""
    try:
        return read()
    except Exception as problem:  # whatever a damaged file makes Pillow say
        print(f"warning: {name}: cannot be read ({problem}); shown as grey", file=sys.stderr)
        return np.full((8, 8, 3), 128, np.uint8)
