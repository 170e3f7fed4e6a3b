"""Label errors from paths that are made up: of a run that fits its wrong labels, and of one that never does."""

import re

import numpy as np
import pytest

from paths import label_errors, measures
from paths.label_errors import (
    LessThanChance,
    all_scores,
    find_label_errors,
    guess_errors,
    reasons,
    telling_step,
)

N, T, K, SHARE = 400, 40, 5, 0.2


def made_up(fits, seed=0, share=SHARE):
    """(path, given, truth): learning goes from the uniform prediction to the truth, and if fits on to the label."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(K, size=N)
    wrong = rng.random(N) < share
    given = np.where(wrong, (truth + rng.integers(1, K, size=N)) % K, truth)
    time = np.linspace(0, 1, T)[None, :, None]
    learned, fitted = 3 * np.minimum(1, 3 * time), (12 * np.maximum(0, time - 0.5) if fits else 0)
    logits = learned * np.eye(K)[truth][:, None] + fitted * np.eye(K)[given][:, None]
    logits = logits + (0.2 + learned / 3) * rng.normal(size=(N, T, K))  # an untrained network is unsure of all alike
    path = np.exp(logits)
    return np.asfortranarray((path / path.sum(2, keepdims=True)).astype(np.float16)), given, truth


@pytest.fixture(params=[True, False], ids=["fits every label", "fits no wrong label"])
def run(request):
    return made_up(request.param)


def test_wrong_labels_rank_first_and_are_counted(run):
    path, given, truth = run
    score, suggestion, num_errors = find_label_errors(path, given)
    wrong = given != truth
    first = np.argsort(-score)[: wrong.sum()]
    assert wrong[first].mean() > 0.95
    assert (suggestion[wrong] == truth[wrong]).mean() > 0.97
    assert num_errors == pytest.approx(wrong.sum(), rel=0.1)


def test_the_telling_step_lies_early_where_labels_are_fitted_and_late_where_not():
    steps = [telling_step(*made_up(fits)[:2], 0.1) for fits in (True, False)]
    assert 5 < steps[0] < T // 2 + 5 < steps[1]


def test_the_last_predictions_do_not_tell_where_labels_are_fitted():
    path, given, truth = made_up(fits=True)
    score, wrong = all_scores(path, given), given != truth

    def precision(name):
        return wrong[np.argsort(-score[name])[: wrong.sum()]].mean()

    assert precision("telling_margin") > 0.95 > 0.9 > precision("converged_difficulty")


@pytest.mark.parametrize("fits", [True, False])
def test_no_errors_are_found_where_there_are_none(fits):
    path, given, _ = made_up(fits, share=0)
    assert find_label_errors(path, given)[2] < 0.02 * N


def test_a_clean_run_that_learns_late_in_its_first_step_is_not_judged_by_it():
    """Step 0 has by far the largest spread of losses; the filter's window is not full before later."""
    path, given, _ = made_up(fits=False, share=0)
    path[: N // 3, 0] = np.roll(path[: N // 3, -1], 1, axis=1)  # a third still predicts another class, confidently
    assert telling_step(path, given, 0.1) >= 10
    assert find_label_errors(path, given)[2] < 0.02 * N


def test_the_suggestion_is_never_the_given_label(run):
    path, given, _ = run
    assert not (find_label_errors(path, given)[1] == given).any()


def test_the_suggestion_is_another_class_where_the_others_have_nothing_left():
    """float16 rounds the network's certainty to 1 and the rest to 0."""
    given = np.arange(20) % K
    suggestion = find_label_errors(np.eye(K, dtype=np.float16)[given][:, None].repeat(T, 1), given)[1]
    assert not (suggestion == given).any() and set(suggestion) <= set(range(K))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 3.0])
@pytest.mark.parametrize("row", [0, 399])
def test_a_value_that_is_no_probability_is_named(run, row, value):
    path, given, _ = run
    path = path.copy(order="F")
    path[row, 7, 2] = value
    for reader in (find_label_errors, all_scores, measures.compute, measures.accuracy_of):
        with pytest.raises(ValueError, match=rf"{value} at \[{row}, 7, 2\]"):
            reader(path, given)


def test_a_longer_run_leaves_out_no_more_steps_than_one_of_30():
    """100 steps that all show the same: the first one that is not left out is taken."""
    path = made_up(fits=False)[0][:, -1:].repeat(100, 1)
    given = made_up(fits=False)[1]
    assert telling_step(path, given, label_errors.SLOWER * measures.default_smoothing(100)) == 7
    assert telling_step(path[:, :30], given, label_errors.SLOWER * measures.default_smoothing(30)) == 7


