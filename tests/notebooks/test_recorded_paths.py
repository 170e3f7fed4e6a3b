"""notebooks/recorded_paths.py: what CIFAR10_path_analysis says of a run is what is in its path."""

import re

import numpy as np
import pytest

from notebooks import recorded_paths as rp
from paths.analysis import DISAGREED, Analysis
from paths.measures import low_pass
from paths.recorded import Recorded

N, T, K = 60, 5, 4


@pytest.fixture(scope="module")
def run():
    """Random paths; every third given label is wrong, and the last ten samples were not trained on."""
    rng = np.random.default_rng(0)
    path = rng.dirichlet(np.ones(K), (N, T)).astype(np.float32)
    path[50:] = 0
    clean = rng.integers(K, size=N)
    given = np.where(np.arange(N) % 3, clean, (clean + 1) % K)
    return Analysis(Recorded("random", path, given, list("abcd"), clean=clean, step_name="epoch"))


def test_a_factor_of_1_is_the_raw_path_and_another_is_the_filter(run):
    for step in (0, 2, T - 1):
        np.testing.assert_array_equal(rp.prediction_at(run, 1, step), run.recorded.path[:, step])
        expected = low_pass(run.recorded.path, 0.3)[:50, step]
        np.testing.assert_allclose(rp.prediction_at(run, 0.3, step)[:50], expected, atol=1e-6)


def test_right_and_wrong_predictions_are_told_by_the_clean_label(run):
    path, clean = run.recorded.path, run.recorded.clean
    np.testing.assert_array_equal(rp.right_at(run, 1, 2)[:50], (path[:, 2].argmax(1) == clean)[:50])
    expected = np.linalg.norm(path[:50, 2] - np.eye(K)[clean[:50]], axis=1)
    np.testing.assert_allclose(rp.error_at(run, 1, 2)[:50], expected, atol=1e-6)


def test_a_zig_zag_goes_by_the_clean_class_and_ends_at_the_wrong_label():
    """Of classes 0, 1, 2: given label 0, clean label 1 (but of the last)."""
    ways = [[1, 2, 0], [2, 1, 0], [0, 0, 0], [1, 0, 1], [2, 2, 0], [0, 1, 0]]
    path = np.eye(3, dtype=np.float32)[ways] * 0.7 + 0.1
    run = Analysis(Recorded("ways", path, np.zeros(6, int), list("abc"), clean=np.array([1, 1, 1, 1, 1, 0])))
    np.testing.assert_array_equal(rp.predictions(run), ways)
    assert rp.zigzags(run).tolist() == [True, True, False, False, False, False]
    assert rp.predictions(run, 0.3)[:3].tolist() == [[1, 1, 1], [2, 2, 2], [0, 0, 0]]  # the first counts .7, .49
    assert not rp.zigzags(run, 0.3).any()


def test_the_clearest_zig_zag_gives_the_clean_class_most():
    path = np.full((3, 3, 3), 0.1, np.float32)
    for row, peak in enumerate((0.5, 0.9, 0.7)):
        path[row, 0, 1], path[row, 2, 0] = peak, 5
    run = Analysis(
        Recorded("peaks", path / path.sum(2, keepdims=True), np.zeros(3, int), list("abc"), clean=np.ones(3, int))
    )
    assert rp.clearest_zigzags(run, 2).tolist() == [1, 2]


def test_groups_leave_out_what_was_not_trained_on(run):
    groups = rp.groups_of(run)
    assert list(groups) == ["all images", "mislabelled images"]
    assert groups["all images"].sum() == 50
    np.testing.assert_array_equal(np.flatnonzero(groups["mislabelled images"]), np.arange(0, 50, 3))
    assert re.search(r"\| 50 \| 5 \w+ \| 4 \| \w+ \| 17 \(34\.0%\) \|", rp.overview({"noisy": run}))


def test_with_votes_the_second_group_is_what_people_disagree_on_most():
    path = np.full((DISAGREED + 100, 2, 2), 0.5, np.float32)
    votes = np.full((len(path), 2), (0.9, 0.1), np.float32)
    votes[100:] = 0.5
    run = Analysis(Recorded("votes", path, np.zeros(len(path), np.int64), ["a", "b"], true_probs=votes))
    title, who = list(rp.groups_of(run).items())[1]
    assert "1,000" in title
    np.testing.assert_array_equal(np.flatnonzero(who), np.arange(100, DISAGREED + 100))


def test_a_difference_counts_when_its_interval_leaves_out_zero():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 400)
    assert rp.compared(a + 0.5, rng.normal(0, 1, 400), "larger", "smaller")[-1] == "larger"
    assert rp.compared(a, a + rng.normal(0.2, 0.1, 400), "larger", "smaller")[-1] == "smaller"
    assert rp.compared(a, a + rng.normal(0, 1, 400), "larger", "smaller")[-1] not in ("larger", "smaller")
    mean, low, high = rp.gap(a, np.zeros(400))
    assert (high - low) / 2 == pytest.approx(1.96 * a.std() / 20) and low < mean < high


def test_verdicts_are_gathered():
    rows = [
        ["noisy", "all images", "last", "0.1", "0.2", "", "nearer"],
        ["clean", "all images", "0.3", "0.3", "", "same"],
    ]
    text = "**nearer**: noisy run, all images (0.1 against 0.2); **same**: clean run, all images (0.3 against 0.3)"
    assert rp.by_verdict(rows) == text


def test_a_run_without_known_wrong_labels_is_not_called_noisy(quick, workplace):
    import main_gen_path

    clean = main_gen_path.main(quick("--run_name", "clean"))
    assert list(rp.open_runs({"noisy": clean, "clean": clean, "human": None})) == ["main", "clean"]
    noisy = main_gen_path.main(quick("--run_name", "noisy", "--ny_ratio", "0.4"))
    assert list(rp.open_runs({"noisy": noisy, "clean": None})) == ["noisy"]
