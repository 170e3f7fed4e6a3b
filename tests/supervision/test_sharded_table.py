"""A table shared out over processes is the dense one: by values, files and states, at any number of processes."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from supervision.sharded_table import ShardedTable
from supervision.table import PredictionTable
from tests.faults import processes

assert processes  # which has its server import torch once, for all processes that it forks

N, K, SMOOTHING = 61, 5, 0.25  # 61: no number of processes divides it


def batches(number=8):
    """[(distinct idx, prob)]: full batches of 17, and one of a single sample, which leaves processes without any."""
    random = torch.Generator().manual_seed(0)
    sizes = [17] * (number - 1) + [1]
    return [
        (torch.randperm(N, generator=random)[:size], torch.rand(size, K, generator=random).softmax(1)) for size in sizes
    ]


def dense(some):
    table = PredictionTable(N, K, SMOOTHING)
    for idx, prob in some:
        table.update(idx, prob)
    return table


def in_processes(world_size, work, folder):
    """work(rank, world_size, folder) in each of world_size processes, joined by gloo."""
    torch.multiprocessing.start_processes(_start, (world_size, work, folder), world_size, start_method="forkserver")


def _start(rank, world_size, work, folder):
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting_{work.__name__}_{world_size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    work(rank, world_size, folder)
    dist.destroy_process_group()


def first_half(rank, world_size, folder):
    table = ShardedTable(N, K, SMOOTHING, scratch=folder)
    for idx, prob in batches():
        table.update(idx[rank::world_size], prob[rank::world_size])
        whole = table.rows(idx[rank::world_size])  # each its own wishes
    expected = dense(batches())
    assert torch.equal(whole, expected.rows(idx[rank::world_size]))
    own = torch.arange(N)[rank:].flip(0)  # of all owners, out of order; not as many in each process
    assert torch.equal(table.rows(own), expected.rows(own))
    assert torch.equal(table.visited, expected.visited) and not table.visited.all()
    assert len(table.local.values) <= -(-N // world_size)
    state = table.state_dict()
    if rank == 0:
        torch.save(state, f"{folder}/state.pt")
    else:
        assert state["values"] is None
    table.save(f"{folder}/half.npy", {"epoch": 3})


def second_half(rank, world_size, folder):
    tables = [ShardedTable(N, K, 0.9), ShardedTable.load(f"{folder}/half.npy")]
    tables[0].load_state_dict(torch.load(f"{folder}/state.pt"))
    for number, table in enumerate(tables):
        for idx, prob in batches():
            table.update(idx[rank::world_size], prob[rank::world_size])
        table.save(f"{folder}/whole_{number}.npy")


def refused(rank, world_size, folder):
    for name in ("damaged", "lost", "absent"):
        with pytest.raises(ValueError, match=f"{name}.npy"):
            ShardedTable.load(f"{folder}/{name}.npy")


def same_as(file, table, folder):
    table.save(folder / "dense.npy", {"epoch": 3})
    assert file.read_bytes() == (folder / "dense.npy").read_bytes()


@pytest.mark.parametrize("before, after", [(3, 2), (2, 1)])
def test_it_is_the_dense_table_and_goes_on_at_another_number_of_processes(tmp_path, before, after):
    in_processes(before, first_half, tmp_path)
    same_as(tmp_path / "half.npy", dense(batches()), tmp_path)
    assert json.loads((tmp_path / "half.json").read_text()) == json.loads((tmp_path / "dense.json").read_text())
    in_processes(after, second_half, tmp_path)
    for number in range(2):
        same_as(tmp_path / f"whole_{number}.npy", dense(batches() * 2), tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_a_bad_file_is_told_by_all_processes(tmp_path):
    table = dense(batches())
    table.save(tmp_path / "damaged.npy")
    content = bytearray((tmp_path / "damaged.npy").read_bytes())
    content[-1] ^= 1  # in the last process's rows alone
    (tmp_path / "damaged.npy").write_bytes(content)
    table.values[1::2] = 0  # what one of two processes had: no rows that were never visited
    table.save(tmp_path / "lost.npy")
    in_processes(2, refused, tmp_path)


def test_without_processes_one_keeps_it_all(tmp_path):
    table = ShardedTable(N, K, SMOOTHING)
    for idx, prob in batches():
        table.update(idx, prob)
    expected = dense(batches())
    assert torch.equal(table.rows(torch.arange(N)), expected.values)
    assert torch.equal(table.state_dict()["values"], expected.values)
    table.save(tmp_path / "q.npy")
    assert np.array_equal(np.load(tmp_path / "q.npy"), expected.values)
