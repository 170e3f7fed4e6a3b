"""The kinds of prediction table that --table names, and reading one again."""

from pathlib import Path

from common.flags import value
from supervision.sharded_table import ShardedTable
from supervision.sparse_table import SparseTable
from supervision.table import PredictionTable

ENDINGS = (PredictionTable.ending, SparseTable.ending)


def kept_classes(kind):
    """K of sparse:K; None of other kinds."""
    name, _, k = kind.partition(":")
    return int(k) if name == "sparse" and k.isdecimal() and int(k) > 0 else None


FLAG = {
    "default": "dense",
    "metavar": "dense|sharded|sparse:K",
    "type": value(
        "expected dense, sharded or sparse:K, K from 1 on",
        str,
        lambda text: text in ("dense", "sharded") or kept_classes(text) is not None,
    ),
    "help": "how the table is kept: whole; shared out by row over torchrun's processes; or of each row the K largest "
    "entries, for thousands of classes",
}


def new_table(kind, num_samples, num_classes, smoothing, device, in_use=None, scratch=None):
    """An empty table of a kind. in_use: (n,) rows that will be visited, of which a sparse table keeps some dense.

    scratch: see ShardedTable.
    """
    if kind == "dense":
        return PredictionTable(num_samples, num_classes, smoothing, device)
    if kind == "sharded":
        return ShardedTable(num_samples, num_classes, smoothing, device, scratch)
    return SparseTable(num_samples, num_classes, kept_classes(kind), smoothing, device, in_use)


def load_table(path, sharded=False):
    """The table in a .npy or .npz file, on the CPU; of a .npy each process its own rows where it is to be sharded."""
    if Path(path).suffix == SparseTable.ending:
        return SparseTable.load(path)
    return (ShardedTable if sharded else PredictionTable).load(path)
