"""Where images and clean labels come from: a `Dataset` for every --dataset.

Adding one is adding a function to DATASETS that takes the arguments and returns a Dataset.
"""

import hashlib
import math
import zipfile
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from common.errors import BadInput, NeedsDownload
from common.untrusted import check_range, class_numbers, load_npz, nfc, valid_text
from data.images import EXTENSIONS, FolderImages, find_images, is_image, mean_and_std
from data.refolder_tiny_imagenet import find_folder

BACKENDS = ("auto", "memory", "cache", "files")  # of an image folder
TEST_SIZE = 0.2  # of an image folder without splits
VALIDATION = ("val", "valid", "validation", "dev")
SPLITS = {"train", "training", "test", "testing", *VALIDATION}  # folders of these names are no classes
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the published normalisation
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
    tulip turtle wardrobe whale willow_tree wolf woman worm
""".split()


@dataclass
class Split:
    """Images, a uint8 tensor (N, H, W, C) or FolderImages, and clean labels (N,) int64, by row."""

    images: torch.Tensor | FolderImages
    labels: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """(n,) the rows in use: all, but for images that cannot be read where --skip_bad leaves them out."""
        return self.images.usable if isinstance(self.images, FolderImages) else np.arange(len(self.labels))

    def place(self, rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor | FolderImages, np.ndarray]:
        """(images, places): where some rows are to be read on a device, whoever else reads them.

        images: a uint8 tensor, or FolderImages where the rows are not kept in memory. On the CPU, and on a GPU for
        sets that are no folder, all who ask share one copy. BadInput when a GPU's memory is too small for that.
        """
        if not isinstance(self.images, FolderImages):
            left = memory_left(device)
            if self.images.device.type != device.type and self.images.nbytes > left:
                raise BadInput(
                    f"--device {device.type}: the images take {self.images.nbytes / 1e9:.1f} GB, of its memory "
                    f"{left / 1e9:.1f} GB are free; free it, give --device cpu, or make them an image folder"
                )
            self.images = self.images.to(device)
            return self.images, rows
        if self.images.how(rows, memory_left(device)) != "memory":
            return self.images, rows
        images = self.images.into_memory(rows)
        if device.type == "cpu":
            return images, rows
        # A copy on a GPU would not have the rows that are decoded later.
        return images[torch.from_numpy(rows)].to(device), np.arange(len(rows))


def memory_left(device):
    """Bytes free on a GPU; no limit elsewhere."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


@dataclass
class Dataset:
    """A data set, described before it is loaded: sets that torchvision downloads are loaded by load().

    valid is a validation split that the set itself brings, or None. train_paths: an image folder's files
    (relative to its train/, or to all of it where it has none), by row. num_test: needed where the test split is not
    there yet. test_size: the share that a folder without splits was split by. notes: what its user should know of it.
    """

    name: str
    num_train: int
    class_names: list[str]
    channels: int
    image_size: int
    train: Split | None = None
    test: Split | None = None
    valid: Split | None = None
    mean: tuple = ()
    std: tuple = ()
    train_paths: list[str] | None = None
    num_test: int = 0
    test_size: float | None = None
    notes: list[str] = field(default_factory=list)
    swapped: bool = False
    _load: Callable | None = field(default=None, repr=False)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def needs_download(self) -> bool:
        return self.train is None

    @property
    def num_usable(self) -> int:
        """Training samples in use: see Split.usable."""
        return self.num_train if self.needs_download else len(self.train.usable)

    @property
    def num_skipped(self) -> int:
        """Images of all splits that cannot be read and are left out."""
        return sum(len(split.labels) - len(split.usable) for split in (self.train, self.valid, self.test) if split)

    def load(self) -> "Dataset":
        """Make train and test available, downloading what is absent (NeedsDownload if that fails)."""
        if self.needs_download:
            self._load(self)
            if self.swapped:
                self.train, self.test = self.test, self.train
        return self

    def swap(self) -> None:
        """Exchange the splits: trained on the test split, tested on the training split."""
        self.swapped, self.train, self.test, self.valid = True, self.test, self.train, None
        self.num_train = self.num_test if self.needs_download else len(self.train.labels)
        if self.train_paths is not None:
            self.train_paths = self.train.images.paths

    def measure(self, rows=None, device=None) -> None:
        """Make mean and std available: those of the training images, where none are set. May decode them all.

        rows, device: that the training images will be wanted of, and on: what is decoded for it is then kept for that.
        """
        if not self.mean:
            if rows is not None and isinstance(self.train.images, FolderImages):
                self.train.images.how(rows, memory_left(device))
            self.mean, self.std = mean_and_std(self.train.images)


