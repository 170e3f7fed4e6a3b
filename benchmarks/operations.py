"""Operations that an update hands to the device: each costs a GPU a launch, however little it does."""

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.side_by_side import Measured

STEPS = 3


class Counted(TorchDispatchMode):
    """number: of PyTorch's operations while the block runs, views of memory apart."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not is_view(func)
        return func(*args, **(kwargs or {}))


def is_view(func):
    """Whether an operation gives another view of memory, which costs a device nothing."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def of_an_update(work, net, kind):
    """As Measured, of an update of kind, Product or Bare: what an epoch of twice as many updates has more."""
    found = []
    for steps in (STEPS, 2 * STEPS):
        contender = kind(work.experiment(net, steps))
        contender.epoch()  # the table's first visits, the optimiser's first step
        with Counted() as counted:
            contender.epoch()
        found.append(counted.number)
    return Measured((found[1] - found[0]) / STEPS)
