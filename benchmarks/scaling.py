"""How the cost of a step and of an epoch's end grows with the number of samples."""

import contextlib

import torch

from benchmarks.side_by_side import Race, Ratio
from benchmarks.workload import CLASSES, made_up_training
from supervision.losses import cross_entropy
from supervision.targets import OneHot
from training.loop import EpochSoFar, train_epoch
from training.observers import TableUpdater


class Enough(Exception):
    """Stops an epoch."""


def races(work):
    sizes = [size // (250 if work.quick else 1) for size in (10_000, 25_000, 50_000)]
    small, largest = sizes[0], sizes[-1]
    batch = min(work.batch_size, small // 4)
    made = {n: made_up_training(work.hardware, "smallcnn", n, CLASSES, work.image_size, batch) for n in sizes}
    steps = {f"N={size}": lambda state=state: some_updates(work, state) for size, state in made.items()}
    ratios = [Ratio(f"step: N={size} / N={small}", f"N={size}", f"N={small}", 1.05) for size in sizes[1:]]
    yield Race(steps, ratios, work.turns(7), seconds=work.seconds(30))

    ends = {f"N={size}": end_of_epoch(work, state) for size, state in made.items()}
    units = {f"N={size}": size for size in sizes}
    name = f"an epoch's start and end, a sample: N={largest} / N={small}"
    yield Race(ends, [Ratio(name, f"N={largest}", f"N={small}", 1.2)], work.turns(9), units)


def some_updates(work, state):
    last = state.update + (2 if work.quick else 5 if work.device.type == "cpu" else 40)

    def stop():
        if state.update == last:
            raise Enough

    forward, observers = work.hardware.forward_of(state.model), [TableUpdater(state.table)]
    with contextlib.suppress(Enough):
        train_epoch(state, forward, OneHot(CLASSES), cross_entropy, 0.01, observers, stop)
    state.so_far = None  # the next turn begins a new epoch


def end_of_epoch(work, state):
    """What an epoch costs apart from its updates: drawing its order and augmentation, its figures."""
    so_far = EpochSoFar(state.loader.state_dict())
    for _, y, ny, _ in state.loader:
        so_far.add(torch.zeros((), device=work.device), torch.rand(len(y), CLASSES, device=work.device), y, ny)

    def end():
        state.loader.state_dict()
        next(state.loader.batches(len(state.loader) - 1))
        so_far.figures()

    return end
