"""Learning paths and a prediction table from the Trainer of transformers: copy this file.

    class RecordingTrainer(LearningPaths, Trainer):
        pass

    trainer = RecordingTrainer(model, args, train_dataset=IndexedDataset(dataset), recorder=recorder, table=table)
    trainer.train()
    recorder.close()

The training set needs a column idx: IndexedDataset of indexed.py adds it. The compute_loss_func of Filter-KD's student:

    def loss(outputs, labels, num_items_in_batch=None):
        target = labels if trainer.idx is None else table.values[trainer.idx]  # None: in an evaluation
        return F.cross_entropy(outputs.logits, target, reduction="sum") / num_items_in_batch
"""

from pathlib import Path

import numpy as np
import torch
from transformers.trainer_utils import get_last_checkpoint

FILE = "learning_paths.pt"  # of a checkpoint


class LearningPaths:
    """Mixed into a Trainer, before it: every training forward pass is recorded, a step an epoch; no evaluation is.

    recorder: a PathRecorder of as many steps as there are epochs. table: a PredictionTable. With several processes the
    first one alone has a recorder, and each may have a table. idx: (B,) rows; of tokens (B, L), a row a token. What is
    labelled -100, or has an idx below 0, is left out. Checkpoints hold both: to resume, open the recorder with resume.
    """

    def __init__(self, *args, recorder=None, table=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.recorder, self.table, self.idx = recorder, table, None  # idx: of the batch in hand
        self.epochs = np.zeros(0, int)  # by sample, the last one that it was recorded in, counted from 1

    def _set_signature_columns_if_needed(self):  # the columns that remove_unused_columns leaves
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, "idx"])]

    def prediction_step(self, model, inputs, *args, **kwargs):
        return super().prediction_step(model, {k: v for k, v in inputs.items() if k != "idx"}, *args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, **more):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **more)
        if "idx" not in inputs:
            raise KeyError("the training set has no column idx: wrap it in IndexedDataset")
        inputs, labels = dict(inputs), inputs.get("labels")
        idx = self.idx = inputs.pop("idx")
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
        logits = outputs["logits"] if isinstance(outputs, dict) else next(v for v in outputs if v.dim() > 1)  # no loss
        self._record(int(self.state.epoch), idx.flatten(), logits.detach().flatten(0, -2), labels)
        self.idx = None
        return (loss, outputs) if return_outputs else loss

    def _record(self, epoch, idx, logits, labels):
        keep = idx >= 0
        if labels is not None and labels.numel() == len(idx):
            keep &= labels.flatten() != -100
        idx, prob = idx[keep], logits[keep].float().softmax(1)
        if self.args.world_size > 1:
            padded = (self.accelerator.pad_across_processes(values, pad_index=-1) for values in (idx, prob))
            idx, prob = self._once(epoch, *map(self.accelerator.gather, padded))
        if self.recorder is not None:
            self.recorder.record(epoch, idx, prob)
        if self.table is not None:
            self.table.update(idx, prob)

    def _once(self, epoch, idx, prob):
        """A sample once an epoch: several processes fill their last batches with samples that came already."""
        idx, first = np.unique(idx.cpu().numpy(), return_index=True)
        idx, first = idx[idx >= 0], first[idx >= 0]
        self.epochs.resize(max([len(self.epochs), *idx[-1:] + 1]), refcheck=False)
        new = self.epochs[idx] <= epoch
        self.epochs[idx] = epoch + 1
        return torch.from_numpy(idx[new]), prob[torch.from_numpy(first[new]).to(prob.device)]

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        if self.is_world_process_zero():
            parts = {"recorder": self.recorder, "table": self.table}
            state = {name: part.state_dict() for name, part in parts.items() if part is not None}
            state["epochs"] = torch.from_numpy(self.epochs)
            torch.save(state, Path(self.args.output_dir, f"checkpoint-{self.state.global_step}", FILE))

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        folder = resume_from_checkpoint
        if folder := get_last_checkpoint(self.args.output_dir) if folder is True else folder:
            state = torch.load(Path(folder) / FILE, map_location="cpu", weights_only=True)
            self.epochs = state["epochs"].numpy().copy()
            for name in ("recorder", "table"):
                if getattr(self, name) is not None:
                    getattr(self, name).load_state_dict(state[name])
        return super().train(resume_from_checkpoint, *args, **kwargs)
