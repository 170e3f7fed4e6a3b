"""decompose_step on a CIFAR ResNet-18, one observed image against a batch of 128, beside a forward-backward of it.

python -m benchmarks.decompose_step
"""

import argparse

import torch
import torch.nn.functional as F

from benchmarks.side_by_side import print_in_turns
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
    print(f"{args.net}, batch {args.batch_size}, {torch.get_num_threads()} threads")
    print_in_turns(contenders, args.repeats)


if __name__ == "__main__":
    main()
