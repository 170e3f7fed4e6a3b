"""The indexed loader: batches of (x, y, ny, idx), normalised, on the device, no sample dropped."""

import atexit
import contextlib
import copy
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader, default_collate

from common.errors import RunFailure, is_out_of_memory
from common.untrusted import printable, reason
from data import augment
from data.images import FolderImages, crop_row
from data.seeds import generator

NCHW = torch.contiguous_format


def num_batches(num_samples, batch_size, training=True):
    """Batches in an epoch: a short last one counts; in training one of a single sample joins the one before it."""
    full, rest = divmod(num_samples, batch_size)
    return full + (rest > 0 and not (training and rest == 1 and full > 0))


class IndexedLoader:
    """Iterating yields (x, y, ny, idx): x float32 (B, C, H, W) normalised, the rest int64 (B,), on `device`.

    images: uint8 tensor (N, H, W, C), or FolderImages too large for memory. y, ny, idx: (n,) clean label, possibly
    noisy label, row in the data set's own split. rows: (n,) where in `images` the samples are, so that several loaders
    share one tensor; by default `idx` in FolderImages, else all in order.
    order, augmentation: generators; None for a loader that always serves all rows in the given order, as is.
    Every iteration is an epoch: it draws an order and the augmentation of all samples from its generators,
    whose states are the loader's state_dict(). A short last batch is yielded; in training a last batch of
    one joins the batch before it, since BatchNorm needs two samples.
    rank, world_size: of the samples of each batch every world_size-th one, from rank on.
    """

    def __init__(
        self,
        images,
        y,
        ny,
        idx,
        batch_size,
        mean,
        std,
        device,
        *,
        rows=None,
        order=None,
        augmentation=None,
        augment_kind="none",
        num_workers=0,
        rank=0,
        world_size=1,
    ):
        self.device, self.batch_size, self.num_workers = torch.device(device), batch_size, num_workers
        self.streamed = isinstance(images, FolderImages)
        self.images = images if self.streamed else images.to(self.device)
        rows = rows if rows is not None else idx if self.streamed else torch.arange(len(idx))
        self.y, self.ny, self.idx, self.rows = (
            torch.as_tensor(v, dtype=torch.int64, device=self.device) for v in (y, ny, idx, rows)
        )
        self.order, self.augmentation, self.augment_kind = order, augmentation, augment_kind
        self.rank, self.world_size = rank, world_size
        std = torch.tensor(std, device=self.device)
        self.scale, self.shift = 1 / (255 * std), -torch.tensor(mean, device=self.device) / std

    def seed(self, seed):
        """Start the generators of order and augmentation from a run's seed."""
        self.order, self.augmentation = generator(seed, "order"), generator(seed, "augmentation")

    @property
    def num_samples(self):
        return len(self.idx)

    def __len__(self):
        """Batches in an epoch."""
        return num_batches(self.num_samples, self.batch_size, training=self.order is not None)

    def size_of(self, batch):
        """Samples of all ranks in batch number `batch`."""
        end = self.num_samples if batch + 1 == len(self) else (batch + 1) * self.batch_size
        return end - batch * self.batch_size

    def __iter__(self):
        return self.batches()

    def batches(self, first=0):
        """An epoch's batches from number `first` on; those before it are drawn but not made."""
        n = self.num_samples
        # Drawn on the CPU, the same for every device, and brought to the device once an epoch: each time a GPU waits.
        # Without an order nothing is brought.
        drawn = None if self.order is None else torch.randperm(n, generator=self.order)
        draws = augment.draw(self.augment_kind, n, tuple(self.images.shape[1:3]), self.augmentation)
        rows, y, ny, idx = self.rows, self.y, self.ny, self.idx
        if drawn is not None:  # all is put in order once an epoch: a batch is then a slice, which costs a GPU nothing
            position = drawn.to(self.device)
            rows, y, ny, idx = (v[position] for v in (rows, y, ny, idx))
            draws = {key: value[drawn].to(self.device) for key, value in draws.items()}
        starts = [b * self.batch_size for b in range(len(self))] + [n]
        parts = [slice(a + self.rank, b, self.world_size) for a, b in zip(starts, starts[1:], strict=False)][first:]
        if self.streamed:
            pixels = self._stream(rows.cpu(), parts, draws.pop("seed", None))
        else:
            pixels = (self.images.index_select(0, rows[part]) for part in parts)  # faster than indexing
        for part, images in zip(parts, pixels, strict=True):
            if draws:
                images = augment.apply(images, {key: value[part] for key, value in draws.items()})
            yield self._normalise(images), y[part], ny[part], idx[part]

    def _normalise(self, images):
        # The NHWC memory that the gather left, seen as NCHW: what channels_last networks want anyway.
        if self.device.type != "mps":
            return torch.addcmul(self.shift, images, self.scale).permute(0, 3, 1, 2)
        # There such memory reaches BatchNorm's backward pass, which is wrong for it (PyTorch issues 175189, 181411).
        # clone(): contiguous() would leave the strides of grey images as they are, which look like NHWC.
        return torch.addcmul(self.shift, images.float(), self.scale).permute(0, 3, 1, 2).clone(memory_format=NCHW)

    def _stream(self, rows, parts, seeds):
        if self.images.cache is not None:
            rows, threads = rows.numpy(), max(1, self.num_workers)
            for pixels in _ahead(lambda part: torch.from_numpy(self.images.cache.take(rows[part], 0)), parts, threads):
                yield pixels.to(self.device)
            return
        keys = rows if seeds is None else torch.stack([rows, seeds.cpu()], 1)
        stand_in = keys[:1].tolist()  # a rank's share may be empty, and needs the shape of images, too
        # A generator of its own: without one, every epoch would draw the workers' seed from the global generator.
        loader = DataLoader(
            _DecodedRows(self.images),
            batch_sampler=(keys[part].tolist() or stand_in for part in parts),
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
            collate_fn=_collate,
            worker_init_fn=_ignore_signals,
        )
        reader = iter(loader)
        with _ended_with_the_block(reader):
            for images, part in zip(reader, parts, strict=True):
                if isinstance(images, str):
                    raise RunFailure(images)
                # Only from pinned memory: on MPS a copy that is not waited for reads what has been freed (189690).
                yield images[: len(rows[part])].to(self.device, non_blocking=self.device.type == "cuda")

    def clean(self):
        """The same samples in the order of their rows, without augmentation; draws from no generator."""
        loader = copy.copy(self)
        loader.order = loader.augmentation = None
        loader.augment_kind = "none"
        return loader

    def of_samples(self, idx):
        """A clean loader of some of these samples alone. idx: (n,), which are served in this order."""
        place = {int(row): position for position, row in enumerate(self.idx.tolist())}
        positions = torch.tensor([place[int(row)] for row in idx], device=self.device)
        loader = self.clean()
        for name in ("y", "ny", "idx", "rows"):
            setattr(loader, name, getattr(self, name)[positions])
        rows = loader.rows.cpu().numpy()
        if self.streamed and self.images.fits_in_memory(rows):  # decoded once, for these few are asked for often
            loader.images, loader.streamed = torch.from_numpy(self.images.decode_rows(rows)).to(self.device), False
            loader.rows = torch.arange(len(rows), device=self.device)
        return loader

    def state_dict(self):
        """The generators' states: what makes the next epochs the same ones."""
        return {"order": self.order.get_state(), "augmentation": self.augmentation.get_state()}

    def load_state_dict(self, state):
        self.order.set_state(state["order"])
        self.augmentation.set_state(state["augmentation"])


