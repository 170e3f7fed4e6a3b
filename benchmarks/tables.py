"""What a prediction table of ImageNet's size costs: time and memory of an update, dense, sharded and sparse.

    python -m benchmarks.tables dense sharded:2 sparse:50
    python -m benchmarks.tables sparse:50 --samples 13150000 --classes 21841 --share 0.1

Every row holds a prediction before it begins, so that all of the memory is in use; then come updates of distinct
random rows. Memory is that of a process's own pages (RssAnon), at its highest.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from supervision.sharded_table import ShardedTable
from supervision.sparse_table import SparseTable
from supervision.tables import new_table

HEADER = ("table", "rows", "updates", "s an update", "CPU s an update", "bytes a row", "of all", "at most")


def private_memory():
    """Bytes of this process's own pages."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """The most private memory from start() on, looked at 20 times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self):
        while True:
            self.bytes = max(self.bytes, private_memory())
            time.sleep(0.05)


def fill(table):
    """As if each row had been visited once, with the same prediction for all classes."""
    if isinstance(table, ShardedTable):
        table = table.local
    table.visited.fill_(True)
    if isinstance(table, SparseTable):
        table.index.copy_(torch.arange(table.k))
        table.value.fill_(1 / table.num_classes)
        table.rest.fill_(1 - table.k / table.num_classes)
        table = table.dense
        table.visited.fill_(True)
    table.values.fill_(1 / table.shape[1])


def measured(kind, args):
    """The line of a kind of table, of this process."""
    before, peak, sharded = private_memory(), Peak(), kind.startswith("sharded")
    peak.start()
    table = new_table("sharded" if sharded else kind, args.samples, args.classes, 0.05, "cpu")
    fill(table)
    own = table.local if sharded else table
    rank, world_size = (table.rank, table.world_size) if sharded else (0, 1)
    random = torch.Generator().manual_seed(0)
    prob = [(3 * torch.randn(args.batch_size, args.classes, generator=random)).softmax(1) for _ in range(2)]
    order = torch.randperm(args.samples, generator=random)[: int(args.samples * args.share)].split(args.batch_size)
    batches = order[: args.updates] if args.share == 1 else order[:-1]
    started, cpu = time.perf_counter(), time.process_time()
    for number, idx in enumerate(batches):
        table.update(idx[rank::world_size], prob[number % 2][rank::world_size])
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    time.sleep(0.1)
    kept = sum(getattr(own, name).nbytes for name in (*own.stores, "visited"))
    return {
        "table": kind + (f", rank {rank}" if sharded else ""),
        "rows": own.shape[0],
        "updates": len(batches),
        "s an update": f"{seconds / len(batches):.4f}",
        "CPU s an update": f"{cpu / len(batches):.4f}",
        "bytes a row": f"{kept / own.shape[0]:.0f}",
        "of all": f"{kept / 1e9:.2f} GB",
        "at most": f"{peak.bytes / 1e9:.2f} GB (of it {before / 1e9:.2f} before)",
    }


def one_of_several(rank, world_size, meeting, kind, args):
    torch.set_num_threads(args.threads)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    show(measured(kind, args))
    dist.destroy_process_group()


def show(line):
    print("| " + " | ".join(str(line[name]) for name in HEADER) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="dense, sparse:K, or sharded:PROCESSES")
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--share", type=float, default=1, help="below 1: that share of the rows is updated, once")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
    for kind in args.tables:  # each in processes of its own, whose memory it is
        world_size = int(kind.split(":")[1]) if kind.startswith("sharded:") else 1
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(one_of_several, (world_size, Path(folder) / "meeting", kind, args), world_size)


if __name__ == "__main__":
    main()
