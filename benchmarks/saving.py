"""What saving a ResNet-18's training costs, checksums and fsync included, as a share of an epoch of CIFAR-10."""

from benchmarks.side_by_side import Race, Ratio
from benchmarks.workload import Product

UPDATES = 180  # of an epoch of 45,000 samples in batches of 250


def races(work):
    net = work.nets[-1]
    steps = work.steps(net, on_cpu=1)
    experiment = work.experiment(net, steps)
    product = Product(experiment)
    state = product.state
    state.rows = [{"epoch": epoch} for epoch in range(200)]
    with experiment.new_run(work.folder / f"saved_{net}") as run:
        contenders = {
            "an epoch's updates": product.epoch,
            "last.pt": lambda: run.save(state),
            "last.pt and two new bests": lambda: run.save_epoch(state, 0, ["best_acc", "best_loss"]),
        }
        yield Race(
            contenders,
            [
                Ratio(f"{net}: --save_every 1 / epoch", "last.pt", "an epoch's updates", digits=4),
                Ratio(
                    f"{net}: --save_every 1, both best files new / epoch",
                    "last.pt and two new bests",
                    "an epoch's updates",
                    digits=4,
                ),
                Ratio(f"{net}: --save_minutes 10 / ten minutes", "last.pt", 600.0, digits=5),
            ],
            work.turns(3),
            {"an epoch's updates": steps / UPDATES},
        )
