"""A student's step with a teacher network relative to one with a table, which saves the teacher's forward pass."""

from functools import partial

import torch

from benchmarks.side_by_side import Race, Ratio
from benchmarks.workload import Ours
from supervision.losses import distillation_loss
from supervision.targets import TeacherNetwork, TeacherTable


def races(work):
    for net, steps, turns in (("smallcnn", 5, 7), ("resnet18", 1, 3)):
        if net not in work.nets:
            continue
        experiment = work.experiment(net, work.steps(on_cpu=steps))
        hardware, num_classes = experiment.hardware, experiment.dataset.num_classes
        teacher = experiment.new_state().model
        targets = {
            "network": TeacherNetwork(teacher, 1.0, hardware.forward_of(teacher)),
            "table": TeacherTable(torch.rand(len(experiment.data.y), num_classes, device=hardware.device)),
        }
        loss = partial(distillation_loss, tau=1.0)
        contenders = {name: Ours(experiment, target=target, loss=loss).epoch for name, target in targets.items()}
        ratio = Ratio(f"{net}: teacher network / teacher table", "network", "table", more_is_better=True)
        yield Race(contenders, [ratio], work.turns(turns))
