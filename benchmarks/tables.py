"""What a prediction table of ImageNet's size costs: time and memory of an update, dense, sharded and sparse.

    python -m benchmarks.tables dense sharded:2 sparse:50
    python -m benchmarks.tables sparse:50 --samples 1315000 --classes 21841

Updates come back to the same random rows, VISITS times after the first visit, which is not timed. The predictions are
made up: softmax of a pattern that 64 samples share, and of noise; making them is timed apart. Memory is that of a
process's own pages (RssAnon), at its highest.
"""

import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from common.flags import CheckedParser, count, positive
from supervision.sparse_table import SparseTable
from supervision.tables import new_table

HEADER = "table | rows | updates | s an update | CPU s | CPU s of predictions | bytes a row | of all | at most"
VISITS, BATCH = 20, 256


def private_memory():
    """Bytes of this process's own pages."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))


def watch(peak):
    """Keep the most private memory in the list `peak`, looking 20 times a second."""
    while True:
        peak[0] = max(peak[0], private_memory())
        time.sleep(0.05)


def predictions(num_classes, scale, random):
    """prob(idx) -> (b, K), other noise at each call."""
    pattern, noise = torch.randn(2, 64, num_classes, generator=random) * torch.tensor([scale, 1]).view(2, 1, 1)
    return lambda idx: pattern[idx % 64].add_(noise[torch.randint(64, (len(idx),))]).softmax(1)


def measure(rank, world_size, meeting, kind, args):
    """Print the line of a kind of table, of this process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    random = torch.Generator().manual_seed(0)
    per_pass = max(1, args.updates // VISITS)
    rows = torch.randperm(args.samples, generator=random)[: per_pass * BATCH].clone()
    prob, before, peak = predictions(args.classes, args.scale, random), private_memory(), [0]
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    table = new_table(kind.replace(f"sharded:{world_size}", "sharded"), args.samples, args.classes, 0.05, "cpu", rows)
    times = torch.zeros(3, dtype=torch.float64)  # of updates: seconds, CPU seconds; CPU seconds of predictions
    for visit in range(VISITS + 1):
        for idx in rows[torch.randperm(len(rows), generator=random)].split(BATCH):
            mine = idx[rank::world_size]
            cpu = time.process_time()
            new = prob(mine)
            started, made = time.perf_counter(), time.process_time()
            table.update(mine, new)
            spent = time.perf_counter() - started, time.process_time() - made, made - cpu
            times += torch.tensor(spent) * (visit > 0)
    time.sleep(0.1)
    own = getattr(table, "local", table)
    kept = sum(getattr(own, name).nbytes for name in (*own.stores, "visited"))
    spent = " | ".join(f"{value:.4f}" for value in times / (VISITS * per_pass))
    memory = f"{kept / len(own.visited):.0f} | {kept / 1e9:.2f} GB | {peak[0] / 1e9:.2f} GB ({before / 1e9:.2f} before)"
    print(f"| {kind}, rank {rank} | {len(own.visited)} | {VISITS * per_pass} | {spent} | {memory} |", flush=True)
    if isinstance(table, SparseTable):
        rest = table.rest[rows].mean()
        print(f"{table.error_in_words()}; {rest:.2f} of the mass is in the rest", flush=True)
    dist.destroy_process_group()


def main():
    parser = CheckedParser(description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="dense, sparse:K, or sharded:PROCESSES")
    parser.add_argument("--samples", type=count, default=1_281_167)
    parser.add_argument("--classes", type=count, default=1000)
    parser.add_argument("--updates", type=count, default=2000, help="of 256 samples")
    parser.add_argument("--scale", type=positive, default=3.0, help="of the pattern: large for sure predictions")
    args = parser.parse_args()
    print(f"| {HEADER} |\n{'|---' * len(HEADER.split('|'))}|", flush=True)
    for kind in args.tables:  # each in processes of its own, whose memory it is
        world_size = int(kind.split(":")[1]) if kind.startswith("sharded:") else 1
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(measure, (world_size, Path(folder) / "meeting", kind, args), world_size)


if __name__ == "__main__":
    main()
