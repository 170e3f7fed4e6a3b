"""Several processes against one, by turns: samples a second, and what the exchange for table, paths and stops costs.

torchrun --nproc_per_node=2 -m benchmarks.processes --net resnet18

In one turn rank 0 computes whole steps alone while the others sleep; in the next all share the same batch.
"""

import time

import numpy as np
from torch.nn.parallel import DistributedDataParallel

from benchmarks.workload import made_up_training
from common.errors import run_script
from common.flags import CheckedParser, count, one_of
from common.hardware import Hardware
from models import NETS
from supervision.losses import cross_entropy
from supervision.targets import OneHot
from training import distributed
from training.loop import TrainingState, train_epoch
from training.observers import TableUpdater

CLASSES, SIDE = 100, 32
spent = []  # seconds in the exchange, a call each


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
    observers = [TableUpdater(state.table)]
    train_epoch(state, forward, OneHot(CLASSES), cross_entropy, 0.01, observers, distributed.stop_if_asked)
    state.end_epoch()
    return time.perf_counter() - started


def main(argv=None):
    parser = CheckedParser(description=__doc__)
    parser.add_argument("--net", default="resnet18", help="the network", **one_of(NETS))
    parser.add_argument("--batch_size", type=count, default=128, help="samples an update, of all processes together")
    parser.add_argument("--updates", type=count, default=4, help="in a turn")
    parser.add_argument("--turns", type=count, default=7, help="of each kind, after one to warm up")
    parser.set_defaults(device="auto", amp="off", compile="off", deterministic=False, given=set(), dist_timeout=600)
    args = parser.parse_args(argv)
    distributed.start(args)
    hardware, world_size = Hardware.choose(args), distributed.WORLD_SIZE
    sizes = args.batch_size * args.updates, CLASSES, SIDE, args.batch_size
    alone = made_up_training(hardware, args.net, *sizes)
    together = made_up_training(hardware, args.net, *sizes, rank=distributed.RANK, world_size=world_size)
    together.ddp = DistributedDataParallel(together.model)
    for name in ("whole_batch", "stop_if_asked"):
        setattr(distributed, name, timed(getattr(distributed, name)))
    turns = []
    for _ in range(args.turns + 1):
        seconds = [0.0]
        with distributed.first_alone():
            if distributed.RANK == 0:
                distributed.WORLD_SIZE = 1
                seconds = [epoch(alone, hardware)]
                distributed.WORLD_SIZE = world_size
        distributed.barrier()
        spent.clear()
        turns.append([*seconds, epoch(together, hardware), sum(spent)])
    one, all_of_them, exchange = np.array(turns[1:]).T
    step = 1e3 * np.median(all_of_them) / args.updates
    print(f"{args.net}, batch {args.batch_size}, {hardware}: {world_size} processes, {step:.0f} ms a step")
    for name, found in {"throughput against one process": one, "exchange, share of a step": exchange}.items():
        found = found / all_of_them
        print(f"{name}: {np.median(found):.3f} ({found.min():.3f}..{found.max():.3f})")


if __name__ == "__main__":
    run_script(distributed.on_all_ranks(main))
