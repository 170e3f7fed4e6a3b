"""Several processes that train one network: torchrun --nproc_per_node=N SCRIPT ...

Every process, a rank, has its share of each batch (IndexedLoader's rank and world_size), and DistributedDataParallel
averages the gradients. What the network says of the whole batch is gathered on every rank, in the order of one process:
table, paths and figures come out as one process's. Rank 0 alone writes, prints and decides what exists on disk.
In a run of one process all of this does nothing.
"""

import contextlib
import datetime
import os
import signal
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn

from common import interruption
from common.errors import BadInput, Interrupted, RunFailure, exit_of

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # as torchrun says them
_store = None  # what all ranks can write to and read from, even when one is lost


def on_all_ranks(main: Callable) -> Callable:
    """main, for run_script(): rank 0 alone prints, and when ranks fail, one says why; all end with its exit code."""
    if WORLD_SIZE == 1:
        return main

    def run():
        global _store
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # each has words of its own
        _store = dist.PrefixStore(f"attempt {attempt}", next(dist.rendezvous("env://"))[0])
        try:
            with contextlib.ExitStack() as stack:
                if RANK:
                    nowhere = stack.enter_context(open(os.devnull, "w"))
                    stack.enter_context(contextlib.redirect_stdout(nowhere))
                    stack.enter_context(contextlib.redirect_stderr(nowhere))
                main()
                barrier()
        except (Exception, Interrupted) as problem:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends all ranks as soon as it sees one end
            told = _told_once(problem)
            raise told from (None if told is problem else problem)
        dist.destroy_process_group()

    return run


def _told_once(problem):
    """What a rank that failed raises: the problem; where another rank tells it, a silent end with that one's code."""
    lost = isinstance(problem, RuntimeError) and ("gloo" in str(problem) or isinstance(problem, dist.DistError))
    _store.set(f"ended {RANK}", "")
    if RANK:  # the others leave it to rank 0, unless it is what they wait for
        _wait_until(lambda: _store.check(["exit code"]), 2)
    if _store.add("failures", 1) > 1:
        _wait_until(lambda: _store.check(["exit code"]), 10)
        return SystemExit(int(_store.get("exit code")) if _store.check(["exit code"]) else 1)
    _store.set("exit code", str(1 if lost else exit_of(problem)[0]))
    if not lost:
        return problem
    others, silent = [rank for rank in range(WORLD_SIZE) if rank != RANK], "another rank"
    if "imed out" in str(problem):
        _wait_until(lambda: _store.check([f"ended {rank}" for rank in others]), 5)
        stuck = [str(rank) for rank in others if not _store.check([f"ended {rank}"])]
        silent = f"rank {', '.join(stuck)}" if stuck else silent
    return RunFailure(
        f"rank {RANK} of {WORLD_SIZE} waits in vain for {silent}, which has died or is stuck (torchrun's report names "
        "one that died); the same command with --resume goes on from what was saved"
    )


def _wait_until(true, seconds):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.1)


def start(args):
    """Join the other ranks. BadInput where the batch or the machine has too little for all of them."""
    if WORLD_SIZE == 1 or dist.is_initialized():
        return
    on_gpu = _on_gpu(args)
    local = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpu and local >= torch.cuda.device_count():
        raise BadInput(f"torchrun --nproc_per_node: each process needs a GPU, here are {torch.cuda.device_count()}")
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=_store,
        rank=RANK,
        world_size=WORLD_SIZE,
        timeout=datetime.timedelta(seconds=args.dist_timeout),
    )


def _on_gpu(args):
    return torch.cuda.is_available() and args.device in ("auto", "cuda")


def check(args):
    """BadInput where the flags cannot be for as many ranks."""
    if args.batch_size < WORLD_SIZE:
        raise BadInput(
            f"--batch_size {args.batch_size}: is the batch of all {WORLD_SIZE} processes together; give at least a "
            "sample each, or start fewer"
        )
    if getattr(args, "jobs", 1) > 1 and WORLD_SIZE > 1:
        raise BadInput(f"--jobs {args.jobs}: torchrun has started several processes already; give --jobs 1")
    if args.sync_bn and WORLD_SIZE > 1 and not _on_gpu(args):
        raise BadInput("--sync_bn: torch synchronises BatchNorm on CUDA only; leave it out, or give --norm group")


