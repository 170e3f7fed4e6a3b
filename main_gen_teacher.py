"""Train a network with cross-entropy and keep what it can teach: its weights (the teacher of KD) and its table
of averaged predictions (q_smooth, the teacher of Filter-KD), at the best epochs and at some fixed ones.

    python main_gen_teacher.py --dataset cifar100 --net resnet18
"""

from pathlib import Path
from shlex import quote

from common import errors, flags
from runs.path_recording import PathFiles, check_path_flags, record_flags
from runs.run_folder import RESULTS
from supervision import tables
from supervision.targets import OneHot
from training import distributed
from training.experiment import Experiment
from training.observers import TrainingPath
from utils import experiment_parser, run_name

FLAGS = {
    "the table": {
        "--smoothing": dict(type=flags.open_share, default=0.05, help="weight of the newest prediction"),
        "--table": tables.FLAG,
        "--filt_tau": dict(type=flags.positive, default=1.0, help="temperature of the predictions that are averaged"),
    },
    "the paths": record_flags("of the teacher"),
}

# What the command for a student repeats, where it was given: how to train, which a student does not inherit
SHARED = "net width norm augment batch_size lr momentum weight_decay scheduler warmup epochs amp".split()


def make_parser():
    parser = experiment_parser(__doc__, proj_name="Gen_teacher", save_epochs=[4, 50, 78, 118, 158, 178, 199])
    return parser.add_flags(FLAGS)


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    folder = RESULTS / args.proj_name / (args.net + run_name(args))

    def check(data):
        if args.record_paths:
            check_path_flags(args, data, folder, [(len(data.y), args.epochs)])

    experiment = Experiment(args, folder, check)
    if args.check:
        return experiment.print_settings()

    def watch(run, state):
        return [TrainingPath(PathFiles(experiment, run, state).open_training())] if args.record_paths else []

    experiment.start()
    run, state = experiment.train(OneHot(experiment.dataset.num_classes), temperature=args.filt_tau, watch=watch)
    teacher = run.path.name if run.path.parent == RESULTS / "Gen_teacher" else run.path
    shared = flags.as_flags({name: getattr(args, name) for name in SHARED if name in args.given})
    experiment.tell_result(
        run,
        state,
        f"evaluate.py {quote(str(run.path))}",
        " ".join(["main_distill.py --teach_path", quote(str(teacher)), "--teach_type table", *shared]),
        *[f"analyze_paths.py {quote(str(run.path))}"] * args.record_paths,
    )
    return run.path


if __name__ == "__main__":
    errors.run_script(distributed.on_all_ranks(main))
