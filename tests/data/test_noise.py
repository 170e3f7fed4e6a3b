"""data/noise.py: what noise does to labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.noise import KINDS, add_label_noise, realised_rate


def test_symmetric_noise_really_changes_ratio_times_1_minus_1_over_K():
    labels = np.arange(100_000) % 10
    changed = realised_rate(labels, add_label_noise(labels, 10, 0.4, "symmetric", seed=0))
    # 40,000 drawn, each changed with probability .9: .36, with a standard deviation of .0006
    assert changed == pytest.approx(0.36, abs=0.003)


@pytest.mark.parametrize("kind", ["symmetric_exclusive", "pair"])
def test_the_other_two_kinds_really_change_a_share_of_ratio(kind):
    labels = np.arange(1000) % 10
    assert realised_rate(labels, add_label_noise(labels, 10, 0.4, kind, seed=0)) == 0.4


def test_symmetric_noise_draws_every_class_equally_often_the_own_one_too():
    noisy = add_label_noise(np.zeros(100_000, int), 4, 1.0, "symmetric", seed=1)
    # 25,000 of each class, standard deviation 137
    assert np.abs(np.bincount(noisy, minlength=4) - 25_000).max() < 700


def test_exclusive_noise_draws_every_other_class_equally_often():
    noisy = add_label_noise(np.full(90_000, 2), 4, 1.0, "symmetric_exclusive", seed=1)
    counts = np.bincount(noisy, minlength=4)
    assert counts[2] == 0
    assert np.abs(counts[[0, 1, 3]] - 30_000).max() < 700


def test_pair_noise_moves_class_k_to_k_plus_1_and_the_last_to_0():
    assert add_label_noise([0, 1, 2, 2], 3, 1.0, "pair", seed=0).tolist() == [1, 2, 0, 0]


def test_exclusive_noise_of_two_classes_flips():
    assert add_label_noise([0, 1, 1, 0], 2, 1.0, "symmetric_exclusive", seed=0).tolist() == [1, 0, 0, 1]


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    ratio=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**63 - 1),
)
def test_int_of_N_times_ratio_samples_are_relabelled(labels, ratio, kind, seed):
    noisy = add_label_noise(labels, 5, ratio, kind, seed)
    changed = int((noisy != labels).sum())
    drawn = int(len(labels) * ratio + 1e-9)
    assert changed <= drawn if kind == "symmetric" else changed == drawn
    assert noisy.dtype == np.int64 and noisy.shape == (len(labels),)
    assert noisy.min() >= 0 and noisy.max() < 5
    if kind == "pair":
        assert set((noisy - labels) % 5) <= {0, 1}


@pytest.mark.parametrize(
    ("num", "ratio", "drawn"), [(100, 0.29, 29), (1000, 0.57, 570), (50_000, 0.07, 3500), (1437, 0.4, 574)]
)
def test_a_share_that_is_a_whole_number_is_not_rounded_down(num, ratio, drawn):
    """100 * .29 is 28.999999999999996; of 574.8 it stays 574, as published."""
    assert (add_label_noise(np.zeros(num, int), 2, ratio, "pair", seed=0) == 1).sum() == drawn


@pytest.mark.parametrize("kind", KINDS)
def test_noise_follows_from_the_arguments_alone(kind):
    labels = np.arange(500) % 7
    first = add_label_noise(labels, 7, 0.3, kind, seed=5)
    np.random.rand(3), torch.rand(3)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert np.array_equal(first, add_label_noise(labels, 7, 0.3, kind, seed=5))
    assert not np.array_equal(first, add_label_noise(labels, 7, 0.3, kind, seed=6))
    assert np.array_equal(numpy_state, np.random.get_state()[1]) and torch.equal(torch_state, torch.get_rng_state())


def test_the_clean_labels_stay_as_they_are():
    labels = np.zeros(50, np.int64)
    add_label_noise(labels, 3, 1.0, "pair", seed=0)
    assert not labels.any()


@pytest.mark.parametrize("kind", ["symmetric_exclusive", "pair"])
def test_a_higher_ratio_relabels_the_samples_of_a_lower_one_and_more(kind):
    labels = np.arange(300) % 6
    few, many = (set(np.flatnonzero(add_label_noise(labels, 6, r, kind, seed=9) != labels)) for r in (0.2, 0.6))
    assert few < many


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_0_to_1_is_an_error(ratio):
    with pytest.raises(ValueError, match="ratio"):
        add_label_noise([0, 1], 2, ratio, "symmetric", seed=0)


def test_an_unknown_kind_is_an_error_that_lists_the_kinds():
    with pytest.raises(ValueError) as found:
        add_label_noise([0, 1], 2, 0.5, "unheard", seed=0)
    assert all(kind in str(found.value) for kind in ("symmetric", "symmetric_exclusive", "pair", "unheard"))


def test_realised_rate_counts_the_labels_that_changed():
    assert realised_rate([0, 1, 2, 3], [0, 1, 0, 0]) == 0.5
