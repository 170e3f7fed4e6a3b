"""The prediction table of Filter-KD: a moving average of every training sample's predictions (q_smooth).

This file needs torch and numpy only: copy it into any project. In a training loop:

    table = PredictionTable(num_samples=50_000, num_classes=10, smoothing=0.05, device="cuda")
    ...
    table.update(idx, logits.detach().softmax(1))   # after each forward pass; idx: the rows of this batch
    ...
    table.save("q_smooth.npy")
"""

import contextlib
import hashlib
import json
import math
import os
import warnings
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch


def ema_step(average, new, smoothing):
    """One step of the exponential moving average (Algorithm 1): (1 - smoothing) * average + smoothing * new.

    An array or a tensor is changed in place, and returned: of many classes, another temporary array would cost more
    than the arithmetic.
    """
    average *= 1 - smoothing
    average += smoothing * new
    return average


class PredictionTable:
    """A (num_samples, num_classes) table; row idx averages the predictions made for sample idx.

    values: (N, K) float32, rows never visited are zeros. visited: (N,) bool. smoothing: in (0, 1], the weight
    of the newest prediction. device: where the table lives and is updated.
    """

    ending = ".npy"
    collective = False  # whether all processes have to call a method together
    stores = ("values",)  # names of the tensors that hold the rows: (N, ...) each

    def __init__(self, num_samples, num_classes, smoothing, device="cpu"):
        self._start(smoothing, num_samples, device)
        self.values = torch.zeros(num_samples, num_classes, device=device)

    def _start(self, smoothing, num_samples, device):
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must lie in (0, 1], not {smoothing}")
        self.smoothing = float(smoothing)
        self.visited = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self._checked = False

    @property
    def shape(self):
        """(N, K)."""
        return tuple(self.values.shape)

    def rows(self, idx):
        """Rows idx (B,) as (B, K) float32, on the table's device; of those never visited, zeros."""
        return self._unpack(*self._take(idx))

    def to(self, device):
        """The table itself, moved to a device."""
        for name in (*self.stores, "visited"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    # How rows are kept: here as they are.
    def _pack(self, rows):
        return (rows,)

    def _unpack(self, values):
        return values

    def _take(self, idx):
        return [getattr(self, name).index_select(0, idx) for name in self.stores]

    @torch.no_grad()
    def update(self, idx, prob):
        """Average a batch of predictions into its rows: the first visit stores, later ones mix.

        idx: (B,) int64, distinct rows (a repeat raises ValueError on a CPU table; on other devices the check
        would cost a synchronisation, and which of two predictions wins is undefined). prob: (B, K), rows
        >= 0 that sum to 1 (ValueError otherwise, on the first update only: a GPU would have to be waited for). A
        row of prob with a value that is not finite leaves its table row as it was. Everything is on the table's
        device or is brought there.
        """
        if self.smoothing is None:
            raise ValueError("this table was loaded without its .json: set .smoothing before updating it")
        idx = torch.as_tensor(idx, device=self.visited.device)
        idx = idx.long() if idx.dtype == torch.int32 else idx
        prob = torch.as_tensor(prob).detach().to(self.visited.device, torch.float32)
        if prob.shape != (len(idx), self.shape[1]):
            raise ValueError(f"prob must have shape {(len(idx), self.shape[1])}, not {tuple(prob.shape)}")
        if not self._checked and len(idx):
            _check_distributions(prob)
            self._checked = True
        on_cpu = self.visited.device.type == "cpu"  # where a flag is read at once; a GPU would have to be waited for
        if on_cpu and len(idx.unique()) < len(idx):
            raise ValueError("idx holds a sample twice: the samples of a batch must be distinct")
        kept, seen = self._take(idx), self.visited.index_select(0, idx)
        rows = self._unpack(*kept)
        if on_cpu and seen.all() and math.isfinite(prob.sum()):  # a sum is finite only when all that is summed is
            new = self._pack(ema_step(rows, prob, self.smoothing))
        else:
            finite = torch.linalg.vector_norm(prob, 1, 1) < torch.inf
            new = self._pack(torch.where(seen[:, None], ema_step(rows.clone(), prob, self.smoothing), prob))
            new = [torch.where(finite.view(-1, *[1] * (n.ndim - 1)), n, k) for n, k in zip(new, kept, strict=True)]
            self.visited.index_copy_(0, idx, seen | finite)
        for name, part in zip(self.stores, new, strict=True):
            getattr(self, name).index_copy_(0, idx, part)

    def state_dict(self):
        """For anybody's checkpoint: values, visited, smoothing."""
        return {name: getattr(self, name) for name in (*self.stores, "visited", "smoothing")}

    def load_state_dict(self, state):
        """Take over a state_dict() of a table of the same shape (ValueError otherwise)."""
        for name in self.stores:
            ours, theirs = getattr(self, name), state[name]
            if theirs.shape != ours.shape:
                raise ValueError(f"a table of shape {tuple(theirs.shape)} does not fit one of {tuple(ours.shape)}")
        for name in (*self.stores, "visited"):
            getattr(self, name).copy_(state[name])
        self.smoothing = state["smoothing"]

    def save(self, path, metadata=None):
        """Write path (.npy: (N, K) float32, row = idx, rows never visited zero) and a .json beside it.

        The file is written whole or not at all. The .json holds shape, smoothing, rows visited, the SHA-256
        of the .npy, and metadata (a dict of your own). It is written first and names the checksum of the
        file it replaces too, so that a stop between the two leaves a table that loads.
        """
        self._write(path, self._described(metadata))

    def _write(self, path, described):
        write_table(path, partial(write_npy, shape=self.shape, blocks=self._blocks()), described)

    def _blocks(self):
        return (self.values[block].cpu() for block in blocks_of(*self.shape))

    def _described(self, metadata):
        own = {"shape": list(self.shape), "smoothing": self.smoothing, "rows_visited": int(self.visited.sum())}
        return {**(metadata or {}), **own}

    @classmethod
    def load(cls, path):
        """The table saved at path, on the CPU. ValueError names the file and what is wrong with it.

        Never unpickles. A .npy without its .json (the published code writes such) is accepted, with a
        warning, once its shape and values make sense; its smoothing is not known (None), so that it cannot be
        updated before it is set.
        """
        sidecar = read_sidecar(path)
        table = cls.of(read_distributions(path, may_be_zero=True))
        table._fit(path, sidecar)
        return table

    @classmethod
    def of(cls, values):
        """A table of rows (N, K) that somebody else averaged; rows of zeros count as never visited."""
        table = cls(0, 0, 1, values.device)
        table.values, table.visited, table.smoothing = values.float(), values.sum(1) > 0, None
        return table

    def _fit(self, path, sidecar):
        """Take the smoothing from a sidecar. ValueError when the rows that were read are not those it speaks of."""
        if sidecar is None:
            beside = sidecar_path(path).name
            warnings.warn(f"{path}: no {beside} beside it; accepted after checking shape and values", stacklevel=3)
            sidecar = {}
        for name, ours in {"shape": list(self.shape), "rows_visited": int(self.visited.sum())}.items():
            if sidecar.get(name, ours) != ours:
                raise ValueError(f"{path}: {name} is {ours}, its .json says {sidecar[name]}; take an intact copy")
        self.smoothing = sidecar.get("smoothing")


def blocks_of(num_rows, num_classes, multiple_of=1):
    """Slices that cover num_rows rows, 16 MiB of float32 each; their bounds are multiples of a number of rows."""
    step = max(1, 2**22 // max(num_classes, 1) // multiple_of) * multiple_of
    return [slice(a, min(a + step, num_rows)) for a in range(0, num_rows, step)]


def write_npy(file, shape, blocks):
    """What np.save writes of a float32 array, from blocks of its rows: tensors on the CPU."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    for block in blocks:
        file.write(memoryview(block.numpy().astype("<f4", "C", copy=False)).cast("B"))


def write_table(path, write, described):
    """Write a table's file by write(file), and before it the .json beside it: described, and the checksums."""
    path = Path(path)
    with _whole_file(path) as f:
        write(f)
        f.flush()
        sidecar = {
            **described,
            "sha256": _sha256(f.name),
            "sha256_before": _sha256(path) if path.exists() else None,
        }
        sidecar["crc32"] = _crc32_of(sidecar)
        with _whole_file(sidecar_path(path)) as json_file:
            json_file.write(json.dumps(sidecar, indent=1).encode())


def read_sidecar(path, needed=False):
    """The .json beside a table, or None where there is none and none is needed.

    ValueError when it does not fit the table's file.
    """
    path, beside = Path(path), sidecar_path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if not beside.exists():
        if needed:
            raise ValueError(f"{path}: no {beside.name} beside it, which says what it holds; take it along")
        return None
    sidecar, checksum = _read_json(beside), _sha256(path)
    if checksum == sidecar.get("sha256_before") != sidecar.get("sha256"):
        sidecar.pop("rows_visited", None)  # a stop came between the two: it speaks of the file that was to come
    elif checksum != sidecar.get("sha256"):
        raise ValueError(
            f"{path}: its checksum is not the one in {beside.name}: the file is "
            "damaged or was changed; take another copy"
        )
    return sidecar


def _check_distributions(prob):
    finite = prob[prob.isfinite().all(1)].float()
    if (finite < 0).any() or ((finite.sum(1) - 1).abs() > 0.01).any():  # bfloat16 is off by up to .004
        raise ValueError("the rows of prob must be >= 0 and sum to 1: give logits.softmax(1), not logits")


def sidecar_path(path):
    """The .json beside a .npy."""
    return Path(path).with_suffix(".json")


def read_distributions(path, may_be_zero=False, rows=slice(None)):
    """An (N, K) .npy of distributions as a float32 tensor: entries >= 0, rows that sum to 1.

    may_be_zero: rows of zeros are allowed (a table's rows that were never visited). rows: a slice, to read and check
    these alone. Never unpickles. Raises ValueError that names the file and what is wrong with it.
    """
    values = map_npy(path)[rows]
    read = np.empty(values.shape, np.float32)  # a copy: not the file
    for block in blocks_of(*values.shape):
        part = values[block]
        if not np.isfinite(part).all():
            raise ValueError(f"{path}: has values that are not finite (NaN or infinity); make it anew")
        total = part.sum(1, dtype=np.float64)
        if (part < 0).any() or not (np.isclose(total, 1, atol=1e-3) | (may_be_zero & (total == 0))).all():
            raise ValueError(f"{path}: its rows are not distributions (entries >= 0 that sum to 1); make it anew")
        read[block] = part
    return torch.from_numpy(read)


def map_npy(path):
    """An (N, K) .npy of floats as a read-only memory map. ValueError that names the file when it is none."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        values = np.lib.format.open_memmap(path, mode="r")  # nothing is allocated that is not there
    except Exception as problem:  # numpy has a dozen kinds for a damaged file
        raise ValueError(f"{path}: not a readable .npy array ({problem})") from None
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(f"{path}: expected an (N, K) array of floats, found shape {values.shape} of {values.dtype}")
    if values.nbytes != Path(path).stat().st_size - values.offset:
        raise ValueError(f"{path}: holds another number of values than its header says; take an intact copy")
    return values


@contextlib.contextmanager
def _whole_file(path):
    """Open a file that appears under its name only when the block ends without an exception."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as problem:  # a full disk's error names no file
        problem.filename = problem.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _read_json(path):
    try:
        content = json.loads(path.read_text())
    except ValueError as problem:
        raise ValueError(f"{path}: not readable as JSON ({problem})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object")
    written = content.pop("crc32", None)  # files of before had none
    if written is not None and written != _crc32_of(content):
        raise ValueError(f"{path}: is not what was written (its crc32 differs); take an intact copy")
    return content


def _crc32_of(content):
    as_read = json.loads(json.dumps(content))  # keys that are no text become text
    return zlib.crc32(json.dumps(as_read, sort_keys=True).encode())


def _sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
