"""A recorded path of anybody's, from loose files: a path, labels, images, texts, class names, true distributions."""

import csv
import sys
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.untrusted import check_range, class_numbers, load_npy, valid_text
from data.images import find_images, picture
from data.label_files import split_file_and_key
from paths.recorded import Recorded, open_path
from supervision.table import read_distributions


def open_files(args) -> Recorded:
    """The Recorded path of args.path and of --labels, --clean_labels, --images, --class_names, --true_probs.

    BadInput names the first that is wrong.
    """
    path = open_path(args.path)
    if args.labels is None:
        raise BadInput("--labels: give the labels that the samples were trained on, a .npy of shape (N,)")
    given = _labels("--labels", args.labels, path)
    clean = _labels("--clean_labels", args.clean_labels, path) if args.clean_labels else given
    images, files = _images(args.images, len(path)) if args.images else (None, None)
    return Recorded(
        name=valid_text(Path(args.path).stem),
        path=path,
        given=given,
        clean=None if (clean == given).all() else clean,
        class_names=_names(args.class_names, path.shape[2]),
        true_probs=_probs(args.true_probs, path) if args.true_probs else None,
        files=files,
        files_in=Path(args.images) if files else None,
        images=images,
    )


def read_texts(spec: str, num_samples: int) -> list:
    """A text a sample from FILE.txt, a line each, or FILE.csv:COLUMN; of FILE.csv alone a dictionary of all columns."""
    file, column = split_file_and_key(spec)
    if file.suffix not in (".txt", ".csv"):
        raise BadInput(f"--texts {spec}: give a .txt, a line a sample, or FILE.csv:COLUMN")
    try:
        with open(file, newline="", encoding="utf-8-sig") as f:
            is_text = file.suffix == ".txt"
            texts = [line.rstrip("\r\n") for line in f] if is_text else list(csv.DictReader(f, restkey="", restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise BadInput(f"--texts {file}: cannot be read ({problem}); give a file in UTF-8") from None
    if len(texts) != num_samples:
        raise BadInput(f"--texts {file}: has {len(texts)} texts, the path has {num_samples} samples; give one for each")
    if file.suffix == ".txt" or column is None:
        return texts
    if column not in texts[0]:
        raise BadInput(f"--texts {file}: has no column {column}; it has {', '.join(texts[0])}")
    return [row[column] for row in texts]


def _array(flag, file):
    return load_npy(file, f"{flag} {file}: not a readable .npy array", mapped=True)


def _labels(flag, file, path):
    labels = class_numbers(np.asarray(_array(flag, file)), f"{flag} {file}")
    if len(labels) != len(path):
        raise BadInput(f"{flag} {file}: has {len(labels)} labels, the path {len(path)} samples; give one for each")
    check_range(labels, path.shape[2], f"{flag} {file}")
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
        images = pictures_in(source, files), files
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


def pictures_in(folder, files):
    """A function of (n,) idx that gives uint8 images (H, W, 3) of a folder's files, as large as they are up to a limit.

    A file that cannot be read is a grey one, and a warning: one bad image spoils no analysis.
    """

    def read(file):
        try:
            return picture(Path(folder) / file)
        except Exception as problem:  # whatever a damaged file makes Pillow say
            print(f"warning: {file}: cannot be read ({problem}); shown as grey", file=sys.stderr)
            return np.full((8, 8, 3), 128, np.uint8)

    return lambda idx: [read(files[i]) for i in idx]