def open_dataset(args: Namespace) -> Dataset:
    """The Dataset that --dataset, --data_dir and --image_size name. Raises BadInput; downloads nothing.

    args.train_on "test" (cifar10h_gen_path.py) exchanges its splits.
    """
    if args.dataset in ("npz", "folder", "tinyimagenet") and args.data_dir is None:
        kind = "file" if args.dataset == "npz" else "folder"
        raise BadInput(f"--dataset {args.dataset}: give the {kind} with --data_dir")
    if args.dataset not in ("folder", "tinyimagenet") and (args.skip_bad or args.image_size is not None):
        flag = "--skip_bad" if args.skip_bad else f"--image_size {args.image_size}"
        raise BadInput(f"{flag}: --dataset {args.dataset} is no folder of images; leave it out")
    where, size = Path(args.data_dir or "./datasets"), args.image_size or 64
    backend = _check_backend(args)
    resolved = {"data_dir": where, "image_size": size, "data_backend": backend}
    dataset = DATASETS[args.dataset](Namespace(**{**vars(args), **resolved}))
    if dataset.needs_download and args.data_dir and "dataset" not in args.given:
        _check_not_ones_own(where)
    if "test_size" in args.given and dataset.test_size is None:
        raise BadInput(
            f"--test_size {args.test_size:g}: --dataset {args.dataset} brings its test set; only an image folder "
            "without train/ and test/ is split; leave it out"
        )
    if args.train_on == "test":
        dataset.swap()
    return dataset


def _check_backend(args):
    """--data_backend of an image folder, as --augment needs it; BadInput where the flags do not go together."""
    backend, cache_dir, augment = args.data_backend, args.cache_dir, args.augment
    if args.dataset not in ("folder", "tinyimagenet"):
        if backend not in ("auto", "memory"):
            raise BadInput(f"--data_backend {backend}: --dataset {args.dataset} is kept in memory; leave it out")
        if augment == "resized_crop":
            raise BadInput(f"--augment resized_crop: is for image files, not --dataset {args.dataset}; give crop_flip")
    if cache_dir and backend not in ("auto", "cache"):
        raise BadInput(f"--cache_dir {cache_dir}: --data_backend {backend} makes no cache; leave one of them out")
    if augment == "resized_crop":
        if backend not in ("auto", "files"):
            raise BadInput(
                f"--augment resized_crop: is cut out of the files' own pixels, which --data_backend {backend} does not "
                "keep; give files, or --augment crop_flip"
            )
        backend = "files"
    return backend


def _check_not_ones_own(path):
    """BadInput where somebody's own data lies at --data_dir, and --dataset does not say so."""
    if path.is_file():
        raise BadInput(f"--data_dir {path}: is a file; for a .npz file add --dataset npz")
    if (path / "train").is_dir() or any(is_image(file) for depth in ("*", "*/*") for file in path.glob(depth)):
        raise BadInput(
            f"--data_dir {path}: holds images; to train on them add --dataset folder, "
            "to download into it --dataset cifar10"
        )


def fingerprint(labels: np.ndarray) -> str:
    """SHA-256 of labels as little-endian int64: two runs saw the same labels exactly when these are equal."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def digits(args):
    """scikit-learn's 1,797 real handwritten digits, 8x8 grey: a fixed stratified split of 1,437 / 360."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[..., None]
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    splits = (Split(images[rows], labels[rows]) for rows in (train, test))
    return Dataset("digits", len(train), [str(k) for k in range(10)], 1, 8, *splits)


def cifar(args):
    """CIFAR-10 and CIFAR-100 as torchvision reads and downloads them, in their original row order."""
    import torchvision

    source = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[args.dataset]

    def fill(dataset, download):
        both = [source(str(args.data_dir), train=train, download=download) for train in (True, False)]
        dataset.train, dataset.test = (Split(torch.from_numpy(s.data), np.array(s.targets, np.int64)) for s in both)
        dataset.class_names = list(both[0].classes)

    classes = CIFAR10_CLASSES if args.dataset == "cifar10" else CIFAR100_CLASSES
    dataset = Dataset(args.dataset, 50_000, classes, 3, 32, mean=CIFAR_MEAN, std=CIFAR_STD, num_test=10_000)
    return filled_or_downloaded(dataset, fill, args)


def filled_or_downloaded(dataset: Dataset, fill: Callable, args: Namespace) -> Dataset:
    """The data set, filled by fill(dataset, download) with what is in --data_dir; load() downloads what is absent.

    fill: raises RuntimeError, as torchvision does, where download is False and the files are not there.
    """

    def download(dataset):
        was_there = args.data_dir.exists()
        try:
            fill(dataset, download=True)
        except (OSError, RuntimeError) as problem:
            if not was_there and args.data_dir.is_dir() and not any(args.data_dir.iterdir()):
                args.data_dir.rmdir()
            raise NeedsDownload(
                f"--dataset {args.dataset}: not in {args.data_dir} and the download failed ({problem}); "
                "put torchvision's files there, or try again with a connection"
            ) from None

    dataset._load = download
    try:
        fill(dataset, download=False)
    except RuntimeError:  # absent or damaged: torchvision compares MD5 sums before it opens anything
        pass
    return dataset


