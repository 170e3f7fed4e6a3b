"""What saving a ResNet-18's training costs, checksums and fsync included, as a share of an epoch of CIFAR-10."""

from benchmarks.side_by_side import Race, Ratio
from benchmarks.workload import Ours

UPDATES = 180  # of an epoch of 45,000 samples in batches of 250


def races(work):
    net, steps = work.nets[-1], work.steps(on_cpu=1)
    experiment = work.experiment(net, steps)
    ours = Ours(experiment)
    state = ours.state
    state.rows = [{"epoch": epoch} for epoch in range(200)]
    with experiment.new_run(work.folder / f"saved_{net}") as run:
        contenders = {
            "epoch": ours.epoch,
            "last.pt": lambda: run.save(state),
            "with bests": lambda: run.save_epoch(state, 0, ["best_acc", "best_loss"]),
        }
        ratios = [
            Ratio(f"{net}: --save_every 1 / epoch", "last.pt", "epoch", digits=4),
            Ratio(f"{net}: --save_every 1, both best files new / epoch", "with bests", "epoch", digits=4),
            Ratio(f"{net}: --save_minutes 10 / ten minutes", "last.pt", 600.0, digits=5),
        ]
        yield Race(contenders, ratios, work.turns(3), {"epoch": steps / UPDATES})
