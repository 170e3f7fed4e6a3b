"""The toy notebooks' data are what they say, and many networks trained at once learn what each would learn alone."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from notebooks import toy_gaussian as toy
from supervision.losses import distillation_loss
from supervision.targets import OneHot, SmoothedLabel, TeacherNetwork, TrueDistribution
from utils import expected_calibration_error

# ---------------------------------------------------------------------------------------------- data


def test_p_star_is_bayes_rule_on_the_multivariate_normal_densities():
    data = toy.draw_gaussians(2000, dim=5, variance=2.5, seed=3)
    x = data.x.double().numpy()
    covariance = 2.5 * np.eye(5)
    density = np.stack([scipy.stats.multivariate_normal(mean, covariance).pdf(x) for mean in data.means.numpy()], 1)
    np.testing.assert_allclose(data.p_star, density / density.sum(1, keepdims=True), atol=1e-6)


def test_far_from_every_mean_p_star_is_still_a_distribution():
    p = toy.posterior(torch.full((1, 30), 500.0), torch.eye(3, 30), variance=0.01)
    assert p.sum() == pytest.approx(1) and torch.isfinite(p).all()


def test_a_draw_is_the_same_for_a_seed_and_another_for_another():
    first, again, other = (toy.draw_gaussians(300, seed=seed) for seed in (1, 1, 2))
    for name in ("x", "y", "p_star", "means"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_classes_are_gaussians_around_means_of_whole_numbers():
    data = toy.draw_gaussians(60_000, seed=4)
    assert set(data.means.unique().tolist()) == {-1.0, 0.0, 1.0} and data.means.shape == (3, 30)
    for k in range(3):
        x = data.x[data.y == k]
        assert len(x) == pytest.approx(20_000, rel=0.03)
        np.testing.assert_allclose(x.mean(0), data.means[k], atol=0.09)
        np.testing.assert_allclose(x.var(0), 6, rtol=0.06)


def test_the_split_takes_every_row_once_and_the_bayes_bound_is_that_of_its_test_rows():
    data = toy.draw_gaussians(40_000, seed=5, split=(0.05, 0.1))
    assert [data.train, data.valid, data.test] == [slice(0, 2000), slice(2000, 6000), slice(6000, 40_000)]
    right = data.p_star[data.test].argmax(1) == data.y[data.test]
    assert data.bayes_accuracy == pytest.approx(float(right.float().mean()), abs=0.008)


def test_means_can_be_given():
    means = [[1.0, 1], [1, -1], [-1, 1]]
    data = toy.draw_gaussians(64, variance=0.25, means=means)
    assert data.x.shape == (64, 2) and data.means.tolist() == means


# ------------------------------------------------------------------------------------------------ p_tar


@pytest.fixture(scope="module")
def data():
    return toy.draw_gaussians(2000, dim=6, seed=0)  # 100 training rows


def test_targets_are_those_of_the_projects_own_objects(data):
    p_star = data.p_star[data.train]
    oht, ls, truth = toy.training_targets(data, [OneHot(3), SmoothedLabel(3, 0.3), TrueDistribution(p_star)])
    assert torch.equal(truth, p_star) and torch.equal(oht.argmax(1), data.y[data.train])
    torch.testing.assert_close(ls.sum(1), torch.ones(100))
    assert ls.max().item() == pytest.approx(0.8) and ls.min().item() == pytest.approx(0.1)


def test_a_student_can_teach(data):
    students = toy.Students(2, (6, 8, 3), seed=0, same_start=False)
    target = toy.training_targets(data, [TeacherNetwork(students.network(1), tau=2.0)])[0]
    expected = (students.logits(data.x[data.train])[1] / 2).softmax(1)  # divided by tau once
    torch.testing.assert_close(target, expected)


def test_mixing_goes_from_p_star_to_the_label(data):
    p_star, y = data.p_star[data.train], data.y[data.train]
    mixed = toy.mix_with_label(p_star, y, [0.0, 0.25, 1.0])
    assert torch.equal(mixed[0], p_star) and torch.equal(mixed[2], F.one_hot(y, 3).float())
    torch.testing.assert_close(mixed[1], 0.75 * p_star + 0.25 * F.one_hot(y, 3))
    distances = toy.distance(mixed, p_star)
    torch.testing.assert_close(distances[1], distances[2] / 4)
    torch.testing.assert_close(toy.frobenius(mixed, p_star), (distances**2).sum(1).sqrt())


def test_gaussian_noise_leaves_distributions_also_where_clipping_leaves_nothing(data):
    p_star = data.p_star[:500]
    noisy = toy.add_gaussian_noise(p_star, [0.0, 0.1, 50.0], seed=1)
    torch.testing.assert_close(noisy[0], p_star)
    torch.testing.assert_close(noisy.sum(2), torch.ones(3, 500))
    assert noisy.min() >= 0 and torch.isfinite(noisy).all()  # at 50, an eighth of the rows was drawn again
    near, far = toy.distance(noisy[1:], p_star).mean(1)
    assert 0.1 < near < far
    assert torch.equal(noisy, toy.add_gaussian_noise(p_star, [0.0, 0.1, 50.0], seed=1))


# ---------------------------------------------------------------------------- many networks at once

SETTINGS = dict(epochs=3, lr=0.05, batch_size=16)
SIZES = (6, 9, 7, 3)


def in_float64(students, data):
    students.parameters = [p.double() for p in students.parameters]
    rest = (data.means, data.variance, data.train, data.valid, data.test)
    return students, toy.Gaussians(data.x.double(), data.y, data.p_star.double(), *rest)


def train_alone(net, x, p_tar, seed):
    """What everybody writes: a network, an optimizer, a loss, batches in the same order. Yields it at each epoch."""
    net.requires_grad_()
    optimizer = torch.optim.SGD(net.parameters(), SETTINGS["lr"], momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    for _ in range(SETTINGS["epochs"]):
        for rows in torch.randperm(len(x), generator=order).split(SETTINGS["batch_size"]):
            loss = 0.5 * distillation_loss(net(x[rows]), p_tar[rows], 1.0)
            torch.testing.assert_close(loss, F.kl_div(net(x[rows]).log_softmax(1), p_tar[rows], reduction="batchmean"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield net


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3  # as it was before the training
    torch.set_num_threads(before)


@pytest.mark.parametrize("num, watched", [(3, True), (3, False), (21, False)])  # of 21, some are in a second block
def test_students_trained_at_once_learn_what_each_learns_alone(data, num, watched, three_threads):
    students, exact = in_float64(toy.Students(num, SIZES, seed=7, same_start=False), data)
    alone = [students.network(s) for s in range(num)]
    targets = toy.mix_with_label(exact.p_star[data.train], data.y[data.train], np.linspace(0, 1, num)).double()
    targets /= targets.sum(2, keepdim=True)  # to the last digit
    watch = (lambda update, students: None) if watched else None
    run = toy.train(students, exact, targets, seed=5, watch=watch, **SETTINGS)
    assert run.last is students
    for s, net in enumerate(alone):
        x, y, best, best_accuracy = exact.x[data.valid], data.y[data.valid], None, -1
        for epoch, _ in enumerate(train_alone(net, exact.x[data.train], targets[s], seed=5)):
            accuracy = float((net(x).argmax(1) == y).float().mean())
            assert accuracy == pytest.approx(float(run.valid_accuracy[epoch][s]))
            if accuracy > best_accuracy:
                best_accuracy, best = accuracy, (epoch, [p.detach().clone() for p in net.parameters()])
        assert run.best_epoch[s] == best[0]
        for here, there in ((net.parameters(), run.last), (best[1], run.best)):
            for p, other in zip(here, there.network(s).parameters(), strict=True):
                torch.testing.assert_close(p, other, rtol=1e-10, atol=1e-12)


def test_the_best_epoch_is_the_first_on_ties(data):
    """With a learning rate of 0 all epochs are alike."""
    students = toy.Students(2, SIZES, seed=0)
    targets = toy.training_targets(data, [OneHot(3)])
    run = toy.train(students, data, targets, epochs=4, lr=0.0, batch_size=50)
    assert run.best_epoch.tolist() == [0, 0] and len(run.valid_accuracy) == 4


def test_start_best_and_last_are_networks_of_their_own(data):
    students = toy.Students(2, SIZES, seed=0)
    before = [p.clone() for p in students.parameters]
    run = toy.train(students, data, toy.training_targets(data, [OneHot(3)]), **SETTINGS)
    assert all(torch.equal(p, q) for p, q in zip(run.start.parameters, before, strict=True))
    assert not torch.equal(run.last.parameters[0], before[0])
    kept = [p.clone() for p in run.best.parameters]
    for p in run.last.parameters:
        p.zero_()
    assert all(torch.equal(p, q) for p, q in zip(run.best.parameters, kept, strict=True))


def test_watch_sees_every_update_and_the_end(data):
    seen, rows = [], data.x[data.train]
    students = toy.Students(1, SIZES, seed=0)

    def watch(update, students):
        seen.append((update, students.logits(rows).clone()))

    run = toy.train(students, data, toy.training_targets(data, [OneHot(3)]), watch=watch, **SETTINGS)
    assert [update for update, _ in seen] == list(range(3 * 7 + 1))  # 100 rows in batches of 16, none dropped
    torch.testing.assert_close(seen[0][1], run.start.logits(rows))
    torch.testing.assert_close(seen[-1][1], run.last.logits(rows))


def test_students_start_alike_or_not_and_as_linear_layers_do():
    same, different = (toy.Students(400, (10, 5, 3), seed=0, same_start=value) for value in (True, False))
    assert torch.equal(same.parameters[0][0], same.parameters[0][-1])
    assert not torch.equal(different.parameters[0][0], different.parameters[0][-1])
    limit = nn.Linear(10, 5).in_features ** -0.5
    for drawn in different.parameters[:2]:  # weight and bias of nn.Linear: uniform up to 1 / sqrt(inputs)
        assert limit * 0.98 < drawn.abs().max() <= limit and abs(float(drawn.mean())) < 0.02


def test_picked_students_are_copies_and_a_slice_is_the_weights_themselves():
    students = toy.Students(3, (4, 5, 3), seed=0, same_start=False)
    x = torch.randn(8, 4)
    picked, part = students.pick(torch.tensor([2, 2, 0])), students.pick(slice(1, 3))
    torch.testing.assert_close(picked.logits(x), students.logits(x)[[2, 2, 0]])
    torch.testing.assert_close(part.predict(x), students.logits(x)[1:].softmax(2))
    students.parameters[-1][2] += 1
    torch.testing.assert_close(part.logits(x)[1], students.logits(x)[2])
    torch.testing.assert_close(picked.logits(x)[0], students.logits(x)[2] - 1)


def test_figures_are_those_of_the_predictions(data):
    students = toy.Students(2, SIZES, seed=0, same_start=False)
    found = toy.evaluate(students, data, data.test)
    q, y = students.predict(data.x[data.test]), data.y[data.test]
    for s in range(2):
        assert found["accuracy"][s] == pytest.approx(float((q[s].argmax(1) == y).float().mean()))
        assert found["distance"][s] == pytest.approx(
            float((q[s] - data.p_star[data.test]).norm(dim=1).mean()), abs=1e-6
        )
        confidence, right = q[s].max(1).values, q[s].argmax(1) == y
        for bins, name in ((10, "ece"), (3, "ece_3")):
            assert found[name][s] == pytest.approx(expected_calibration_error(confidence, right, bins), abs=1e-5)


# ------------------------------------------------------------------------------- numbers for statements


@pytest.mark.parametrize("noise", [0.0, 0.5, 20.0])
def test_spearmans_interval_contains_rho(noise):
    rng = np.random.default_rng(0)
    a = rng.normal(size=120)
    b = -a + noise * rng.normal(size=120)
    rho, low, high = toy.spearman(a, b)
    assert rho == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert -1 - 1e-9 <= low <= rho + 1e-9 <= high + 2e-9 <= 1 + 2e-9
    assert (high < 0) == (noise < 1)


def test_spearmans_interval_holds_the_truth_in_about_95_of_100_draws():
    rng, held = np.random.default_rng(1), 0
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # of normal variables of correlation .6
    for seed in range(200):
        a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=100).T
        _, low, high = toy.spearman(a, b, seed=seed, resamples=200)
        held += low < truth < high
    assert 0.88 < held / 200 < 0.99


def test_intervals_of_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 400), rng.normal(0, 2, 300)
    difference, low, high = toy.mean_difference(a, b)
    deviation = np.sqrt(1 / 400 + 4 / 300)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    expected = scipy.stats.ttest_1samp([0.1, 0.4, 0.3], 0).confidence_interval(0.95)
    assert toy.over_seeds([0.1, 0.4, 0.3])[1:] == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("interval, word", [((-2, -3, -1), "below"), ((2, 1, 3), "above"), ((2, -1, 5), "unclear")])
def test_words_follow_the_interval(interval, word):
    assert toy.sign(interval, "below", "above", "unclear") == word


def test_a_running_median_has_equally_many_samples_in_each_bin():
    x = np.random.default_rng(0).permutation(100) // 25 * 25 + 12  # 12, 37, 62, 87
    centres, medians = toy.running_median(x, 2 * x, bins=4)
    assert centres == [12, 37, 62, 87] and medians == [24, 74, 124, 174]


def test_a_table_keeps_bars_in_its_cells():
    text = toy.table(["", "|q - p*|"], [["hard", 0.25]])
    assert text.splitlines() == ["|  | \\|q - p*\\| |", "| --- | --- |", "| hard | 0.25 |"]
