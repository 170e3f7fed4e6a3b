"""The training of a comparison's methods, each in a folder of its own, taught by OHT's, and their results."""

import copy
import os
from functools import partial

from common.files import as_json, check_intact, naming, read_json
from common.flags import one_of
from comparison import results as comparison
from runs.path_recording import PathFiles
from runs.teacher import Teacher
from supervision.targets import METHODS, Given, TeacherTable
from training import distributed
from training.observers import TrainingPath

RESULT = "result.json"  # of a method that is done, in its folder
START = {
    "default": "same",
    "help": "a taught student's weights and batches: those of its teacher (as published), or others",
    **one_of(["same", "other"]),
}
ELSEWHERE = 1_000_000  # what is added to a seed for another start


def names(later=True):
    """Of the methods that can be compared, in the order in which they are trained. later: those of later papers too."""
    return [name for name, method in METHODS.items() if method.teacher != "truth" and (later or not method.later)]


def with_teachers(chosen):
    """The names chosen and those of the methods that teach them, in the order in which they are trained."""
    wanted = {*chosen, *(METHODS[name].taught_by for name in chosen if METHODS[name].is_taught)}
    return [name for name in names() if name in wanted]


def make_target(method, args, experiment, seed_folder, own_table):
    """The p_tar object of a Method; a network or table of an earlier one teaches it, or what its own training fills."""
    dataset, hardware = experiment.dataset, experiment.hardware
    sizes = {"num_samples": dataset.num_train, "labels": experiment.data.ny}
    given = Given(dataset.num_classes, args, device=hardware.device, **sizes)
    if method.is_taught:
        epoch = "best_acc" if method.moment == "best" else f"epoch_{args.epochs - 1}"
        teacher = Teacher(seed_folder / method.taught_by, method.teacher, epoch)
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


def read_result(folder):
    """What train_on() returned when it was done in this folder, or None."""
    file = folder / RESULT
    return read_json(check_intact(file)) if file.is_file() else None


def train_method(name, experiment, folder):
    """Train the method of that name from the common start; see train_on()."""
    args, seed_folder = experiment.args, folder / f"seed_{experiment.args.seed}"
    method, table = METHODS[name], experiment.new_table()
    target = make_target(method, args, experiment, seed_folder, table)
    loss = partial(method.loss, tau=args.temp if method.has_temperature else 1.0)
    logs = folder if args.only_seed is None else seed_folder  # several processes would write among each other
    logs.mkdir(exist_ok=True)
    log_file = logs / f"{method.log_name or name}.txt" if distributed.RANK == 0 else os.devnull
    if args.start == "other" and method.is_taught:
        experiment = elsewhere(experiment)
    with (
        naming(log_file),
        open(log_file, "a", encoding="utf-8", buffering=1) as log,
        PathFiles(args, experiment) as files,
    ):

        def watch(run, state):
            return [TrainingPath(files.open_training(run, state))] if args.record_paths and name == "OHT" else []

        print(f"{name}, seed {args.seed}", file=log)
        settings = dict(table=table, temperature=args.temp, watch=watch, log=partial(print, file=log))
        result = train_on(target, loss, experiment, seed_folder / name, args.seed, **settings)
        if isinstance(target, TeacherTable):
            print(f"{target.count_unvisited(experiment.data.train_idx)} training samples without a row", file=log)
    return result


def elsewhere(experiment):
    """The same data, with other initial weights, order and augmentation."""
    other = copy.copy(experiment)
    other.args = copy.copy(experiment.args)
    other.args.seed += ELSEWHERE
    return other


def train_on(target, loss, experiment, folder, seed, **settings):
    """Train a fresh network on a target in a folder that has its method's name; settings: of Experiment.train().

    Returns what it keeps as result.json there: row, of results.csv, with that seed; test_acc, of each epoch.
    """
    name = folder.name
    run, state = experiment.train(target, loss, path=folder, method=name, label=f"seed {seed} {name}", **settings)
    student = experiment.hardware.forward_of(state.model.eval())
    recovered = comparison.labels_recovered(target, experiment.train_loader, student)
    row = comparison.result_row(name, experiment.args, experiment.data, state, recovered)
    result = {"row": {**row, "seed": seed}, "test_acc": [epoch["test_acc"] for epoch in state.rows]}
    with run.files.together() as open_file, open_file(RESULT, "w") as f:
        f.write(as_json(result))
    return result
