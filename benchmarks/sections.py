"""What make bench measures, a function a section: each yields its ratios, of sides that were timed by turns."""

import contextlib
import itertools
import os
import subprocess
import sys
import tracemalloc
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.published_style import PublishedStyle, calibration_error, update_rows
from benchmarks.side_by_side import MORE, Ratio
from benchmarks.workload import CLASSES, Bare, Ours, made_up_training, operations_of_an_update
from common.hardware import native_bfloat16
from dynamics import decompose_step
from models import build_model
from paths.label_errors import find_label_errors
from paths.measures import compute
from paths.recorder import PathRecorder
from supervision.losses import cross_entropy, distillation_loss
from supervision.table import PredictionTable
from supervision.targets import OneHot, TeacherNetwork, TeacherTable
from training.loop import EpochSoFar, train_epoch
from training.observers import TableUpdater, TrainingPath
from utils import expected_calibration_error

LARGEST_TABLE = 4e8  # bytes: of very many classes, it has fewer rows
UPDATES_OF_EPOCH = 180  # of 45,000 samples in batches of 250


def primitives(work):
    """Table update and calibration error relative to a row at a time in Python, as the published code does it."""
    for num_classes in (10, 100, 1000, 10_000):
        yield from _table_update(work, num_classes)
    size = work.num_samples
    confidence, correct = torch.rand(size), torch.rand(size) < 0.5
    contenders = {
        "ours": lambda: expected_calibration_error(confidence, correct),
        "rows": lambda: calibration_error(confidence, correct),
    }
    taken, name = work.race(contenders, 5), f"row by row / calibration error, N={size}"
    yield Ratio(name, taken["rows"], taken["ours"], more_is_better=True, digits=1)


