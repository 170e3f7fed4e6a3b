"""The prediction table for thousands of classes: of each row the k largest entries, and the mass of the rest.

It is used as PredictionTable is (needs supervision/table.py, torch and numpy), and there is never a dense (N, K): a
batch's rows are made dense in float32, averaged, and packed again.
"""

from functools import partial

import numpy as np
import torch

from supervision.table import PredictionTable, read_sidecar, write_table

SAMPLED = 1000  # rows that are kept dense beside it, to know its error
SMALLEST = 6e-8  # that float16 holds: where a logarithm clips


class SparseTable(PredictionTable):
    """k + 1 numbers a row: read, the mass of the rest is spread evenly over the classes that are not kept.

    index: (N, k), int16 up to 65,536 classes (to be read as uint16), int32 above. value: (N, k) float16. rest: (N,)
    float32. A change below 2^-11 of a value may be lost in float16, which keeps an average within 2^-11 / smoothing of
    where it should be: 1 % at .05. in_use: (n,) rows that will be visited (by default all), of which 1,000 drawn ones
    are kept dense, too.
    """

    ending = ".npz"
    stores = ("index", "value", "rest")

    def __init__(self, num_samples, num_classes, k, smoothing, device="cpu", in_use=None):
        self._start(smoothing, num_samples, device)
        self.num_classes, self.k = num_classes, k
        index_type = torch.int16 if num_classes <= 2**16 else torch.int32
        self.index = torch.zeros(num_samples, k, dtype=index_type, device=device)
        self.value = torch.zeros(num_samples, k, dtype=torch.float16, device=device)
        self.rest = torch.zeros(num_samples, device=device)
        in_use = np.arange(num_samples) if in_use is None else np.asarray(in_use)
        sampled = np.sort(np.random.default_rng(0).permutation(in_use)[:SAMPLED])
        self.sampled = torch.as_tensor(sampled, dtype=torch.int64, device=device)
        # A last row of no sample: for what is not sampled, where a GPU would have to be waited for to leave it out
        self.dense = PredictionTable(len(self.sampled) + 1, num_classes, smoothing, device)

    @property
    def shape(self):
        return len(self.visited), self.num_classes

    def to(self, device):
        """The table itself, moved to a device."""
        self.sampled = self.sampled.to(device)
        self.dense.to(device)
        return super().to(device)

    def _pack(self, rows):
        value, index = rows.topk(self.k, 1)
        value = value.half()
        rest = (rows.sum(1) - value.float().sum(1)).clamp_min(0)  # what rounding took is in it
        return index.to(self.index.dtype), value, rest

    def _unpack(self, index, value, rest):
        others = max(self.num_classes - self.k, 1)
        rows = (rest / others)[:, None].repeat(1, self.num_classes)
        index = index.long() & (0xFFFF if index.dtype == torch.int16 else -1)
        return rows.scatter_(1, index, value.float())

    @torch.no_grad()
    def update(self, idx, prob):
        """As PredictionTable.update."""
        super().update(idx, prob)
        if not len(self.sampled):
            return
        idx, prob = (torch.as_tensor(v).to(self.visited.device) for v in (idx, prob))
        place = torch.searchsorted(self.sampled, idx.long()).clamp_max(len(self.sampled) - 1)
        is_sampled = self.sampled[place] == idx
        if idx.device.type == "cpu":
            place, prob = place[is_sampled], prob[is_sampled]
        else:
            place = torch.where(is_sampled, place, len(self.sampled))
        self.dense.update(place, prob)

    def error(self):
        """What the sampled rows, as they are read, are off from those kept dense; None while none was visited.

        rows: how many were visited. l1: mean of sum_k |p_k - q_k|. kl: mean of sum_k p_k log(p_k / q_k), p dense, q
        clipped at 6e-8. same_argmax: the share of rows whose largest class is the same.
        """
        there = self.dense.visited[:-1]
        dense, ours = self.dense.values[:-1][there], self.rows(self.sampled[there])
        if not len(dense):
            return None
        kl = torch.xlogy(dense, dense) - torch.xlogy(dense, ours.clamp_min(SMALLEST))
        return {
            "rows": len(dense),
            "l1": float((dense - ours).abs().sum(1).mean()),
            "kl": float(kl.sum(1).mean()),
            "same_argmax": float((dense.argmax(1) == ours.argmax(1)).double().mean()),
        }

    def error_in_words(self):
        found = self.error() or dict.fromkeys(("rows", "l1", "kl", "same_argmax"), 0)
        return (
            "the sparse table against {rows} rows kept dense: mean L1 {l1:.3g}, KL {kl:.3g}, "
            "the same largest class in {same_argmax:.1%}".format(**found)
        )

    def state_dict(self):
        """For anybody's checkpoint: what the table holds, and the rows that are kept dense."""
        return {**super().state_dict(), "sampled": self.sampled, "dense": self.dense.state_dict()}

    def load_state_dict(self, state):
        """Take over a state_dict() of a table of the same shape and k (ValueError otherwise)."""
        super().load_state_dict(state)
        self.sampled = state["sampled"].to(self.visited.device)
        self.dense.load_state_dict(state["dense"])

    def save(self, path, metadata=None):
        """Write path (.npz: index (N, k) uint16 or int32, value (N, k) float16, rest (N,) float32) and a .json.

        As PredictionTable.save; the .json holds k, and the error against the sampled rows, too.
        """
        arrays = {name: getattr(self, name).cpu().numpy() for name in self.stores}
        if arrays["index"].dtype == np.int16:  # torch has hardly an operation for uint16
            arrays["index"] = arrays["index"].view(np.uint16)
        described = {**self._described(metadata), "k": self.k, "error": self.error()}
        write_table(path, partial(np.savez, **arrays), described)

    @classmethod
    def load(cls, path):
        """The table saved at path, on the CPU, to be read and updated; no rows are kept dense beside it.

        Never unpickles. ValueError names the file and what is wrong with it.
        """
        sidecar = read_sidecar(path, needed=True)  # whose checksum says that the file is what was saved
        (_, num_classes), k = sidecar["shape"], sidecar["k"]
        table = cls(0, num_classes, k, 1)
        with np.load(path, allow_pickle=False) as arrays:
            index = arrays["index"]
            table.index = torch.from_numpy(index.view(f"i{index.itemsize}"))
            table.value, table.rest = (torch.from_numpy(arrays[name]) for name in ("value", "rest"))
        table.visited = table.value.float().sum(1) + table.rest > 0
        table._fit(path, sidecar)
        return table
