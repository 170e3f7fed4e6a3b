"""decompose_step on a CIFAR ResNet-18, one observed image against a batch of 128, beside a forward-backward of it.

python -m benchmarks.decompose_step
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.path_measures import PeakMemory
from dynamics import decompose_step
from models import build_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--chunk_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = build_model(args.net, 10, 32).eval()
    x, y = torch.randn(args.batch_size, 3, 32, 32), torch.randint(10, (args.batch_size,))
    target = F.one_hot(y, 10).float()

    def forward_backward():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    contenders = {
        "forward and backward": forward_backward,
        "decompose_step": lambda: decompose_step(model, x[:1], x, target, 0.1, args.chunk_size),
    }
    seconds, memory = {name: [] for name in contenders}, {}
    for _ in range(args.repeats):
        for name, work in contenders.items():
            with PeakMemory() as peak:
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
            memory[name] = max(memory.get(name, 0), peak.peak)
    base = np.array(seconds["forward and backward"])
    print(f"{args.net}, batch {args.batch_size}, {torch.get_num_threads()} threads, {args.repeats} turns")
    for name, times in seconds.items():
        ratio = np.array(times) / base
        middle, least, most = np.median(ratio), ratio.min(), ratio.max()
        figures = f"{np.median(times):7.2f} s {middle:6.1f} ({least:.1f} .. {most:.1f}) {memory[name]:6.0f} MB"
        print(f"{name:<21} {figures}")


if __name__ == "__main__":
    main()
