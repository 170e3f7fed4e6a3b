"""The small parts beside a row at a time in Python, and beside a large copy of as many bytes as must move.

Table update, calibration error, label noise, path recording and path measures.
"""

import numpy as np
import torch

from benchmarks.path_measures import write_path
from benchmarks.published_style import calibration_error, record_rows, update_rows
from benchmarks.side_by_side import Race, Ratio
from data.noise import add_label_noise
from paths.measures import compute
from paths.recorder import PathRecorder
from supervision.table import PredictionTable
from utils import expected_calibration_error

BATCH = 250
COPY, COPY_QUICK = 2**28, 2**20  # bytes
LARGEST = 4e8  # bytes of a table: of very many classes, it has fewer rows
# From K to (least published / update, least lean / update, most update / select and copy)
GOALS = {100: (20, 5, 4)}


def races(work):
    for num_classes in (10, 100, 1000, 10_000):
        yield table(work, num_classes)
    yield ece(work)
    yield noise(work)
    yield recording(work)
    yield measures(work)


def against_copy(work, what, contenders, moved, units, more=(), turns=9, device="cpu"):
    """A race of contenders["ours"] with the others; what: its name; moved: the bytes that a unit of it must move;
    device: of the memory it moves them in."""
    source = torch.ones(COPY_QUICK if work.quick else COPY, dtype=torch.uint8, device=device)
    sink = torch.empty_like(source)
    contenders = {**contenders, "copy": lambda: sink.copy_(source)}
    units = {**units, "copy": 2 * len(source) / moved}
    bound = Ratio(f"{what} / memory bandwidth's bound", "ours", "copy", digits=1)
    return Race(contenders, [*more, bound], work.turns(turns), units)


def slower(what, name, goal=None):
    return Ratio(f"{name} / {what}", name, "ours", goal, more_is_better=True, digits=1)


def table(work, num_classes):
    num_samples = min(work.num_samples, int(LARGEST / (4 * num_classes)))
    batch = min(BATCH, num_samples // 4)
    prediction_table = PredictionTable(num_samples, num_classes, 0.05, work.device)
    values = prediction_table.values.uniform_().div_(num_classes)
    prediction_table.visited.fill_(True)
    prob = torch.rand(batch, num_classes, device=work.device).softmax(1)
    batches = list(torch.randperm(num_samples).to(work.device).split(batch))[: num_samples // batch]
    turn = iter(range(10**9))

    def times(count, update):
        def work():
            for _ in range(count):
                update(batches[next(turn) % len(batches)])

        return work

    def select_and_copy(idx):
        values.index_copy_(0, idx, values.index_select(0, idx))

    # About as long a turn for each: a short one slips between those of other programs
    most = 1 if work.quick else 250_000 // (num_classes + 1000)
    units = {"ours": most, "select and copy": 2 * most, "published rows": max(1, most // 40)}
    contenders = {
        "ours": times(units["ours"], lambda idx: prediction_table.update(idx, prob)),
        "select and copy": times(units["select and copy"], select_and_copy),
        "published rows": times(units["published rows"], lambda idx: update_rows(values, idx, prob, 0.05)),
    }
    if work.device.type == "cpu":
        rows, new = values.numpy(), prob.numpy()

        def lean(idx):
            for i, p in zip(idx.tolist(), new, strict=True):
                rows[i] = 0.95 * rows[i] + 0.05 * p

        units["lean rows of numpy"] = max(1, most // 5)
        contenders["lean rows of numpy"] = times(units["lean rows of numpy"], lean)
    what = f"table update, B={batch}, K={num_classes}"
    least_published, least_lean, most_moves = GOALS.get(num_classes, (None, None, None))
    ratios = [slower(what, "published rows", least_published)]
    if "lean rows of numpy" in contenders:
        ratios.append(slower(what, "lean rows of numpy", least_lean))
    ratios.append(Ratio(f"{what} / index_select and index_copy_", "ours", "select and copy", most_moves))
    moved = batch * (3 * 4 * num_classes + 8)  # rows read and written, predictions and idx read
    return against_copy(work, what, contenders, moved, units, ratios, device=work.device)


def ece(work):
    size = work.num_samples
    confidence, correct = torch.rand(size), torch.rand(size) < 0.5
    contenders = {
        "ours": lambda: expected_calibration_error(confidence, correct),
        "row by row": lambda: calibration_error(confidence, correct),
    }
    what = f"calibration error, N={size}"
    return against_copy(work, what, contenders, 5 * size, {}, [slower(what, "row by row")], turns=5)


def noise(work):
    labels = np.arange(work.num_samples) % 10
    rng = np.random.default_rng(0)

    def row_by_row():
        noisy = labels.copy()
        for i in rng.permutation(len(labels))[: int(0.4 * len(labels))]:
            noisy[i] = rng.integers(10)

    contenders = {"ours": lambda: add_label_noise(labels, 10, 0.4, "symmetric", 1), "row by row": row_by_row}
    what = f"label noise, N={len(labels)}"
    return against_copy(work, what, contenders, 16 * len(labels), {}, [slower(what, "row by row")])


def recording(work):
    size, batch = work.num_samples, min(BATCH, work.num_samples // 4)
    prob = torch.rand(size, 10).softmax(1)
    batches = [(idx, prob[idx]) for idx in torch.randperm(size).split(batch)]
    file = work.folder / "epoch.npy"

    def record():
        with PathRecorder(file, size, 1, 10) as recorder:
            for idx, p in batches:
                recorder.record(0, idx, p)
        file.unlink()

    def row_by_row():
        path = np.zeros((size, 1, 10))
        for idx, p in batches:
            record_rows(path, 0, idx, p)
        np.save(file, path)
        file.unlink()

    contenders = {"ours": record, "row by row": row_by_row}
    what = f"an epoch's path on disk, N={size}, K=10"
    return against_copy(work, what, contenders, size * 10 * (4 + 2), {}, [slower(what, "row by row")], turns=5)


def measures(work):
    shape = (work.num_samples, 8 if work.quick else 50, 10)
    file, some = work.folder / "path.npy", 20 if work.quick else 250
    labels = write_path(file, shape)

    def row_by_row():
        path = np.load(file, mmap_mode="r")
        for i in range(some):
            compute(path[i : i + 1], labels[i : i + 1])

    contenders = {"ours": lambda: compute(np.load(file, mmap_mode="r"), labels), "a sample at a time": row_by_row}
    what = f"path measures of {shape}"
    more = [slower(what, "a sample at a time")]
    units = {"a sample at a time": some / len(labels)}
    return against_copy(work, what, contenders, 2 * np.prod(shape), units, more, turns=3)
