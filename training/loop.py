"""The one training loop and the one evaluation.

An observer (a callback) may define before_epoch(epoch, model), before_update(update, model), after_forward(update,
epoch, idx, logits) and after_epoch(epoch, model); none changes what is learned. after_forward comes after the backward
pass, before the optimiser's step; probabilities(logits) is the softmax that all share. A stop comes between two updates
or within an evaluation: what is saved then resumes with the next update, and an evaluation, an observer's too, is made
again.

An observer that has to remember something may also define state_dict(), of tensors, numbers, text, lists and dicts, and
load_state_dict(state): a resumed run gives it back. It is asked for before the first epoch, too. Within an epoch, those
without are told before_epoch again.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from common.errors import Interrupted, RunFailure
from common.interruption import noted_signals
from supervision.losses import cross_entropy
from training import distributed
from utils import expected_calibration_error

READ_FINITE_EVERY = 50  # updates; reading the flag more often would make a GPU wait for the CPU


@dataclass
class EpochSoFar:
    """The current epoch: updates made, what its figures are made of, and the loader's generators at its start.

    What an update gives is kept on the device and looked at together later: a GPU would spend as long on a few tiny
    operations as on a layer.
    """

    loader_at_start: dict
    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0  # seconds, for batches
    losses: list = field(default_factory=list)  # of an update each: the batch's mean loss
    sizes: list = field(default_factory=list)  # and its samples
    seen: list = field(default_factory=list)  # tuples of (n,) tensors: confidence, predicted, given and clean label
    checked: int = 0  # losses known to be finite

    @property
    def updates(self):
        return len(self.losses)

    @property
    def seconds(self):
        return time.perf_counter() - self.started

    @torch.no_grad()
    def add(self, value, logits, y, ny):
        self.losses.append(value)
        self.sizes.append(len(y))
        self.seen.append((*probabilities(logits).max(1), ny, y))

    def is_finite(self):
        """Whether all losses are finite; a GPU is waited for."""
        new = self.losses[self.checked :]
        finite = not new or bool(torch.stack(new).isfinite().all())
        self.checked += len(new) if finite else 0
        return finite

    def figures(self):
        confidence, predicted, ny, y = (v.cpu() for v in self._all_seen())
        losses, sizes = torch.stack(self.losses).cpu().double(), torch.tensor(self.sizes)
        right = predicted == ny
        return {
            "train_loss": float((losses * sizes).sum() / sizes.sum()),
            "train_acc_noisy": float(right.double().mean()),
            "train_acc_clean": float((predicted == y).double().mean()),
            "train_ece": expected_calibration_error(confidence, right),
        }

    def _all_seen(self):
        return [torch.cat(parts) for parts in zip(*self.seen, strict=True)]

    def state_dict(self):
        kept = {name: getattr(self, name) for name in ("loader_at_start", "seconds", "waited", "sizes")}
        return {**kept, "losses": torch.stack(self.losses), "seen": self._all_seen()}

    @classmethod
    def from_state_dict(cls, state, device):
        return cls(
            state["loader_at_start"],
            started=time.perf_counter() - state["seconds"],
            waited=state["waited"],
            losses=list(state["losses"].to(device)),
            sizes=state["sizes"],
            seen=[tuple(v.to(device) for v in state["seen"])],
        )


def probabilities(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """softmax(logits / temperature). At temperature 1 it is made once for a batch and kept with its logits: the table,
    the paths and the figures all want it."""
    if temperature != 1:
        return F.softmax(logits / temperature, 1)
    if not hasattr(logits, "softmax_kept"):
        logits.softmax_kept = F.softmax(logits, 1)
    return logits.softmax_kept


@dataclass
class TrainingState:
    """All that a run needs to go on where it was: kept in one object, saved as last.pt by rank 0.

    loader: the training loader with its generators. table: the PredictionTable, where there is one. recorders: the
    PathRecorders, by name. observers: who is told of the training; their states are kept, where they have one.
    so_far: the current epoch, None between epochs. rows: the metrics of the epochs so far. tracking: an id under which
    a tracker goes on. saved_at: the update after which last.pt was written. ddp: the DistributedDataParallel of the
    model, among several processes.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: object
    table: object = None
    recorders: dict = field(default_factory=dict)
    observers: list = field(default_factory=list)
    epoch: int = 0
    update: int = 0
    so_far: EpochSoFar | None = None
    rows: list = field(default_factory=list)
    tracking: str | None = None
    saved_at: int | None = None
    ddp: torch.nn.Module | None = None

    @property
    def best(self):
        """best_epochs() of the rows so far."""
        return best_epochs(self.rows)

    def end_epoch(self):
        self.epoch, self.so_far = self.epoch + 1, None

    def state_dict(self):
        state = {name: getattr(self, name).state_dict() for name in self._parts()}
        state |= {name: getattr(self, name) for name in ("epoch", "update", "tracking")}
        state["rows"] = self.rows[: self.epoch]  # an epoch that is stopped at its end is no row yet
        state["recorders"] = {name: recorder.state_dict() for name, recorder in self.recorders.items()}
        state["observers"] = [observer.state_dict() for observer in with_state(self.observers)]
        state["so_far"] = None
        if self.so_far is not None:
            state["loader"] = self.so_far.loader_at_start  # they have drawn the whole epoch since
            if self.so_far.updates:
                state["so_far"] = self.so_far.state_dict()
        state["global_generator"] = torch.get_rng_state()  # dropout's
        if self.loader.device.type == "cuda":  # of the GPU that is used
            state["cuda_generators"] = [torch.cuda.get_rng_state(self.loader.device)]
        if self.loader.device.type == "mps":
            state["mps_generator"] = torch.mps.get_rng_state()
        return state

    def load_state_dict(self, state):
        for name in self._parts():
            getattr(self, name).load_state_dict(state[name])
        for name in ("epoch", "update", "tracking", "rows"):
            setattr(self, name, state[name])
        for name, recorder in self.recorders.items():
            recorder.load_state_dict(state["recorders"][name])
        for observer, theirs in zip(with_state(self.observers), state["observers"], strict=True):
            observer.load_state_dict(theirs)
        self.so_far = state["so_far"] and EpochSoFar.from_state_dict(state["so_far"], self.loader.device)
        torch.set_rng_state(state["global_generator"])
        if self.loader.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generators"][0], self.loader.device)
        if self.loader.device.type == "mps":
            torch.mps.set_rng_state(state["mps_generator"])
        distributed.own_dropout()

    def _parts(self):
        return [name for name in ("model", "optimizer", "scaler", "loader", "table") if getattr(self, name) is not None]


