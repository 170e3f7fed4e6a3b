"""Recording learning paths: every sample's predicted distribution, step after step, streamed to one .npy file.

This file needs torch and numpy only: copy it into any project. In a training loop:

    with PathRecorder("path.npy", num_samples=50_000, num_steps=epochs, num_classes=10) as recorder:
        ...
        recorder.record(epoch, idx, logits.softmax(1))   # after each forward pass; idx: the rows of this batch

`np.load("path.npy", mmap_mode="r")` reads (samples, steps, classes) at any moment, during the run and after a
crash; path.json says which steps are complete.
"""

import json
import os
import time
import zlib
from pathlib import Path

import numpy as np
import torch

FLUSH_BYTES, FLUSH_SECONDS = 16 * 2**20, 10


class PathRecorder:
    """Streams an (N, T, K) array to `path` (.npy) and what is complete of it to the .json beside it.

    num_samples: N. num_steps: T. num_classes: K. dtype: "float16" (p above .9998 becomes 1; small classes keep
    three digits) or "float32". rows: (M,) sample idx, when only these are followed: then num_samples is M, and
    record() still takes sample idx. resume: go on with the file at path, whose complete steps must be intact; it may
    have fewer steps than num_steps: then it grows. metadata: a dict of your own for the .json, such as
    {"step": "epoch"}.

    Steps are recorded in rising order, each by any number of record() calls. A step is complete when a later
    one is recorded or close() is called; a context left by an exception does not complete its last step. Rows
    never recorded stay zero. Memory: one step, and complete steps up to 16 MiB or 10 s, which are then written
    together; until then they stay on their device. Raises FileExistsError when there is a file at path and
    resume is false, ValueError when it does not fit.
    """

    def __init__(
        self, path, num_samples, num_steps, num_classes, dtype="float16", rows=None, resume=False, metadata=None
    ):
        if np.dtype(dtype) not in (np.float16, np.float32):
            raise ValueError(f"dtype must be float16 or float32, not {dtype}")
        if rows is not None and len(rows) != num_samples:
            raise ValueError(f"{len(rows)} rows are followed, but num_samples is {num_samples}")
        self.path, self.shape, self.dtype = Path(path), (num_samples, num_steps, num_classes), np.dtype(dtype)
        self.rows = None if rows is None else np.asarray(rows, np.int64)
        self.metadata = dict(metadata or {})
        self.checksums = {}  # complete step on disk -> CRC-32 of its values
        self._step = self._values = self._place = None  # the open step, its (N, K) tensor; sample idx -> row
        self._pending, self._flushed_at = [], time.monotonic()
        self._checked = False
        if self.path.exists():
            if not resume:
                raise FileExistsError(f"{self.path}: there is a path already; choose another name, or resume it")
            self._open_again()
        else:
            self._make_file(self.path)
            self._write_sidecar()

    @torch.no_grad()
    def record(self, step, idx, prob):
        """Store predictions of a step. idx: (B,) sample idx. prob: (B, K), on any device.

        Steps are kept on prob's device, so that a GPU is waited for only when steps are written. A row of prob
        with a value that is not finite is not stored. Raises ValueError for a step that lies before the open
        one or outside 0 .. num_steps - 1, (on the CPU) for a sample that is not followed, and (on the first call
        only, since a GPU would have to be waited for) for rows that are not >= 0 and sum to 1.
        """
        if not 0 <= step < self.shape[1]:
            raise ValueError(f"step {step} lies outside 0 .. {self.shape[1] - 1}")
        prob, idx = torch.as_tensor(prob).detach(), torch.as_tensor(idx)
        if prob.shape != (len(idx), self.shape[2]):
            raise ValueError(f"prob must have shape {(len(idx), self.shape[2])}, not {tuple(prob.shape)}")
        if not self._checked and len(idx):
            _check_distributions(prob)
            self._checked = True
        if step != self._step:
            self._begin(step, prob.device)
        self._values = self._values.to(prob.device)  # a step that was gone back to comes from a file
        prob = prob.to(self._values.dtype)
        places = self._places(idx.to(prob.device))
        finite = prob.isfinite().all(1, keepdim=True)
        self._values[places] = torch.where(finite, prob, self._values[places])

    def close(self):
        """Complete the open step, write everything, close the file. A second call does nothing."""
        if self._file is not None:
            self._complete()
            self._close_file()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        if kind is None:
            self.close()
        elif self._file is not None:
            self._close_file()

    def state_dict(self):
        """For anybody's checkpoint: the open step and its rows so far. Complete steps are on disk when it returns."""
        self._flush()
        return {"step": self._step, "values": None if self._values is None else self._values.cpu().clone()}

    def load_state_dict(self, state):
        """Go back to a saved moment: steps from there on count as not recorded, and are written anew."""
        self._pending.clear()
        self._step = state["step"]
        self._values = None if state["values"] is None else state["values"].clone()
        first_open = 0 if self._step is None else self._step
        self.checksums = {step: crc for step, crc in self.checksums.items() if step < first_open}
        self._write_sidecar()

    # ------------------------------------------------------------------------------------ the open step

    def _begin(self, step, device):
        last = max(self.checksums, default=-1) if self._step is None else self._step
        if step <= last:
            raise ValueError(f"step {step} lies at or before step {last}: it is complete in {self.path} already")
        self._complete()
        self._step = step
        self._values = torch.zeros(self.shape[0], self.shape[2], dtype=torch.float32, device=device)

    def _places(self, idx):
        on_cpu = idx.device.type == "cpu"  # elsewhere the check would wait for the device
        last = self.shape[0] - 1 if self.rows is None else int(self.rows.max())
        if on_cpu and len(idx) and not 0 <= int(idx.min()) <= int(idx.max()) <= last:
            raise ValueError(f"idx holds a sample that is not followed: samples go from 0 to {last}")
        if self.rows is None:
            return idx
        if self._place is None or self._place.device != idx.device:
            place = torch.full((int(self.rows.max()) + 1,), -1)
            place[torch.from_numpy(self.rows)] = torch.arange(len(self.rows))
            self._place = place.to(idx.device)
        if on_cpu and (self._place[idx] < 0).any():
            raise ValueError("idx holds a sample that is not among the rows followed")
        return self._place[idx]

    def _complete(self):
        if self._step is None:
            return
        self._pending.append((self._step, self._values))
        self._step = self._values = None
        waiting = sum(values.nbytes for _, values in self._pending)
        if waiting >= FLUSH_BYTES or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self._flush()

    # --------------------------------------------------------------------------------------------- disk

    def _make_file(self, path):
        # Fortran order: a step is then K contiguous runs of N values instead of N * K scattered ones.
        header = {"descr": self.dtype.newbyteorder("<").str, "fortran_order": True, "shape": self.shape}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(os.dup(self._file), "wb") as f:
            np.lib.format.write_array_header_1_0(f, header)
            self._offset = f.tell()
        # Written with pwrite, never through a mapping: a full disk would kill a mapped writer with SIGBUS.
        os.ftruncate(self._file, self._offset + int(np.prod(self.shape)) * self.dtype.itemsize)

    def _open_again(self):
        sidecar = read_sidecar(self.path)
        with open(self.path, "rb") as f:
            try:
                np.lib.format.read_magic(f)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(f)
            except ValueError as problem:
                raise ValueError(f"{self.path}: not a .npy file ({problem})") from None
            self._offset = f.tell()
        rows = None if self.rows is None else self.rows.tolist()
        fits = shape[:1] + shape[2:] == self.shape[:1] + self.shape[2:] and shape[1] <= self.shape[1]
        if not (fits and fortran and dtype == self.dtype) or sidecar.get("rows") != rows:
            raise ValueError(f"{self.path}: holds another path, of shape {shape} and {dtype}; choose another name")
        if self._offset + int(np.prod(shape)) * dtype.itemsize != self.path.stat().st_size:
            raise ValueError(f"{self.path}: its end is missing; take an intact copy")
        if damaged := damaged_steps(self.path):
            raise ValueError(f"{self.path}: step {damaged[0]} is not what was written; take an intact copy")
        self.checksums = {int(step): crc for step, crc in sidecar["complete"].items()}
        self.metadata = {**sidecar.get("metadata", {}), **self.metadata}
        if shape[1] < self.shape[1]:
            self._grow()
        else:
            self._file = os.open(self.path, os.O_RDWR)

    def _grow(self):
        """Copy the complete steps into a file with room for more, which then takes the place of this one."""
        steps, partial = np.load(self.path, mmap_mode="r"), self.path.with_name(self.path.name + ".partial")
        partial.unlink(missing_ok=True)
        self._make_file(partial)
        for step in self.checksums:
            self._write_step(step, np.ascontiguousarray(steps[:, step].T))
        os.fsync(self._file)
        os.replace(partial, self.path)
        self._write_sidecar()

    def _flush(self):
        """Write the complete steps that wait, sync them, then list them in the .json."""
        self._flushed_at = time.monotonic()
        if not self._pending:
            return
        # (K, N) each: as it lies on disk
        written = [(step, values.T.contiguous().cpu().numpy().astype(self.dtype)) for step, values in self._pending]
        try:
            for step, values in written:
                self._write_step(step, values)
            os.fsync(self._file)
        except OSError as problem:  # a full disk's error names no file
            problem.filename = str(self.path)
            raise
        self.checksums |= {step: zlib.crc32(values) for step, values in written}
        self._pending.clear()
        self._write_sidecar()

    def _write_step(self, step, values):
        num_samples, num_steps, _ = self.shape
        for k, run in enumerate(values):
            _write_all(self._file, run, self._offset + (k * num_steps + step) * num_samples * self.dtype.itemsize)

    def _close_file(self):
        try:
            self._flush()
        finally:
            os.close(self._file)
            self._file = None

    def _write_sidecar(self):
        content = {
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "rows": None if self.rows is None else self.rows.tolist(),
            "complete_steps": len(self.checksums),
            "complete": {str(step): crc for step, crc in self.checksums.items()},
            "metadata": self.metadata,
        }
        content["crc32"] = _crc32_of(content)
        target = self.path.with_suffix(".json")
        partial = target.with_name(target.name + ".partial")
        try:
            with open(partial, "w") as f:
                json.dump(content, f)
                f.flush()
                os.fsync(f.fileno())
            os.replace(partial, target)
        except OSError as problem:
            partial.unlink(missing_ok=True)
            problem.filename = str(target)
            raise


