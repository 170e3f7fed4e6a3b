"""The product's training step, all figures and the table on, beside a bare loop; and what recording paths adds."""

from benchmarks.operations import of_an_update
from benchmarks.side_by_side import Race, Ratio, most_calls
from benchmarks.workload import Bare, Product
from paths.recorder import PathRecorder
from training.observers import TrainingPath

KINDS = {"bare": Bare, "product": Product}
AT_MOST = {"smallcnn": 1.15, "resnet18": 1.05}


def races(work):
    for net, steps, turns, seconds in (("smallcnn", 10, 5, 45), ("resnet18", 1, 3, 90)):
        if net not in work.nets:
            continue
        counts = {what: lambda kind=kind, net=net: of_an_update(work, net, kind) for what, kind in KINDS.items()}
        name = f"{net}: operations of an update, product / bare loop"
        yield Race(counts, [Ratio(name, "product", "bare", unit="operations")], 1, warm_up=False)
        turns = work.turns(turns)
        experiment = work.experiment(net, work.steps(net, on_cpu=steps))
        shape = (len(experiment.data.y), most_calls(turns), experiment.dataset.num_classes)
        with PathRecorder(work.folder / f"steps_{net}.npy", *shape) as recorder:
            bare, product = Bare(experiment), Product(experiment)
            recording = Product(experiment, [TrainingPath(recorder)])
            yield Race(
                {"bare": bare.epoch, "product": product.epoch, "with paths": recording.epoch},
                [
                    Ratio(f"{net}: product / bare loop", "product", "bare", AT_MOST[net]),
                    Ratio(f"{net}: product with paths / product", "with paths", "product", 1.03),
                ],
                turns,
                seconds=work.seconds(seconds),
            )