def npz(args):
    """One .npz file in the MedMNIST layout.

    train_images uint8 (N, H, W[, C]), train_labels (N,) or (N, 1), the same for test_, optionally for val_,
    and optionally class_names (K,).
    """
    path = args.data_dir
    if not path.is_file():
        raise BadInput(f"--data_dir {path}: there is no such file; --dataset npz needs a .npz file")
    if not zipfile.is_zipfile(path):
        raise BadInput(f"--data_dir {path}: is not a .npz file; give one made by numpy.savez")
    wanted = [f"{s}_{what}" for s in ("train", "test", "val") for what in ("images", "labels")] + ["class_names"]
    arrays = load_npz(path, wanted, f"--data_dir {path}: not readable as .npz")
    present = ["train", "test"] + ["val"] * any(key.startswith("val_") for key in arrays)
    missing = [key for key in wanted if key not in arrays and key.split("_")[0] in present]
    if missing:
        raise BadInput(f"--data_dir {path}: has no {', '.join(missing)}; a .npz data set needs them")
    splits = {name: _npz_split(path, name, arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in present}
    shapes = {tuple(split.images.shape[1:]) for split in splits.values()}
    if len(shapes) > 1:
        raise BadInput(f"--data_dir {path}: images of different shapes, {sorted(shapes)}; one is needed")
    names, labels = arrays.get("class_names"), splits["train"].labels
    if names is None:
        if labels.min() != 0 or labels.max() >= len(labels):
            raise BadInput(
                f"--data_dir {path}: train_labels has {labels.min()} to {labels.max()}, in {len(labels)} samples; "
                "labels count the classes from 0: subtract the smallest, or give class_names"
            )
        names = np.arange(labels.max() + 1)
    elif names.ndim != 1 or names.dtype.kind not in "Uiu" or not len(names):
        raise BadInput(
            f"--data_dir {path}: class_names must be text of shape (K,), found {names.shape} of {names.dtype}"
        )
    for name, split in splits.items():
        check_range(split.labels, len(names), f"--data_dir {path}: {name}_labels")
    height, width, channels = splits["train"].images.shape[1:]
    sizes = len(labels), [valid_text(str(name)) for name in names], channels, min(height, width)
    return Dataset("npz", *sizes, splits["train"], splits["test"], splits.get("val"))


def _npz_split(path, name, images, labels):
    what = f"--data_dir {path}: {name}"
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise BadInput(
            f"{what}_images must be uint8 (N, H, W) or (N, H, W, 1 or 3), found {images.shape} of {images.dtype}"
        )
    labels = class_numbers(labels, f"{what}_labels")
    if len(labels) != len(images):
        raise BadInput(f"{what}_images are {len(images)} and {name}_labels {len(labels)}; the lengths must be equal")
    return Split(torch.from_numpy(images), labels)


def folder(args):
    """An image folder: train/ and test/ and/or val/, a folder a class; rows in sorted relative-path order.

    Where only one of test/ and val/ (or another of VALIDATION) exists it is the test set; where both do, val/ is the
    validation split. Without any of them the folders are the classes, and a hash of each file's bytes splits it.
    """
    root = _existing(args.data_dir)
    if not (root / "train").is_dir():
        return _split_by_hash(root, args)
    present = [name for name in ("test", *VALIDATION) if (root / name).is_dir()]
    if not present:
        raise BadInput(
            f"--data_dir {root}: has train/, but neither test/ nor val/; add one, or give {root / 'train'}, "
            "which is then split (--test_size)"
        )
    used = present[: 2 if present[0] == "test" else 1]
    dataset = _folder_dataset("folder", root, used[0], "".join(used[1:]), args)
    dataset.notes += [f"{root}: {name}/ is not used, {' and '.join(used)} are" for name in present[len(used) :]]
    return dataset


def _existing(root):
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "there is no such folder"
        raise BadInput(f"--data_dir {root}: {found}; give the folder of the images")
    return root


def _split_by_hash(root, args):
    """A share test_size of the images is the test set: which ones follows from their bytes alone.

    So duplicates stay together, and an image whose label was corrected, in another class's folder now, on its side.
    """
    found = find_images(root)
    if names := [name for name in found.folders if name.casefold() in SPLITS]:
        raise BadInput(
            f"--data_dir {root}: {names[0]}/ looks like a split; call the splits train/ and test/ or val/, "
            "or leave folders of classes alone"
        )
    number = _classes(root, found.folders)
    files, labels = _labelled(root, found, number, all_classes=True)

    def is_test(file):
        try:
            with open(root / file, "rb") as f:
                digest = hashlib.file_digest(f, "sha256").digest()
        except OSError:  # named, or left out, when it is decoded
            return False
        return int.from_bytes(digest[:8]) < args.test_size * 2**64

    with ThreadPoolExecutor() as pool:
        test = np.array(list(pool.map(is_test, files)))
    files = np.array(files, object)
    empty = sorted(set(range(len(number))) - set(labels[~test]))
    if empty or not test.any():
        found = f"all images of {list(number)[empty[0]]} fall" if empty else "no image falls"
        raise BadInput(f"--test_size {args.test_size:g}: {found} into the test set; give another share, or more images")
    parts = {name: (root, files[rows].tolist(), labels[rows]) for name, rows in (("train", ~test), ("test", test))}
    dataset = _dataset_of_files("folder", number, parts, "test", None, args)
    dataset.test_size, dataset.notes = args.test_size, found.notes
    dataset.train.images.part, dataset.test.images.part = f"_train_{args.test_size:g}", f"_test_{args.test_size:g}"
    dataset.notes.append(f"{root}: split by a hash of each file, {test.mean():.1%} for testing (--test_size)")
    return dataset


def tinyimagenet(args):
    """Tiny ImageNet after data/refolder_tiny_imagenet.py: tests on val/, ignores the unlabelled test/."""
    root = find_folder(_existing(args.data_dir), "--data_dir ")
    if (root / "val" / "images").is_dir():
        raise BadInput(
            f"--data_dir {root}: val/ is still as downloaded; run python data/refolder_tiny_imagenet.py {root} first"
        )
    dataset = _folder_dataset("tinyimagenet", root, "val", None, args)
    if (root / "words.txt").is_file():  # n02124075 -> Egyptian cat
        lines = (root / "words.txt").read_text(encoding="utf-8-sig", errors="replace").splitlines()
        words = dict(line.split("\t", 1) for line in lines if "\t" in line)
        dataset.class_names = [words.get(wnid, wnid).split(",")[0] for wnid in dataset.class_names]
    return dataset


def _folder_dataset(name, root, test, valid, args):
    found = {split: find_images(root / split) for split in filter(None, ("train", test, valid))}
    number, parts = _classes(root / "train", found["train"].folders), {}
    for split, there in found.items():
        if unknown := [name for name in there.folders if nfc(name) not in number]:
            raise BadInput(f"--data_dir {root}: {split}/ has the class {unknown[0]}, which train/ has not")
        parts[split] = (root / split, *_labelled(root / split, there, number, all_classes=split == "train"))
    dataset = _dataset_of_files(name, number, parts, test, valid, args)
    dataset.notes = [note for there in found.values() for note in there.notes]
    return dataset


def _classes(folder, names):
    """{class name: class number}, of a folder's folders."""
    number = {nfc(name): k for k, name in enumerate(names)}
    if len(number) < len(names):
        twice = next(name for k, name in enumerate(names) if number[nfc(name)] != k)
        raise BadInput(f"--data_dir {folder}: has {twice} twice, in two Unicode forms; make one folder of them")
    return number


def _labelled(folder, found, number, all_classes):
    """(files, labels) of the images found in the folders of classes; found.notes says how many lie elsewhere.

    all_classes: BadInput where a class has no images.
    """
    files = [path for path in found.paths if "/" in path and nfc(path.split("/", 1)[0]) in number]
    labels = np.array([number[nfc(path.split("/", 1)[0])] for path in files], np.int64)
    if loose := len(found.paths) - len(files):
        found.notes.append(f"{folder}: {loose} images are in no class's folder: not used")
    empty = sorted(set(range(len(number))) - set(labels.tolist())) if all_classes else []
    if empty or not files:
        where = f"{folder / list(number)[empty[0]]}" if empty and files else folder
        raise BadInput(
            f"--data_dir {where}: has no images (one folder a class; {' '.join(EXTENSIONS)}); fill it or remove it"
            + "".join(f"; {note}" for note in found.notes)
        )
    return files, labels


def _dataset_of_files(name, number, parts, test, valid, args):
    """parts: {split: (folder, files in it, labels)}."""
    root, files, _ = parts["train"]
    size, channels = args.image_size, FolderImages(root, files, args.image_size, 3).count_channels()
    kept = args.data_backend, args.cache_dir
    made = {
        split: Split(FolderImages(root, files, size, channels, args.skip_bad, *kept), labels)
        for split, (root, files, labels) in parts.items()
    }
    splits = made["train"], made[test], made.get(valid)
    return Dataset(name, len(files), [valid_text(name) for name in number], channels, size, *splits, train_paths=files)


DATASETS = {
    "digits": digits,
    "cifar10": cifar,
    "cifar100": cifar,
    "npz": npz,
    "folder": folder,
    "tinyimagenet": tinyimagenet,
}
