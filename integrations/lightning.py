"""Learning paths and a prediction table from Lightning. Copy this file into a folder of yours: at the top
level its name would hide the package.

    trainer = Trainer(max_epochs=30, callbacks=[LearningPaths(recorder, table)])
    trainer.fit(module, DataLoader(IndexedDataset(dataset), batch_size=128, shuffle=True))
    recorder.close()

The module's training_step returns {"loss": loss, "logits": logits}; the row of each sample is the batch's last part,
or its "idx" (IndexedDataset of indexed.py adds it). In the training_step of a student, taught by Filter-KD's table:

    loss = F.cross_entropy(logits, table.values[idx])
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback


class LearningPaths(Callback):
    """Records every training forward pass, a step an epoch; no validation.

    recorder: a PathRecorder, of as many steps as there are epochs; table: a PredictionTable. With several processes
    the first one alone has a recorder, and each may have a table. Samples whose idx is below 0 are left out.
    Checkpoints hold both: to resume, open the recorder with resume.
    """

    def __init__(self, recorder=None, table=None):
        self.recorder, self.table = recorder, table
        self.epochs = np.zeros(0, int)  # by sample, the last one that it was recorded in, counted from 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not isinstance(outputs, Mapping) or "logits" not in outputs:
            raise KeyError('training_step must return {"loss": loss, "logits": logits}')
        idx = (batch["idx"] if isinstance(batch, Mapping) else batch[-1]).flatten()
        logits, epoch = outputs["logits"].detach().flatten(0, -2), trainer.current_epoch
        idx, prob = idx[idx >= 0], logits[idx >= 0].float().softmax(1)
        if trainer.world_size > 1:
            idx, prob = self._once(epoch, *_of_all_processes(trainer.strategy, idx, prob))
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

    def state_dict(self):
        parts = {"recorder": self.recorder, "table": self.table}
        state = {name: part.state_dict() for name, part in parts.items() if part is not None}
        # copies: a checkpoint may be written while the training goes on
        return copy.deepcopy({**state, "epochs": torch.from_numpy(self.epochs)})

    def load_state_dict(self, state):
        self.epochs = state["epochs"].numpy().copy()
        for name in ("recorder", "table"):
            if getattr(self, name) is not None:
                getattr(self, name).load_state_dict(state[name])


def _of_all_processes(strategy, idx, prob):
    """Gathered; where processes have different numbers of samples, some idx are -1."""
    lacking = int(strategy.reduce(torch.tensor(len(idx), device=idx.device), reduce_op="max")) - len(idx)
    idx = strategy.all_gather(F.pad(idx, (0, lacking), value=-1))
    return idx.flatten(), strategy.all_gather(F.pad(prob, (0, 0, 0, lacking))).flatten(0, 1)
