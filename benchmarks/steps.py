"""A training step of ours, all metrics and the table on, relative to a bare loop; and what recording paths adds."""

from benchmarks.side_by_side import Measured, Race, Ratio, most_calls
from benchmarks.workload import Bare, Ours, operations_of_an_update
from paths.recorder import PathRecorder
from training.observers import TrainingPath

KINDS = {"bare": Bare, "ours": Ours}
AT_MOST = {"smallcnn": 1.15, "resnet18": 1.05}


def races(work):
    for net, steps, turns, seconds in (("smallcnn", 10, 5, 45), ("resnet18", 1, 3, 90)):
        if net not in work.nets:
            continue
        counts = {
            name: lambda kind=kind, net=net: Measured(operations_of_an_update(work, net, kind))
            for name, kind in KINDS.items()
        }
        name = f"{net}: operations of an update, ours / bare loop"
        yield Race(counts, [Ratio(name, "ours", "bare", unit="operations")], 1, warm_up=False)
        turns = work.turns(turns)
        experiment = work.experiment(net, work.steps(on_cpu=steps))
        shape = (len(experiment.data.y), most_calls(turns), experiment.dataset.num_classes)
        with PathRecorder(work.folder / f"steps_{net}.npy", *shape) as recorder:
            bare, ours = Bare(experiment), Ours(experiment)
            recording = Ours(experiment, [TrainingPath(recorder)])
            yield Race(
                {"bare": bare.epoch, "ours": ours.epoch, "with paths": recording.epoch},
                [
                    Ratio(f"{net}: ours / bare loop", "ours", "bare", AT_MOST[net]),
                    Ratio(f"{net}: ours with paths / ours", "with paths", "ours", 1.03),
                ],
                turns,
                seconds=work.seconds(seconds),
            )
