"""What looks on: a bar that is quiet in a file, a log, and tracking under the published keys."""

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import BadInput, RunFailure
from training.observers import EpochLog, ProgressBar, WandbTracker, check_tracking, time_left

ROW = {
    "epoch": 0, "lr": 0.1, "train_loss": 2.0, "train_acc_noisy": 0.25, "train_acc_clean": 0.5, "train_ece": 0.125,
    "valid_loss": 1.5, "valid_acc": 0.375, "valid_ece": 0.0625,
    "test_loss": 1.25, "test_acc": 0.625, "test_ece": 0.03125, "seconds": 1.5,
}  # fmt: skip


def state_after(epoch, row=ROW):
    so_far = SimpleNamespace(losses=list(torch.tensor([3.0, 1.0, 2.0])))
    best = {"acc": (7, 0.375), "loss": (5, 1.5)}
    return SimpleNamespace(rows=[row], epoch=epoch + 1, best=best, so_far=so_far, tracking=None)


class Wandb:
    """Stands in for the wandb package, of which one run at a time is active."""

    def __init__(self):
        self.started, self.active, self.logged = [], None, []

    def init(self, **settings):
        assert self.active is None, "wandb would go on with the run before"
        self.started.append(settings)
        self.active = self
        return self

    def log(self, figures):
        self.logged.append(figures)

    def finish(self):
        self.active = None


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Wandb())
    return sys.modules["wandb"]


def settings(**changes):
    return SimpleNamespace(**{"proj_name": "Gen_teacher", "wandb": "offline", "epochs": 1, "given": {"lr"}, **changes})


def test_tracking_uses_the_published_keys(wandb):
    WandbTracker(state_after(0), settings(), Path("results/Gen_teacher/resnet18x")).after_epoch(0, None)
    (started,), (*losses, logged) = wandb.started, wandb.logged
    assert started["project"] == "Gen_teacher" and started["name"] == "resnet18x" and started["mode"] == "offline"
    published = {"learning_rate": 0.1, "tacc": 0.25, "vacc": 0.375, "tloss": 2.0, "vloss": 1.5}
    published |= {"tECE": 0.125, "vECE": 0.0625, "bestg_ac": 7, "bestg_lo": 5, "epoch": 0}
    assert published.items() <= logged.items()
    assert losses == [{"loss": 3.0}, {"loss": 1.0}, {"loss": 2.0}]  # of each update, a step each
    assert logged["best_vacc"] == 0.375 and logged["best_vloss"] == 1.5
    assert logged["test_acc"] == 0.625


def test_without_a_validation_split_v_is_the_test_set(wandb):
    row = {name: value for name, value in ROW.items() if not name.startswith("valid")}
    WandbTracker(state_after(0, row), settings(), Path("results/Gen_teacher/x")).after_epoch(0, None)
    assert wandb.logged[-1]["vacc"] == 0.625 and wandb.logged[-1]["vloss"] == 1.25


def test_each_run_of_a_comparison_is_tracked_as_its_own(wandb):
    for method in ("OHT", "KD"):
        tracker = WandbTracker(
            state_after(1), settings(proj_name="p", epochs=2), Path(f"results/p/run_a/seed_1/{method}")
        )
        tracker.state = state_after(0)
        tracker.after_epoch(0, None)
        assert wandb.active
        tracker.state = state_after(1)
        tracker.after_epoch(1, None)
        assert not wandb.active
    assert [s["name"] for s in wandb.started] == ["run_a/seed_1/OHT", "run_a/seed_1/KD"]


def test_a_resumed_run_is_tracked_under_its_own_id(wandb):
    state = state_after(0)
    WandbTracker(state, settings(), Path("results/Gen_teacher/x")).after_epoch(0, None)
    WandbTracker(state, settings(), Path("results/Gen_teacher/x"))
    first, second = wandb.started
    assert first["id"] == second["id"] == state.tracking and first["resume"] == "allow"


def test_a_bar_is_quiet_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = ProgressBar(SimpleNamespace(rows=[]), updates_per_epoch=3, epochs=2)
    for epoch in range(2):
        for update in range(3):
            bar.after_forward(update, epoch, None, None)
        bar.after_epoch(epoch, None)
    assert sys.stderr.getvalue() == ""


def test_the_log_has_a_line_an_epoch():
    lines = []
    state = state_after(0)
    state.best["acc"] = (0, 0.375)
    EpochLog(state, 200, lines.append).after_epoch(0, None)
    (line,) = lines
    assert all(told in line for told in ("0/199", " 0.1 ", " 0.3750", " 0.6250", "1.5 s", "5.0 min"))


def test_the_longest_line_of_the_log_has_100_columns():
    row = {**ROW, "epoch": 100, "lr": 0.000987654, "train_loss": 12.3456, "seconds": 1234.5}
    lines = []
    EpochLog(SimpleNamespace(rows=[row], best={"acc": (100, 0.375)}), 200, lines.append).after_epoch(100, None)
    assert len(lines[0]) <= 100


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_says_the_epoch_as_the_log_does_the_best_so_far_and_when_it_evaluates(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    state = state_after(0)
    state.best["acc"] = (0, 0.375)
    bar = ProgressBar(state, updates_per_epoch=3, epochs=5)
    words = []
    for update in range(3, 6):
        bar.after_forward(update, 1, None, None)
        words.append(set(re.findall("[a-z]+", sys.stderr.getvalue())))
    assert words[0] == words[1] < words[2]  # at the last update it says what comes
    bar.after_epoch(1, None)
    assert all(told in sys.stderr.getvalue() for told in ("1/4", "0.3750", "6 s"))


@pytest.mark.parametrize(
    "seconds, epochs, words", [(1, 51, "50 s"), (1, 121, "2.0 min"), (60, 121, "2.0 h"), (1000, 201, "2.3 d")]
)
def test_time_left_is_that_of_as_many_epochs_as_are_to_come(seconds, epochs, words):
    assert time_left([{"epoch": 0, "seconds": seconds}], epochs).startswith(words)


# --------------------------------------------------------------------------------------- tracking that cannot be


def test_tracking_online_needs_a_login(monkeypatch):
    fake = SimpleNamespace(api=SimpleNamespace(api_key=None))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(BadInput, match="--wandb online"):
        check_tracking()
    fake.api.api_key = "a key"
    check_tracking()


def test_tracking_that_is_refused_ends_the_run_in_a_line(wandb, monkeypatch):
    wandb.errors = SimpleNamespace(Error=KeyError)
    monkeypatch.setattr(wandb, "init", lambda **settings: {}["no such user"])
    with pytest.raises(RunFailure, match="no such user.*--resume --wandb offline"):
        WandbTracker(state_after(0), settings(), Path("results/Gen_teacher/x"))