def best_epochs(rows):
    """For "acc" and "loss", the best epoch and its value, on validation, or without it on test; ties: the first."""
    if not rows:
        return {}
    chooser = "valid" if "valid_acc" in rows[0] else "test"
    found = {}
    for figure, choose in (("acc", max), ("loss", min)):
        values = [row[f"{chooser}_{figure}"] for row in rows]
        found[figure] = (values.index(choose(values)), choose(values))
    return found


def make_optimizer(model: torch.nn.Module, args) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay, the published optimiser; one pass over the weights where torch can."""
    weights = list(model.parameters())
    fused = weights[0].device.type in ("cpu", "cuda")
    return torch.optim.SGD(weights, args.lr, momentum=args.momentum, weight_decay=args.weight_decay, fused=fused)


def learning_rate(epoch: int, args) -> float:
    """The rate of an epoch: a closed form, so that there is no scheduler to save and nothing to step.

    cosine: from lr to 1e-5 over all epochs; multi: a tenth at each of epochs 80, 120, 160, 180. Over the
    first `warmup` epochs the schedule's rate is multiplied by 1/warmup, 2/warmup, ...
    """
    if args.scheduler == "cosine":
        lowest = 1e-5
        rate = lowest + (args.lr - lowest) * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
    else:
        rate = args.lr * 0.1 ** sum(epoch >= milestone for milestone in (80, 120, 160, 180))
    return rate * min(1, (epoch + 1) / max(args.warmup, 1))


def train_epoch(
    state: TrainingState,
    forward: Callable,
    target: Callable,
    loss: Callable,
    lr: float,
    observers=(),
    between_updates: Callable = lambda: None,
    accumulate: int = 1,
) -> dict[str, float]:
    """One pass over the training set, or the rest of one that was stopped. Returns train_loss, train_acc_noisy,
    train_acc_clean, train_ece.

    forward: x -> float32 logits. target(x, label, idx, logits) -> p_tar (B, K). loss(logits, p_tar) -> scalar, the mean
    over its samples. accumulate: parts in which a batch is computed, one after the other.
    The figures come from the training pass itself: a network's predictions while it learns. The epoch stays the current
    one until state.end_epoch(). Raises RunFailure, naming update and learning rate, when the loss is no longer finite.
    """
    state.model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    resumed = state.so_far is not None
    new_to_it = [observer for observer in observers if not (resumed and hasattr(observer, "state_dict"))]
    tell(new_to_it, "before_epoch", state.epoch, state.model)
    so_far = state.so_far = state.so_far or EpochSoFar(state.loader.state_dict())
    asked = time.perf_counter()
    for number, (x, y, ny, idx) in enumerate(state.loader.batches(so_far.updates), so_far.updates):
        so_far.waited += time.perf_counter() - asked
        tell(observers, "before_update", state.update, state.model)
        state.optimizer.zero_grad(set_to_none=True)
        size = state.loader.size_of(number)
        # target and gradient are of this rank's share of the batch, all else is of the whole
        seen, value = backward(state, forward, target, loss, (x, ny, idx), size, accumulate)
        seen, value, y, ny, idx = distributed.whole_batch(size, seen, value, y, ny, idx)
        tell(observers, "after_forward", state.update, state.epoch, idx, seen)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        end_update(state, value, seen, y, ny)
        between_updates()
        asked = time.perf_counter()
    check_finite(state)
    return so_far.figures()


def backward(state, forward, target, loss, share, size, parts=1):
    """Add the gradient of the mean loss over a batch of `size` samples, of which this process has a share (x, label,
    idx), in parts. Returns the share's logits, detached, and mean loss."""
    if parts > 1:
        return _backward_in_parts(state, forward, target, loss, share, size, parts)
    x, label, idx = share
    logits = forward(x)
    seen = logits.detach()
    p_tar = target(x, label, idx, seen)
    # without a sample the mean would be NaN; the other ranks wait for gradients, of zero
    value = loss(logits, p_tar) if len(x) else logits.sum()
    weight = len(x) * distributed.WORLD_SIZE / size  # DistributedDataParallel takes the mean over the ranks
    state.scaler.scale(value if weight == 1 else value * weight).backward()
    return seen, value.detach()


