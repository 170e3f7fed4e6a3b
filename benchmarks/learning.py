"""Measures of a recorded path relative to reading it; a decomposed step relative to a forward and backward pass."""

import tracemalloc

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.side_by_side import Measured, Race, Ratio
from dynamics import decompose_step
from models import build_model
from paths.label_errors import find_label_errors
from paths.measures import compute


def races(work):
    file, shape = work.folder / "path.npy", (200, 8, 10) if work.quick else (50_000, 200, 10)
    labels = write_path(file, shape)
    contenders = {
        "reading": lambda: np.load(file).mean(),
        "all measures": lambda: compute(np.load(file, mmap_mode="r"), labels),
        "find_label_errors": lambda: find_label_errors(np.load(file, mmap_mode="r"), labels),
    }
    names = {name: f"{name} of {shape} / np.load().mean()" for name in list(contenders)[1:]}
    ratios = [Ratio(title, name, "reading", digits=1) for name, title in names.items()]
    yield Race(contenders, ratios, work.turns(3), warm_up=False)
    peaks = {name: lambda function=function: peak_memory(function) for name, function in contenders.items()}
    ratios = [Ratio(f"peak memory: {title}", name, "reading", unit="MB") for name, title in names.items()]
    yield Race(peaks, ratios, 1, warm_up=False)

    net, batch = ("smallcnn", 8) if work.quick else ("resnet18", 128)
    model = build_model(net, 10, 32).eval()
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))

    def forward_backward():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    contenders = {
        "pass": forward_backward,
        "decompose_step": lambda: decompose_step(model, x[:1], x, F.one_hot(y, 10).float(), 0.1),
    }
    name = f"{net}, one observed image, batch {batch}: decompose_step / forward and backward pass"
    yield Race(contenders, [Ratio(name, "decompose_step", "pass", digits=1)], work.turns(3))


def write_path(file, shape: tuple) -> np.ndarray:
    """Write a made-up path in the recorder's layout; returns labels."""
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


def peak_memory(work) -> Measured:
    """The most memory (MB) that Python and NumPy have asked for at once while work() runs."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Measured(peak / 1e6)
