"""The decoded images of a folder in one file, made once and shared by runs: uint8 (N, S, S, C), row by row.

Beside the .npy a .json says what it was made of. It is made whole or not at all, and one of another folder, or of files
that were changed since, is refused.
"""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.files import read_json, whole_file, write_json
from common.untrusted import load_npy, printable

FOLDER = ".decoded"  # below the images; hidden, so that it is no class


def path_of(images):
    """Where the cache of FolderImages is, or would be."""
    size = "x".join(map(str, images.shape[1:])) + images.part
    if images.cache_dir is None:
        return Path(images.root, FOLDER, f"{size}.npy")
    root = Path(os.path.abspath(images.root))
    return Path(images.cache_dir, f"{root.parent.name}_{root.name}_{size}.npy")


def has_room(images):
    """Whether it is there, or the disk that it would be on can be written to and has room for it."""
    path = path_of(images)
    if path.exists():
        return True
    place = next(parent for parent in path.parents if parent.is_dir())
    size = int(np.prod(images.shape, dtype=np.int64))
    return os.access(place, os.W_OK) and size < 0.9 * shutil.disk_usage(place).free


def open_or_make(images):
    """(N, S, S, C) uint8, a read-only memory map, and the rows that cannot be read. BadInput where it is of other data.

    Without images.skip_bad, images that cannot be read are BadInput, too.
    """
    path, of_now = path_of(images), fingerprint(images)
    if not path.exists():
        _make(images, path, of_now)
    described = read_json(path.with_suffix(".json"))
    if described.get("fingerprint") != of_now or described.get("shape") != list(images.shape):
        raise BadInput(
            f"{path}: was made of other images than those in {printable(str(images.root))}, or they have changed; "
            "remove it, or give another --cache_dir"
        )
    bad = np.array(described["bad"], np.int64)
    if len(bad) and not images.skip_bad:
        raise BadInput(images.complaint(images.try_to_decode(bad)[1]))
    return load_npy(path, mapped=True), bad


def fingerprint(images):
    """SHA-256 of all paths, sizes and times of change: reading 100 GB anew would take longer than they are worth."""
    found = hashlib.sha256()
    for path in images.paths:
        try:
            stat = os.stat(images.root / path)
            size, time = stat.st_size, stat.st_mtime_ns
        except OSError:  # is one that cannot be read
            size = time = 0
        found.update(f"{path}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _make(images, path, of_now):
    made_folder, size = not path.parent.exists(), np.prod(images.shape, dtype=np.int64) / 1e9
    print(f"{path}: decoding {len(images)} images once, {size:.1f} GB", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():  # else another process made it meanwhile
            with whole_file(path) as f:
                described = {"shape": images.shape, "fingerprint": of_now, "bad": _write(images, f)}
                write_json(path.with_suffix(".json"), described)
    except BaseException:
        if made_folder and not any(path.parent.iterdir()):
            path.parent.rmdir()
        raise
    finally:
        os.close(folder)


def _write(images, file):
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": images.shape})
    bad, chunk = {}, max(1, 2**26 // int(np.prod(images.shape[1:])))  # 64 MiB
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // chunk)):
        pixels, problems = images.try_to_decode(rows)
        bad |= problems
        if bad and not images.skip_bad:
            raise BadInput(images.complaint(bad))
        file.write(pixels.data)
    return sorted(bad)
