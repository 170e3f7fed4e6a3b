"""The methods that a comparison trains: what teaches each, its training in a folder of its own, its result."""

from functools import partial

from common.files import as_json, check_intact, naming, read_json
from comparison import results as comparison
from runs.teacher import Teacher
from supervision.losses import distillation_loss
from supervision.targets import OneHot, SmoothedLabel, TeacherNetwork, TeacherTable

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
    return result["row"], result["test_acc"]


def train_method(method, experiment, folder):
    """Train one method from the common start. Returns (row of results.csv, test accuracies by epoch).

    They are kept in the method's result.json, too.
    """
    args, seed_folder = experiment.args, folder / f"seed_{experiment.args.seed}"
    target = make_target(method, args, experiment, seed_folder / "OHT")
    loss = partial(distillation_loss, tau=args.temp if method in TEACHERS else 1.0)
    log_file = folder / f"{LOG_NAMES.get(method, method)}.txt"
    with naming(log_file), open(log_file, "a", encoding="utf-8", buffering=1) as log:
        print(f"{method}, seed {args.seed}", file=log)
        run, state = experiment.train(
            target,
            loss,
            temperature=args.temp,
            path=seed_folder / method,
            log=partial(print, file=log),
            label=f"seed {args.seed} {method}",
            method=method,
        )
        if isinstance(target, TeacherTable):
            print(f"{target.count_unvisited(experiment.data.train_idx)} training samples without a row", file=log)
    recovered = comparison.labels_recovered(target, experiment.train_loader)
    result = {
        "row": comparison.result_row(method, args, experiment.data, state, recovered),
        "test_acc": [epoch["test_acc"] for epoch in state.rows],
    }
    with run.files.together() as open_file, open_file(RESULT, "w") as f:
        f.write(as_json(result))
    return result["row"], result["test_acc"]