def _check_distributions(prob):
    finite = prob[prob.isfinite().all(1)].float()
    if (finite < 0).any() or ((finite.sum(1) - 1).abs() > 0.01).any():  # bfloat16 is off by up to .004
        raise ValueError("the rows of prob must be >= 0 and sum to 1: give logits.softmax(1), not logits")


def read_sidecar(path):
    """The .json beside a path. ValueError that names it when it is missing or damaged."""
    sidecar = Path(path).with_suffix(".json")
    try:
        content = json.loads(sidecar.read_text())
    except (OSError, ValueError) as problem:
        raise ValueError(f"{sidecar}: not readable ({problem})") from None
    if not isinstance(content, dict) or not isinstance(content.get("complete"), dict):
        raise ValueError(f"{sidecar}: does not describe the path beside it; move it away, or take an intact copy")
    written = content.pop("crc32", None)  # files of before had none
    if written is not None and written != _crc32_of(content):
        raise ValueError(f"{sidecar}: is not what was written (its crc32 differs); take an intact copy")
    return content


def damaged_steps(path):
    """The steps that are listed as complete but whose values are not those that were written."""
    complete = read_sidecar(path)["complete"]
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return [int(step) for step, crc in complete.items() if zlib.crc32(values[:, int(step)].T.tobytes()) != crc]


def _crc32_of(content):
    as_read = json.loads(json.dumps(content))  # keys that are no text become text
    return zlib.crc32(json.dumps(as_read, sort_keys=True).encode())


def _write_all(file, values, offset):
    data = memoryview(np.ascontiguousarray(values)).cast("B")
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
