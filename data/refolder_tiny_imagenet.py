"""Turn Tiny ImageNet as downloaded into plain class folders: train/ID/*.JPEG and val/ID/*.JPEG.

    python data/refolder_tiny_imagenet.py [DIR]        (./datasets/tiny-imagenet-200, or its parent folder)

The download has its training images in train/ID/images, its validation images all in val/images and their
classes in val/val_annotations.txt. Everything is checked before the first image moves. Images are only ever
renamed, each to the one place it belongs, so a run that was cut off is finished by the next.
"""

import os
import sys
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

if __name__ == "__main__":  # run as a script: the path starts at data/, common/errors.py is one level up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import BadInput, run_script
from common.flags import CheckedParser

AGAIN = "; extract the download again"


def find_folder(path):
    """The data set's folder: path itself or the tiny-imagenet-200 in it; BadInput if neither is one."""
    path = Path(path)
    for folder in (path, path / "tiny-imagenet-200"):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise BadInput(
        f"{path}: no Tiny ImageNet here (no train and val folders); name its folder, "
        "or fetch it: python data/download.py tinyimagenet"
    )


def refolder(root):
    """Move all images of the Tiny ImageNet folder root (or in root's tiny-imagenet-200) to class folders.

    Returns the number of images moved, 0 when all are in place. Raises BadInput, with nothing moved, if
    images and annotations do not agree or a place is taken. Never deletes an image; annotations, boxes and
    test/ stay as they are; only empty `images` folders are removed.
    """
    root = find_folder(root)
    classes = class_ids(root)
    moves = _plan(root, classes)
    for source, target in tqdm(moves, desc="refolder", unit="image", disable=None):
        target.parent.mkdir(exist_ok=True)
        os.rename(source, target)
    for folder in (root / "val/images", *(root / "train" / name / "images" for name in classes)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return len(moves)


def class_ids(root):
    """The class ids, sorted: the names of train's folders."""
    return sorted(
        entry.name for entry in (root / "train").iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(folder):
    """The images' names in folder, sorted; none if there is no such folder."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [name for name in names if name.lower().endswith(".jpeg") and not name.startswith(".")]


def _plan(root, classes):
    """The moves still to do, [(from, to)], after every check has passed."""
    train, val, annotations = root / "train", root / "val", root / "val/val_annotations.txt"
    wrong = defaultdict(list)  # what is wrong -> the files it is wrong with
    moves = [
        (train / name / "images" / image, train / name / image)
        for name in classes
        for image in _images(train / name / "images")
    ]

    if annotations.is_file():
        labels = _read_labels(annotations, set(classes), wrong)
        waiting = set(_images(val / "images"))
        for image, name in labels.items():
            if name and image in waiting:
                moves.append((val / "images" / image, val / name / image))
            elif name and not (val / name / image).is_file():
                wrong[f"listed in {annotations}, but neither there nor in its class folder" + AGAIN].append(
                    val / "images" / image
                )
        wrong[f"not listed in {annotations}; move away what does not belong there"] += [
            val / "images" / image for image in sorted(waiting - labels.keys())
        ]
    else:
        wrong["missing" + AGAIN].append(annotations)

    # A rename would replace what is at the target, take a link for an image, or fail between two disks.
    wrong["the image's new place is taken; move one of the two away"] += [
        target for _, target in moves if os.path.lexists(target)
    ]
    wrong["not a plain file; put the image itself there"] += [
        source for source, _ in moves if source.is_symlink() or not source.is_file()
    ]
    wrong["not a plain folder; put the folder itself there"] += [
        folder
        for folder in sorted({path.parent for move in moves for path in move})
        if folder.is_symlink() or (folder.exists() and not folder.is_dir())
    ]
    messages = [f"{_examples(files)}: {what}" for what, files in wrong.items() if files]
    if messages:
        raise BadInput(*messages)
    return moves


def _read_labels(annotations, classes, wrong):
    """{image name: class id} of the annotations' lines; the id is None where the line is wrong."""
    labels = {}
    lines = annotations.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, name = (line.split("\t") + [""])[:2]  # four numbers follow, the object's box
        problem = None
        if not name or not image.lower().endswith(".jpeg") or image != os.path.basename(image):
            problem = "not an image's file name, a tab and a class id" + AGAIN
        elif name not in classes:
            problem = "its class has no folder in train" + AGAIN
        elif image in labels:
            problem = "this image was listed before" + AGAIN
        if problem:
            wrong[problem].append(f"{annotations} line {number} ({image!r}, {name!r})")
        # An image named on a wrong line is named all the same: no second complaint that it is not listed.
        labels[image] = None if problem else name
    return labels


def _examples(files, shown=5):
    more = f" and {len(files) - shown:,} more ({len(files):,} in all)" if len(files) > shown else ""
    return ", ".join(str(file) for file in files[:shown]) + more


def make_parser():
    parser = CheckedParser(description=__doc__)
    parser.add_argument(
        "dir", nargs="?", default="datasets/tiny-imagenet-200", help="the data set's folder, or its parent"
    )
    return parser


def main(argv=None):
    args, problems = make_parser().parse_collecting(argv)
    problems.stop_if_any()
    folder = find_folder(args.dir)
    moved = refolder(folder)
    print(f"moved {moved:,} images; {len(class_ids(folder))} classes")
    print(folder)


if __name__ == "__main__":
    run_script(main)
