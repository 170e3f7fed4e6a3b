"""The one training loop: its schedule, its figures, its observers, and what it leaves alone."""

import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.errors import Interrupted, RunFailure
from common.hardware import Hardware
from data.loader import IndexedLoader
from supervision.losses import cross_entropy, distillation_loss
from supervision.table import PredictionTable
from supervision.targets import OneHot
from training import loop
from training.loop import TrainingState, evaluate, fit, learning_rate, make_optimizer, metrics, predict
from training.observers import TableUpdater

N, K = 23, 3
CPU = Hardware(torch.device("cpu"), channels_last=False)


def settings(**changes):
    defaults = dict(
        lr=0.1, scheduler="cosine", epochs=3, warmup=0, momentum=0.9, weight_decay=5e-4, eval_train=False, accumulate=1
    )
    return SimpleNamespace(**{**defaults, **changes})


def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), dtype=np.uint8))


def labels():
    """Clean labels, and noisy ones that differ in every third row."""
    y = np.arange(N) % K
    return y, np.where(np.arange(N) % 3 == 0, (y + 1) % K, y)


def make_loader(seed=0, batch_size=5, augment="crop_flip", idx=None):
    y, ny = labels()
    return IndexedLoader(
        images(),
        y,
        ny,
        np.arange(N) if idx is None else idx,
        batch_size,
        (0.5,),
        (0.25,),
        "cpu",
        order=torch.Generator().manual_seed(seed),
        augmentation=torch.Generator().manual_seed(seed + 1),
        augment_kind=augment,
    )


def evaluation_loader():
    y, _ = labels()
    return IndexedLoader(images(), y, y, np.arange(N), 10, (0.5,), (0.25,), "cpu")