def _backward_in_parts(state, forward, target, loss, share, size, parts):
    chunks = list(zip(*(whole.tensor_split(parts) for whole in share), strict=True))
    found = []
    for chunk in chunks:
        # the ranks add up their gradients with the last part's
        alone = state.ddp is not None and len(found) + 1 < len(chunks)
        with state.ddp.no_sync() if alone else contextlib.nullcontext():
            found.append(backward(state, forward, target, loss, chunk, size))
    mean = sum(value * len(logits) for logits, value in found) / len(share[0])
    return torch.cat([logits for logits, _ in found]), mean


def end_update(state, value, logits, y, ny):
    """Count an update, and keep what its figures need. logits: detached."""
    state.so_far.add(value.detach(), logits, y, ny)
    state.update += 1
    if state.update % READ_FINITE_EVERY == 0:
        check_finite(state)


def tell(observers, moment, *what):
    """Call that moment of those that define it. Stopped in one's evaluation, all have the state they had before."""
    told = [observer for observer in observers if hasattr(observer, moment)]
    can_stop = with_state(told) if moment != "after_forward" else []
    before = [copy.deepcopy(observer.state_dict()) for observer in can_stop]
    try:
        for observer in told:
            getattr(observer, moment)(*what)
    except Interrupted:
        for observer, state in zip(can_stop, before, strict=True):
            observer.load_state_dict(state)
        raise


def with_state(observers):
    return [observer for observer in observers if hasattr(observer, "state_dict")]


def check_finite(state):
    """RunFailure when the loss of the current epoch was not finite: to be asked before anything is saved."""
    if state.so_far is not None and not state.so_far.is_finite():
        _diverged(state)


def _diverged(state):
    lr = state.optimizer.param_groups[0]["lr"]
    saved = "nothing was saved" if state.saved_at is None else f"last.pt, saved after update {state.saved_at}, is whole"
    raise RunFailure(
        f"the loss is no longer finite, at or shortly before update {state.update} (epoch {state.epoch}, learning rate "
        f"{lr:g}); {saved}; try a smaller --lr, or --warmup"
    )


