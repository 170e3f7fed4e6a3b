"""Somebody else's training script, in two processes: tests/integrations/test_elsewhere.py copies it away and starts it.

Its repository has a utils.py and a data/ of its own; learning_paths/ holds copies of this project's files.
"""

import os
import sys

import lightning.pytorch as pl
import torch
from learning_paths.huggingface import LearningPaths
from learning_paths.indexed import IndexedDataset
from learning_paths.lightning import LearningPaths as LightningPaths
from learning_paths.recorder import PathRecorder
from learning_paths.table import PredictionTable
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from data import SAMPLES, Texts
from utils import EPOCHS, Network


class RecordingTrainer(LearningPaths, Trainer):
    pass


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Network()

    def training_step(self, batch, batch_idx):
        found = self.model(batch["x"], batch["labels"])
        return {"loss": found["loss"], "logits": found["logits"]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def observers(name, rank):
    recorder = PathRecorder(f"{name}.npy", SAMPLES, EPOCHS, 3) if rank == 0 else None
    return recorder, PredictionTable(SAMPLES, 3, 0.3)


def huggingface(rank, batch_size):
    recorder, table = observers("huggingface", rank)
    args = TrainingArguments(
        "out", report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", optim="sgd",
        per_device_train_batch_size=batch_size, num_train_epochs=EPOCHS, learning_rate=0.5, max_grad_norm=0,
        lr_scheduler_type="constant", train_sampling_strategy="sequential", gradient_accumulation_steps=1,
    )  # fmt: skip
    trainer = RecordingTrainer(Network(), args, None, IndexedDataset(Texts()), recorder=recorder, table=table)
    trainer.train()
    return recorder, table


def lightning(rank, batch_size):
    recorder, table = observers("lightning", rank)
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=[LightningPaths(recorder, table)],
        **quiet,
    )
    sampler = torch.utils.data.DistributedSampler(Texts(), 2, rank, shuffle=False)
    trainer.fit(Module(), DataLoader(IndexedDataset(Texts()), batch_size, sampler=sampler))
    return recorder, table


def work(rank, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "1"}
    torch.set_num_threads(1)
    for run in (huggingface, lightning):
        recorder, table = run(rank, 8)
        if rank == 0:
            recorder.close()
        table.save(f"{run.__name__}_{rank}_table.npy")


if __name__ == "__main__":
    torch.multiprocessing.start_processes(work, (int(sys.argv[1]),), nprocs=2, start_method="fork")
