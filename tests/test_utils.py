"""utils.py: the common flags, run names, calibration error."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import utils
from common.errors import BadInput
from utils import expected_calibration_error, experiment_parser, get_loaders, run_name


def parse(flags="", **defaults):
    return experiment_parser("test", **defaults).parse_args(flags.split())


# ------------------------------------------------------------------------------------- calibration error


def test_ece_by_hand():
    # (.8,.9]: two of confidence .9, one right: gap |.5 - .9| = .4, weight 1/2
    # (.5,.6]: two of confidence .6, both right: gap |1 - .6| = .4, weight 1/2
    assert expected_calibration_error([0.9, 0.9, 0.6, 0.6], [True, False, True, True]) == pytest.approx(0.4)
    # one bin of its own each: .25 * (.05 + .65 + .25 + .95)
    found = expected_calibration_error(np.array([0.95, 0.35, 0.25, 0.95]), np.array([1, 1, 0, 0], bool))
    assert found == pytest.approx(abs(0.5 - 0.95) / 2 + 0.65 / 4 + 0.25 / 4)


def test_gaps_of_one_bin_cancel_and_those_of_different_bins_do_not():
    assert expected_calibration_error([0.5, 0.5], [True, False]) == 0
    assert expected_calibration_error([0.75, 0.25], [True, False]) == pytest.approx(0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edge", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(dtype, edge):
    edge = torch.tensor(edge, dtype=dtype)
    below = edge - 0.05
    # in one bin the gaps cancel: |(1 - c) + (0 - c')| / 2; in two they would not
    found = expected_calibration_error(torch.stack([edge, below]), torch.tensor([True, False]))
    assert found == pytest.approx(abs(1 - float(edge) - float(below)) / 2, abs=1e-6)
    if edge < 1:
        above = torch.nextafter(edge, torch.ones((), dtype=dtype))
        found = expected_calibration_error(torch.stack([above, below]), torch.tensor([True, False]))
        assert found == pytest.approx((1 - float(above) + float(below)) / 2, abs=1e-6)


def test_ece_at_the_ends():
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([1.0], [False]) == 1
    assert expected_calibration_error([0.0], [False]) == 0
    assert expected_calibration_error([0.0], [True]) == 1
    assert expected_calibration_error([1.0000001], [True]) == pytest.approx(0, abs=1e-6)  # a softmax may round up


def slow_ece(confidence, correct, n_bins):
    total = 0.0
    for i in range(n_bins):
        lower, upper = (confidence.dtype.type(edge / n_bins) for edge in (i, i + 1))
        inside = [k for k, c in enumerate(confidence) if lower < c <= upper or (i == 0 and c == 0)]
        if inside:
            accuracy = sum(float(correct[k]) for k in inside) / len(inside)
            mean_confidence = sum(float(confidence[k]) for k in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@given(
    st.lists(
        st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 30).map(lambda k: k / 30)), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 3, 10, 15]),
)
def test_ece_is_that_of_a_loop_over_bins(samples, dtype, n_bins):
    confidence = np.array([c for c, _ in samples], dtype)
    correct = np.array([right for _, right in samples])
    found = expected_calibration_error(confidence, correct, n_bins)
    assert found == pytest.approx(slow_ece(confidence, correct, n_bins), abs=1e-9)
    assert 0 <= found <= 1


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.5], [True, False]), ([[0.5]], [[True]])])
def test_ece_of_empty_or_unequal_inputs_is_an_error(confidence, correct):
    with pytest.raises(ValueError):
        expected_calibration_error(confidence, correct)


# ----------------------------------------------------------------------------------------------- run name


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "cifar10_cosine"),
        ("--dataset cifar100 --scheduler multi", "cifar100_multi"),
        ("--ny_ratio 0.4", "cifar10_cosine_n0.4"),
        ("--ny_ratio 0", "cifar10_cosine"),
        ("--ny_file data/CIFAR-10_human.pt:worse", "cifar10_cosine_nCIFAR-10_human_worse"),
        ("--ny_file human.csv", "cifar10_cosine_nhuman"),
        ("--run_name mine --ny_ratio 0.4", "mine"),
    ],
)
def test_a_run_is_named_by_its_data_and_schedule_never_at_random(flags, name):
    assert run_name(parse(flags)) == name


# -------------------------------------------------------------------------------------------------- flags

BAD_FLAGS = [
    "--valid_size -1",
    "--train_size 0",
    "--momentum 2",
    "--batch_size -5",
    "--seed -1",
    "--data_seed one",
    "--num_work -1",
    "--save_epochs 3 -1",
]


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_a_wrong_value_is_named(flags):
    with pytest.raises(BadInput) as found:
        parse(flags)
    flag, *values = flags.split()
    (message,) = found.value.messages
    assert message.startswith(f"{flag} {values[-1]}: ")


def test_an_unknown_flag_is_named_and_none_is_abbreviated():
    for flag in ("--learning_rate", "--epoch"):
        with pytest.raises(BadInput) as found:
            parse(f"{flag}=3 --lr 0")
        assert flag in str(found.value) and "--lr 0" in str(found.value)


def test_a_flag_without_its_value_is_named_with_what_is_wrong_before_it():
    with pytest.raises(BadInput) as found:
        parse("--lr 0 --epochs")
    assert [message.split(":")[0] for message in found.value.messages] == ["--lr 0", "--epochs"]


def test_given_are_the_flags_that_the_user_gave():
    assert parse().given == set()
    assert parse("--lr 0.1 --seed=10086 --overwrite --save_epochs").given == {"lr", "seed", "overwrite", "save_epochs"}


def test_published_defaults_and_a_scripts_own():
    args = parse()
    published = {"lr": 0.1, "scheduler": "cosine", "epochs": 200, "net": "resnet18", "dataset": "cifar10"}
    published |= {"ny_ratio": 0, "batch_size": 250, "seed": 10086, "momentum": 0.9, "weight_decay": 5e-4}
    assert {name: getattr(args, name) for name in published} == published
    assert parse(epochs=10, seed=1).epochs == 10
    assert parse("--epochs 3", epochs=10).epochs == 3


def test_the_readmes_three_lines_work():
    args = experiment_parser("my experiment").parse_args(["--dataset", "digits"])
    train, valid, test = get_loaders(args)
    assert (train.num_samples, valid.num_samples, test.num_samples) == (1294, 143, 360)
    x, y, ny, idx = next(iter(train))
    assert x.shape == (250, 1, 8, 8) and y.shape == ny.shape == idx.shape == (250,)
    assert utils.expected_calibration_error(torch.rand(250), y == ny) > 0
