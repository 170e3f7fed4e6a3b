"""Several processes against one, by turns: samples a second, and what the exchange for table, paths and stops costs.

torchrun --nproc_per_node=2 -m benchmarks.processes --net resnet18

In one turn rank 0 computes whole steps alone while the others sleep; in the next all share the same batch.
"""

import statistics
import time

import torch

from common.errors import run_script
from common.flags import CheckedParser, count, one_of
from common.hardware import Hardware
from data.loader import IndexedLoader
from models import NETS, build_model
from supervision.losses import cross_entropy
from supervision.table import PredictionTable
from supervision.targets import OneHot
from training import distributed
from training.loop import TrainingState, train_epoch
from training.observers import TableUpdater

CLASSES, SIDE = 100, 32
spent = []  # seconds in the exchange, a call each


def make_parser() -> CheckedParser:
    parser = CheckedParser(description=__doc__)
    flag = parser.add_argument
    flag("--net", default="resnet18", help="the network", **one_of(NETS))
    flag("--batch_size", type=count, default=128, help="samples an update, of all processes together")
    flag("--updates", type=count, default=4, help="in a turn")
    flag("--turns", type=count, default=7, help="of each kind, after one to warm up")
    parser.set_defaults(device="auto", amp="off", compile="off", deterministic=False, given=set(), dist_timeout=600)
    return parser


def new_state(args, hardware: Hardware, rank: int, world_size: int) -> TrainingState:
    """Made-up images for --updates batches."""
    num = args.batch_size * args.updates
    images, y = torch.randint(256, (num, SIDE, SIDE, 3), dtype=torch.uint8), torch.arange(num) % CLASSES
    order, augmentation = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    settings = {"order": order, "augmentation": augmentation, "augment_kind": "crop_flip"}
    settings |= {"rank": rank, "world_size": world_size}
    rows = y, y, torch.arange(num)
    loader = IndexedLoader(images, *rows, args.batch_size, [0.5] * 3, [0.25] * 3, hardware.device, **settings)
    model = hardware.place(build_model(args.net, CLASSES, SIDE))
    table = PredictionTable(num, CLASSES, 0.05, hardware.device)
    return TrainingState(model, torch.optim.SGD(model.parameters(), 0.01), hardware.scaler(), loader, table)


def timed(function):
    def call(*given):
        started = time.perf_counter()
        result = function(*given)
        spent.append(time.perf_counter() - started)
        return result

    return call


def epoch(state: TrainingState, hardware: Hardware) -> float:
    """Seconds of an epoch."""
    forward = hardware.forward_of(state.ddp or state.model)
    started = time.perf_counter()
    train_epoch(
        state, forward, OneHot(CLASSES), cross_entropy, 0.01, [TableUpdater(state.table)], distributed.stop_if_asked
    )
    state.end_epoch()
    return time.perf_counter() - started


def main(argv=None):
    args = make_parser().parse_args(argv)
    distributed.start(args)
    hardware, world_size = Hardware.choose(args), distributed.WORLD_SIZE
    alone, together = new_state(args, hardware, 0, 1), new_state(args, hardware, distributed.RANK, world_size)
    together.ddp = distributed.parallel(together.model)
    distributed.whole_batch, distributed.stop_if_asked = (
        timed(distributed.whole_batch),
        timed(distributed.stop_if_asked),
    )
    times = {"alone": [], "together": [], "exchange": []}
    for _ in range(args.turns + 1):
        with distributed.first_alone():
            if distributed.RANK == 0:
                distributed.WORLD_SIZE = 1
                times["alone"].append(epoch(alone, hardware))
                distributed.WORLD_SIZE = world_size
        distributed.barrier()
        spent.clear()
        times["together"].append(epoch(together, hardware))
        times["exchange"].append(sum(spent))
    if distributed.RANK == 0:
        ratios = [a / t for a, t in zip(times["alone"][1:], times["together"][1:], strict=True)]
        shares = [e / t for e, t in zip(times["exchange"][1:], times["together"][1:], strict=True)]
        step = statistics.median(times["together"][1:]) / args.updates
        print(f"{args.net}, batch {args.batch_size}, {hardware}: {world_size} processes, {1e3 * step:.0f} ms a step")
        for name, found in (("throughput against one process", ratios), ("exchange, share of a step", shares)):
            print(f"{name}: {statistics.median(found):.3f} ({min(found):.3f}..{max(found):.3f})")


if __name__ == "__main__":
    run_script(distributed.on_all_ranks(main))
