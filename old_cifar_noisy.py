"""Compare the methods under label noise from one start: same initial weights, data order, noise and loss.

    python old_cifar_noisy.py --noisy_level 4
    python old_cifar_noisy.py --dataset digits --net smallcnn --ny_ratio 0.4 --epochs 20 --seeds 3

OHT is trained first; its network at the end teaches KD, its network at the epoch that validation chose teaches
ESKD, its table at the end FilterKD, its table at the chosen epoch ES-FilterKD (the published Filter-KD).
"""

import glob
import sys
import time
from pathlib import Path
from shlex import quote

from common import errors, flags
from comparison import methods
from comparison import results as comparison
from runs.path_recording import check_path_flags, record_flags
from runs.run_folder import RESULTS
from supervision import tables
from sweep import run_all, starter, with_threads
from training import distributed
from training.experiment import Experiment
from utils import experiment_parser, noise_suffix


def own_flags():
    return {
        "the comparison": {
            "--noisy_level": dict(
                help="the noise in tenths: --ny_ratio is a tenth of it", **flags.one_of(map(str, range(10)))
            ),
            "--methods": dict(
                nargs="+",
                default=methods.names(later=False),
                help="methods to run (the paper's six when not given); those that teach them are added",
                **flags.one_of(methods.names()),
            ),
            "--seeds": dict(type=flags.count, default=1, help="runs, with seeds --seed, --seed + 1, ..."),
            "--jobs": dict(type=flags.count, default=1, help="seeds at once, each in a process of its own"),
            "--only_seed": dict(type=flags.whole, help="this seed of a run alone, as --jobs starts it"),
            "--temp": dict(type=flags.positive, default=1.0, help="temperature of teachers, students and tables"),
            "--smoothing": dict(
                type=flags.open_share, default=0.05, help="weight of the newest prediction in the table"
            ),
            "--table": tables.FLAG,
            "--ls_eps": dict(type=flags.share, default=0.1, help="LS: the mass spread over all classes"),
            "--start": methods.START,
            "--path": dict(type=flags.name, help="name of the run, as --run_name (the time and the settings)"),
        },
        "the paths": record_flags("of OHT"),
    }


def make_parser():
    parser = experiment_parser(__doc__, dataset="cifar100", epochs=100, batch_size=128, proj_name=None)
    return parser.add_flags(own_flags())


def settle(args):
    """Resolve what this script's own flags mean for the common ones; returns the run's folder."""
    if args.noisy_level is not None:
        if {"ny_ratio", "ny_file"} & args.given:
            raise errors.BadInput(
                f"--noisy_level {args.noisy_level}: cannot go with --ny_ratio or --ny_file; give one of them"
            )
        args.ny_ratio = int(args.noisy_level) / 10
    if args.resume and not (args.path or args.run_name):
        raise errors.BadInput("--resume: name the run to go on with by --path")
    if args.dataset == "cifar100" and not {"valid_size", "train_size"} & args.given:
        args.valid_size, args.valid_rows = 5000, "last"  # the published split
    args.methods = methods.with_teachers(args.methods)
    if args.record_paths and "OHT" not in args.methods:
        raise errors.BadInput("--record_paths: records OHT's path, which is not among --methods; add it")
    noise = noise_suffix(args) if args.ny_file else f"_n{10 * args.ny_ratio:g}"
    settings = f"{time.strftime('%Y%m%d_%H%M%S')}{args.batch_size}_{args.lr:g}_{args.smoothing:g}{noise}"
    name = args.path or args.run_name or settings
    project = "noisy_cifar100_notempsquare" if args.dataset == "cifar100" else f"noisy_{args.dataset}"
    if args.resume and not {"dataset", "proj_name"} & args.given:
        project = find_project(name) or project
    args.proj_name = args.proj_name or project
    return RESULTS / args.proj_name / f"run_{name}"


def find_project(name):
    """The folder below results/ that has a run of this name, whatever its data set; None where there is none."""
    runs = sorted(args.parent for args in RESULTS.glob(f"noisy_*/run_{glob.escape(name)}/args.json"))
    if len(runs) > 1:
        raise errors.BadInput(f"--resume: there are {', '.join(map(str, runs))}; say which by --dataset")
    return runs[0].parent.name if runs else None


def write_results(run, results):
    with run.files.together() as open_file, open_file("results.csv", "w") as f:
        comparison.write_results(f, results)


def train_seeds(args, argv, folder):
    """Train what is left of each seed in a process, --jobs at once; seed_S.log and seed_S.err are what it printed."""
    words = [sys.executable, __file__, *(word for word in argv if word != "--overwrite"), "--resume"]
    words += ["--path", folder.name.removeprefix("run_"), "--proj_name", args.proj_name]
    environment, failed = with_threads(args.jobs), []

    def start(seed):
        return starter([*words, "--only_seed", str(seed)], folder / f"seed_{seed}", environment)()

    def finish(seed, code):
        print(f"seed {seed}: {'done' if code == 0 else f'failed with exit code {code}'}", flush=True)
        failed.extend([seed] if code else [])

    seeds = range(args.seed, args.seed + args.seeds)
    waiting = [seed for seed in seeds if not methods.all_done(args.methods, folder / f"seed_{seed}")]
    run_all(waiting, args.jobs, start, finish)
    if failed:
        raise errors.RunFailure(f"{folder}: seeds {failed} failed, see seed_{failed[0]}.err; --resume tries them again")


def train_seed(experiment, seed, folder):
    """Yield (row of results.csv, test accuracies by epoch, whether it had been done before) of each method."""
    of_seed = experiment if seed == experiment.args.seed else experiment.with_seed(seed).start()
    for method in experiment.args.methods:
        done = distributed.of_first(methods.read_result, folder / f"seed_{seed}" / method)
        result = done or methods.train_method(method, of_seed, folder)
        print(comparison.progress_line(result["row"]), flush=True)
        yield result["row"], result["test_acc"], bool(done)


def main(argv=None) -> Path | None:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    folder = settle(args)

    def check(data):
        if args.record_paths:
            check_path_flags(args, data, folder, [(len(data.y), args.epochs)] * args.seeds)

    experiment = Experiment(args, folder, check)
    folder = experiment.folder
    if args.check:
        return experiment.print_settings()

    experiment.start()
    if args.only_seed is not None:
        list(train_seed(experiment, args.only_seed, folder))
        return folder
    results, curves = [], {method: [] for method in args.methods}
    with experiment.new_run(with_labels=False) as whole:  # labels are each seed's own
        if args.jobs > 1:
            train_seeds(args, sys.argv[1:] if argv is None else argv, folder)
        for seed in range(args.seed, args.seed + args.seeds):
            for row, accuracies, done in train_seed(experiment, seed, folder):
                results.append(row)
                curves[row["method"]].append(accuracies)
                if not done:
                    write_results(whole, results)
        write_results(whole, results)
        if distributed.RANK == 0:
            print(comparison.report(results, args, curves, folder))
    one = folder / f"seed_{args.seed}" / args.methods[-1]
    print(f"next: python evaluate.py {quote(str(one))}")
    if args.record_paths:
        print(f"next: python analyze_paths.py {quote(str(one.with_name('OHT')))}")
    print(folder)
    return folder


if __name__ == "__main__":
    errors.run_script(distributed.on_all_ranks(main))
