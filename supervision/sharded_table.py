"""The prediction table shared out over the processes of torch.distributed: rank r keeps the rows r, r + world, ...

Every method but `shape` is collective: all processes call it together, each with its own part of a batch. What is
saved, and state_dict(), are those of one dense table, whatever the number of processes.
"""

import tempfile

import numpy as np
import torch
import torch.distributed as dist

from common.files import naming
from supervision.table import PredictionTable, blocks_of, map_npy, read_distributions, read_sidecar


class ShardedTable(PredictionTable):
    """Used as PredictionTable is, by all processes together; without torch.distributed by one, which keeps it all.

    The parts of a batch that the processes give are distinct rows, of each and together. scratch: a folder on disk for
    state_dict() (the system's for temporary files when not given).
    """

    collective = True

    def __init__(self, num_samples, num_classes, smoothing, device="cpu", scratch=None):
        self.num_samples, self.scratch = num_samples, scratch
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.local = PredictionTable(
            len(range(self.rank, num_samples, self.world_size)), num_classes, smoothing, device
        )

    @property
    def shape(self):
        return self.num_samples, self.local.shape[1]

    @property
    def smoothing(self):
        return self.local.smoothing

    @smoothing.setter
    def smoothing(self, value):
        self.local.smoothing = value

    @property
    def visited(self):
        """(N,) bool, of the whole table."""
        whole = torch.zeros(self.num_samples, dtype=torch.uint8, device=self.local.visited.device)
        whole[self.rank :: self.world_size] = self.local.visited.to(torch.uint8)
        if self.world_size > 1:
            dist.all_reduce(whole, dist.ReduceOp.MAX)
        return whole.bool()

    def to(self, device):
        self.local.to(device)
        return self

    @torch.no_grad()
    def update(self, idx, prob):
        """As PredictionTable.update, of this process's part of the batch, (b, ) and (b, K); b may be 0."""
        idx, prob, send, receive, _ = self._to_owners(idx, prob)
        self.local.update(idx // self.world_size, self._exchange(prob, send, receive))

    @torch.no_grad()
    def rows(self, idx):
        """Rows idx (b,), this process's own wishes, as (b, K) float32; b may be 0."""
        asked, _, send, receive, order = self._to_owners(idx)
        answers = self._exchange(self.local.rows(asked // self.world_size), receive, send)
        rows = torch.empty_like(answers)
        rows[order] = answers
        return rows

    def _to_owners(self, idx, prob=None):
        """idx as the owners get it, prob in the order in which it is sent, counts sent and received, that order."""
        device = self.local.values.device
        idx = torch.as_tensor(idx, device=device).long()
        order = torch.argsort(idx % self.world_size, stable=True)
        send = torch.bincount(idx % self.world_size, minlength=self.world_size)
        receive = send.clone()
        if self.world_size > 1:
            dist.all_to_all_single(receive, send)
        send, receive = send.tolist(), receive.tolist()
        if prob is not None:
            prob = torch.as_tensor(prob).detach().to(device, torch.float32)[order]
        return self._exchange(idx[order], send, receive), prob, send, receive, order

    def _exchange(self, what, send, receive):
        if self.world_size == 1:
            return what
        received = what.new_empty((sum(receive), *what.shape[1:]))
        dist.all_to_all_single(received, what.contiguous(), receive, send)
        return received

    def _together(self, rows):
        """A slice of rows of the whole table, which begins at a multiple of world_size; None but in process 0."""
        first, size = rows.start // self.world_size, -(-(rows.stop - rows.start) // self.world_size)
        part = self.local.values[first : first + size]
        if len(part) < size:  # the table ends before the last processes' turns: all send as much
            part = torch.cat([part, part.new_zeros(size - len(part), part.shape[1])])
        if self.world_size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(part.contiguous(), parts, dst=0)
        return None if parts is None else torch.stack(parts, 1).flatten(0, 1)[: rows.stop - rows.start]

    def _blocks(self):
        """The whole table, a block of rows at a time, on the CPU: in process 0 tensors, in others None."""
        for rows in blocks_of(*self.shape, multiple_of=self.world_size):
            block = self._together(rows)
            yield None if block is None else block.cpu()

    def state_dict(self):
        """That of the dense table in process 0; in others without values. They lie in a file that has no name, of
        which nothing is in memory that is not read."""
        if self.world_size == 1:
            return self.local.state_dict()
        state = {"values": None, "visited": self.visited.cpu(), "smoothing": self.smoothing}
        if self.rank > 0:
            list(self._blocks())
            return state
        with naming(self.scratch or tempfile.gettempdir()), tempfile.TemporaryFile(dir=self.scratch) as scratch:
            for block in self._blocks():
                scratch.write(memoryview(block.numpy()).cast("B"))
            scratch.flush()
            values = np.memmap(scratch, np.float32, "c", shape=self.shape)
        return {**state, "values": torch.from_numpy(values)}

    def load_state_dict(self, state):
        """Take over the state of a dense table, or of a sharded one of any number of processes."""
        ours = slice(self.rank, None, self.world_size)
        parts = {name: state[name][ours] for name in ("values", "visited")}
        self.local.load_state_dict({**parts, "smoothing": state["smoothing"]})

    def save(self, path, metadata=None):
        """As PredictionTable.save, and the same file; process 0 writes it."""
        described = self._described(metadata)
        if self.rank == 0:
            self._write(path, described)
        else:
            list(self._blocks())

    @classmethod
    def load(cls, path, scratch=None):
        """The dense table saved at path, each process's rows of it, on the CPU.

        As PredictionTable.load; what is wrong with the file is raised in all processes.
        """
        table, sidecar, problem = cls(0, 0, 1, scratch=scratch), None, None
        try:
            if table.rank == 0:
                sidecar = read_sidecar(path)
            table.num_samples = len(map_npy(path))
            ours = read_distributions(path, True, slice(table.rank, None, table.world_size))
            table.local = PredictionTable.of(ours)
        except ValueError as found:
            problem = str(found)
        if table.world_size > 1:
            told = [None] * table.world_size
            dist.all_gather_object(told, (problem, sidecar))
            problem, sidecar = next((p for p, _ in told if p), None), told[0][1]
        if problem:
            raise ValueError(problem)
        table._fit(path, sidecar)
        return table
