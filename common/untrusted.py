"""What comes from elsewhere: files are opened without executing anything and bounded in size, text cannot act.

Whatever is wrong with such a file is BadInput: one line that names it, what was found and what to do.
"""

import contextlib
import math
import os
import pickle
import re
import resource
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from common.errors import BadInput
from common.hardware import available_memory

MOST_SHOWN = 300  # characters of text in a message
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet may take for a formula, and what as_cell makes of that

# --------------------------------------------------------------------------------------------------- files


def load_pt(path: str | Path, what: str | None = None, allow: Iterable = ()):
    """What torch.save wrote to path, on the CPU: tensors and plain values.

    what: the message's beginning ("PATH: cannot be read" when not given). allow: what else may be constructed, as
    for torch.serialization.safe_globals.
    """
    with _told(path, what), torch.serialization.safe_globals(list(allow)):
        size = os.path.getsize(path)
        _check_memory(size)
        with open(path, "rb") as f:
            is_zip = f.read(4) == b"PK\x03\x04"  # torch's own test
        if is_zip:
            _check_archive(path, size)
        with _bounded_memory(4 * size + 2**29):
            return torch.load(path, map_location="cpu", weights_only=True)


def load_npy(path: str | Path, what: str | None = None, mapped: bool = False) -> np.ndarray:
    """The array of a .npy file, which must hold exactly what its header claims. what: as for load_pt.

    mapped: as a read-only memory map.
    """
    with _told(path, what), open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        _check_header(f, size)
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        _check_memory(size)
        return _read_array(f)


def load_npz(path: str | Path, keys: Iterable[str] | Callable, what: str | None = None) -> dict[str, np.ndarray]:
    """{key: array} of those of `keys` that an .npz file has. what: as for load_pt.

    keys: names, or a function that gets the names of all arrays and returns the ones wanted.
    """
    with _told(path, what), zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        wanted = {key: members[key] for key in (keys(list(members)) if callable(keys) else keys) if key in members}
        _check_memory(sum(member.file_size for member in wanted.values()))
        return {key: _read_member(archive, member) for key, member in wanted.items()}


@contextlib.contextmanager
def _told(path, what):
    """BadInput, whatever the block raises: numpy, zipfile and torch have a dozen kinds for a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd versions of a format
            yield
    except (BadInput, MemoryError):
        raise
    except Exception as problem:
        raise BadInput(f"{what or f'{path}: cannot be read'} ({reason(problem)}); give an intact file") from None


def reason(problem: BaseException) -> str:
    """What an exception says, for a place in a line."""
    if isinstance(problem, pickle.UnpicklingError):  # torch's own words advise to load it all the same
        return "damaged, or with more in it than tensors and plain values"
    said = getattr(problem, "strerror", None) or str(problem).strip() or type(problem).__name__
    return printable(said.splitlines()[0])


def _check_memory(size):
    if size > available_memory():
        raise ValueError(f"takes {size:,} bytes of memory, {available_memory():,} are free")


@contextlib.contextmanager
def _bounded_memory(size):
    """ValueError where the block takes more than so many bytes (on Linux): what torch lets a pickle call can ask for
    any number of them."""
    try:
        with open("/proc/self/statm") as f:
            used = int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (used + size, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    except MemoryError:
        raise ValueError("MemoryError: it asks for more than a file of its size holds") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _check_archive(path, size):
    """ValueError unless a zip can be torch.save's, which compresses nothing, so that its members fit the file."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if compressed := [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"{compressed[0]!r} in it is compressed, which torch.save never does")
        if (claimed := sum(max(m.file_size, m.compress_size) for m in members)) > size:
            raise ValueError(f"claims to hold {claimed:,} bytes in a file of {size:,}")
        if damaged := archive.testzip():  # torch does not compare the checksums
            raise ValueError(f"the checksum of {damaged!r} in it is wrong")


def _check_header(f, size):
    """ValueError unless the header of a .npy of `size` bytes claims just what follows it, and no objects."""
    version = np.lib.format.read_magic(f)
    if version not in NPY_HEADERS:
        raise ValueError(f"a .npy of version {version}")
    shape, _, dtype = NPY_HEADERS[version](f)
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never opened; save it anew as numbers or text, by .astype")
    claimed, held = math.prod(shape) * dtype.itemsize, size - f.tell()
    if claimed != held or not dtype.itemsize:
        raise ValueError(f"its header claims {claimed:,} bytes, {shape} of {dtype}, and it holds {held:,}")


def _read_member(archive, member):
    with archive.open(member) as f:
        try:
            _check_header(f, member.file_size)
        except ValueError as problem:
            raise ValueError(f"{member.filename.removesuffix('.npy')} in it: {problem}") from None
        return _read_array(f)


def _read_array(f):
    f.seek(0)
    return np.lib.format.read_array(f, allow_pickle=False)


def class_numbers(labels: np.ndarray, what: str) -> np.ndarray:
    """Class numbers as (N,) int64, of any whole numbers (N,) or (N, 1), also saved as floats; else BadInput."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all() and (np.abs(labels) < 2**53).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise BadInput(f"{what}: must be whole numbers of shape (N,), found {labels.shape} of {labels.dtype}")
    return labels.astype(np.int64)


def check_range(labels: np.ndarray, num_classes: int, what: str) -> None:
    """BadInput unless class numbers (N,) are 0 to num_classes - 1."""
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        from_one = labels.min() == 1 and labels.max() == num_classes
        hint = "; these count from 1: subtract 1" if from_one else ""
        raise BadInput(f"{what}: has the label {wrong}, labels go from 0 to {num_classes - 1}{hint}")


# ---------------------------------------------------------------------------------------------------- text


def printable(text: str) -> str:
    """Text for a message, cut where it is endless: what a terminal would act on is written as \\x1b and such, and so
    are bytes that are no UTF-8."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:MOST_SHOWN])


def valid_text(text: str) -> str:
    """Text that every file and figure takes: bytes that are no UTF-8 (in a file's name, say) as \\udcff and such."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nfc(text: str) -> str:
    """Of the two ways to write an accented letter the one: systems and archives change it on the way."""
    return unicodedata.normalize("NFC", text)


def as_cell(text) -> str:
    """Text for a cell of a CSV file: what a spreadsheet would take for a formula gets an apostrophe in front.

    So does what looks like the result ('=x), so that from_cell gives back every text as it was.
    """
    text = str(text)
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text of which as_cell made the cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