class _DecodedRows:
    """FolderImages as torch's DataLoader wants them: a row number in, or with the seed of a crop; pixels out; of a
    damaged file, what is wrong."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        row, *seed = key if isinstance(key, list) else [key]
        try:
            return crop_row(self.images, row, *seed) if seed else torch.from_numpy(self.images.decode_row(row).copy())
        except Exception as problem:  # raised in a worker, it would come out as a traceback
            if is_out_of_memory(problem):
                raise
            path = printable(str(self.images.root / self.images.paths[row]))
            return f"{path}: cannot be read ({reason(problem)}); mend it, or give --skip_bad"


def _ahead(make, wanted, threads):
    """make(w) for each w, in that order; some are made ahead of the one that is asked for."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for w in wanted:
            waiting.append(pool.submit(make, w))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _collate(pixels):
    problems = [p for p in pixels if isinstance(p, str)]
    return problems[0] if problems else default_collate(pixels)


@contextlib.contextmanager
def _ended_with_the_block(reader):
    """Whatever happens, no worker of a DataLoader's iterator outlives the block, nor keeps the process from ending.

    One that waits for what a dead one held never ends by itself, and ignores what torch and Python end it with.
    """

    def end():
        reader._shutdown_workers()
        for worker in reader._workers:
            if worker.is_alive():
                worker.kill()

    if not hasattr(reader, "_workers"):  # this process itself reads
        yield
        return
    atexit.register(end)  # a generator that an exception left suspended is closed too late
    try:
        yield
    finally:
        atexit.unregister(end)
        end()


def _ignore_signals(worker):
    # A terminal and Slurm signal the workers too, and the run still needs them for its last step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