def small_net():
    """With BatchNorm and dropout: what a pass in the wrong mode, or a draw too many, would change."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, K)
    )


def linear_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, K))


def new_state(args, seed=0, net=small_net, table=None, **loader):
    torch.manual_seed(seed)
    model = net()
    torch.manual_seed(seed + 2)  # dropout's
    return TrainingState(model, make_optimizer(model, args), CPU.scaler(), make_loader(seed, **loader), table)


class Kept:
    """Stands in for the run folder: remembers what it was asked to keep."""

    def __init__(self):
        self.saved = []

    def save_epoch(self, state, epoch, new_best):
        self.saved.append((epoch, new_best, weights_of(state.model)))
        state.saved_at = state.update

    def time_to_save(self):
        return False


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(weights, others):
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def train(args=None, state=None, valid=None, observers=(), **options):
    """Train with one-hot targets; returns (state, Kept)."""
    args = args or settings()
    state, kept = state or new_state(args), Kept()
    state.observers = list(observers)
    fit(state, kept, args, CPU, OneHot(K), valid, evaluation_loader(), **options)
    return state, kept


# --------------------------------------------------------------------------------------------- schedule


def rates_of(scheduler, epochs):
    rates = []
    for _ in range(epochs):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("epochs, lr", [(1, 0.1), (7, 0.1), (200, 0.1), (100, 0.5)])
def test_cosine_is_torchs_schedule(epochs, lr):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr)
    expected = rates_of(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=1e-5), epochs)
    args = settings(lr=lr, epochs=epochs)
    assert [learning_rate(epoch, args) for epoch in range(epochs)] == pytest.approx(expected, rel=1e-6)


def test_multi_is_torchs_schedule_with_the_published_milestones():
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    expected = rates_of(torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 120, 160, 180]), 200)
    args = settings(scheduler="multi", epochs=200)
    assert [learning_rate(epoch, args) for epoch in range(200)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scheduler", ["cosine", "multi"])
def test_warmup_rises_to_the_schedule_in_equal_steps(scheduler):
    plain, warm = settings(scheduler=scheduler, epochs=10), settings(scheduler=scheduler, epochs=10, warmup=4)
    share = [learning_rate(epoch, warm) / learning_rate(epoch, plain) for epoch in range(10)]
    assert share == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_the_optimizer_runs_at_the_epochs_rate():
    args, rates = settings(epochs=3), []
    state = new_state(args)

    class Watch:
        def before_update(self, update, model):
            rates.append(state.optimizer.param_groups[0]["lr"])

    train(args, state, observers=[Watch()])
    updates = len(state.loader)
    assert rates == [learning_rate(epoch, args) for epoch in range(3) for _ in range(updates)]
    assert [row["lr"] for row in state.rows] == rates[::updates]


# ---------------------------------------------------------------------------------------------- figures


def test_test_figures_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]])
    found = metrics(p.log(), torch.tensor([0, 2, 2]))
    assert found["acc"] == pytest.approx(2 / 3)
    assert found["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.1) + math.log(0.5)) / 3)
    assert found["loss"] == found["nll"]
    brier = (0.3**2 + 0.2**2 + 0.1**2) + (0.3**2 + 0.6**2 + 0.9**2) + (0.25**2 + 0.25**2 + 0.5**2)
    assert found["brier"] == pytest.approx(brier / 3)
    # confidences .7 (right), .6 (wrong) and .5 (right) lie in three bins
    assert found["ece"] == pytest.approx((0.3 + 0.6 + 0.5) / 3)


def test_a_certain_and_right_network_has_no_error_and_a_wrong_one_brier_two():
    sure = torch.eye(3) * 1e4
    right, wrong = metrics(sure, torch.arange(3)), metrics(sure, torch.tensor([1, 2, 0]))
    assert right == {"loss": 0, "acc": 1, "ece": 0, "nll": 0, "brier": 0}
    assert wrong["acc"] == 0 and wrong["brier"] == pytest.approx(2) and wrong["ece"] == pytest.approx(1)


def test_training_figures_count_every_sample_once_by_given_and_clean_label():
    args = settings(lr=1e-12, epochs=1, weight_decay=0)  # a network that stands still
    state = new_state(args, net=linear_net, augment="none")  # 23 samples in batches of 5: the last has 3
    logits, y, ny, _ = predict(state.model, state.model, state.loader.clean())
    row = train(args, state)[0].rows[0]
    assert row["train_loss"] == pytest.approx(F.cross_entropy(logits, ny).item(), rel=1e-4)
    assert row["train_acc_noisy"] == pytest.approx((logits.argmax(1) == ny).double().mean().item())
    assert row["train_acc_clean"] == pytest.approx((logits.argmax(1) == y).double().mean().item())
    assert row["train_acc_noisy"] != row["train_acc_clean"]


def test_training_is_on_the_noisy_label():
    args = settings(epochs=60, lr=0.2, weight_decay=0)
    row = train(args, new_state(args, net=linear_net, augment="none"))[0].rows[-1]
    assert row["train_acc_noisy"] == 1 and row["train_acc_clean"] == pytest.approx(15 / 23)


def test_eval_train_reports_a_clean_pass_and_changes_no_weights():
    plain, _ = train(settings())
    looked, _ = train(settings(eval_train=True))
    assert same(weights_of(plain.model), weights_of(looked.model))
    logits, y, ny, _ = predict(looked.model, looked.model, looked.loader.clean())
    row = looked.rows[-1]
    assert row["train_loss"] == pytest.approx(F.cross_entropy(logits, ny).item())
    assert row["train_acc_noisy"] == pytest.approx((logits.argmax(1) == ny).float().mean().item())
    assert row["train_acc_clean"] == pytest.approx((logits.argmax(1) == y).float().mean().item())


def test_evaluation_is_in_eval_mode_and_leaves_no_trace():
    model = small_net().train()
    before, generator = weights_of(model), torch.get_rng_state()
    assert evaluate(model, model, evaluation_loader()) == evaluate(model, model, evaluation_loader())
    assert model.training and same(before, weights_of(model))
    assert torch.equal(torch.get_rng_state(), generator)
    model.eval()
    evaluate(model, model, evaluation_loader())
    assert not model.training


def test_training_is_in_train_mode_whatever_the_mode_before():
    plain, state = train()[0], new_state(settings())
    state.model.eval()
    assert same(weights_of(plain.model), weights_of(train(state=state)[0].model))


def test_an_epoch_is_a_row_from_zero_on():
    state, kept = train(settings(epochs=3), valid=evaluation_loader())
    assert [row["epoch"] for row in state.rows] == [epoch for epoch, _, _ in kept.saved] == [0, 1, 2]
    figures = {"loss", "acc", "ece", "nll", "brier"}
    expected = {f"{split}_{figure}" for split in ("valid", "test") for figure in figures}
    expected |= {
        "epoch",
        "lr",
        "train_loss",
        "train_acc_noisy",
        "train_acc_clean",
        "train_ece",
        "seconds",
        "seconds_waited",
    }
    assert all(set(row) == expected for row in state.rows)


def test_without_a_validation_split_there_are_no_validation_figures():
    state, _ = train()
    assert not [name for name in state.rows[0] if name.startswith("valid")]


def loader_of_classes(y, ny):
    """Images that show nothing but their clean class: a pixel of class c is c once normalised."""
    pixels = torch.as_tensor(y, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 1)
    return IndexedLoader(pixels, y, ny, np.arange(len(y)), 4, (0.0,), (1 / 255,), "cpu")


def knows_the_clean_class(x):
    """Logits of e^2 : 1 : 1 in favour of the class that is shown."""
    return 2 * F.one_hot(x[:, 0, 0, 0].round().long(), K).float()


def test_validation_is_scored_on_the_noisy_labels_it_has():
    """Which keeps the chosen epoch honest: a network that knows every clean label is wrong where noise is."""
    y, ny = labels()  # 8 of 23 differ
    found = evaluate(nn.Identity(), knows_the_clean_class, loader_of_classes(y, ny))
    assert found["acc"] == pytest.approx(15 / 23)
    whole = math.exp(2) + 2
    assert found["nll"] == pytest.approx(math.log(whole) - 2 * 15 / 23, rel=1e-5)
    right, wrong = math.exp(2) / whole, 1 / whole  # p of the class shown, and of each other
    brier = (15 * ((1 - right) ** 2 + 2 * wrong**2) + 8 * (right**2 + (1 - wrong) ** 2 + wrong**2)) / 23
    assert found["brier"] == pytest.approx(brier, rel=1e-5)
    assert found["ece"] == pytest.approx(abs(right - 15 / 23), rel=1e-5)


def test_a_runs_validation_figures_are_those_of_the_noisy_labels(monkeypatch):
    y, ny = labels()
    args, state = settings(epochs=2), new_state(settings(), net=linear_net)
    monkeypatch.setattr(Hardware, "forward_of", lambda self, model: evaluation_only(model))
    fit(state, Kept(), args, CPU, OneHot(K), loader_of_classes(y, ny), loader_of_classes(y, y))
    assert [row["valid_acc"] for row in state.rows] == pytest.approx([15 / 23] * 2)
    assert [row["test_acc"] for row in state.rows] == [1, 1]
    assert state.best["acc"] == (0, pytest.approx(15 / 23))


def evaluation_only(model):
    """A forward pass that trains `model`, and in evaluation knows the clean class."""
    return lambda x: model(x) if model.training else knows_the_clean_class(x)


def test_a_step_is_sgd_with_momentum_and_weight_decay_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    optimizer = make_optimizer(model, settings(lr=0.1, momentum=0.9, weight_decay=0.5))
    # gradients of 2: 2 + .5 * 1 = 2.5, w = 1 - .1 * 2.5 = .75; 2 + .5 * .75 = 2.375, + .9 * 2.5 = 4.625, w = .2875
    for expected in (0.75, 0.2875):
        model.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        assert float(model.weight.detach()) == pytest.approx(expected)


def test_the_weights_of_two_updates_by_hand():
    """One pixel, two classes: what the loop does with data, loss, rate, momentum and weight decay, in numbers."""
    args = settings(lr=0.4, epochs=1, momentum=0.5, weight_decay=0.25)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data.zero_()
    pixel = torch.ones(4, 1, 1, 1, dtype=torch.uint8)
    y = np.array([0, 0, 0, 0])
    rows = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    loader = IndexedLoader(pixel, y, y, np.arange(4), 2, (0.0,), (1 / 255,), "cpu", order=rows[0], augmentation=rows[1])
    state = TrainingState(model, make_optimizer(model, args), CPU.scaler(), loader)
    figures = loop.train_epoch(state, model, OneHot(2), cross_entropy, args.lr)
    # q = (.5, .5): gradient (-.5, .5), w = (.2, -.2). q_0 = 1 / (1 + e^-.4) = .598688: gradient -.401312 + .25 * .2 =
    # -.351312, velocity .5 * -.5 - .351312 = -.601312, w_0 = .2 + .4 * .601312 = .440525
    assert model[1].weight.detach()[:, 0].tolist() == pytest.approx([0.440525, -0.440525], abs=1e-6)
    assert figures["train_loss"] == pytest.approx((math.log(2) - math.log(0.598688)) / 2, abs=1e-6)
    assert figures["train_ece"] == pytest.approx(1 - (0.5 + 0.598688) / 2, abs=1e-6)


# ----------------------------------------------------------------------------------------- the best epoch


def with_figures(monkeypatch, by_loader):
    """Let evaluate() report these (acc, loss) by epoch, for each loader a list."""
    asked = {id(loader): iter(figures) for loader, figures in by_loader}

    def fake(model, forward, loader):
        acc, loss = next(asked[id(loader)])
        return {"acc": acc, "loss": loss, "ece": 0.0, "nll": loss, "brier": 0.0}

    monkeypatch.setattr(loop, "evaluate", fake)


def test_validation_chooses_the_best_epochs_and_the_first_on_ties(monkeypatch):
    valid, test = evaluation_loader(), evaluation_loader()
    with_figures(
        monkeypatch,
        [
            (valid, [(0.5, 2.0), (0.7, 1.0), (0.7, 1.0), (0.6, 1.5)]),
            (test, [(0.9, 0.1), (0.1, 5.0), (0.8, 0.2), (1.0, 0.1)]),
        ],
    )
    args, kept = settings(epochs=4), Kept()
    state = new_state(args)
    fit(state, kept, args, CPU, OneHot(K), valid, test)
    assert state.best == {"acc": (1, 0.7), "loss": (1, 1.0)}
    assert [best for _, best, _ in kept.saved] == [["best_acc", "best_loss"]] * 2 + [[], []]


def test_the_test_set_chooses_where_there_is_no_validation_split(monkeypatch):
    test = evaluation_loader()
    with_figures(monkeypatch, [(test, [(0.5, 2.0), (0.4, 1.0), (0.6, 1.5)])])
    args, kept = settings(epochs=3), Kept()
    state = new_state(args)
    fit(state, kept, args, CPU, OneHot(K), None, test)
    assert state.best == {"acc": (2, 0.6), "loss": (1, 1.0)}
    assert [best for _, best, _ in kept.saved] == [["best_acc", "best_loss"], ["best_loss"], ["best_acc"]]


# ---------------------------------------------------------------------------------------------- observers


class Diary:
    """Writes down every call."""

    def __init__(self):
        self.calls, self.idx, self.logits = [], [], []

    def before_epoch(self, epoch, model):
        self.calls.append(("before_epoch", epoch))

    def before_update(self, update, model):
        self.calls.append(("before_update", update))

    def after_forward(self, update, epoch, idx, logits):
        self.calls.append(("after_forward", update, epoch))
        self.idx.append(idx)
        self.logits.append(logits)

    def after_epoch(self, epoch, model):
        self.calls.append(("after_epoch", epoch))


def test_observers_hear_of_every_epoch_and_update_from_zero_on():
    diary = Diary()
    state, _ = train(settings(epochs=2), new_state(settings(), batch_size=10), observers=[diary])  # 3 updates an epoch
    expected = []
    for epoch in range(2):
        expected.append(("before_epoch", epoch))
        for update in range(3 * epoch, 3 * epoch + 3):
            expected += [("before_update", update), ("after_forward", update, epoch)]
        expected.append(("after_epoch", epoch))
    assert diary.calls == expected
    assert state.update == 6


def test_observers_see_every_sample_once_an_epoch_under_its_idx():
    diary, rows = Diary(), np.arange(N) * 7 + 3  # rows of a larger training split
    train(settings(epochs=2), new_state(settings(), idx=rows), observers=[diary])
    for epoch in range(2):
        seen = torch.cat(diary.idx[5 * epoch : 5 * epoch + 5])
        assert sorted(seen.tolist()) == rows.tolist()
    assert not torch.equal(torch.cat(diary.idx[:5]), torch.cat(diary.idx[5:]))


def test_the_losses_of_the_updates_average_to_the_epochs():
    class Losses:
        def after_epoch(self, epoch, model):
            self.seen = torch.stack(state.so_far.losses)

    state, watch = new_state(settings(), batch_size=10), Losses()  # 23 samples: two batches of 10, one of 3
    row = train(settings(), state, observers=[watch])[0].rows[-1]
    assert watch.seen.shape == (3,)
    assert float(watch.seen @ torch.tensor([10.0, 10.0, 3.0])) / 23 == pytest.approx(row["train_loss"], rel=1e-6)


def test_observers_see_the_predictions_that_the_step_was_made_from():
    class Watch(Diary):
        def before_update(self, update, model):
            self.weights = weights_of(model)

        def after_forward(self, update, epoch, idx, logits):
            expected = x[idx].flatten(1) @ self.weights["1.weight"].T + self.weights["1.bias"]
            torch.testing.assert_close(logits, expected)
            assert not logits.requires_grad
            self.calls.append(update)

    state = new_state(settings(), net=linear_net, augment="none")
    x = torch.cat([x for x, *_ in state.loader.clean()])
    watch = Watch()
    train(state=state, observers=[watch])
    assert [call for call in watch.calls if isinstance(call, int)] == list(range(15))


def test_a_target_sees_the_students_logits_and_the_table_as_it_was_before_this_visit():
    table, seen = PredictionTable(N, K, smoothing=0.25), []

    class Bootstrapped(OneHot):
        def __call__(self, x, label, idx, logits):
            assert not logits.requires_grad
            seen.append((idx, logits, table.values[idx].clone()))
            return super().__call__(x, label, idx, logits)

    args, diary = settings(epochs=2), Diary()
    state = new_state(args, table=table)
    state.observers = [TableUpdater(table), diary]
    fit(state, Kept(), args, CPU, Bootstrapped(K), None, evaluation_loader())
    assert all(torch.equal(ours[1], theirs) for ours, theirs in zip(seen, diary.logits, strict=True))
    first = {int(i): p for idx, logits, _ in seen[:5] for i, p in zip(idx, logits.softmax(1), strict=True)}
    assert not any(values.any() for *_, values in seen[:5])
    for idx, _, values in seen[5:]:
        torch.testing.assert_close(values, torch.stack([first[int(i)] for i in idx]))


def test_an_observer_may_define_one_moment_only():
    class Last:
        def after_epoch(self, epoch, model):
            epochs.append(epoch)

    epochs = []
    train(observers=[Last(), object()])
    assert epochs == [0, 1, 2]


class Onlooker(Diary):
    """Makes predictions of its own, before every update and at every epoch's end."""

    def before_update(self, update, model):
        predict(model, model, evaluation_loader())

    def after_epoch(self, epoch, model):
        predict(model, model, evaluation_loader())


