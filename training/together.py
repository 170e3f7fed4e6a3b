"""Several seeds trained at once, as one network of all of theirs: for small networks, whose steps a GPU hardly feels.

Each keeps its own data order, labels, target, table and run folder; what is saved is the same as of seeds trained one
after another, equal up to rounding.
"""

from dataclasses import dataclass

import torch

from models.stacked import Stacked, apart, side_by_side
from common.interruption import noted_signals, stop_if_asked
from training.loop import (
    TrainingState,
    begin_epoch,
    check_finite,
    end_epoch,
    end_update,
    learning_rate,
    make_optimizer,
    saved_when_stopped,
    tell,
)
from runs.run_folder import RunFolder


@dataclass(eq=False)
class Training:
    """What one training is made of. target: its p_tar. valid: a loader, or None: then test chooses the best epochs."""

    run: RunFolder
    state: TrainingState
    target: object
    observers: list
    valid: object
    test: object


class OneOfAll:
    """The network and the optimiser that stand for those of several trainings while they take the same steps."""

    def __init__(self, trainings, args, hardware):
        self.states = [training.state for training in trainings]
        self.model = hardware.place(Stacked([state.model for state in self.states]))
        self.forward, self.optimizer = hardware.forward_of(self.model), make_optimizer(self.model, args)
        momenta = [_momenta(state.optimizer, state.model) for state in self.states]
        if all(momenta):  # none before the first step
            for weight, value in zip(self.model.parameters(), side_by_side(momenta).values(), strict=True):
                # in the weight's own memory layout, as the fused optimiser wants it
                self.optimizer.state[weight]["momentum_buffer"] = torch.empty_like(weight).copy_(value)

    def step(self, loss, lr):
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def write_back(self):
        """Bring the trainings' own networks and optimisers to where this one is: before anybody looks at them."""
        self.model.write_back([state.model for state in self.states])
        momenta_of_each = apart(_momenta(self.optimizer, self.model.wide), len(self.states))
        for state, momenta in zip(self.states, momenta_of_each, strict=True):
            weights = dict(state.model.named_parameters())
            for name, value in momenta.items():
                state.optimizer.state[weights[name]]["momentum_buffer"] = value.clone()


def _momenta(optimizer, model):
    found = {name: optimizer.state[weight].get("momentum_buffer") for name, weight in model.named_parameters()}
    return {name: value for name, value in found.items() if value is not None}


def train_epoch(trainings, whole, loss, lr, between_updates=lambda: None):
    """As loop.train_epoch(), of several trainings that are at the same update: [figures]. whole: their OneOfAll."""
    so_far = [begin_epoch(t.state, lr, t.observers) for t in trainings]
    whole.model.train()
    loaders = [t.state.loader.batches(so_far[0].updates) for t in trainings]
    for batches in zip(*loaders, strict=True):
        for t in trainings:
            tell(t.observers, "before_update", t.state.update, t.state.model)
        logits = whole.forward([x for x, *_ in batches])
        seen, values = list(logits.detach()), []
        for t, of_one, kept, (x, _, ny, idx) in zip(trainings, logits, seen, batches, strict=True):
            values.append(loss(of_one, t.target(x, ny, idx, kept)))
            tell(t.observers, "after_forward", t.state.update, t.state.epoch, idx, kept)
        whole.step(sum(values), lr)
        for t, value, kept, (_, y, ny, _) in zip(trainings, values, seen, batches, strict=True):
            end_update(t.state, value, kept, y, ny)
        between_updates()
    whole.write_back()
    for t in trainings:
        check_finite(t.state)
    return [one.figures() for one in so_far]


def fit(trainings, args, hardware, loss):
    """As loop.fit(), of several trainings at once. Those that a stop left behind catch up first."""
    whole = group = None

    def write_back():
        if whole is not None:
            whole.write_back()

    def between_updates():
        stop_if_asked()
        if any(t.run.time_to_save() for t in group):
            whole.write_back()
            for t in group:
                check_finite(t.state)
                t.run.save(t.state)

    with noted_signals(), saved_when_stopped([(t.state, t.run) for t in trainings], write_back):
        while unfinished := [t for t in trainings if t.state.epoch < args.epochs]:
            first = min((t.state.epoch, t.state.update) for t in unfinished)
            at_once = [t for t in unfinished if (t.state.epoch, t.state.update) == first]
            if at_once != group:
                group, whole = at_once, OneOfAll(at_once, args, hardware)
            lr = learning_rate(first[0], args)
            for t, figures in zip(group, train_epoch(group, whole, loss, lr, between_updates), strict=True):
                forward = hardware.forward_of(t.state.model)
                end_epoch(t.state, t.run, args, forward, {"lr": lr, **figures}, t.valid, t.test, t.observers)
