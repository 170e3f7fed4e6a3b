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
from pathlib import Path

import numpy as np
import torch


def ema_step(average, new, smoothing):
    """One step of the exponential moving average (Algorithm 1): (1 - smoothing) * average + smoothing * new."""
    return (1 - smoothing) * average + smoothing * new


class PredictionTable:
    """A (num_samples, num_classes) table; row idx averages the predictions made for sample idx.

    values: (N, K) float32, rows never visited are zeros. visited: (N,) bool. smoothing: in (0, 1], the weight
    of the newest prediction. device: where the table lives and is updated.
    """

    def __init__(self, num_samples, num_classes, smoothing, device="cpu"):
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must lie in (0, 1], not {smoothing}")
        self.smoothing = float(smoothing)
        self.values = torch.zeros(num_samples, num_classes, device=device)
        self.visited = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self._last_seen_at = None  # (N,) scratch of the distinctness check, made when first needed
        self._checked = False

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
        idx = torch.as_tensor(idx, device=self.values.device)
        idx = idx.long() if idx.dtype == torch.int32 else idx
        prob = torch.as_tensor(prob).detach().to(self.values)
        if prob.shape != (len(idx), self.values.shape[1]):
            raise ValueError(f"prob must have shape {(len(idx), self.values.shape[1])}, not {tuple(prob.shape)}")
        if not self._checked and len(idx):
            _check_distributions(prob)
            self._checked = True
        on_cpu = self.values.device.type == "cpu"  # where a flag is read at once; a GPU would have to be waited for
        if on_cpu:
            self._check_distinct(idx)
        rows, seen = self.values.index_select(0, idx), self.visited.index_select(0, idx)
        if on_cpu and seen.all() and math.isfinite(prob.sum()):  # a sum is finite only when all that is summed is
            # ema_step() in place: of many classes, a temporary array costs more than the arithmetic
            self.values.index_copy_(0, idx, rows.mul_(1 - self.smoothing).add_(self.smoothing * prob))
            return
        # A GPU spends longer on starting an operation than on doing it: the fewest that do. lerp() is ema_step().
        finite = torch.linalg.vector_norm(prob, 1, 1) < torch.inf
        new = torch.where(finite[:, None], prob, rows)
        mixed = torch.lerp(rows, new, self.smoothing)
        self.values.index_copy_(0, idx, torch.where(seen[:, None], mixed, new))
        self.visited.index_copy_(0, idx, seen | finite)

    def _check_distinct(self, idx):
        # Write each position to its row and read it back: of two equal idx one finds the other's. Linear in
        # B, where sorting would not be.
        if self._last_seen_at is None:
            self._last_seen_at = torch.zeros(len(self.values), dtype=torch.int64)
        position = torch.arange(len(idx))
        self._last_seen_at.index_copy_(0, idx, position)
        if not torch.equal(self._last_seen_at.index_select(0, idx), position):
            raise ValueError("idx holds a sample twice: the samples of a batch must be distinct")

    def state_dict(self):
        """For anybody's checkpoint: values, visited, smoothing."""
        return {"values": self.values, "visited": self.visited, "smoothing": self.smoothing}

    def load_state_dict(self, state):
        """Take over a state_dict() of a table of the same shape (ValueError otherwise)."""
        if state["values"].shape != self.values.shape:
            raise ValueError(
                f"a table of shape {tuple(state['values'].shape)} does not fit one of {tuple(self.values.shape)}"
            )
        self.values.copy_(state["values"])
        self.visited.copy_(state["visited"])
        self.smoothing = state["smoothing"]

    def save(self, path, metadata=None):
        """Write path (.npy: (N, K) float32, row = idx, rows never visited zero) and a .json beside it.

        The file is written whole or not at all. The .json holds shape, smoothing, rows visited, the SHA-256
        of the .npy, and metadata (a dict of your own). It is written first and names the checksum of the
        file it replaces too, so that a stop between the two leaves a table that loads.
        """
        path = Path(path)
        values = self.values.cpu().numpy()
        with _whole_file(path) as f:
            np.save(f, values, allow_pickle=False)
            f.flush()
            sidecar = {
                **(metadata or {}),
                "shape": list(values.shape),
                "smoothing": self.smoothing,
                "rows_visited": int(self.visited.sum()),
                "sha256": _sha256(f.name),
                "sha256_before": _sha256(path) if path.exists() else None,
            }
            sidecar["crc32"] = _crc32_of(sidecar)
            with _whole_file(sidecar_path(path)) as json_file:
                json_file.write(json.dumps(sidecar, indent=1).encode())

    @classmethod
    def load(cls, path):
        """The table saved at path, on the CPU. ValueError names the file and what is wrong with it.

        Never unpickles. A .npy without its .json (the published code writes such) is accepted, with a
        warning, once its shape and values make sense; its smoothing is not known (None), so that it cannot be
        updated before it is set.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        sidecar = None
        if sidecar_path(path).exists():
            sidecar = _read_json(sidecar_path(path))
            if _sha256(path) not in (sidecar.get("sha256"), sidecar.get("sha256_before")):
                raise ValueError(
                    f"{path}: its checksum is not the one in {sidecar_path(path).name}: the file is "
                    "damaged or was changed; take another copy"
                )
        values = read_distributions(path, may_be_zero=True)
        if sidecar is None:
            warnings.warn(
                f"{path}: no {sidecar_path(path).name} beside it; accepted after checking shape and values",
                stacklevel=2,
            )
        elif list(values.shape) != sidecar.get("shape"):
            raise ValueError(f"{path}: has shape {tuple(values.shape)}, its .json says {sidecar.get('shape')}")
        table = cls.__new__(cls)
        table.smoothing = sidecar.get("smoothing") if sidecar else None
        table.values = values
        table.visited = table.values.sum(1) > 0
        table._last_seen_at, table._checked = None, False
        return table


def _check_distributions(prob):
    finite = prob[prob.isfinite().all(1)].float()
    if (finite < 0).any() or ((finite.sum(1) - 1).abs() > 0.01).any():  # bfloat16 is off by up to .004
        raise ValueError("the rows of prob must be >= 0 and sum to 1: give logits.softmax(1), not logits")


def sidecar_path(path):
    """The .json beside a .npy."""
    return Path(path).with_suffix(".json")


def read_distributions(path, may_be_zero=False):
    """An (N, K) .npy of distributions as a float32 tensor: entries >= 0, rows that sum to 1.

    may_be_zero: rows of zeros are allowed (a table's rows that were never visited). Never unpickles. Raises
    ValueError that names the file and what is wrong with it.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: nothing is allocated that is not there
    except Exception as problem:  # numpy has a dozen kinds for a damaged file
        raise ValueError(f"{path}: not a readable .npy array ({problem})") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f":
        found = f"shape {values.shape} of {values.dtype}" if isinstance(values, np.ndarray) else "an archive"
        raise ValueError(f"{path}: expected an (N, K) array of floats, found {found}")
    if values.nbytes != Path(path).stat().st_size - values.offset:
        raise ValueError(f"{path}: holds another number of values than its header says; take an intact copy")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: has values that are not finite (NaN or infinity); make it anew")
    total = values.sum(1, dtype=np.float64)
    if (values < 0).any() or not (np.isclose(total, 1, atol=1e-3) | (may_be_zero & (total == 0))).all():
        raise ValueError(f"{path}: its rows are not distributions (entries >= 0 that sum to 1); make it anew")
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))  # a copy: not the file


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
