"""A data set whose items carry their row, which learning paths and prediction tables need.

This file needs torch only: copy it into any project.

    loader = DataLoader(IndexedDataset(dataset), batch_size=128, shuffle=True)
    for x, y, idx in loader:
        ...

A student of Filter-KD reads the table of averaged predictions by the same rows. With a temperature tau:

    loss = distillation_loss(student(x), sharpen(table.values[idx], tau), tau)   # supervision/losses.py, targets.py

and without one, but for a factor of 2 in the step, torch's own:

    loss = F.cross_entropy(student(x), table.values[idx])
"""

from collections.abc import Mapping

from torch.utils.data import Dataset


class IndexedDataset(Dataset):
    """dataset, its items followed by their row: (x, y) becomes (x, y, idx), a dict gets the key "idx".

    Wrap the whole training set, then take subsets or split it: rows stay those of the whole set. A data set without
    rows (an IterableDataset) cannot be wrapped.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, idx):
        idx = int(idx)  # samplers may give numpy's or torch's
        item = self.dataset[idx]
        if isinstance(item, Mapping):
            return {**item, "idx": idx}
        return (*item, idx) if isinstance(item, tuple | list) else (item, idx)
