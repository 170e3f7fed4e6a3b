"""Whatever looks on while a network trains: the table, progress, logs, tracking."""

import uuid

import torch
from tqdm import tqdm

from common.errors import BadInput, RunFailure
from common.untrusted import reason
from runs.run_folder import RESULTS
from training.loop import predict, probabilities


class TableUpdater:
    """Filter-KD's table: averages softmax(logits / temperature) of every training forward pass."""

    def __init__(self, table, temperature=1.0):
        self.table, self.temperature = table, temperature

    def after_forward(self, update, epoch, idx, logits):
        own = slice(self.table.rank, None, self.table.world_size) if self.table.collective else slice(None)
        self.table.update(idx[own], probabilities(logits, self.temperature)[own])


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

    # Has a state, though an empty one, its recorder's being kept by itself: an epoch gone on with is not recorded anew.
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


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
    """A bar an epoch, with the best epoch so far and the time left; quiet when standard error is not a terminal."""

    def __init__(self, state, updates_per_epoch, epochs, label=""):
        self.state, self.total, self.epochs, self.label, self.bar = state, updates_per_epoch, epochs, label, None

    def after_forward(self, update, epoch, idx, logits):
        name = f"{self.label} epoch {epoch}/{self.epochs - 1}".strip()
        if self.bar is None:
            self.bar = tqdm(total=self.total, desc=name, initial=update % self.total, disable=None, leave=False)
            self.bar.set_postfix_str(self._so_far(), refresh=False)
        self.bar.update()
        if (update + 1) % self.total == 0:
            self.bar.set_description(f"{name}, evaluating")

    def after_epoch(self, epoch, model):
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def _so_far(self):
        if not self.state.rows:
            return ""
        epoch, accuracy = self.state.best["acc"]
        return f"best {accuracy:.4f} in epoch {epoch}, {time_left(self.state.rows, self.epochs)}"


class EpochLog:
    """A line of figures an epoch, within 100 columns, handed to `write` (print, or a file's).

    Accuracies are by the given labels; a * is at the best so far of those that choose epochs.
    """

    def __init__(self, state, epochs, write):
        self.state, self.epochs, self.write = state, epochs, write

    def after_epoch(self, epoch, model):
        row, last = self.state.rows[-1], self.epochs - 1
        parts = [f"epoch {epoch:{len(str(last))}d}/{last}", f"lr {row['lr']:.3g}", f"loss {row['train_loss']:.4g}"]
        chooser = "valid_acc" if "valid_acc" in row else "test_acc"
        for name, column in (("train", "train_acc_noisy"), ("valid", "valid_acc"), ("test", "test_acc")):
            if column in row:
                mark = "*" if column == chooser and self.state.best["acc"][0] == epoch else ""
                parts.append(f"{name} {row[column]:.4f}{mark}")
        left = f", {time_left(self.state.rows, self.epochs)}" if epoch < last else ""
        digits = 1 if row["seconds"] < 100 else 0
        self.write("  ".join(parts) + f"  {row['seconds']:.{digits}f} s{left}")


def time_left(rows, epochs):
    """In words, how long the epochs to come take, if they take as long as the last few."""
    seconds = [row["seconds"] for row in rows[-5:]]
    left = sum(seconds) / len(seconds) * (epochs - 1 - rows[-1]["epoch"])
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if left >= length:
            return f"{left / length:.1f} {unit} left"
    return f"{left:.0f} s left"


def check_tracking():
    """BadInput when --wandb online cannot work: nobody is logged in."""
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
        try:
            self.run = wandb.init(
                project=args.proj_name,
                name=name,
                mode=args.wandb,
                dir=str(run_path),
                config=settings,
                id=state.tracking,
                resume="allow",
            )
        except wandb.errors.Error as problem:
            raise RunFailure(
                f"--wandb {args.wandb}: {reason(problem)}; the same command with --resume --wandb offline goes on"
            ) from None

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