@torch.no_grad()
def predict(model: torch.nn.Module, forward: Callable, loader) -> tuple[torch.Tensor, ...]:
    """(logits (n, K) float32, y, ny, idx), in eval mode, over one pass of a loader; the mode is restored.

    Each rank computes its share, and all have the result. Interrupted, within a run that was asked to stop.
    """
    was_training, batches = model.training, []
    model.eval()
    distributed.share_buffers(model)
    try:
        for number, (x, y, ny, idx) in enumerate(loader):
            distributed.stop_if_asked()
            batches.append(distributed.whole_batch(loader.size_of(number), forward(x), y, ny, idx))
    finally:
        model.train(was_training)
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def evaluate(model: torch.nn.Module, forward: Callable, loader) -> dict[str, float]:
    """metrics() of a model on a loader, against the labels it is given (ny; in a test set those are clean)."""
    logits, _, ny, _ = predict(model, forward, loader)
    return metrics(logits, ny)


def metrics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """loss, acc, ece, nll and brier of logits (n, K) against labels (n,).

    loss is the mean cross-entropy, whatever the network was trained with (the published code's vloss), and so
    the same number as nll, the name it has in the literature on calibration. ece: 10 bins. brier: mean over
    samples of sum_k (p_k - y_k)^2.
    """
    nll = float(F.cross_entropy(logits, labels))
    p = F.softmax(logits, 1)
    confidence, predicted = p.max(1)
    # sum_k (p_k - y_k)^2 = sum_k p_k^2 - 2 p_y + 1, without a one-hot matrix
    brier = float(((p**2).sum(1) - 2 * p.gather(1, labels[:, None])[:, 0] + 1).mean())
    right = predicted == labels
    return {
        "loss": nll,
        "acc": float(right.float().mean()),
        "ece": expected_calibration_error(confidence, right),
        "nll": nll,
        "brier": brier,
    }


def fit(
    state: TrainingState,
    run,
    args,
    hardware,
    target: Callable,
    valid,
    test,
    loss: Callable = cross_entropy,
) -> TrainingState:
    """Train from where the state is to args.epochs, evaluating, telling its observers and saving after every epoch.

    run: the RunFolder that keeps metrics, checkpoints and tables. valid: loader or None: then the test set
    chooses. Returns the state. Asked to stop (SIGINT, SIGTERM), it saves and raises Interrupted.
    """
    forward = in_training = hardware.forward_of(state.model)
    if distributed.WORLD_SIZE > 1:
        state.ddp = torch.nn.parallel.DistributedDataParallel(state.model)
        in_training = hardware.forward_of(state.ddp)

    def between_updates():
        if distributed.stop_if_asked(run.time_to_save()):
            check_finite(state)
            run.save(state)

    with noted_signals():
        try:
            while state.epoch < args.epochs:
                lr = learning_rate(state.epoch, args)
                figures = train_epoch(
                    state, in_training, target, loss, lr, state.observers, between_updates, args.accumulate
                )
                end_epoch(state, run, args, forward, {"lr": lr, **figures}, valid, test)
        except Interrupted as found:
            check_finite(state)
            run.save(state)
            distributed.barrier()  # no rank ends before rank 0 has saved
            how = "saved; the same command with --resume (and without --overwrite) resumes it"
            raise Interrupted(found.number, how) from None
    return state


def end_epoch(state, run, args, forward, figures, valid, test):
    """Evaluate after an epoch's last update, tell the observers, save. figures: lr and train_epoch()'s."""
    epoch, row = state.epoch, {"epoch": state.epoch, **figures}
    splits = {name: loader for name, loader in (("valid", valid), ("test", test)) if loader is not None}
    if args.eval_train:
        row |= _clean_training_figures(state.model, forward, state.loader)
    for name, loader in splits.items():
        row |= {f"{name}_{key}": v for key, v in evaluate(state.model, forward, loader).items()}
    if not all(math.isfinite(row[f"{name}_loss"]) for name in splits):  # the epoch's last step was the bad one
        _diverged(state)
    row["seconds"], row["seconds_waited"] = state.so_far.seconds, state.so_far.waited
    state.rows.append(row)
    tell(state.observers, "after_epoch", epoch, state.model)
    state.end_epoch()
    run.save_epoch(state, epoch, [f"best_{figure}" for figure, (best, _) in state.best.items() if best == epoch])


def _clean_training_figures(model, forward, loader):
    logits, y, ny, _ = predict(model, forward, loader.clean())
    found = metrics(logits, ny)
    return {
        "train_loss": found["loss"],
        "train_acc_noisy": found["acc"],
        "train_ece": found["ece"],
        "train_acc_clean": float((logits.argmax(1) == y).float().mean()),
    }