def test_the_filter_is_no_longer_than_the_steps_before_the_telling_one():
    """Labels are fitted by step 15 of 200: the score is not that of the first prediction, which knows nothing."""
    path, given, truth = made_up(fits=True)
    path = np.concatenate([path[:, :T:2], path[:, -1:].repeat(180, 1)], axis=1)
    score, _, num_errors = find_label_errors(path, given)
    wrong = given != truth
    assert wrong[np.argsort(-score)[: wrong.sum()]].mean() > 0.95
    assert num_errors == pytest.approx(wrong.sum(), rel=0.1)


def test_the_score_is_the_margin_of_the_filtered_path_at_the_telling_step(run):
    path, given, _ = run
    smoothing = 0.5 * measures.default_smoothing(T)
    q = measures.low_pass(path, smoothing)[:, telling_step(path, given, smoothing)].astype(np.float64)
    own = q[np.arange(N), given]
    q[np.arange(N), given] = 0
    score, suggestion, _ = find_label_errors(path, given)
    np.testing.assert_allclose(score, np.log(q.max(1)) - np.log(own), atol=2e-3)
    np.testing.assert_array_equal(suggestion, q.argmax(1))


def test_each_score_that_is_no_measure_written_out_for_a_sample(run):
    path, given, _ = run
    path, found, smoothing = path[:7, :9], all_scores(path[:7, :9], given[:7], 0.3), 0.3
    for sample, label in enumerate(given[:7]):
        q = path[sample].astype(np.float64)
        filtered = q[:1]
        for step in q[1:]:
            filtered = np.concatenate([filtered, [(1 - smoothing) * filtered[-1] + smoothing * step]])

        def margin(p, label=label):
            return np.log(p[label]) - np.log(np.delete(p, label).max())

        expected = {
            "margin_loss": np.mean([np.log1p(np.exp(-margin(p))) for p in q]),
            "filtered_end": -margin(filtered[-1]),
            "mean_path": -margin(q.mean(0)),
            "first_half": -np.log(q[:4, label]).mean(),  # 4 of the 9 steps
            "second_half": -np.log(q[4:, label]).mean(),
        }
        for name, value in expected.items():
            assert found[name][sample] == pytest.approx(value, rel=2e-3, abs=2e-3), name


@pytest.mark.parametrize("num_steps, step", [(20, 7), (9, 7), (8, 7), (5, 4), (1, 0)])
def test_no_step_is_taken_before_the_filters_window_is_full(num_steps, step):
    """Where every step tells as much, that after the seven left out, or the last."""
    q = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])
    path = np.repeat(q[:, None], num_steps, axis=1).astype(np.float32)
    assert telling_step(path, np.array([0, 0, 0]), 0.125) == step


def softmax(logits):
    q = np.exp(logits - logits.max(-1, keepdims=True))
    return (q / q.sum(-1, keepdims=True)).astype(np.float16)


def learned(truth, num_classes, logit, growth=1, lasting=False, num_steps=20, seed=0):
    """(N, T, K): the truth's logit grows to `logit` (N,), noise of .5 falls to .25."""
    rng, time = np.random.default_rng(seed), np.linspace(0, 1, num_steps)[None, :, None]
    logits = np.asarray(logit)[:, None, None] * time**growth * np.eye(num_classes)[truth][:, None]
    return softmax(
        logits + (0.5 - 0.25 * time) * rng.normal(size=(len(truth), 1 if lasting else num_steps, num_classes))
    )


@pytest.mark.parametrize("growth", [1, 2])
@pytest.mark.parametrize("lasting", [False, True])
def test_of_labels_that_all_come_out_sure_no_thousands_are_said_to_be_wrong(growth, lasting):
    """10,000 samples of 10 classes, the largest of 5,000 and the smallest of 5; noise of a step, or of a sample."""
    truth = np.repeat(np.arange(10), [5000, 2500, 1250, 625, 320, 160, 80, 40, 20, 5])
    low, best, high = guess_errors(learned(truth, 10, np.full(len(truth), 6.0), growth, lasting), truth)
    assert low == 0 and best < 1000 and high <= 1000


def test_a_rare_class_that_stays_unsure_lifts_no_count():
    truth = np.repeat([0, 1], [9980, 20])
    low, best, high = guess_errors(learned(truth, 2, np.where(truth == 0, 6.0, 0.0)), truth)
    assert low == 0 and best <= 20 and high <= 1000


def test_classes_without_samples_and_never_predicted_change_no_guess(run):
    path, given, _ = run
    more = np.concatenate([path, np.zeros((N, T, 3), np.float16)], 2)
    assert guess_errors(more, given) == guess_errors(path, given)


