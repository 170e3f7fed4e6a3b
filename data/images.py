"""Images as uint8 (N, H, W, C): decoded from a folder, or already in memory."""

import contextlib
import math
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as TF
from tqdm import tqdm

from common.errors import BadInput, is_out_of_memory
from common.hardware import available_memory
from common.untrusted import printable, reason
from data import cached

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# Pillow's names of the formats that are read, whatever a file is called: of others, some start programs
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
MOST_MEASURED = 100_000  # images that the normalisation is measured on
PICTURE = 224  # pixels: the side of an image that is looked at
HIDDEN = {"@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX"}  # folders that systems leave; others start with a dot

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # twice as many pixels are an error
warnings.filterwarnings("ignore", module="PIL.TiffImagePlugin")  # damaged metadata, which spoil no pixel


def is_image(path: Path) -> bool:
    """By its name; files such as ._x.jpg, which macOS leaves beside x.jpg, are none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


class Found(NamedTuple):
    """Images below a folder: sorted relative paths; the names of its own folders; in words, what is passed over."""

    paths: list[str]
    folders: list[str]
    notes: list[str]


def find_images(root: str | Path) -> Found:
    """What Found says. Links to elsewhere are followed; hidden folders hold nothing, as if they were not there.

    BadInput for a folder that cannot be read, which would take its images with it.
    """

    def stop(problem):
        name = printable(str(problem.filename))
        raise BadInput(f"{name}: cannot be read ({problem.strerror}); mend its permissions, or remove it")

    root, real, followed = Path(root), Path(root).resolve(), set()
    paths, own_folders, endings, twice = [], None, Counter(), []
    for here, folders, files in os.walk(root, onerror=stop, followlinks=True):
        keep = []
        for folder in sorted(name for name in folders if not (name.startswith(".") or name in HIDDEN)):
            path = Path(here, folder)
            if path.is_symlink():
                there = path.resolve()
                if there in followed or there.is_relative_to(real) or real.is_relative_to(there):
                    twice.append(path.relative_to(root).as_posix())  # its images would count twice, or without end
                    continue
                followed.add(there)
            keep.append(folder)
        folders[:] = keep
        own_folders = keep if own_folders is None else own_folders
        for path in (Path(here, name) for name in files):
            if is_image(path):
                paths.append(path.relative_to(root).as_posix())
            elif not path.name.startswith("."):
                endings[path.suffix.lower() or "none"] += 1
    notes = []
    if endings:
        shown = ", ".join(f"{printable(ending)} {count}" for ending, count in endings.most_common(5))
        notes.append(f"{root}: {endings.total()} files are no images by their ending ({shown}): passed over")
    if twice:
        notes.append(f"{root}: the link {printable(twice[0])} leads to images that count already: passed over")
    return Found(sorted(paths), own_folders or [], notes)


def decode(path: Path, image_size: int, channels: int) -> np.ndarray:
    """One image file as (S, S, C) uint8, S = image_size: shorter side resized to S, then the centre cut out."""
    image = read(path, channels, image_size)
    if image.size != (image_size, image_size):
        image = TF.center_crop(TF.resize(image, image_size), image_size)
    return np.asarray(image).reshape(image_size, image_size, channels)


def read(path: Path, channels: int, image_size: int | None = None) -> Image.Image:
    """One image file as Pillow's, upright, in RGB or grey; where it is to be image_size pixels, perhaps less large.

    Of 16 bits a pixel the upper 8 are kept, of several pictures in a file the first. Raises OSError (or what else
    the file makes Pillow say) for a file that is no image or has too many pixels, ValueError for pixels of 32 bits.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.mode in ("I", "F"):  # Pillow would clip them at 255: an image all white, or all black
            raise ValueError("pixels of 32 bits, which have no agreed range; save it with 8 bits")
        if image_size:
            image.draft("RGB" if channels == 3 else "L", (2 * image_size, 2 * image_size))  # JPEGs: decode less
        image.load()
        with contextlib.suppress(Exception):  # damaged metadata, of which Pillow says many things, spoil no pixels
            image = ImageOps.exif_transpose(image)  # as the camera was held
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB" if channels == 3 else "L")


