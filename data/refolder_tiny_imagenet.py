"""Turn Tiny ImageNet as downloaded into plain class folders: train/ID/*.JPEG and val/ID/*.JPEG.

    python data/refolder_tiny_imagenet.py [DIR]        (./datasets/tiny-imagenet-200, or its parent folder)

The download has its training images in train/ID/images, its validation images all in val/images and their
classes in val/val_annotations.txt. Everything is checked before the first image moves. Images are only ever
renamed, each to the one place it belongs, so a run that was cut off is finished by the next.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the path starts at data/, common/errors.py is one level up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import BadInput, run_script
from common.flags import CheckedParser


def find_folder(path: Path, flag: str = "") -> Path:
    """The data set's folder: path itself or the tiny-imagenet-200 in it; BadInput, naming the flag, if neither is."""
    for folder in (path, path / "tiny-imagenet-200"):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise BadInput(
        f"{flag}{path}: no Tiny ImageNet here (train/ and val/); name its folder, or fetch it: "
        "python data/download.py tinyimagenet"
    )


def refolder(root: Path) -> tuple[int, int]:
    """Move all images of a Tiny ImageNet folder to class folders; (images moved, 0 when all are in place; classes).

    Raises BadInput, with nothing moved, if images and annotations do not agree or a place is taken. Annotations, boxes
    and test/ stay as they are; only empty `images` folders are removed.
    """
    classes = {folder.name for folder in (root / "train").glob("[!.]*") if folder.is_dir()}
    folders = [root / "val/images", *(root / "train" / name / "images" for name in sorted(classes))]
    moves = [(image, image.parent.parent / image.name) for folder in folders[1:] for image in _images(folder)]
    moves += _validation_moves(root / "val", classes)
    for source, target in moves:
        if os.path.lexists(target):
            raise BadInput(f"{target}: the place of {source} is taken; move one of the two away")
    for source, target in moves:
        target.parent.mkdir(exist_ok=True)
        os.rename(source, target)
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return len(moves), len(classes)


def _images(folder):
    return sorted(folder.glob("[!.]*.JPEG"))  # another system may have left hidden ones


def _validation_moves(val, classes):
    """[(from, to)] of the validation images that are still in val/images; BadInput where the annotations do not fit."""
    annotations, class_of = val / "val_annotations.txt", {}
    if not annotations.is_file():
        raise BadInput(f"{annotations}: missing; extract the download again")
    for number, line in enumerate(annotations.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        image, name = (line.split("\t") + [""])[:2]  # four numbers follow, the object's box
        if name not in classes:
            raise BadInput(f"{annotations} line {number}: not an image and its class; extract the download again")
        class_of[image] = name
    waiting = {file.name: file for file in _images(val / "images")}
    for image, file in waiting.items():
        if image not in class_of:
            raise BadInput(f"{file}: is not listed in {annotations}; move it away")
    for image, name in class_of.items():
        if image not in waiting and not (val / name / image).is_file():
            raise BadInput(f"{val / 'images' / image}: is listed in {annotations}, but missing; extract it again")
    return [(file, val / class_of[image] / image) for image, file in waiting.items()]


def make_parser() -> CheckedParser:
    parser = CheckedParser(description=__doc__)
    parser.add_argument(
        "dir", nargs="?", default="datasets/tiny-imagenet-200", help="the data set's folder, or its parent"
    )
    return parser


def main(argv=None):
    folder = find_folder(Path(make_parser().parse_args(argv).dir))
    moved, classes = refolder(folder)
    print(f"moved {moved:,} images; {classes} classes")
    print(folder)


if __name__ == "__main__":
    run_script(main)