def _table_update(work, num_classes):
    num_samples = min(work.num_samples, int(LARGEST_TABLE / (4 * num_classes)))
    batch = min(250, num_samples // 4)
    table = PredictionTable(num_samples, num_classes, 0.05, work.device)
    values = table.values.uniform_().div_(num_classes)
    table.visited.fill_(True)
    prob = torch.rand(batch, num_classes, device=work.device).softmax(1)
    batches = itertools.cycle(torch.randperm(num_samples).to(work.device).split(batch)[: num_samples // batch])

    def lean_rows(idx):
        rows, new = values.numpy(), prob.numpy()
        for i, p in zip(idx.tolist(), new, strict=True):
            rows[i] = 0.95 * rows[i] + 0.05 * p

    # With the updates of a turn, about as long for each: a short one slips between those of other programs
    most = 1 if work.quick else 250_000 // (num_classes + 1000)
    ways = {
        "ours": (lambda idx: table.update(idx, prob), most),
        "copying": (lambda idx: values.index_copy_(0, idx, values.index_select(0, idx)), 2 * most),
        "published": (lambda idx: update_rows(values, idx, prob, 0.05), max(1, most // 40)),
    }
    if work.device.type == "cpu":
        ways["lean"] = lean_rows, max(1, most // 5)

    def several(update, count):
        return lambda: [update(next(batches)) for _ in range(count)]

    taken = work.race({name: several(*way) for name, way in ways.items()}, 9)
    taken = {name: seconds / ways[name][1] for name, seconds in taken.items()}
    what, ours = f"table update, B={batch}, K={num_classes}", taken["ours"]
    slower, lean, copying = (20, 5, 4) if num_classes == 100 else (None, None, None)
    yield Ratio(f"published rows / {what}", taken["published"], ours, slower, more_is_better=True, digits=1)
    if "lean" in taken:
        yield Ratio(f"lean rows of numpy / {what}", taken["lean"], ours, lean, more_is_better=True, digits=1)
    yield Ratio(f"{what} / index_select and index_copy_", ours, taken["copying"], copying)


def steps(work):
    """A training step of ours, all metrics and the table on, relative to a bare loop; and what recording paths adds."""
    settings = {"smallcnn": (10, 5, 45, 1.15), "resnet18": (1, 3, 90, 1.05)}
    for net in work.nets:
        bare, ours = (operations_of_an_update(work, net, kind) for kind in (Bare, Ours))
        yield Ratio(f"{net}: operations of an update, ours / bare loop", ours, bare, unit="operations")
        updates, turns, seconds, goal = settings[net]
        experiment = work.experiment(net, work.updates(on_cpu=updates))
        shape = (
            len(experiment.data.y),
            MORE * turns + 1,
            experiment.dataset.num_classes,
        )  # a step a turn, one to warm up
        with PathRecorder(work.folder / f"steps_{net}.npy", *shape) as recorder:
            contenders = {
                "bare": Bare(experiment).epoch,
                "ours": Ours(experiment).epoch,
                "recording": Ours(experiment, [TrainingPath(recorder)]).epoch,
            }
            taken = work.race(contenders, turns, seconds)
        yield Ratio(f"{net}: ours / bare loop", taken["ours"], taken["bare"], goal)
        yield Ratio(f"{net}: ours with paths / ours", taken["recording"], taken["ours"], 1.03)


def published_style(work):
    """An epoch's work the way the published code does it, relative to ours."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores: as published
    goal = 3.0 if native_bfloat16(work.device) else 1.4
    for net in work.nets:
        updates, turns = {"smallcnn": (8, 3), "resnet18": (2, 2)}[net]
        experiment = work.experiment(net, work.updates(on_cpu=updates))
        published = PublishedStyle(experiment, workers=1 if work.quick else 4)
        taken = work.race({"ours": Ours(experiment).epoch, "published": published.epoch}, turns, seconds=45)
        yield Ratio(f"{net}: published style / ours", taken["published"], taken["ours"], goal, more_is_better=True)


def distill(work):
    """A student's step with a teacher network relative to one with a table, which saves the teacher's forward pass."""
    for net in work.nets:
        updates, turns = {"smallcnn": (5, 7), "resnet18": (1, 3)}[net]
        experiment = work.experiment(net, work.updates(on_cpu=updates))
        teacher, sizes = experiment.new_state().model, (len(experiment.data.y), experiment.dataset.num_classes)
        targets = {
            "network": TeacherNetwork(teacher, 1.0, experiment.hardware.forward_of(teacher)),
            "table": TeacherTable(torch.rand(sizes, device=work.device)),
        }
        loss = partial(distillation_loss, tau=1.0)
        taken = work.race({name: Ours(experiment, (), target, loss).epoch for name, target in targets.items()}, turns)
        yield Ratio(f"{net}: teacher network / teacher table", taken["network"], taken["table"], more_is_better=True)


def scaling(work):
    """How the cost of a step and of an epoch's end grows with the number of samples."""
    small, middle, largest = sizes = [size // (250 if work.quick else 1) for size in (10_000, 25_000, 50_000)]
    batch = min(work.batch_size, small // 4)
    states = {n: made_up_training(work.hardware, "smallcnn", n, CLASSES, work.image_size, batch) for n in sizes}
    taken = work.race({n: partial(_some_updates, work, state) for n, state in states.items()}, 7, seconds=30)
    for n in (middle, largest):
        yield Ratio(f"step: N={n} / N={small}", taken[n], taken[small], 1.05)
    taken = work.race({n: _end_of_epoch(work, state) for n, state in states.items()}, 9)
    name = f"an epoch's start and end, a sample: N={largest} / N={small}"
    yield Ratio(name, taken[largest] / largest, taken[small] / small, 1.2)


class _Enough(Exception):
    """Stops an epoch."""


def _some_updates(work, state):
    last = state.update + (2 if work.quick else 5 if work.device.type == "cpu" else 40)

    def stop():
        if state.update == last:
            raise _Enough

    forward, observers = work.hardware.forward_of(state.model), [TableUpdater(state.table)]
    with contextlib.suppress(_Enough):
        train_epoch(state, forward, OneHot(CLASSES), cross_entropy, 0.01, observers, stop)
    state.so_far = None  # the next turn begins a new epoch


def _end_of_epoch(work, state):
    """What an epoch costs apart from its updates: drawing its order and augmentation, its figures."""
    so_far = EpochSoFar(state.loader.state_dict())
    for _, y, ny, _ in state.loader:
        so_far.add(torch.zeros((), device=work.device), torch.rand(len(y), CLASSES, device=work.device), y, ny)

    def end():
        state.loader.state_dict()
        next(state.loader.batches(len(state.loader) - 1))
        so_far.figures()

    return end


def saving(work):
    """What saving a ResNet-18's training costs, checksums and fsync included, as a share of an epoch of CIFAR-10."""
    net, updates = work.nets[-1], work.updates(on_cpu=1)
    experiment = work.experiment(net, updates)
    ours = Ours(experiment)
    ours.state.rows = [{"epoch": epoch} for epoch in range(200)]
    with experiment.new_run(work.folder / f"saved_{net}") as run:
        contenders = {
            "epoch": ours.epoch,
            "last.pt": lambda: run.save(ours.state),
            "bests": lambda: run.save_epoch(ours.state, 0, ["best_acc", "best_loss"]),
        }
        taken = work.race(contenders, 3)
    epoch = taken["epoch"] * UPDATES_OF_EPOCH / updates
    yield Ratio(f"{net}: --save_every 1 / epoch", taken["last.pt"], epoch, digits=4)
    yield Ratio(f"{net}: --save_every 1, both best files new / epoch", taken["bests"], epoch, digits=4)
    yield Ratio(f"{net}: --save_minutes 10 / ten minutes", taken["last.pt"], 600, digits=5)


FIRST_STEP = """
import os, sys
import main_gen_teacher
from training.loop import EpochSoFar
EpochSoFar.add = lambda *_: os._exit(0)  # what train_epoch calls after a step
main_gen_teacher.main(sys.argv[1:])
"""


def startup(work):
    """From the command of main_gen_teacher.py to its first training step, relative to importing torch."""
    contenders = {"import": lambda: run_python(work, "import torch"), "digits": lambda: first_step(work)}
    taken = work.race(contenders, 3, warm_up=False)
    yield Ratio("digits: to the first step / import torch", taken["digits"], taken["import"])


def first_step(work):
    """Run main_gen_teacher.py on digits, up to its first step, in a process of its own."""
    run_python(work, FIRST_STEP, "--dataset", "digits", "--net", "smallcnn", "--overwrite", *work.device_flags)


def run_python(work, code, *words):
    """Run code in a process of its own."""
    where = dict(cwd=work.folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)})
    subprocess.run([sys.executable, "-c", code, *words], **where, stdout=subprocess.DEVNULL, check=True)


def learning(work):
    """Measures of a recorded path relative to reading it; a decomposed step relative to a forward and backward pass."""
    file, shape = work.folder / "path.npy", (200, 8, 10) if work.quick else (50_000, 200, 10)
    labels = _write_path(file, shape)
    contenders = {
        "reading": lambda: np.load(file).mean(),
        "all measures": lambda: compute(np.load(file, mmap_mode="r"), labels),
        "find_label_errors": lambda: find_label_errors(np.load(file, mmap_mode="r"), labels),
    }
    taken = work.race(contenders, 3, warm_up=False)
    peaks = {name: _peak_memory(contender) for name, contender in contenders.items()}
    for name in ("all measures", "find_label_errors"):
        title = f"{name} of {shape} / np.load().mean()"
        yield Ratio(title, taken[name], taken["reading"], digits=1)
        yield Ratio(f"peak memory: {title}", peaks[name], peaks["reading"], unit="MB")

    net, batch = ("smallcnn", 8) if work.quick else ("resnet18", 128)
    model = build_model(net, 10, 32).eval()
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))

    def forward_backward():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    contenders = {
        "pass": forward_backward,
        "decomposed": lambda: decompose_step(model, x[:1], x, F.one_hot(y, 10).float(), 0.1),
    }
    taken = work.race(contenders, 3)
    name = f"{net}, one observed image, batch {batch}: decompose_step / forward and backward pass"
    yield Ratio(name, taken["decomposed"], taken["pass"], digits=1)


def _write_path(file, shape):
    """Write a made-up path in the recorder's layout; returns labels (N,)."""
    num_samples, num_steps, num_classes = shape
    rng = np.random.default_rng(0)
    path = np.lib.format.open_memmap(file, "w+", np.float16, shape, fortran_order=True)
    labels = rng.integers(num_classes, size=num_samples)
    for step in range(num_steps):
        logits = rng.normal(size=(num_samples, num_classes), scale=1.5)
        logits[np.arange(num_samples), labels] += 4 * step / num_steps
        p = np.exp(logits)
        path[:, step] = p / p.sum(1, keepdims=True)
    path.flush()
    return labels


def _peak_memory(work):
    """The most memory (MB) that Python and NumPy have asked for at once while work() runs."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


SECTIONS = {f.__name__: f for f in (primitives, steps, published_style, distill, scaling, saving, startup, learning)}
