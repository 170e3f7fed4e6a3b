"""Measures of paths against the same thing written out for one sample at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import measures
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


def test_chunks_do_not_matter(monkeypatch):
    path, labels = random_path(num_samples=10)
    whole = compute(path, labels, np.full((10, 4), 0.25))
    monkeypatch.setattr(measures, "CHUNK", 3)
    for name, values in compute(path, labels, np.full((10, 4), 0.25)).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, err_msg=name)


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


def test_a_zero_does_not_make_a_margin_infinite():
    path = np.array([[[1.0, 0, 0], [0, 1, 0]]], np.float16)
    found = compute(path, np.array([0]))
    assert np.isfinite(found["area_under_margin"][0]) and np.isfinite(found["mean_cross_entropy"][0])


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


@pytest.mark.parametrize(
    "labels", [np.zeros(8, int), np.full(9, 4), np.full(9, -1), np.zeros(9), np.zeros((9, 1), int)]
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        compute(random_path()[0], labels)


def test_el2n_at_a_chosen_step_is_the_error_there():
    path, labels = random_path()
    found = compute(path, labels, el2n_step=7)["el2n_at_step"]
    np.testing.assert_allclose(found, np.linalg.norm(path[:, 7] - np.eye(4)[labels], axis=1), rtol=1e-4)


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
