"""Whatever looks on while a network trains: the table, progress, logs, tracking."""

import uuid

import torch
from tqdm import tqdm

from errors import BadInput
from training.loop import predict, probabilities
from training.run_folder import RESULTS


class TableUpdater:
    """Filter-KD's table: averages softmax(logits / temperature) of every training forward pass."""

    def __init__(self, table, temperature=1.0):
        self.table, self.temperature = table, temperature

    def after_forward(self, update, epoch, idx, logits):
        self.table.update(idx, probabilities(logits, self.temperature))


class TrainingPath:
    """Learning paths for free: every training sample's prediction in each epoch's training pass."""

    def __init__(self, recorder):
        self.recorder = recorder

    def after_forward(self, update, epoch, idx, logits):
        self.recorder.record(epoch, idx, probabilities(logits))


class _WatchedPath:
    """Learning paths of a loader's samples as a network in eval mode sees them, from passes of their own.

    recorder: a PathRecorder. loader: a clean loader of the samples. forward: x -> logits.
    """

    def __init__(self, recorder, loader, forward):
        self.recorder, self.loader, self.forward = recorder, loader, forward

    def _record(self, step, model):
        logits, _, _, idx = predict(model, self.forward, self.loader)
        self.recorder.record(step, idx, probabilities(logits))


class PathBeforeEpochs(_WatchedPath):
    def before_epoch(self, epoch, model):
        self._record(epoch, model)


class PathAfterEpochs(_WatchedPath):
    def after_epoch(self, epoch, model):
        self._record(epoch, model)


class PathBeforeUpdates(_WatchedPath):
    """A step before every `every`-th update, so that step 0 is the untrained network."""

    def __init__(self, recorder, loader, forward, every):
        super().__init__(recorder, loader, forward)
        self.every = every

    def before_update(self, update, model):
        if update % self.every == 0:
            self._record(update // self.every, model)


class ProgressBar:
    """A bar an epoch; quiet when standard error is not a terminal."""

    def __init__(self, updates_per_epoch, epochs, label=""):
        self.total, self.epochs, self.label, self.bar = updates_per_epoch, epochs, label, None

    def after_forward(self, update, epoch, idx, logits):
        if self.bar is None:
            name = f"{self.label} epoch {epoch + 1}/{self.epochs}".strip()
            self.bar = tqdm(total=self.total, desc=name, initial=update % self.total, disable=None, leave=False)
        self.bar.update()

    def after_epoch(self, epoch, model):
        if self.bar is not None:
            self.bar.close()
        self.bar = None


class EpochLog:
    """A line of figures an epoch, handed to `write` (print, or a file's)."""

    def __init__(self, state, write):
        self.state, self.write = state, write

    def after_epoch(self, epoch, model):
        row = self.state.rows[-1]
        parts = [f"epoch {epoch:3d}", f"lr {row['lr']:.5f}", f"train loss {row['train_loss']:.4f}"]
        for name in ("train_acc_noisy", "valid_acc", "test_acc", "test_ece"):
            if name in row:
                parts.append(f"{name.replace('_acc', '').replace('_', ' ')} {row[name]:.4f}")
        self.write("  ".join(parts) + f"  {row['seconds']:.1f} s")


def check_tracking(args):
    """BadInput when --wandb online cannot work: no package, or nobody logged in."""
    if args.wandb == "online":
        import wandb

        if not wandb.api.api_key:
            raise BadInput("--wandb online: nobody is logged in; run wandb login, or use --wandb offline")


class WandbTracker:
    """Weights & Biases under the published keys; t is for training, v for the split that chooses epochs.

    A step for each update with its loss, all sent at the epoch's end, and one for the epoch's figures. bestg_ac and
    bestg_lo are the best epochs, as published, best_vacc and best_vloss their values.
    """

    def __init__(self, state, args, run_path):
        import wandb  # takes a second to import, and is disabled by default

        self.state, self.epochs = state, args.epochs
        settings = {name: value for name, value in vars(args).items() if name != "given"}
        name = run_path.relative_to(RESULTS / args.proj_name).as_posix()  # of a comparison: its seed and method too
        state.tracking = state.tracking or uuid.uuid4().hex  # a resumed run goes on under the same id
        self.run = wandb.init(
            project=args.proj_name,
            name=name,
            mode=args.wandb,
            dir=str(run_path),
            config=settings,
            id=state.tracking,
            resume="allow",
        )

    def after_epoch(self, epoch, model):
        row, best = self.state.rows[-1], self.state.best
        chooser = "valid" if "valid_acc" in row else "test"
        for loss in torch.stack(self.state.so_far.losses).tolist():
            self.run.log({"loss": loss})
        self.run.log(
            {
                "epoch": epoch,
                "learning_rate": row["lr"],
                "tacc": row["train_acc_noisy"],
                "tloss": row["train_loss"],
                "tECE": row["train_ece"],
                "vacc": row[f"{chooser}_acc"],
                "vloss": row[f"{chooser}_loss"],
                "vECE": row[f"{chooser}_ece"],
                "bestg_ac": best["acc"][0],
                "bestg_lo": best["loss"][0],
                "best_vacc": best["acc"][1],
                "best_vloss": best["loss"][1],
                **{key: value for key, value in row.items() if key.startswith("test_")},
            }
        )
        if epoch + 1 == self.epochs:  # or the next method of a comparison would be logged into this run
            self.run.finish()
