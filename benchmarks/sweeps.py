"""Three seeds of a small network trained at once (--vectorize_seeds) beside the same three one after another."""

from benchmarks.side_by_side import Race, Ratio
from benchmarks.workload import Product
from supervision.losses import cross_entropy
from common.interruption import stop_if_asked
from training.together import OneOfAll, Training, train_epoch

SEEDS = 3


def races(work):
    steps = work.steps("smallcnn", on_cpu=4)
    sizes = {
        f"{work.image_size}x{work.image_size}, batch {work.batch_size}": work.flags("smallcnn", steps),
        "8x8, batch 64": [*"--dataset digits --net smallcnn --batch_size 64".split(), *work.device_flags],
    }
    for what, flags in sizes.items():
        apart, whole = ([Product(work.start([*flags, "--seed", str(seed)])) for seed in range(SEEDS)] for _ in range(2))
        yield Race(
            {"one by one": lambda apart=apart: [seed.epoch() for seed in apart], "at once": AtOnce(whole).epoch},
            [
                Ratio(
                    f"smallcnn, {SEEDS} seeds, {what}: one by one / at once",
                    "one by one",
                    "at once",
                    more_is_better=True,
                )
            ],
            work.turns(5),
        )


class AtOnce:
    """The products' epochs, as --vectorize_seeds trains them."""

    def __init__(self, products):
        self.trainings = [Training(None, p.state, p.target, p.observers, None, None) for p in products]
        for other in self.trainings[1:]:
            other.observers.pop()  # one bar for all
        experiment, self.lr = products[0].experiment, products[0].lr
        self.whole = OneOfAll(self.trainings, experiment.args, experiment.hardware)

    def epoch(self):
        train_epoch(self.trainings, self.whole, cross_entropy, self.lr, stop_if_asked)
        self.trainings[0].observers[-1].after_epoch(0, None)
        for t in self.trainings:
            t.state.epoch, t.state.so_far = t.state.epoch + 1, None
