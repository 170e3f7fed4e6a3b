"""How many labels are wrong, measured: a person looks at a stratified random sample of the ranking.

Six strata by rank; from the lower ones, which hold most samples, most cards are drawn. A stratum's wrong labels follow
from those found among its cards: with Jeffreys' prior the number among the samples not looked at is beta-binomial.
"""

from dataclasses import dataclass

import numpy as np

EDGES = (0.02, 0.05, 0.1, 0.2, 0.4, 1)  # shares of the ranking at which strata end
SHARES = (0.05, 0.08, 0.12, 0.2, 0.22, 0.33)  # of the cards, by stratum
DRAWS = 2_000  # from the posterior
SEED = 0


def strata(num_ranked: int) -> np.ndarray:
    """(M,) the stratum, 1 to 6, of each rank of M."""
    return 1 + np.searchsorted(_ends(num_ranked), np.arange(num_ranked), side="right")


def _ends(num_ranked):
    return np.ceil(np.array(EDGES) * num_ranked).astype(int)


def draw(num_ranked: int, num_cards: int, seed: int = SEED) -> np.ndarray:
    """The ranks drawn, in the random order in which they are to be looked at. A larger draw contains a smaller one."""
    rng, stratum, chosen = np.random.default_rng(seed), strata(num_ranked), []
    for number, share in enumerate(SHARES, 1):
        ranks = rng.permutation(np.flatnonzero(stratum == number))
        chosen += list(zip(rng.random(len(ranks)), ranks, strict=True))[: round(share * num_cards)]
    return np.array([rank for _, rank in sorted(chosen)], np.int64)


def mixed(num_ranked: int, drawn: np.ndarray) -> np.ndarray:
    """All ranks in the order of the page: those drawn at random places among as many of the others, which stay
    ranked.

    A card that was drawn comes no later than its turn among the others, so that whoever looks from the first card on
    has looked at every rank down to some depth.
    """
    rng, order, rest = np.random.default_rng(SEED), [], iter(range(num_ranked))
    for rank in drawn:
        order += [next(rest, rank) for _ in range(rng.integers(3))] + [rank]
    order = np.array([*order, *rest], np.int64)
    return order[np.sort(np.unique(order, return_index=True)[1])]


@dataclass
class Estimate:
    """What an audit says, as (low, best, high), a 95 % interval around the classical stratified estimate.

    A part of the ranking in which no card was looked at has, for the best, the share of wrong labels between those of
    its neighbours. Where the first or the last part is one, best is NaN: there is the interval alone.
    wrong: the number of wrong labels of the whole set. left: of those below the depth. depth: ranks from the top that
    were all looked at. looked, of: cards. by_depth: {"depth", "precision", "recall"} at the strata's ends and at depth.
    """

    wrong: tuple
    left: tuple
    depth: int
    looked: int
    of: int
    by_depth: list


def estimate(said: np.ndarray, drawn: np.ndarray) -> Estimate:
    """The Estimate from what a person said of ranked samples: (M,) 1 wrong, 0 right, NaN: not said, or not known.

    drawn: ranks of the cards that the audit drew; of all others only those above the depth count, which were all
    looked at: what somebody picked further down is no random sample. Cards of which the person was not sure
    count as not looked at.
    """
    num_ranked, rng = len(said), np.random.default_rng(SEED)
    unknown = np.flatnonzero(np.isnan(said))
    depth = int(unknown[0]) if len(unknown) else num_ranked
    sample = np.full(num_ranked, np.nan)
    sample[drawn], sample[:depth] = said[drawn], said[:depth]
    ends = np.unique([*_ends(num_ranked), depth])
    ends = ends[ends > 0]
    parts = np.split(sample, ends[:-1])
    found = [_wrong_in(part[~np.isnan(part)], len(part), rng) for part in parts]
    known, fewest, most = (np.array(values) for values in zip(*found, strict=True))
    counted = _between_neighbours(known, [len(part) for part in parts])
    below = ends > depth

    def number(parts):
        return _interval(fewest[parts].sum(0), counted[parts].sum(), most[parts].sum(0))

    by_depth = []
    for end in ends:
        above, rest = ends <= end, ends > end
        shares = [
            at[above].sum(0) / np.maximum(at[above].sum(0) + other[rest].sum(0), 1)
            for at, other in ((fewest, most), (most, fewest))
        ]
        recall = _interval(shares[0], counted[above].sum() / max(counted.sum(), 1e-9), shares[1])
        precision = tuple(value / end for value in number(above))
        by_depth.append({"depth": int(end), "precision": precision, "recall": recall})
    looked = int((~np.isnan(said[drawn])).sum())
    return Estimate(number(below | ~below), number(below), depth, looked, len(drawn), by_depth)


def _wrong_in(looked, size, rng):
    """(best, DRAWS of the fewest, of the most) wrong labels of `size` samples, from what was said of some of them.

    The upper end is of Jeffreys' prior. With it the lower end would not be 0 where no wrong label was found, and over
    six strata that would add up to more than there is; so it is of the prior without a wrong label.
    """
    wrong, right, rest = looked.sum(), (1 - looked).sum(), size - len(looked)
    fewest, most = (wrong + rng.binomial(rest, rng.beta(wrong + prior, right + 0.5, DRAWS)) for prior in (1e-9, 0.5))
    return (wrong + rest * wrong / len(looked) if len(looked) else np.nan), fewest, most


def _between_neighbours(wrong, sizes):
    """Wrong labels of each part (P,) of the ranking; of a part that has NaN by the line between its neighbours'
    shares, NaN where it has none on one side."""
    middle, there = np.cumsum(sizes) - np.divide(sizes, 2), ~np.isnan(wrong)
    if not there.any():
        return wrong
    share = np.interp(middle, middle[there], (wrong / sizes)[there], left=np.nan, right=np.nan)
    return np.where(there, wrong, share * sizes)


def _interval(fewest, best, most):
    return float(np.quantile(fewest, 0.025)), float(best), float(np.quantile(most, 0.975))