@pytest.mark.parametrize("reader", [find_label_errors, guess_errors])
def test_swapped_columns_are_told(run, reader):
    path, given, _ = run
    with pytest.raises(LessThanChance):
        reader(np.roll(path, 1, axis=2), given)


@pytest.mark.parametrize("share", [0, 0.05, 0.2, 0.4])
@pytest.mark.parametrize("fits", [True, False])
def test_the_truth_lies_in_the_range_of_the_guess(fits, share):
    path, given, truth = made_up(fits, share=share)
    low, best, high = guess_errors(path, given)
    assert low <= (given != truth).sum() <= high <= 4 * low + 0.1 * N
    assert low <= best <= high and best == find_label_errors(path, given)[2]


@pytest.mark.parametrize("fitted", [False, True])
def test_the_guess_where_hard_samples_hide_the_wrong_labels_put_together_by_hand(fitted):
    """Of 1,000 samples of two classes 300 are predicted to be the other, however sure; 240 of them surely."""
    i = np.arange(1000)
    hit, label = i % 10 >= 3, i % 2
    p_top, own, end = np.where(i % 20 < 16, 0.9, 0.6), np.full(1000, 0.8), np.full(1000, 0.99 if fitted else 0.5)
    score = np.random.default_rng(0).normal(size=1000)
    margin = np.random.default_rng(1).permutation(np.linspace(0, 3, 1000))
    low, best, high = label_errors._guess(
        score, label, np.where(hit, label, 1 - label), p_top, own, margin, end, num_classes=2
    )
    sure = p_top > 0.8
    confident = (sure & ~hit).sum()
    scaled = sum(500 * (sure & ~hit & (label == k)).sum() / (sure & (label == k)).sum() for k in (0, 1))
    expected = scaled - 180 if fitted else np.sqrt(confident * 300)
    assert best == pytest.approx(expected, abs=15)
    assert low == pytest.approx(0.6 * (best - 60), abs=1) and high == pytest.approx(4 * low + 100, abs=4)


def test_rows_never_visited_have_no_score_and_change_nothing(run, monkeypatch):
    path, given, _ = run
    monkeypatch.setattr(measures, "CHUNK", 64)
    expected = find_label_errors(path[:300], given[:300])
    path = path.copy(order="F")
    path[300:] = 0
    score, suggestion, num_errors = find_label_errors(path, given)
    assert np.isnan(score[300:]).all() and (suggestion[300:] == -1).all()
    np.testing.assert_allclose(score[:300], expected[0], atol=1e-5)
    assert num_errors == expected[2]
    for name, values in all_scores(path, given).items():
        assert np.isnan(values[300:]).all() and np.isfinite(values[:300]).all() | (name == "detour"), name


def test_every_score_points_the_way_that_its_measure_does(run):
    """On these paths each one ranks wrong labels above right ones better than chance, but for those of shape alone."""
    path, given, truth = run
    wrong = given != truth
    for name, values in all_scores(path, given).items():
        above = (values[wrong][:, None] > values[~wrong]).mean() + 0.5 * (
            values[wrong][:, None] == values[~wrong]
        ).mean()
        assert above > 0.5 or name in ("variability", "forgetting", "high_frequency", "flips", "detour"), name


def test_one_step_and_few_samples_are_enough_to_rank():
    path, given, _ = made_up(fits=False)
    score, _, num_errors = find_label_errors(path[:5, -1:], given[:5])
    assert np.isfinite(score).all() and num_errors == 0


def test_labels_that_do_not_fit_are_refused(run):
    path, given, _ = run
    with pytest.raises(ValueError, match="labels.* 4$"):
        find_label_errors(path, given + 1)
    with pytest.raises(ValueError, match=f"{N - 1},"):
        find_label_errors(path, given[:-1])


def test_a_reason_names_both_classes_and_how_long_the_suggestion_was_ahead():
    q = np.array([[[0.2, 0.8], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4]], [[0.2, 0.8]] * 4])
    q = np.concatenate([q, np.zeros((1, 4, 2))])
    found = reasons(q, np.array([0, 0, 0]), np.array([1, 1, -1]), ["cat", "dog"], "epoch")
    for reason, numbers in ((found[0], ["2", "4", "0.60", "0.40", "2"]), (found[1], ["4", "4", "0.80", "0.20"])):
        assert re.findall(r"[\d.]*\d", reason) == numbers  # the last: when the given label was first predicted
        assert -1 < reason.index("dog") < reason.index("cat")
    assert found[2] == ""


def test_both_lists_of_measures_name_measures_that_exist():
    path, given, _ = made_up(fits=False)
    found = set(measures.compute(path, given))
    assert {*label_errors.WRONG_WHEN_SMALL, *label_errors.WRONG_WHEN_LARGE} <= found