def test_no_observer_changes_what_is_learned():
    plain, kept = train()
    table = PredictionTable(N, K, smoothing=0.05)
    watched, kept_watched = train(
        state=new_state(settings(), table=table), observers=[TableUpdater(table), Onlooker(), Diary()]
    )
    pairs = zip(kept.saved, kept_watched.saved, strict=True)
    assert all(same(weights, others) for (_, _, weights), (_, _, others) in pairs)
    drop = {"seconds", "seconds_waited"}
    for row, other in zip(plain.rows, watched.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in drop} == {k: v for k, v in other.items() if k not in drop}


def test_the_table_averages_the_training_passs_predictions_at_its_temperature():
    table, diary = PredictionTable(N, K, smoothing=0.25), Diary()
    train(settings(epochs=2), new_state(settings(), table=table), observers=[TableUpdater(table, 2.0), diary])
    for idx in range(N):
        first, second = (
            (logits[list(batch).index(idx)] / 2).softmax(0)
            for batch, logits in zip([b.tolist() for b in diary.idx], diary.logits, strict=True)
            if idx in batch
        )
        torch.testing.assert_close(table.values[idx], 0.75 * first + 0.25 * second)


# -------------------------------------------------------------------------------------------- randomness


def test_the_same_seed_twice_gives_the_same_weights_and_another_seed_others():
    first, again, other = (train(state=new_state(settings(), seed))[0] for seed in (0, 0, 1))
    assert same(weights_of(first.model), weights_of(again.model))
    assert not torch.equal(first.model[5].weight, other.model[5].weight)


