"""The methods that a comparison trains: what teaches each, its training in a folder of its own, its result."""

import contextlib
from functools import partial

from common.files import as_json, check_intact, naming, read_json
from supervision.losses import distillation_loss
from supervision.targets import OneHot, SmoothedLabel, TeacherNetwork, TeacherTable
from comparison import results as comparison
from training import together
from runs.teacher import Teacher

# What teaches each method: OHT's network or table, at its last epoch or at the one that validation chose.
TEACHERS = {
    "KD": ("net", "last"),
    "ESKD": ("net", "best"),
    "FilterKD": ("table", "last"),
    "ES-FilterKD": ("table", "best"),
}
METHODS = ("OHT", "LS", *TEACHERS)
RESULT = "result.json"  # of a method that is done, in its folder
LOG_NAMES = {"ES-FilterKD": "Filter"}  # the published name


def make_target(method, args, experiment, oht_folder):
    """The p_tar object of a method."""
    num_classes, hardware = experiment.dataset.num_classes, experiment.hardware
    if method == "OHT":
        return OneHot(num_classes)
    if method == "LS":
        return SmoothedLabel(num_classes, args.ls_eps)
    kind, when = TEACHERS[method]
    teacher = Teacher(oht_folder, kind, "best_acc" if when == "best" else f"epoch_{args.epochs - 1}")
    if kind == "net":
        network = hardware.place(teacher.read_network(args, experiment.dataset))
        return TeacherNetwork(network, args.temp, hardware.forward_of(network))
    # The table's predictions were made at this temperature already: its rows are used as they are.
    return TeacherTable(teacher.read_table(experiment.dataset).values.to(hardware.device))


def read_result(method, args, folder):
    """What train_method() returned when the run that is resumed had it done, or None."""
    file = folder / f"seed_{args.seed}" / method / RESULT
    if not (args.resume and file.is_file()):
        return None
    result = read_json(check_intact(file))
    comparison.check_result(result, file, method, args)
    return result["row"], result["test_acc"]


@contextlib.contextmanager
def training(method, experiment, folder, has_bar=True):
    """The Training of a method with an experiment's seed, written about in the method's log; finished at the end."""
    args, seed_folder = experiment.args, folder / f"seed_{experiment.args.seed}"
    target = make_target(method, args, experiment, seed_folder / "OHT")
    log_file, prefix = folder / f"{LOG_NAMES.get(method, method)}.txt", f"seed {args.seed}  "
    with naming(log_file), open(log_file, "a", encoding="utf-8", buffering=1) as log:
        print(f"{method}, seed {args.seed}", file=log)
        with experiment.training(
            target,
            temperature=args.temp,
            path=seed_folder / method,
            log=lambda line: print((prefix if args.vectorize_seeds else "") + line, file=log),
            label=f"seed {args.seed} {method}" if has_bar else None,
            method=method,
        ) as t:
            yield t
            t.run.finish(t.state)
        if isinstance(target, TeacherTable):
            print(f"{target.count_unvisited(experiment.data.train_idx)} training samples without a row", file=log)


def train_method(method, experiments, folder):
    """Train one method from the common start, the experiments (one, or several seeds' at once) to their end.

    Returns, and keeps in a result.json each, [(row of results.csv, test accuracies by epoch)].
    """
    args, hardware, results = experiments[0].args, experiments[0].hardware, []
    loss = partial(distillation_loss, tau=args.temp if method in TEACHERS else 1.0)
    with contextlib.ExitStack() as stack:
        trainings = [
            stack.enter_context(training(method, experiment, folder, has_bar=experiment is experiments[0]))
            for experiment in experiments
        ]
        if args.vectorize_seeds:
            together.fit(trainings, args, hardware, loss)
        else:
            experiments[0].fit(trainings[0], loss)
    for t, experiment in zip(trainings, experiments, strict=True):
        recovered = comparison.labels_recovered(t.target, experiment.train_loader)
        row = comparison.result_row(method, experiment.args, experiment.data, t.state, recovered)
        accuracies = [epoch["test_acc"] for epoch in t.state.rows]
        with t.run.files.together() as open_file, open_file(RESULT, "w") as f:
            f.write(as_json({"row": row, "test_acc": accuracies}))
        results.append((row, accuracies))
    return results
