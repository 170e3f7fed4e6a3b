"""A generator of its own for each kind of randomness, so that drawing more of one changes no other."""

from collections.abc import Callable

import numpy as np
import torch

ROLES = ("weights", "order", "augmentation", "dropout", "noise", "subset", "validation")


def role_seed(seed: int, role: str) -> int:
    """A seed of its own for each role, so that drawing more of one thing changes nothing else."""
    return int(np.random.SeedSequence([seed, ROLES.index(role)]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, role: str) -> torch.Generator:
    return torch.Generator().manual_seed(role_seed(seed, role))


def with_weight_seed(seed: int, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """build()'s result, its weights drawn from the seed of the weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU: no GPU's generator is asked or seeded
        torch.default_generator.manual_seed(role_seed(seed, "weights"))
        return build()
