"""Train a network with cross-entropy and keep what it can teach: its weights (the teacher of KD) and its table
of averaged predictions (q_smooth, the teacher of Filter-KD), at the best epochs and at some fixed ones.

    python main_gen_teacher.py --dataset cifar100 --net resnet18
"""

from pathlib import Path

import errors
from supervision.targets import OneHot
from training.experiment import Experiment
from training.run_folder import RESULTS
from utils import experiment_parser, run_name


def make_parser():
    parser = experiment_parser(__doc__, proj_name="Gen_teacher", save_epochs=[4, 50, 78, 118, 158, 178, 199])
    flag = parser.add_argument_group("the table").add_argument
    flag("--smoothing", type=errors.open_share, default=0.05, help="weight of the newest prediction")
    flag("--filt_tau", type=errors.positive, default=1.0, help="temperature of the predictions that are averaged")
    return parser


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args, problems = make_parser().parse_collecting(argv)
    experiment = Experiment(args, problems, RESULTS / args.proj_name / (args.net + run_name(args)))
    problems.stop_if_any()
    if args.check:
        return experiment.print_settings()

    experiment.start()
    run, _ = experiment.train(OneHot(experiment.dataset.num_classes), temperature=args.filt_tau)
    print(run.path)
    return run.path


if __name__ == "__main__":
    errors.run_script(main)
