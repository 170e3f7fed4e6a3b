"""Table update and calibration error relative to a row at a time in Python, as the published code does it."""

import torch

from benchmarks.published_style import calibration_error, update_rows
from benchmarks.side_by_side import Race, Ratio
from supervision.table import PredictionTable
from utils import expected_calibration_error

BATCH = 250
LARGEST = 4e8  # bytes of a table: of very many classes, it has fewer rows
GOALS = {100: (20, 5, 4)}  # K: goals of the three ratios, in their order


def races(work):
    for num_classes in (10, 100, 1000, 10_000):
        yield table(work, num_classes)
    size = work.num_samples
    confidence, correct = torch.rand(size), torch.rand(size) < 0.5
    contenders = {
        "ours": lambda: expected_calibration_error(confidence, correct),
        "row by row": lambda: calibration_error(confidence, correct),
    }
    name = f"row by row / calibration error, N={size}"
    yield Race(contenders, [Ratio(name, "row by row", "ours", more_is_better=True, digits=1)], work.turns(5))


def table(work, num_classes: int) -> Race:
    num_samples = min(work.num_samples, int(LARGEST / (4 * num_classes)))
    batch = min(BATCH, num_samples // 4)
    prediction_table = PredictionTable(num_samples, num_classes, 0.05, work.device)
    values = prediction_table.values.uniform_().div_(num_classes)
    prediction_table.visited.fill_(True)
    prob = torch.rand(batch, num_classes, device=work.device).softmax(1)
    batches = list(torch.randperm(num_samples).to(work.device).split(batch))[: num_samples // batch]
    turn = iter(range(10**9))

    def lean(idx):
        rows, new = values.numpy(), prob.numpy()
        for i, p in zip(idx.tolist(), new, strict=True):
            rows[i] = 0.95 * rows[i] + 0.05 * p

    ways = {
        "ours": lambda idx: prediction_table.update(idx, prob),
        "select and copy": lambda idx: values.index_copy_(0, idx, values.index_select(0, idx)),
        "published rows": lambda idx: update_rows(values, idx, prob, 0.05),
        "lean rows": lean,
    }
    # About as long a turn for each: a short one slips between those of other programs
    most = 1 if work.quick else 250_000 // (num_classes + 1000)
    units = {
        "ours": most,
        "select and copy": 2 * most,
        "published rows": max(1, most // 40),
        "lean rows": max(1, most // 5),
    }

    def times(count, update):
        return lambda: [update(batches[next(turn) % len(batches)]) for _ in range(count)]

    what = f"table update, B={batch}, K={num_classes}"
    goals = GOALS.get(num_classes, (None, None, None))
    ratios = [
        Ratio(f"published rows / {what}", "published rows", "ours", goals[0], more_is_better=True, digits=1),
        Ratio(f"lean rows of numpy / {what}", "lean rows", "ours", goals[1], more_is_better=True, digits=1),
        Ratio(f"{what} / index_select and index_copy_", "ours", "select and copy", goals[2]),
    ]
    if work.device.type != "cpu":
        del ratios[1], ways["lean rows"]
    return Race({name: times(units[name], update) for name, update in ways.items()}, ratios, work.turns(9), units)
