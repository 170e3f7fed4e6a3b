"""The training of a comparison's methods, each in a folder of its own, taught by OHT's, and their results."""

import os
from functools import partial

from common.files import as_json, check_intact, naming, read_json
from comparison import results as comparison
from runs.path_recording import PathFiles
from runs.teacher import Teacher
from supervision.targets import METHODS, Given, TeacherTable
from training import distributed
from training.observers import TrainingPath

RESULT = "result.json"  # of a method that is done, in its folder


def names():
    """Of the methods that can be compared, in the order in which they are trained."""
    return [name for name, method in METHODS.items() if method.teacher != "truth"]


def make_target(method, args, experiment, oht_folder, own_table):
    """The p_tar object of a Method; OHT's network or table teaches it, or the table that its training fills."""
    dataset, hardware = experiment.dataset, experiment.hardware
    given = Given(dataset.num_classes, args)
    if method.is_taught:
        epoch = "best_acc" if method.moment == "best" else f"epoch_{args.epochs - 1}"
        teacher = Teacher(oht_folder, method.teacher, epoch)
    if method.teacher == "net":
        given.teacher, given.tau = hardware.place(teacher.read_network(args, dataset)), args.temp
        given.forward = hardware.forward_of(given.teacher)
    elif method.teacher == "table":  # its predictions were made at --temp already: its rows are used as they are
        given.teacher = teacher.read_table(dataset, args.table == "sharded").to(hardware.device)
    elif method.teacher == "own table":
        given.teacher = own_table
    return method.make(given)


def all_done(names, seed_folder) -> bool:
    """Whether all these methods of a seed are done."""
    return all((seed_folder / name / RESULT).is_file() for name in names)


def read_result(method, args, folder):
    """What train_method() returned when the run that is resumed had it done, or None."""
    file = folder / f"seed_{args.seed}" / method / RESULT
    if not (args.resume and file.is_file()):
        return None
    result = read_json(check_intact(file))
    return result["row"], result["test_acc"]


def train_method(name, experiment, folder):
    """Train the method of that name from the common start. Returns (row of results.csv, test accuracies by epoch).

    They are kept in the method's result.json, too.
    """
    args, seed_folder = experiment.args, folder / f"seed_{experiment.args.seed}"
    method, table = METHODS[name], experiment.new_table()
    target = make_target(method, args, experiment, seed_folder / "OHT", table)
    loss = partial(method.loss, tau=args.temp if method.has_temperature else 1.0)
    logs = folder if args.only_seed is None else seed_folder  # several processes would write among each other
    logs.mkdir(exist_ok=True)
    log_file = logs / f"{method.log_name or name}.txt" if distributed.RANK == 0 else os.devnull
    with (
        naming(log_file),
        open(log_file, "a", encoding="utf-8", buffering=1) as log,
        PathFiles(args, experiment) as files,
    ):

        def watch(run, state):
            return [TrainingPath(files.open_training(run, state))] if args.record_paths and name == "OHT" else []

        print(f"{name}, seed {args.seed}", file=log)
        run, state = experiment.train(
            target,
            loss,
            table=table,
            temperature=args.temp,
            path=seed_folder / name,
            watch=watch,
            log=partial(print, file=log),
            label=f"seed {args.seed} {name}",
            method=name,
        )
        if isinstance(target, TeacherTable):
            print(f"{target.count_unvisited(experiment.data.train_idx)} training samples without a row", file=log)
    student = experiment.hardware.forward_of(state.model.eval())
    recovered = comparison.labels_recovered(target, experiment.train_loader, student)
    result = {
        "row": comparison.result_row(name, args, experiment.data, state, recovered),
        "test_acc": [epoch["test_acc"] for epoch in state.rows],
    }
    with run.files.together() as open_file, open_file(RESULT, "w") as f:
        f.write(as_json(result))
    return result["row"], result["test_acc"]
