"""The one training loop and the one evaluation.

Whatever only looks on is an observer. It may define before_epoch(epoch, model), before_update(update, model),
after_forward(update, epoch, idx, logits) and after_epoch(epoch, model); none changes what is learned.
"""

import math
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from errors import RunFailure
from supervision.losses import cross_entropy
from utils import expected_calibration_error

READ_FINITE_EVERY = 50  # updates; reading the flag more often would make a GPU wait for the CPU


@dataclass
class TrainingState:
    """All that a run needs to go on where it was: kept in one object, saved as last.pt.

    loader: the training loader with its generators. table: the PredictionTable, where there is one. rows: the
    metrics of the epochs so far. best: for "acc" and "loss", the epoch that was best and its value.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: object
    table: object = None
    epoch: int = 0
    update: int = 0
    best: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)

    def state_dict(self):
        state = {name: getattr(self, name).state_dict() for name in self._parts()}
        state |= {name: getattr(self, name) for name in ("epoch", "update", "best", "rows")}
        state["global_generator"] = torch.get_rng_state()  # dropout's
        if torch.cuda.is_available():
            state["cuda_generators"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state):
        for name in self._parts():
            getattr(self, name).load_state_dict(state[name])
        for name in ("epoch", "update", "best", "rows"):
            setattr(self, name, state[name])
        torch.set_rng_state(state["global_generator"])
        if "cuda_generators" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_generators"])

    def _parts(self):
        return [name for name in ("model", "optimizer", "scaler", "loader", "table") if getattr(self, name) is not None]


def make_optimizer(model, args):
    """SGD with momentum and weight decay, the published optimiser."""
    return torch.optim.SGD(model.parameters(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay)


def learning_rate(epoch, args):
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


def train_epoch(state, forward, target, loss, lr, observers=()):
    """One pass over the training set. Returns train_loss, train_acc_noisy, train_acc_clean, train_ece.

    forward: x -> float32 logits. target(x, label, idx) -> p_tar (B, K). loss(logits, p_tar) -> scalar.
    The figures come from the training pass itself: a network's predictions while it learns. Raises
    RunFailure, naming update and learning rate, when the loss is no longer finite.
    """
    model, device = state.model, state.loader.device
    model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    _tell(observers, "before_epoch", state.epoch, model)
    total, finite = torch.zeros((), device=device), torch.ones((), dtype=torch.bool, device=device)
    seen = []  # confidence, right by the given label, right by the clean label: stay on the device
    for x, y, ny, idx in state.loader:
        _tell(observers, "before_update", state.update, model)
        p_tar = target(x, ny, idx)
        logits = forward(x)
        _tell(observers, "after_forward", state.update, state.epoch, idx, logits.detach())
        value = loss(logits, p_tar)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(value).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        with torch.no_grad():
            logits = logits.detach()
            total += value.detach() * len(idx)
            finite &= value.detach().isfinite()
            confidence, predicted = F.softmax(logits, 1).max(1)
            seen.append(torch.stack([confidence, predicted == ny, predicted == y]))
        state.update += 1
        if state.update % READ_FINITE_EVERY == 0:
            _stop_unless(finite, state, lr)
    _stop_unless(finite, state, lr)
    confidence, right, right_clean = torch.cat(seen, 1).cpu()
    return {
        "train_loss": float(total) / len(confidence),
        "train_acc_noisy": float(right.double().mean()),
        "train_acc_clean": float(right_clean.double().mean()),
        "train_ece": expected_calibration_error(confidence, right),
    }


def _tell(observers, moment, *what):
    for observer in observers:
        if hasattr(observer, moment):
            getattr(observer, moment)(*what)


def _stop_unless(finite, state, lr):
    if not finite:
        saved = f"what was saved up to epoch {state.epoch - 1} is whole" if state.epoch else "no epoch was saved"
        raise RunFailure(
            f"the loss is no longer finite, at or shortly before update {state.update} (epoch "
            f"{state.epoch}, learning rate {lr:g}); {saved}; try a smaller --lr, or --warmup"
        )


@torch.no_grad()
def predict(model, forward, loader):
    """(logits (n, K) float32, y, ny, idx), in eval mode, over one pass of a loader; the mode is restored."""
    was_training = model.training
    model.eval()
    batches = [(forward(x), y, ny, idx) for x, y, ny, idx in loader]
    model.train(was_training)
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def evaluate(model, forward, loader):
    """metrics() of a model on a loader, against the labels it is given (ny; in a test set those are clean)."""
    logits, _, ny, _ = predict(model, forward, loader)
    return metrics(logits, ny)


def metrics(logits, labels):
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


def fit(state, run, args, hardware, target, valid, test, *, loss=cross_entropy, observers=()):
    """Train from state.epoch to args.epochs, evaluating, choosing and saving after every epoch.

    run: the RunFolder that keeps metrics, checkpoints and tables. valid: loader or None: then the test set
    chooses. Returns the state.
    """
    forward = hardware.forward_of(state.model)
    chooser = "test" if valid is None else "valid"
    while state.epoch < args.epochs:
        epoch, started = state.epoch, time.perf_counter()
        lr = learning_rate(epoch, args)
        row = {"epoch": epoch, "lr": lr, **train_epoch(state, forward, target, loss, lr, observers)}
        if args.eval_train:
            row |= _clean_training_figures(state.model, forward, state.loader)
        for name, loader in (("valid", valid), ("test", test)):
            if loader is not None:
                row |= {f"{name}_{key}": v for key, v in evaluate(state.model, forward, loader).items()}
        _stop_unless(math.isfinite(row["test_loss"]), state, lr)  # the epoch's last step may have been the bad one
        row["seconds"] = time.perf_counter() - started
        new_best = []
        for figure, better in (("acc", lambda a, b: a > b), ("loss", lambda a, b: a < b)):  # ties: the first stays
            value = row[f"{chooser}_{figure}"]
            if figure not in state.best or better(value, state.best[figure][1]):
                state.best[figure] = (epoch, value)
                new_best.append(f"best_{figure}")
        state.rows.append(row)
        state.epoch += 1
        run.save_epoch(state, epoch, new_best)
        _tell(observers, "after_epoch", epoch, state.model)
    return state


def _clean_training_figures(model, forward, loader):
    logits, y, ny, _ = predict(model, forward, loader.clean())
    found = metrics(logits, ny)
    return {
        "train_loss": found["loss"],
        "train_acc_noisy": found["acc"],
        "train_ece": found["ece"],
        "train_acc_clean": float((logits.argmax(1) == y).float().mean()),
    }