@pytest.mark.parametrize("changed", ["augmentation", "dropout"])
def test_augmentation_and_dropout_take_part(changed):  # or the test above would not speak of them
    plain, _ = train()
    state = new_state(settings())
    if changed == "dropout":
        torch.manual_seed(77)
    else:
        state.loader.augmentation.manual_seed(77)
    other, _ = train(state=state)
    assert not torch.equal(plain.model[5].weight, other.model[5].weight)


class Stopped(Exception):
    pass


class StopsAt(Kept):
    """Saves and stops at an epoch's end, or between two updates."""

    def __init__(self, file, epoch=None, update=None):
        super().__init__()
        self.file, self.epoch, self.update, self.state = file, epoch, update, None

    def save_epoch(self, state, epoch, new_best):
        if epoch == self.epoch:
            self.save(state)
            raise Stopped

    def time_to_save(self):
        return self.state.update == self.update

    def save(self, state):
        torch.save(state.state_dict(), self.file)
        if state.update == self.update:
            raise Stopped


@pytest.mark.parametrize("at", [{"epoch": 1}, {"update": 1}, {"update": 7}, {"update": 10}])  # 5 updates an epoch
def test_a_saved_state_goes_on_bit_for_bit(at):
    def with_table(seed):
        return new_state(args, seed, table=PredictionTable(N, K, smoothing=0.1))

    def go(state, kept):
        state.observers = [TableUpdater(state.table)]
        fit(state, kept, args, CPU, OneHot(K), None, evaluation_loader())

    args, file = settings(epochs=4), io.BytesIO()
    whole = with_table(seed=0)
    go(whole, Kept())
    stopped, kept = with_table(seed=0), StopsAt(file, **at)
    kept.state = stopped
    with pytest.raises(Stopped):
        go(stopped, kept)
    file.seek(0)
    resumed = with_table(seed=5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.update == at.get("update", 10)
    go(resumed, Kept())
    assert same(weights_of(whole.model), weights_of(resumed.model))
    assert torch.equal(whole.table.values, resumed.table.values)
    assert resumed.update == whole.update and resumed.best == whole.best
    assert [without_seconds(row) for row in resumed.rows] == [without_seconds(row) for row in whole.rows]


def without_seconds(row):
    return {name: value for name, value in row.items() if "seconds" not in name}


class Remembers(Diary):
    """With a state: all that it saw of the epoch in hand, and of the epochs before."""

    def __init__(self):
        super().__init__()
        self.seen, self.means = [], []

    def before_epoch(self, epoch, model):
        super().before_epoch(epoch, model)
        self.seen = []

    def after_forward(self, update, epoch, idx, logits):
        self.seen.append(logits.logsumexp(1))

    def after_epoch(self, epoch, model):
        self.means.append(torch.cat(self.seen).mean())

    def state_dict(self):
        return {"seen": self.seen, "means": self.means}

    def load_state_dict(self, state):
        self.seen, self.means = state["seen"], state["means"]


class StopsLooking:
    """Is stopped once, in an evaluation of its own, after those before it were told."""

    def __init__(self, moment, number):
        setattr(self, moment, self.stop)
        self.number = number

    def stop(self, number, model):
        if number == self.number:
            self.number = None
            raise Interrupted(15)


STOPS = [("before_epoch", 1), ("before_update", 7), ("after_epoch", 1), ("between", 7), ("between", 10)]


@pytest.mark.parametrize(("moment", "number"), STOPS)  # 5 updates an epoch
def test_an_observers_state_goes_on_bit_for_bit(moment, number):
    def stop_at(file):
        """What stops the training: a StopsAt between two updates, or an observer."""
        return (
            (StopsAt(file, update=number), []) if moment == "between" else (Saves(file), [StopsLooking(moment, number)])
        )

    class Saves(StopsAt):
        def save(self, state):
            torch.save(state.state_dict(), self.file)

    def go(state, kept, *more):
        state.observers += more
        fit(state, kept, args, CPU, OneHot(K), None, evaluation_loader())

    def fresh(seed=0):
        state = new_state(args, seed)
        state.observers = [Remembers(), Diary()]
        return state

    args, file = settings(epochs=3), io.BytesIO()
    whole = fresh()
    go(whole, Kept())
    stopped = fresh()
    kept, more = stop_at(file)
    kept.state = stopped
    with pytest.raises((Stopped, Interrupted)):
        go(stopped, kept, *more)
    file.seek(0)
    resumed = fresh(seed=5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    go(resumed, Kept())
    means, remade = whole.observers[0].means, resumed.observers[0].means
    assert len(means) == len(remade) == 3 and all(map(torch.equal, means, remade))
    # within an epoch it is announced again to those alone that have no state
    first = [next(call for call in observer.calls if call[0] == "before_epoch") for observer in resumed.observers]
    assert first == [("before_epoch", 1 if moment == "before_epoch" else 2), ("before_epoch", 1)]


def test_an_epoch_that_is_stopped_while_observers_look_at_its_end_is_one_row_when_gone_on_with():
    class StopsWhileLooking:
        def after_epoch(self, epoch, model):
            if epoch == 1:
                raise Stopped

    args = settings(epochs=3)
    whole, _ = train(args)
    stopped = new_state(args)
    with pytest.raises(Stopped):
        train(args, stopped, observers=[StopsWhileLooking()])
    saved = stopped.state_dict()
    assert (saved["epoch"], [row["epoch"] for row in saved["rows"]]) == (1, [0])
    resumed = new_state(args, seed=5)
    resumed.load_state_dict(saved)
    train(args, resumed)
    assert [without_seconds(row) for row in resumed.rows] == [without_seconds(row) for row in whole.rows]


# -------------------------------------------------------------------------------------------- divergence


class Diverges:
    """A loss that is not finite from one update on."""

    def __init__(self, update, value=float("nan")):
        self.left, self.value = update, value

    def __call__(self, logits, p_tar):
        self.left -= 1
        return cross_entropy(logits, p_tar) * (1 if self.left >= 0 else self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_epoch_and_rate(value):
    args, kept = settings(epochs=3), Kept()
    with pytest.raises(RunFailure, match="--lr") as found:
        fit(new_state(args), kept, args, CPU, OneHot(K), None, evaluation_loader(), loss=Diverges(7, value))
    assert {"10", "1", "0.075", "5"} <= set(re.findall(r"0\.075|\d+", str(found.value)))  # updates, epoch, rate
    assert [epoch for epoch, _, _ in kept.saved] == [0]
    assert all(value.isfinite().all() for value in kept.saved[0][2].values())


def test_divergence_is_noticed_within_an_epoch(monkeypatch):
    monkeypatch.setattr(loop, "READ_FINITE_EVERY", 2)
    with pytest.raises(RunFailure, match=r"\b2\b"):
        train(loss=Diverges(1))


def test_weights_broken_by_an_epochs_last_step_are_not_saved():
    args, kept = settings(lr=1e38, epochs=1), Kept()
    state = new_state(args, batch_size=N)  # one update: its loss is still finite, what it leaves is not
    with pytest.raises(RunFailure, match="--lr"):
        fit(state, kept, args, CPU, OneHot(K), None, evaluation_loader())
    assert not kept.saved


def test_a_diverged_network_leaves_no_trace_in_the_table():
    table = PredictionTable(N, K, smoothing=0.5)
    state = new_state(settings(lr=1e30, epochs=1), table=table)
    with pytest.raises(RunFailure):
        train(settings(lr=1e30, epochs=1), state, observers=[TableUpdater(table)])
    assert table.values.isfinite().all()


# ------------------------------------------------------------------------------------------ one loss for all


def test_students_take_any_loss_on_the_same_loop():
    args = settings(epochs=1)
    teacher, _ = train(args)
    student, _ = train(args, loss=lambda logits, p_tar: distillation_loss(logits, p_tar, 1.0))
    halved = settings(epochs=1, lr=0.05, weight_decay=1e-3)  # twice the gradient at half the rate: the same steps
    same_steps, _ = train(halved, loss=lambda logits, p_tar: distillation_loss(logits, p_tar, 1.0))
    assert not torch.allclose(teacher.model[5].weight, student.model[5].weight, atol=1e-4)
    torch.testing.assert_close(teacher.model[5].weight, same_steps.model[5].weight, atol=1e-5, rtol=1e-4)
