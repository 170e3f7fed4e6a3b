"""Train a student on a teacher's network (KD), on its table (Filter-KD), or on targets that need no teacher.

    python main_distill.py --teach_path resnet18cifar100_cosine --teach_type table --teach_name best_acc

Every student minimises 2 tau^2 KL(p_tar || softmax(logits / tau)), so students can be compared with each
other: use --teach_type onehot for the baseline, not the teacher, which is trained with cross-entropy.
"""

import os
from functools import partial
from pathlib import Path
from shlex import quote

from common import errors, flags
from common.files import sha256_of
from models import NETS
from runs.run_folder import RESULTS
from runs.teacher import Teacher
from supervision import tables
from supervision.targets import Given, TeacherTable, teach_types
from training import distributed
from training.experiment import Experiment
from utils import experiment_parser, read_true_distributions, run_name


def own_flags():
    return {
        "the target": {
            "--teach_type": dict(default="net", help="what to train on", **flags.one_of(teach_types())),
            "--teach_path": dict(
                default="resnet18cifar100_cosine",
                help="a run below results/Gen_teacher, or its folder; "
                "its data settings are taken over (onehot, smooth, true: only when given)",
            ),
            "--teach_name": dict(default="best_acc", help="which of the teacher's checkpoints or tables"),
            "--teach_net": dict(
                help="the teacher's network, where its folder does not say (--net's when not given)",
                **flags.one_of(NETS),
            ),
            "--tau": dict(type=flags.positive, default=1.0, help="temperature of teacher and student (net, table)"),
            "--ls_eps": dict(type=flags.share, default=0.1, help="smooth: the mass spread over all classes"),
            "--true_probs": dict(metavar="FILE", help="true: (N, K) .npy of distributions, row = idx"),
            "--smoothing": dict(
                type=flags.open_share,
                default=0.05,
                help="weight of the newest prediction in the student's own table, with which it can teach in turn",
            ),
            "--table": tables.FLAG,
        }
    }


def make_parser():
    return experiment_parser(__doc__, batch_size=256, proj_name=None).add_flags(own_flags())


def read_teacher(args, method, teacher, experiment):
    """What teaches the method, a network on the CPU yet. Raises BadInput when its file does not fit the data."""
    dataset, device = experiment.dataset, experiment.hardware.device
    if method.teacher == "net":
        return teacher.read_network(args, dataset, args.teach_net)
    if method.teacher == "table":
        return teacher.read_table(dataset, args.table == "sharded").to(device)
    if method.teacher == "truth":
        if args.true_probs is None:
            raise errors.BadInput("--teach_type true: give the distributions with --true_probs FILE")
        return read_true_distributions("--true_probs", args.true_probs, dataset).to(device)
    return experiment.new_table() if method.teacher == "own table" else None


def target_file(args, method, teacher):
    """The file that the target is read from, or None."""
    if method.is_taught:
        return teacher.table_path if method.teacher == "table" else teacher.file(".pt")
    return args.true_probs if method.teacher == "truth" else None


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    method, teacher = teach_types()[args.teach_type], None
    if method.is_taught or "teach_path" in args.given:
        teacher = Teacher(args.teach_path, method.teacher, args.teach_name)
        teacher.pass_on_settings(args)
    if args.proj_name is None:
        args.proj_name = f"Distill_{Path(os.path.abspath(args.teach_path)).name if teacher else args.dataset}"
    kind = f"{args.teach_type}_{args.teach_name}" if method.is_taught else args.teach_type
    folder = RESULTS / args.proj_name / f"{kind}_{run_name(args)}"
    experiment = Experiment(args, folder, *([teacher.check_data] if teacher else []))
    sizes = {"num_samples": experiment.dataset.num_train, "device": experiment.hardware.device}
    given = Given(experiment.dataset.num_classes, args, tau=args.tau, **sizes)
    given.teacher = read_teacher(args, method, teacher, experiment)
    if args.check:
        return experiment.print_settings()

    hardware = experiment.start().hardware
    if method.is_taught:
        print(*teacher.describe(method.teacher), sep="\n")
    if method.teacher == "net":  # placed now that it is decided whether networks are compiled
        given.forward = hardware.forward_of(hardware.place(given.teacher))
    given.labels = experiment.data.ny
    target = method.make(given)
    if isinstance(target, TeacherTable):
        rows = experiment.data.train_idx
        if unvisited := target.count_unvisited(rows):
            print(f"{unvisited} of {len(rows)} training samples have no row in the table: their label teaches")
    loss = partial(method.loss, tau=args.tau if method.has_temperature else 1.0)
    file = target_file(args, method, teacher)
    run, state = experiment.train(
        target,
        loss,
        table=given.teacher if method.teacher == "own table" else None,
        teacher=str(teacher.path) if teacher else None,
        target_sha256=file and sha256_of(file),
    )
    experiment.tell_result(run, state, f"evaluate.py {quote(str(run.path))}")
    return run.path


if __name__ == "__main__":
    errors.run_script(distributed.on_all_ranks(main))
