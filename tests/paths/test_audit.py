"""The audit: what is drawn, how it is mixed among the ranking, and what follows from what a person says."""

import numpy as np
import pytest
from scipy import stats

from paths import audit
from paths.audit import draw, estimate, mixed, strata


def ranking(rates, num_ranked=1000, seed=0):
    """(M,) 1 where the label is wrong, with the given share in each stratum."""
    return (np.random.default_rng(seed).random(num_ranked) < np.array(rates)[strata(num_ranked) - 1]).astype(float)


def looked_at(wrong, ranks):
    said = np.full(len(wrong), np.nan)
    said[ranks] = wrong[ranks]
    return said


def test_strata_end_at_their_shares_of_the_ranking():
    assert np.bincount(strata(1000))[1:].tolist() == [20, 30, 50, 100, 200, 600]


@pytest.mark.parametrize("num_ranked, cards", [(1000, 200), (10_000, 100), (60, 200), (3, 5), (1000, 0)])
def test_cards_are_drawn_once_from_every_stratum_and_a_larger_draw_contains_a_smaller_one(num_ranked, cards):
    ranks = draw(num_ranked, cards)
    assert len(set(ranks.tolist())) == len(ranks) <= cards + 2
    if num_ranked >= 1000:
        assert np.bincount(strata(num_ranked)[ranks], minlength=7)[1:].tolist() == [
            round(share * cards) for share in audit.SHARES
        ]
    assert set(ranks.tolist()) <= set(draw(num_ranked, 2 * cards).tolist())
    assert (ranks == draw(num_ranked, cards)).all()


def test_cards_come_in_random_order_among_as_many_of_the_others_which_stay_ranked():
    ranks = draw(1000, 200)
    order = mixed(1000, ranks)
    assert sorted(order) == list(range(1000))
    others = order[~np.isin(order, ranks)]
    assert (np.diff(others) > 0).all()
    places = np.flatnonzero(np.isin(order, ranks))
    assert places.max() < 500 and 0.3 < np.isin(order[: places.max()], ranks).mean() < 0.7
    deep = order[places][order[places] >= 400]  # those that the ranking itself does not reach
    assert abs(stats.spearmanr(np.arange(len(deep)), deep)[0]) < 0.25


@pytest.mark.parametrize("place", [3, 50, 299, 700])
def test_whoever_looks_from_the_first_card_on_has_looked_at_every_rank_down_to_a_depth(place):
    order = mixed(1000, draw(1000, 200))
    seen = set(order[:place].tolist())
    depth = next(rank for rank in range(1001) if rank not in seen)
    drawn = set(draw(1000, 200).tolist())
    assert seen - drawn == set(range(depth)) - drawn


def test_a_stratified_estimate_by_hand():
    """Of 100 ranked in strata of 2, 3, 5, 10, 20, 60 some are looked at: 1 of 2 drawn of the 60 is wrong, no other."""
    drawn = np.array([1, 4, 9, 15, 30, 50, 70])
    said = looked_at(np.isin(np.arange(100), [70]).astype(float), drawn)
    found = estimate(said, drawn)
    assert found.wrong[1] == pytest.approx(1 + 58 * 0.5)
    assert (found.depth, found.looked, found.of) == (0, 7, 7)
    assert found.wrong[0] < 10 < 55 < found.wrong[2]
    posterior = stats.betabinom(19, 0.5, 1.5)  # of the 20 of stratum 5 one was right
    part = audit._wrong_in(np.array([0.0]), 20, np.random.default_rng(0))
    assert np.quantile(part[2], 0.975) == posterior.ppf(0.975) and (part[1] == 0).all()


def test_what_was_looked_at_from_the_top_on_is_known_and_what_was_picked_further_down_says_nothing():
    wrong = ranking([0.9, 0.6, 0.4, 0.2, 0.1, 0.02])
    drawn = draw(1000, 100)
    at = np.union1d(drawn, np.arange(150))
    plain = estimate(looked_at(wrong, at), drawn)
    assert plain.depth >= 150
    picked = np.setdiff1d(np.flatnonzero(wrong), [*at, plain.depth])
    assert estimate(looked_at(wrong, np.union1d(at, picked)), drawn).wrong == plain.wrong
    assert plain.left[1] + wrong[: plain.depth].sum() == pytest.approx(plain.wrong[1])
    at_depth = next(row for row in plain.by_depth if row["depth"] == plain.depth)
    assert at_depth["precision"] == pytest.approx([wrong[: plain.depth].mean()] * 3)
    assert at_depth["recall"][0] <= wrong[: plain.depth].sum() / wrong.sum() <= at_depth["recall"][2]


def test_a_part_of_the_ranking_that_nobody_looked_at_is_judged_by_its_neighbours_or_not_at_all():
    """Of strata of 2, 3, 5, 10, 20, 60: all of the first is wrong, and a half of what was looked at in the third."""
    wrong = np.isin(np.arange(100), [0, 1, 5]).astype(float)
    drawn = np.array([0, 1, 2, 5, 6, 15, 30, 70])
    said = looked_at(wrong, np.setdiff1d(drawn, 2))  # of the second stratum nobody looked at the card
    found = estimate(said, drawn)
    middle = (1 + (3.5 - 1) / (7.5 - 1) * (0.5 - 1)) * 3  # on the line from the first stratum to the third
    assert found.wrong[1] == pytest.approx(2 + middle + 0.5 * 5)
    assert found.wrong[0] < 10 < found.wrong[2]
    said[70] = np.nan
    found = estimate(said, drawn)  # nothing is known of the last 60
    assert np.isnan(found.wrong[1]) and found.wrong[0] < 10 and 60 < found.wrong[2]
    assert np.isnan(found.by_depth[-1]["precision"][1]) and found.by_depth[0]["precision"] == pytest.approx([1] * 3)


def test_where_all_was_looked_at_nothing_is_left_to_guess():
    wrong = ranking([0.5, 0.4, 0.3, 0.2, 0.1, 0.1], 300)
    found = estimate(wrong, draw(300, 50))
    assert found.wrong == (wrong.sum(),) * 3 and found.left == (0, 0, 0) and found.depth == 300


def test_where_no_wrong_label_was_found_there_may_be_none():
    drawn = draw(10_000, 200)
    found = estimate(looked_at(np.zeros(10_000), drawn), drawn)
    assert found.wrong[:2] == (0, 0) and 100 < found.wrong[2] < 400


@pytest.mark.parametrize(
    "rates",
    [
        [0.8, 0.6, 0.45, 0.22, 0.08, 0.015],
        [0.95, 0.93, 0.9, 0.8, 0.6, 0.2],
        [0.3, 0.05, 0.01, 0.003, 0, 0],
        [0] * 6,
    ],
)
def test_the_interval_covers_the_truth(rates, monkeypatch):
    """In 60 audits of 100 cards: .93 of many, here 52 or more."""
    monkeypatch.setattr(audit, "DRAWS", 1000)
    wrong, covered = ranking(rates, 2000), 0
    for seed in range(60):
        drawn = draw(2000, 100, seed)
        low, _, high = estimate(looked_at(wrong, drawn), drawn).wrong
        covered += low <= wrong.sum() <= high
    assert covered >= 52


def test_an_unsure_card_is_one_not_looked_at():
    wrong, drawn = ranking([0.5] * 6), draw(1000, 100)
    said = looked_at(wrong, drawn)
    said[drawn[:10]] = np.nan
    assert estimate(said, drawn).looked == len(drawn) - 10
