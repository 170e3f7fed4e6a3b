"""data/seeds.py: a generator for each role."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from data.seeds import ROLES, generator, role_seed, with_weight_seed


@given(st.integers(0, 2**40))
def test_every_role_has_a_seed_of_its_own(seed):
    seeds = [role_seed(seed, role) for role in ROLES]
    assert len(set(seeds)) == len(ROLES)
    assert seeds == [role_seed(seed, role) for role in ROLES]
    assert all(0 <= s < 2**63 for s in seeds)
    assert not set(seeds) & {role_seed(seed + 1, role) for role in ROLES}


def test_a_generator_is_that_of_its_role():
    draws = [torch.rand(3, generator=generator(5, role)) for role in ("order", "augmentation", "order")]
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    first = with_weight_seed(3, lambda: torch.nn.Linear(4, 4))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = with_weight_seed(3, lambda: torch.nn.Linear(4, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, with_weight_seed(4, lambda: torch.nn.Linear(4, 4)).weight)
