"""A plain training loop with the README's five lines: what the integrations are held against."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from integrations.indexed import IndexedDataset
from paths.recorder import PathRecorder
from supervision.table import PredictionTable

N, K, EPOCHS = 50, 3, 3


class Texts(torch.utils.data.Dataset):
    """Items as a tokenizer gives them, of two lengths; labels are learnable."""

    def __init__(self, num_samples=N, seed=0):
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(1, 20, (num_samples, 6))
        self.labels = self.tokens[:, 0] % K

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"input_ids": self.tokens[i], "labels": int(self.labels[i])}


class Images(Texts):
    def __getitem__(self, i):
        pixels = np.random.default_rng(int(i)).random((1, 8, 8), np.float32) + np.float32(self.labels[i])
        return {"pixel_values": pixels, "labels": int(self.labels[i])}


@pytest.fixture
def observers(tmp_path):
    """observers(name, resume) -> a new PathRecorder and PredictionTable, and later read(name) -> the path."""

    def make(name, resume=False):
        return PathRecorder(tmp_path / f"{name}.npy", N, EPOCHS, K, resume=resume), PredictionTable(N, K, 0.3)

    return make


@pytest.fixture
def read(tmp_path):
    return lambda name: np.load(tmp_path / f"{name}.npy")


@pytest.fixture
def plain_loop(observers, read):
    """plain_loop(model, dataset, batch_size) -> the path and the table that the five lines record, in order."""

    def train(model, dataset, batch_size=8, logits_of=lambda model, batch: model(**batch).logits):
        recorder, table = observers("plain")
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        model.train()
        for epoch in range(EPOCHS):
            for batch in DataLoader(IndexedDataset(dataset), batch_size):
                idx, y = batch.pop("idx"), batch.pop("labels")
                logits = logits_of(model, batch)
                recorder.record(epoch, idx, logits.softmax(1))
                table.update(idx, logits.softmax(1))
                loss = torch.nn.functional.cross_entropy(logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        recorder.close()
        return read("plain"), table

    return train