def advice(args) -> str:
    """On the learning rate, for which nothing is changed; Goyal et al. 2017, arXiv 1706.02677."""
    return (
        f"{WORLD_SIZE} processes share each batch of {args.batch_size}; --lr {args.lr:g} is used as given (for a batch "
        "k times as large, the linear rule takes k times the rate, with --warmup 5)"
    )


def barrier():
    """Wait for all ranks."""
    if WORLD_SIZE > 1 and dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # on the CPU: dist.barrier() would take the GPU


def total(*counts: int) -> Sequence[int]:
    """The sums of whole numbers over all ranks."""
    if WORLD_SIZE == 1:
        return counts
    sums = torch.tensor(counts)
    dist.all_reduce(sums)
    return sums.tolist()


def of_first(make: Callable, *given):
    """make(*given)'s result on rank 0, for all ranks: whatever depends on what is on disk, or on a clock."""
    if WORLD_SIZE == 1:
        return make(*given)
    found = [make(*given) if RANK == 0 else None]
    dist.broadcast_object_list(found)
    return found[0]


@contextlib.contextmanager
def first_alone():
    """The block is run by rank 0, however long it takes, then by the others, which find what it downloaded or made."""
    first_alone.times = getattr(first_alone, "times", 0) + 1
    done = f"done {first_alone.times}"
    while RANK and not _store.check([done]):
        if _store.check(["exit code"]):
            raise RunFailure("rank 0 has failed")  # which is told by it
        time.sleep(0.1)
    yield
    if RANK == 0:
        _store.set(done, "")


def whole_batch(size: int, *shares: torch.Tensor) -> Sequence[torch.Tensor]:
    """Of each tensor (n, ...), the rows of all ranks: (size, ...), as one process has them. Of a scalar, a mean over
    this rank's rows, the mean over all.

    Rank r has rows r, r + world_size, ... of the batch, so that its share may be empty.
    """
    if WORLD_SIZE == 1:
        return shares
    n = max(len(share) for share in shares if share.ndim)
    rows = [share.view(n, *share.shape[1:] or (1,)) if share.ndim else share.repeat(n, 1) for share in shares]
    as_bytes = [_packed(row).view(torch.uint8) for row in rows]  # of all kinds, so that there is one exchange
    mine = torch.cat(as_bytes, 1)
    padded = mine.new_zeros(-(-size // WORLD_SIZE), mine.shape[1])  # as large as the largest share
    padded[:n] = mine
    parts = [torch.empty_like(padded) for _ in range(WORLD_SIZE)]
    dist.all_gather(parts, padded)
    whole = torch.stack(parts, 1).flatten(0, 1)[:size].split([b.shape[1] for b in as_bytes], 1)
    whole = [_packed(found).view(row.dtype) for found, row in zip(whole, rows, strict=True)]
    return [
        found.view(size, *share.shape[1:]) if share.ndim else found.mean()
        for found, share in zip(whole, shares, strict=True)
    ]


def _packed(rows):
    return rows.clone(memory_format=torch.contiguous_format)  # contiguous() leaves a single row any strides


def share_buffers(model: nn.Module):
    """Give all ranks rank 0's buffers, such as BatchNorm's running statistics."""
    if WORLD_SIZE > 1:
        for work in [dist.broadcast(buffer, 0, async_op=True) for buffer in model.buffers()]:
            work.wait()


def own_dropout():
    """Make the global generator, as it is on rank 0, another one on each further rank."""
    if RANK:
        torch.manual_seed(int(torch.randint(2**62, ())) + RANK)


def stop_if_asked(wanted: bool = False) -> bool:
    """Interrupted on all ranks at once, where a signal came to any. Returns whether `wanted` is true on any."""
    if WORLD_SIZE == 1:
        interruption.stop_if_asked()
        return wanted
    flags = torch.tensor([int(interruption.noted() or 0), int(wanted)])  # on the CPU: no GPU is waited for
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    number, wanted = flags.tolist()
    if number:
        raise Interrupted(number)
    return bool(wanted)
