"""Seeds trained at once learn what they learn one after another, and are saved and resumed like them."""

from functools import partial

import numpy as np
import pytest
import torch

import main_gen_teacher
import old_cifar_noisy
from common.errors import BadInput, Interrupted
from models import build_model
from models.stacked import Stacked
from supervision.losses import distillation_loss
from supervision.table import PredictionTable
from supervision.targets import SmoothedLabel
from common import interruption
from training import loop, together
from common.hardware import Hardware
from training.loop import TrainingState, make_optimizer
from training.observers import TableUpdater
from runs.run_folder import RunFolder
from training.together import OneOfAll, Training
from utils import get_loaders, load_data, with_weight_seed

CPU = Hardware(torch.device("cpu"), dtype=None, channels_last=True, compiled=False)
LOSS = partial(distillation_loss, tau=2.0)
SEEDS = (1, 2, 3)


def trainings(dtype, norm="batch", steps=20):
    """Of three seeds, an epoch of so many updates, in a precision."""
    found = []
    for seed in SEEDS:
        flags = f"--dataset digits --net smallcnn --train_size {steps * 20} --valid_size 0 --batch_size 20"
        args = main_gen_teacher.make_parser().parse_args(f"{flags} --seed {seed} --augment none --ny_ratio .3".split())
        data = load_data(args)
        loader, _, test = get_loaders(args, data)
        loader.scale, loader.shift = loader.scale.to(dtype), loader.shift.to(dtype)
        loader.images = loader.images.to(dtype)  # the loader makes float32 of whatever is not
        loader._normalise = lambda x, shift=loader.shift, scale=loader.scale: (shift + x * scale).permute(0, 3, 1, 2)
        model = CPU.place(with_weight_seed(seed, lambda: build_model("smallcnn", 10, 8, 1, norm=norm))).to(dtype)
        table = PredictionTable(len(data.y), 10, 0.1)
        state = TrainingState(model, make_optimizer(model, args), CPU.scaler(), loader, table)
        found.append(Training(None, state, SmoothedLabel(10, 0.1), [TableUpdater(table)], None, test))
    return found, args


def one_by_one(dtype, lr, **settings):
    found, _ = trainings(dtype, **settings)
    for t in found:
        loop.train_epoch(t.state, t.state.model, t.target, LOSS, lr, t.observers)
    return found


def at_once(dtype, lr, **settings):
    found, args = trainings(dtype, **settings)
    whole = OneOfAll(found, args, CPU)
    whole.forward = whole.model  # logits in the precision of the weights
    together.train_epoch(found, whole, LOSS, lr)
    return found


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_in_float64_twenty_steps_at_once_are_those_of_separate_runs(norm):
    for ours, theirs in zip(
        at_once(torch.float64, 0.1, norm=norm), one_by_one(torch.float64, 0.1, norm=norm), strict=True
    ):
        assert ours.state.update == theirs.state.update == 20
        expected = theirs.state.model.state_dict()
        for name, value in ours.state.model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
        momenta = theirs.state.optimizer.state_dict()["state"]
        for i, found in ours.state.optimizer.state_dict()["state"].items():
            torch.testing.assert_close(found["momentum_buffer"], momenta[i]["momentum_buffer"], rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.state.table.values, theirs.state.table.values, rtol=0, atol=1e-6)
        figures = theirs.state.so_far.figures()
        assert ours.state.so_far.figures() == pytest.approx(figures, abs=1e-6)


def test_in_float32_they_differ_by_less_than_the_seeds_do():
    ours, theirs = (
        torch.stack([t.state.table.values for t in run(torch.float32, 0.02)]) for run in (at_once, one_by_one)
    )
    assert (ours - theirs).abs().mean() < 0.1 * (theirs - theirs.roll(1, 0)).abs().mean()


def test_what_cannot_be_stacked_is_named():
    with pytest.raises(TypeError, match="Dropout cannot be stacked"):
        Stacked([torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())] * 2)


# ------------------------------------------------------------------------------------------ the comparison

FLAGS = "--dataset digits --net smallcnn --train_size 200 --batch_size 50 --lr 0.02 --epochs 2 --device cpu --amp off "
FLAGS += "--ny_ratio 0.4 --path c --seeds 2 --methods OHT ES-FilterKD --vectorize_seeds"


def compare(*more):
    return old_cifar_noisy.main([*FLAGS.split(), *more]).absolute()


def content(folder):
    """What a run has learned: weights, tables and figures, seconds aside."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".npy":
            found[name] = np.load(file)
        elif file.suffix == ".pt" and file.stem != "last":
            found |= {f"{name} {key}": value.numpy() for key, value in torch.load(file).items()}
        elif file.name == "metrics.csv":
            found[name] = np.genfromtxt(file, delimiter=",", skip_header=1)[:, :-1]
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("place"))
        return compare()


def test_the_folder_is_that_of_seeds_one_after_another(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [flag for flag in FLAGS.split() if flag != "--vectorize_seeds"]
    other = old_cifar_noisy.main(flags).absolute()
    names = [{str(file.relative_to(folder)) for file in folder.rglob("*")} for folder in (uninterrupted, other)]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith(".pt"):
            sizes = [(folder / name).stat().st_size for folder in (uninterrupted, other)]
            assert sizes[0] == pytest.approx(sizes[1], rel=0.1)  # a seed's own weights alone
    ours, theirs = content(uninterrupted), content(other)
    weights = [name for name in ours if "OHT/epoch_1.pt" in name and "weight" in name]
    assert weights
    for name in weights:
        assert np.abs(ours[name] - theirs[name]).max() < 0.05 * np.abs(theirs[name]).max(), name


@pytest.mark.parametrize("stop", [5, 21])
def test_interrupted_and_resumed_they_end_as_if_they_had_not_been(uninterrupted, tmp_path, monkeypatch, stop):
    monkeypatch.chdir(tmp_path)
    asked = iter(range(10**6))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(
            RunFolder,
            "time_to_save",
            lambda run: next(asked) >= stop and patch.setattr(interruption, "_noted", 15),
        )
        compare()
    ours, theirs = content(compare("--resume")), content(uninterrupted)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in theirs)


def test_a_seed_that_a_kill_left_behind_catches_up(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved, save_epoch = [], RunFolder.save_epoch

    class Killed(BaseException):
        pass

    def killed_before_the_second(run, *what):
        if len(saved) == 1:
            raise Killed
        saved.append(run.path)
        save_epoch(run, *what)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "save_epoch", killed_before_the_second)
        compare()
    ours, theirs = content(compare("--resume")), content(uninterrupted)
    assert ours.keys() == theirs.keys()
    figures = [name for name in theirs if name.endswith("OHT/metrics.csv")]
    for name in figures:
        np.testing.assert_allclose(ours[name], theirs[name], atol=0.05)


@pytest.mark.parametrize(
    "flags, message",
    [("--net resnet18", "small networks, not resnet18"), ("--amp fp16", "fp16"), ("--wandb offline", "--wandb")],
)
def test_what_cannot_be_trained_at_once_is_bad_input(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=f"--vectorize_seeds: .*{message}"):
        compare(*flags.split())
    assert list(tmp_path.iterdir()) == []


def test_a_resume_needs_no_flag_of_the_run(uninterrupted, monkeypatch, capsys):
    monkeypatch.chdir(uninterrupted.parents[2])
    old_cifar_noisy.main("--dataset digits --path c --resume --device cpu --amp off".split())
    assert "ES-FilterKD" in capsys.readouterr().out
