"""Measures of paths against the same thing written out for one sample at a time."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from paths import label_errors, measures
from paths.measures import accuracy_of, compute, default_smoothing, distance_to, low_pass
from supervision.table import PredictionTable


def random_path(seed=0, num_samples=9, num_steps=12, num_classes=4, dtype=np.float32):
    rng = np.random.default_rng(seed)
    q = np.exp(2 * rng.normal(size=(num_samples, num_steps, num_classes)))
    q = np.asfortranarray((q / q.sum(2, keepdims=True)).astype(dtype))
    return q, rng.integers(num_classes, size=num_samples)


def by_hand(q, y):
    """The measures of one sample, q (T, K) in float64."""
    p = q[:, y]
    rival = np.delete(q, y, axis=1).max(1)
    correct = q.argmax(1) == y
    error = np.linalg.norm(q - np.eye(q.shape[1])[y], axis=1)
    steps = np.linalg.norm(np.diff(q, axis=0), axis=1)
    power = np.abs(np.fft.fft(q - q.mean(0), axis=0)) ** 2
    fast = np.abs(np.fft.fftfreq(len(q))) > 0.25
    return {
        "confidence": p.mean(),
        "variability": p.std(),
        "correctness": correct.mean(),
        "integral_difficulty": p.sum(),
        "converged_difficulty": p[-1],
        "area_under_margin": (np.log(p) - np.log(rival)).mean(),
        "el2n": error.mean(),
        "el2n_at_step": error[len(q) // 10],
        "forgetting": sum(a and not b for a, b in zip(correct, correct[1:], strict=False)) if any(correct) else len(q),
        "first_learned": next((t for t, c in enumerate(correct) if c), len(q)),
        "mean_cross_entropy": -np.log(p).mean(),
        "detour": steps.sum() / np.linalg.norm(q[-1] - q[0]),
        "flips": sum(a != b for a, b in zip(q.argmax(1), q.argmax(1)[1:], strict=False)),
        "high_frequency": power[fast].sum() / power.sum(),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 13))
def test_every_measure_is_the_one_written_out_for_a_sample(seed, num_steps):
    path, labels = random_path(seed, num_steps=num_steps)
    found = compute(path, labels)
    for sample in range(len(labels)):
        for name, value in by_hand(path[sample].astype(np.float64), labels[sample]).items():
            assert found[name][sample] == pytest.approx(value, rel=2e-3, abs=2e-5), name


REFERENCE = np.random.default_rng(8).dirichlet(np.ones(4), 100).astype(np.float32)
CHUNKED = {
    "compute": lambda path, labels: compute(path, labels, REFERENCE),
    "low_pass": lambda path, labels: low_pass(path, 0.3),
    "distance_to": lambda path, labels: distance_to(path, REFERENCE, 0.3),
    "distance_to of some": lambda path, labels: distance_to(path, REFERENCE, 0.3, rows=labels > 0),
    "accuracy_of": lambda path, labels: accuracy_of(path, labels, 0.3),
    "accuracy_of of some": lambda path, labels: accuracy_of(path, labels, 0.3, rows=labels > 0),
    "find_label_errors": label_errors.find_label_errors,
    "telling_step": lambda path, labels: label_errors.telling_step(path, labels, 0.3),
    "all_scores": label_errors.all_scores,
    "reasons": lambda path, labels: label_errors.reasons(path, labels, (labels + 1) % 4, "abcd"),
}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_do_not_matter(name, dtype, monkeypatch):
    path, labels = random_path(num_samples=100, dtype=dtype)
    path[[2, 41, 97]] = 0  # never visited
    path[[3, 50, 99], 4:6] = 0  # steps that were missed
    whole = CHUNKED[name](path, labels)
    monkeypatch.setattr(measures, "CHUNK", 7)
    sizes = [rows.indices(100)[1] - rows.start for rows, _ in measures.chunks(path)]
    assert sizes == [7] * 14 + [2]
    for values, expected in zip(parts(CHUNKED[name](path, labels)), parts(whole), strict=True):
        if name == "reasons":
            assert values == expected
        else:
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def parts(found):
    return found.values() if isinstance(found, dict) else found if isinstance(found, (tuple, list)) else [found]


def test_the_filtered_path_of_a_row_never_visited_is_nan():
    path, _ = random_path()
    path[2] = 0
    found = np.isnan(low_pass(path, 0.3))
    assert found[2].all() and not np.delete(found, 2, axis=0).any()


def test_the_filter_is_the_tables_own_moving_average():
    path, _ = random_path()
    table = PredictionTable(9, 4, 0.3)
    filtered = low_pass(path, 0.3)
    for t in range(path.shape[1]):
        table.update(np.arange(9), path[:, t])
        np.testing.assert_allclose(filtered[:, t], table.values, atol=1e-6)


def test_the_default_filter_is_the_published_one_at_200_steps():
    assert default_smoothing(200) == pytest.approx(0.05)
    assert default_smoothing(30) == pytest.approx(1 - 0.95 ** (200 / 30))
    assert default_smoothing(1) <= 1


def test_rival_mass_of_a_zig_zag_by_hand():
    # the sample starts at class 0, moves to its true class 1, and ends at its label 2
    q = np.array([[[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]], np.float32)
    # filtered with .5: class 1 goes .1, .45, .275 and class 0 goes .8, .45, .275
    assert compute(q, np.array([2]), smoothing=0.5)["rival_mass"][0] == pytest.approx(0.8)
    assert compute(q[:, 1:], np.array([2]), smoothing=1.0)["rival_mass"][0] == pytest.approx(0.8)
    assert compute(q[:, [0, 0, 2]], np.array([2]), smoothing=0.5)["flips"][0] == 1


def test_a_straight_line_has_no_detour_and_a_path_that_stands_still_neither():
    line = np.linspace([0.6, 0.4], [0.1, 0.9], 5, dtype=np.float32)[None]
    assert compute(line, np.array([0]))["detour"][0] == pytest.approx(1, abs=1e-4)
    assert compute(np.repeat(line[:, :1], 5, 1), np.array([0]))["detour"][0] == 1
    closed = line[:, [0, 2, 0]]
    assert np.isinf(compute(closed, np.array([0]))["detour"][0])


def test_an_alternating_path_is_all_high_frequency_and_a_slow_one_has_none():
    t = np.arange(16)
    for wave, share in ((np.cos(np.pi * t), 1), (np.cos(2 * np.pi * t / 16), 0)):
        p = 0.5 + 0.3 * wave
        path = np.stack([p, 1 - p], 1)[None].astype(np.float32)
        assert compute(path, np.array([0]))["high_frequency"][0] == pytest.approx(share, abs=1e-4)


def test_rows_never_visited_are_nan_in_every_measure():
    path, labels = random_path()
    path[4] = 0
    for name, values in compute(path, labels, np.full((9, 4), 0.25)).items():
        assert np.isnan(values[4]) and np.isfinite(np.delete(values, 4)).all(), name


def test_small_errors_survive_float16():
    """float16 rounds .9999 to 1: the error comes from the other classes, which keep three digits."""
    path = np.array([[[0.9999, 0.00006, 0.00004]] * 3]).astype(np.float16)
    found = compute(path, np.array([0]))
    assert path[0, 0, 0] == 1
    assert found["el2n"][0] == pytest.approx(np.sqrt(1e-4**2 + 6e-5**2 + 4e-5**2), rel=0.02)


def fitted_path():
    """Labels that are fitted, some far better than others: 1 - q(y) from .1 to 3e-6. (path, labels), float32."""
    rng = np.random.default_rng(0)
    left = 10 ** rng.uniform(-5.5, -1, (300, 5))
    labels = rng.integers(4, size=300)
    path = np.asfortranarray(left[..., None] * rng.dirichlet(np.full(4, 5.0), (300, 5)))
    path[np.arange(300), :, labels] = 0
    path[np.arange(300), :, labels] = 1 - path.sum(2)
    return path.astype(np.float32), labels


@pytest.mark.parametrize(
    "name",
    "confidence integral_difficulty converged_difficulty mean_cross_entropy el2n el2n_at_step area_under_margin "
    "detour variability".split(),
)
def test_float16_ranks_fitted_labels_as_float32_does(name):
    path, labels = fitted_path()
    half = path.astype(np.float16)
    assert (half[np.arange(300), -1, labels] == 1).sum() > 50  # all the same, as they are stored
    assert spearmanr(compute(half, labels)[name], compute(path, labels)[name]).statistic > 0.9995


def test_float16_tells_distances_of_fitted_labels_as_float32_does():
    path, labels = fitted_path()
    far, near = (distance_to(p, np.eye(4)[labels], 0.3) for p in (path, path.astype(np.float16)))
    for name in far:
        np.testing.assert_allclose(near[name], far[name], rtol=1e-3, err_msg=name)
    some = path[:, 0].max(1) > 0.9999  # the smallest errors are told, too
    far, near = (distance_to(p, np.eye(4)[labels], 1.0, some) for p in (path, path.astype(np.float16)))
    np.testing.assert_allclose(near["raw_l2"][0], far["raw_l2"][0], rtol=5e-3)


def test_digits_are_not_made_up_where_a_row_does_not_sum_to_one():
    stored = np.array([[[0.9, 0.05, 0.03]]], np.float16)  # of somebody's own recording
    (_, q), *_ = measures.chunks(stored)
    np.testing.assert_allclose(q[:, 0, 0], [0.9, 0.05, 0.03], atol=5e-4)


LEAST = {"float16": 6e-8, "float32": 1.4e-45, "float64": 1.4e-45}  # of float64 a float32 is taken


@pytest.mark.parametrize("dtype", LEAST)
def test_logarithms_clip_where_the_paths_precision_ends(dtype):
    small = 1e-7 if dtype == "float16" else 1e-20
    path = np.array([[[1 - small, small, 0]] * 20] * 2).astype(dtype)
    labels, least = np.array([1, 2]), LEAST[dtype]
    small = float(path[0, 0, 1])
    own = np.log([small, least])
    found = compute(path, labels)
    np.testing.assert_allclose(found["area_under_margin"], own, rtol=1e-3)
    np.testing.assert_allclose(found["mean_cross_entropy"], -own, rtol=1e-3)
    np.testing.assert_allclose(label_errors.find_label_errors(path, labels)[0], -own, rtol=1e-3)
    scores = label_errors.all_scores(path, labels)
    for name in ("margin_loss", "filtered_end", "first_half", "second_half", "mean_path", "mean_cross_entropy"):
        np.testing.assert_allclose(scores[name], -own, rtol=1e-3, err_msg=name)
    kl = distance_to(path, np.eye(3)[labels], 0.3)
    np.testing.assert_allclose(kl["raw_kl"], -own.mean(), rtol=1e-3)
    np.testing.assert_allclose(kl["filtered_kl"], -own.mean(), rtol=1e-3)


def test_distance_to_a_reference_by_hand():
    path, _ = random_path()
    reference = random_path(seed=5)[0][:, 0]
    path[2] = 0  # never visited: not averaged over
    there = np.arange(9) != 2
    found = distance_to(path, reference, smoothing=0.3)
    filtered = low_pass(path, 0.3)
    for kind, values in (("raw", path), ("filtered", filtered)):
        l2 = np.linalg.norm(values - reference[:, None], axis=2)[there].mean(0)
        kl = (reference[:, None] * np.log(reference[:, None] / np.maximum(values, 1e-9))).sum(2)[there].mean(0)
        np.testing.assert_allclose(found[f"{kind}_l2"], l2, rtol=1e-5)
        np.testing.assert_allclose(found[f"{kind}_kl"], kl, rtol=1e-4)
    chosen = np.zeros(9, bool)
    chosen[[0, 2, 7]] = True
    np.testing.assert_allclose(
        distance_to(path, reference, rows=chosen)["raw_l2"],
        np.linalg.norm(path - reference[:, None], axis=2)[[0, 7]].mean(0),
        rtol=1e-5,
    )


def test_base_difficulty_is_the_distance_of_label_and_truth():
    path, labels = random_path()
    truth = np.eye(4)[labels].astype(np.float32)
    truth[0] = [0.25] * 4
    base = compute(path, labels, truth)["base_difficulty"]
    assert base[0] == pytest.approx(np.sqrt(0.75**2 + 3 * 0.25**2)) and not base[1:].any()


@pytest.mark.parametrize("shape", [(0, 5, 4), (9, 0, 4), (9, 5, 1), (9, 5)])
def test_a_path_without_samples_steps_or_a_second_class_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        compute(np.ones(shape), np.zeros(shape[0], int))


@pytest.mark.parametrize(
    "labels", [np.zeros(8, int), np.full(9, 4), np.full(9, -1), np.zeros(9), np.zeros((9, 1), int)]
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        compute(random_path()[0], labels)


def test_accuracy_of_raw_and_filtered_predictions_by_hand():
    path, labels = random_path()
    path[4] = 0  # never visited: counts nowhere
    seen = np.arange(9) != 4
    found = accuracy_of(path, labels, 0.3)
    np.testing.assert_allclose(found["raw_accuracy"], (path.argmax(2) == labels[:, None])[seen].mean(0))
    smooth = low_pass(path, 0.3).argmax(2) == labels[:, None]
    np.testing.assert_allclose(found["filtered_accuracy"], smooth[seen].mean(0))
    only = np.arange(9) < 3
    np.testing.assert_allclose(accuracy_of(path, labels, 0.3, only)["filtered_accuracy"], smooth[:3].mean(0))


def test_a_step_that_a_sample_missed_holds_its_prediction_of_the_step_before():
    path, labels = random_path()
    gaps = path.copy()
    gaps[2, 5:7] = 0
    gaps[3, :2] = 0
    path[2, 5:7] = path[2, 4]
    path[3, :2] = path[3, 2]
    found, expected = compute(gaps, labels), compute(path, labels)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def test_a_long_path_is_read_in_chunks_of_few_samples(monkeypatch):
    path, labels = random_path(num_samples=10)
    whole = compute(path, labels)
    monkeypatch.setattr(measures, "CHUNK_BYTES", 4 * 12 * 4 * 3)  # of three samples
    assert [len(range(10)[rows]) for rows, _ in measures.chunks(path)] == [3, 3, 3, 1]
    for name, values in compute(path, labels).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)