def picture(path):
    """One image file to look at: as decode(), as large as it is up to PICTURE, never enlarged."""
    with Image.open(path, formats=FORMATS) as image:
        side = min(PICTURE, *image.size)
    return decode(path, side, 3)


class FolderImages:
    """The images of a folder: row i is paths[i] below root.

    skip_bad: images that cannot be read are none of the usable rows. backend: how they are kept, "memory" (decoded when
    asked for), "cache" (all decoded once, to a file), "files" (decoded anew each time), or "auto": the first of these
    that there is room for. cache_dir: of the cache; below root when not given. part: ends its name, where others are of
    the same root, too.
    """

    part = ""

    def __init__(self, root, paths, image_size, channels, skip_bad=False, backend="auto", cache_dir=None):
        self.root, self.paths, self.image_size, self.channels = root, paths, image_size, channels
        self.skip_bad, self.backend, self.cache_dir = skip_bad, backend, cache_dir
        self._decoded = np.zeros(len(paths), bool)  # rows of _pixels
        self.cache = self._bad = None

    def __len__(self):
        return len(self.paths)

    @property
    def shape(self):
        return len(self), self.image_size, self.image_size, self.channels

    @cached_property
    def _pixels(self):
        return np.empty(self.shape, np.uint8)  # rows that nobody asks for take no memory

    def decode_row(self, row):
        return decode(self.root / self.paths[row], self.image_size, self.channels)

    def count_channels(self):
        """1 when 64 images spread evenly over the folder are all grey, else 3."""
        for row in np.unique(np.linspace(0, len(self) - 1, 64).astype(int)):
            try:
                with Image.open(self.root / self.paths[row], formats=FORMATS) as image:
                    if image.mode not in GREY_MODES:
                        return 3
            except Exception:  # not an image: decoding it will say so by name
                continue
        return 1

    def fits_in_memory(self, rows):
        """Whether the rows that are not decoded yet take at most half of the memory that is free."""
        return self._missing(rows) <= available_memory() / 2

    def _missing(self, rows):
        """Bytes of the rows that are not decoded yet."""
        return int(np.count_nonzero(~self._decoded[rows])) * self.image_size**2 * self.channels

    def how(self, rows, left=math.inf):
        """How rows are kept: "memory", "cache" (which is made, or opened) or "files". left: bytes, where it is a GPU's.

        BadInput where memory is asked for and too small.
        """
        size = len(rows) * self.image_size**2 * self.channels
        if self.backend == "memory" and (self._missing(rows) > available_memory() or size > left):
            raise BadInput(
                f"--data_backend memory: {len(rows)} images of {self.image_size} x {self.image_size} pixels take "
                f"{size / 1e9:.1f} GB, {min(available_memory(), left) / 1e9:.1f} GB are free; give cache, files or auto"
            )
        if self.backend != "auto":
            kind = self.backend
        elif self.cache is None and self.fits_in_memory(rows) and size <= left / 2:
            kind = "memory"
        else:
            kind = "cache" if self.cache is not None or cached.has_room(self) else "files"
        if kind == "cache" and self.cache is None:
            self.cache, self._bad = cached.open_or_make(self)
        return kind

    @cached_property
    def usable(self) -> np.ndarray:
        """(n,) the rows in use: all, or with skip_bad those that can be decoded, which decodes each file once."""
        rows = np.arange(len(self))
        if not self.skip_bad:
            return rows
        if self.backend in ("auto", "cache") and cached.path_of(self).exists():
            self.cache, self._bad = cached.open_or_make(self)
            return np.setdiff1d(rows, self._bad)
        keep, bad = self.backend in ("auto", "memory") and self.fits_in_memory(rows), {}
        for some in np.array_split(rows, -(-len(rows) // chunk_size(self.shape))):
            bad |= self.try_to_decode(some, keep)[1]
        if len(bad) == len(rows):
            raise BadInput(self.complaint(bad))
        return np.setdiff1d(rows, list(bad))

    def into_memory(self, rows: np.ndarray) -> torch.Tensor:
        """A uint8 tensor (N, S, S, C) in which these rows are decoded, each file once: all calls return the same one.

        Rows that nobody asked for hold anything, and take no memory.
        """
        rows = np.asarray(rows)
        self.decode_rows(rows[~self._decoded[rows]], keep=True)
        return torch.from_numpy(self._pixels)

    def decode_rows(self, rows: np.ndarray, keep: bool = False) -> np.ndarray:
        """Rows as uint8 (len(rows), S, S, C), decoded in parallel. BadInput names files that are no images.

        keep: for into_memory().
        """
        if self.cache is not None:
            return self.cache[rows]
        pixels, problems = self.try_to_decode(rows, keep)
        if problems:
            raise BadInput(self.complaint(problems))
        return pixels

    def try_to_decode(self, rows, keep=False):
        """(uint8 (len(rows), S, S, C), {row: what is wrong with its file})."""
        pixels, problems = np.empty((len(rows), *self.shape[1:]), np.uint8), {}

        def work(place, row):
            try:
                pixels[place] = self.decode_row(row)
            except Exception as problem:  # Pillow raises many kinds for damaged files
                if is_out_of_memory(problem):
                    raise
                problems[int(row)] = problem

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the interpreter lock
            done = pool.map(work, range(len(rows)), rows)
            list(tqdm(done, total=len(rows), desc="decode", disable=None, leave=False))
        if keep:
            good = ~np.isin(rows, list(problems))
            self._pixels[rows[good]], self._decoded[rows[good]] = pixels[good], True
        return pixels, problems

    def complaint(self, problems):
        first = [(printable(str(self.root / self.paths[row])), reason(problems[row])) for row in sorted(problems)[:5]]
        shown = "; ".join(f"{path} ({problem})" for path, problem in first)
        return (
            f"{self.root}: {len(problems)} images cannot be read, mend or remove them: "
            f"{shown}{' ...' if len(problems) > 5 else ''}"
        )


def crop_row(images, row, seed):
    """A random resized crop of a file's own pixels, mirrored half of the time, as (S, S, C) uint8; from the seed alone.

    As ImageNet's networks are trained (Szegedy et al. 2015, and torchvision's references): area .08 to 1, aspect 3/4 to
    4/3.
    """
    from torchvision.transforms import v2  # takes half a second, and is needed here alone

    image = v2.functional.pil_to_tensor(read(images.root / images.paths[row], images.channels))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        crop = v2.RandomResizedCrop(images.image_size, antialias=True)(image)
        return v2.RandomHorizontalFlip()(crop).permute(1, 2, 0)


def mean_and_std(images: "torch.Tensor | FolderImages") -> tuple[tuple, tuple]:
    """Per-channel mean and standard deviation of pixels in [0, 1].

    Of a folder with more images than MOST_MEASURED, that many are measured, evenly spread: which ones follows
    from the set alone, not from the memory that is free, or two equal runs would differ.
    """
    rows = np.arange(len(images))
    if isinstance(images, FolderImages):
        rows = images.usable[np.unique(np.linspace(0, len(images.usable) - 1, MOST_MEASURED).astype(int))]
        if images.cache is None and images.backend in ("auto", "memory") and images.fits_in_memory(rows):
            images = images.into_memory(rows)
    count = total = square = 0
    for some in np.array_split(rows, -(-len(rows) // chunk_size(images.shape))):
        chunk = torch.from_numpy(images.decode_rows(some)) if isinstance(images, FolderImages) else images[some]
        pixels = (chunk / 255).double().flatten(0, 2)
        count, total, square = count + len(pixels), total + pixels.sum(0), square + (pixels**2).sum(0)
    mean = total / count
    std = (square / count - mean**2).clamp_min(1e-6).sqrt()
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def chunk_size(shape):
    """How many images of (N, H, W, C) are looked at at a time: their pixels in float64 take 32 MiB."""
    return max(1, 2**22 // math.prod(shape[1:]))
