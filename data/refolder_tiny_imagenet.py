"""Turn Tiny ImageNet as downloaded into plain class folders: train/ID/*.JPEG and val/ID/*.JPEG.

    python data/refolder_tiny_imagenet.py [DIR]        (./datasets/tiny-imagenet-200, or its parent folder)

The download has its training images in train/ID/images, its validation images all in val/images and their
classes in val/val_annotations.txt. Everything is checked before the first image moves. Images are only ever
renamed, each to the one place it belongs, so a run that was cut off is finished by the next.
"""

import os
import sys
from pathlib import Path

from tqdm import tqdm

if __name__ == "__main__":  # run as a script: the path starts at data/, common/errors.py is one level up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import BadInput, run_script
from common.flags import CheckedParser


def find_folder(path: Path) -> Path:
    """The data set's folder: path itself or the tiny-imagenet-200 in it; BadInput if neither is one."""
    for folder in (path, path / "tiny-imagenet-200"):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise BadInput(
        f"{path}: no Tiny ImageNet here (no train and val folders); name its folder, "
        "or fetch it: python data/download.py tinyimagenet"
    )


def refolder(root: Path) -> int:
    """Move all images of a Tiny ImageNet folder to class folders; the number of images moved, 0 when all are in place.

    Raises BadInput, with nothing moved, if images and annotations do not agree or a place is taken. Annotations, boxes
    and test/ stay as they are; only empty `images` folders are removed.
    """
    classes = class_ids(root)
    moves = _training_moves(root / "train", classes) + _validation_moves(root / "val", classes)
    for source, target in moves:
        if os.path.lexists(target) or not target.parent.is_dir() and os.path.lexists(target.parent):
            raise BadInput(f"{target}: the place of {source} is taken; move one of the two away")
    for source, target in tqdm(moves, desc="refolder", unit="image", disable=None):
        target.parent.mkdir(exist_ok=True)
        os.rename(source, target)
    for folder in (root / "val/images", *(root / "train" / name / "images" for name in classes)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return len(moves)


def class_ids(root: Path) -> list[str]:
    """The class ids, sorted: the names of train's folders."""
    return sorted(
        entry.name for entry in (root / "train").iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(folder):
    """The images' names in a folder, sorted; none if there is no such folder."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [name for name in names if name.lower().endswith(".jpeg") and not name.startswith(".")]


def _training_moves(train, classes):
    return [
        (train / name / "images" / image, train / name / image)
        for name in classes
        for image in _images(train / name / "images")
    ]


def _validation_moves(val, classes):
    """[(from, to)] of the validation images that are still in val/images; BadInput where the annotations do not fit."""
    annotations, waiting, listed, moves = val / "val_annotations.txt", set(_images(val / "images")), set(), []
    if not annotations.is_file():
        raise BadInput(f"{annotations}: missing; extract the download again")
    for number, line in enumerate(annotations.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        image, name = (line.split("\t") + [""])[:2]  # four numbers follow, the object's box
        if name not in classes or image != os.path.basename(image) or image in listed:
            raise BadInput(f"{annotations} line {number}: not an image and its class; extract the download again")
        listed.add(image)
        if image in waiting:
            moves.append((val / "images" / image, val / name / image))
        elif not (val / name / image).is_file():
            raise BadInput(f"{val / 'images' / image}: is listed in {annotations}, but missing; extract it again")
    if unlisted := sorted(waiting - listed):
        raise BadInput(f"{val / 'images' / unlisted[0]}: is not listed in {annotations}; move it away")
    return moves


def make_parser() -> CheckedParser:
    parser = CheckedParser(description=__doc__)
    parser.add_argument(
        "dir", nargs="?", default="datasets/tiny-imagenet-200", help="the data set's folder, or its parent"
    )
    return parser


def main(argv=None):
    folder = find_folder(Path(make_parser().parse_args(argv).dir))
    moved = refolder(folder)
    print(f"moved {moved:,} images; {len(class_ids(folder))} classes")
    print(folder)


if __name__ == "__main__":
    run_script(main)
