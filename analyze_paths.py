"""What the learning paths of a run say: measures, label errors, pictures, and a page to check suspects on.

    python analyze_paths.py results/Gen_path/run_digits_cosine_n0.4
    python analyze_paths.py results/Gen_path/run_digits_cosine_n0.4 --marks marks.csv
    python analyze_paths.py results/Gen_path/run_digits_cosine_n0.4 --split test
    python analyze_paths.py PATH.npy --labels LABELS.npy --images FOLDER --out DIR

Reads a run folder with PATH_TRAIN_COARSE.npy or PATH_ALL_COARSE.npy, or anybody's (samples, steps, classes) array.
Writes samples.csv, suspects.csv, steps.csv, summary.txt, pictures, animations, player.html and report.html, where
labels are looked at and marked; with the page's marks.csv also audit.csv, what was measured.
"""

import os
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from common import errors, flags
from paths import pictures
from paths.analysis import Analysis, draw, write_tables
from paths.comparison import check_comparable, draw_beside
from paths.exports import EXPORTS
from paths.label_errors import LessThanChance
from paths.loose_files import open_files, read_texts
from paths.player import write_player
from paths.report import write_report
from runs.predicted_split import open_split
from runs.recorded_run import PATHS, open_run
from runs.run_folder import RESULTS, command_again, read_args

PICTURES = "simplex probabilities data_map measures distance suspects chosen_simplex chosen_probabilities".split()
PICTURES += ["compare_simplex", "compare_probabilities", "compare_distance"]  # the last: earlier versions wrote it
MOST_LISTED = 20  # runs
# What an analysis writes, and what a new one may replace
OUTPUTS = {*(f"{name}.png" for name in PICTURES), "distance.gif", "zigzag_slow.gif", "zigzag_fast.gif", *EXPORTS}
OUTPUTS |= {"samples.csv", "suspects.csv", "steps.csv", "audit.csv", "summary.txt", "report.html", "player.html"}

indices = flags.value(
    "expected sample numbers, such as 17,42", lambda text: [int(i) for i in text.split(",")], lambda v: min(v) >= 0
)


def make_parser():
    parser = flags.CheckedParser(description=__doc__)
    parser.add_argument("path", metavar="RUN_DIR|PATH.npy", help="a run's folder, or a recorded path")
    flag = parser.add_argument
    flag("--out", default=None, metavar="DIR", help="where to write (RUN_DIR/analysis when not given)")
    flag("--data_dir", default=None, help="RUN_DIR: where the data lies now (the run's when not given), for images")
    flag(
        "--marks",
        default=None,
        metavar="FILE",
        help="marks.csv of report.html: measures how many labels are wrong; the new page goes on from these marks",
    )
    flag(
        "--audit",
        type=flags.count,
        default=200,
        help="samples drawn at random for the page, to measure how many labels are wrong",
    )
    flag("--split", default="train", help="RUN_DIR: whose labels", **flags.one_of(["train", "valid", "test"]))
    flag(
        "--texts",
        default=None,
        metavar="FILE",
        help="texts for the page: .txt, a line a sample; FILE.csv:COLUMN; FILE.csv",
    )
    flag("--idx", type=indices, default=None, metavar="17,42", help="draw these samples, too")
    flag("--compare", default=None, metavar="RUN2", help="draw samples beside their paths in a second run")
    flag("--export", default=None, help="also write what another tool reads", **flags.one_of(EXPORTS))
    flag("--smoothing", type=flags.open_share, default=None, help="the filter's factor (1-.95^(200/T) when not given)")
    flag = parser.add_argument_group("PATH.npy").add_argument
    flag("--labels", default=None, metavar="FILE", help="(N,) .npy of the given labels")
    flag("--clean_labels", default=None, metavar="FILE", help="(N,) .npy of clean labels: to judge what is found")
    flag("--images", default=None, metavar="FILE_OR_FOLDER", help="(N, H, W[, C]) uint8 .npy; or a folder, sorted")
    flag("--class_names", default=None, metavar="FILE", help="a name a line")
    flag("--true_probs", default=None, metavar="FILE", help="(N, K) .npy of true label distributions")
    return parser


def check_is_there(path):
    """BadInput that lists the runs near by, or else in results/, where `path` is no run's folder and no file."""
    if path.is_file() or (path / "args.json").is_file():
        return
    near = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    for place in (near, RESULTS):
        files = [file for name in PATHS for depth in ("*", "*/*") for file in place.glob(f"{depth}/{name}.npy")]
        if runs := sorted(str(file.parent) for file in files):
            break
    more = f" and {len(runs) - MOST_LISTED} more" if len(runs) > MOST_LISTED else ""
    known = f"the runs there are: {', '.join(runs[:MOST_LISTED])}{more}" if runs else "record one with main_gen_path.py"
    raise errors.BadInput(f"{path}: is no file, and no run's folder (with args.json in it); {known}")


def open_recorded(args):
    """The Recorded path of what was asked for."""
    if not Path(args.path).is_dir():
        return open_files(args)
    if args.split != "train":
        return open_split(args.path, args.split, args.data_dir)
    return open_run(args.path, args.data_dir)


def open_all(args):
    """(Recorded, the second Recorded or None, folder to write). BadInput names the first thing that is wrong."""
    is_run, other = Path(args.path).is_dir(), None
    check_is_there(Path(args.path))
    for name in ("labels", "clean_labels", "images", "class_names", "true_probs") if is_run else ("data_dir",):
        if getattr(args, name) is not None:
            raise errors.BadInput(f"--{name}: a run's folder brings its own, other paths need --images; leave it out")
    if args.split != "train" and (not is_run or args.compare):
        raise errors.BadInput(f"--split {args.split}: is for a run's folder, without --compare; leave one out")
    if not is_run and not args.out:
        raise errors.BadInput("--out: say where to write, there is no run's folder")
    own = "analysis" if args.split == "train" else f"analysis_{args.split}"
    out = (Path(args.out) if args.out else Path(args.path) / own).resolve()
    if out.exists() and not (out.is_dir() and ((out / "suspects.csv").is_file() or not any(out.iterdir()))):
        raise errors.BadInput(f"--out {out}: is there and no earlier analysis; choose another name, or move it away")
    if not out.parent.is_dir():
        raise errors.BadInput(f"--out {args.out}: there is no folder {out.parent}; make it first")
    recorded = open_recorded(args)
    if args.texts:
        recorded.texts = read_texts(args.texts, len(recorded.given))
    if args.marks:
        recorded.take_marks(args.marks)
    if args.compare:
        if not Path(args.compare).is_dir():
            raise errors.BadInput(f"--compare {args.compare}: there is no such folder; give a run's")
        other = open_run(args.compare, args.data_dir, with_images=False)
        check_comparable(recorded, other, args.compare)
    for i in args.idx or []:
        if i >= len(recorded.given) or not recorded.path[i].any():
            raise errors.BadInput(f"--idx {i}: is not among the samples followed; samples.csv lists them")
    return recorded, other, out


def draw_chosen(analysis, samples, out):
    """--idx: simplex and probabilities of the samples that were asked for."""
    groups = {f"samples {i // 3 + 1}": samples[i : i + 3] for i in range(0, len(samples), 3)}
    name = analysis.recorded.name
    pictures.simplex_paths(analysis.scene, groups, out / "chosen_simplex.png", f"{name}: chosen samples")
    pictures.probabilities_over_time(
        analysis.scene, groups, out / "chosen_probabilities.png", f"{name}: chosen samples"
    )


def tell(stage):
    """A line on standard error that says what is being done."""
    print(f"{stage} ...", file=sys.stderr)


def next_steps(args, argv) -> list[tuple[str, str]]:
    """(what it does, command) of what there is to do with an exported marks.csv, in the run's own names."""
    kept = [a for before, a in zip(["", *argv], argv, strict=False) if "--marks" not in (before, a.split("=")[0])]
    steps = [("How many labels are wrong, and the next page:", ["analyze_paths.py", *kept, "--marks", "marks.csv"])]
    if Path(args.path).is_dir():
        settings = read_args(args.path)
        data = args.data_dir or settings["data_dir"]
        if settings["dataset"] in ("folder", "tinyimagenet", "npz"):
            place, is_file = Path(data) if Path(data).name else Path(data).resolve(), settings["dataset"] == "npz"
            corrected = place.with_name(f"{place.stem}_corrected.npz" if is_file else f"{place.name}_corrected")
            split = ["--split", args.split] if is_file and args.split != "train" else []
            apply = ["apply_marks.py", "marks.csv", "--run", args.path, "--data_dir", data, "--out", corrected, *split]
            steps.append(("The corrected data, as a copy:", apply))
        if args.split == "train":
            name = f"{settings['run_name'] or settings['dataset']}_corrected"
            again = command_again(settings, data_dir=data, ny_file="marks.csv", run_name=name)
            steps.append(("Or train on the corrected labels at once:", again))
    return [(what, shlex.join(["python", *map(str, command)])) for what, command in steps]


def write_all(analysis, other, args, out, at, steps):
    """Everything, into an empty folder that will be `at`."""
    recorded = analysis.recorded
    tell("distances and tables")
    distances, label_distances = analysis.distances()
    write_tables(analysis, out, distances)
    if args.split == "train":  # predictions of other splits are no path
        tell("pictures, animations and player.html")
        draw(analysis, out, distances, label_distances)
        write_player(analysis, out / "player.html")
    tell("report.html")
    files_at = None if recorded.files_in is None else Path(os.path.relpath(recorded.files_in, at)).as_posix()
    write_report(analysis, out / "report.html", steps, files_at)
    if args.idx:
        draw_chosen(analysis, args.idx, out)
    if other:
        draw_beside(analysis, other, out, args.idx)
    if args.export:
        (out / args.export).mkdir()
        EXPORTS[args.export](analysis, out / args.export)
    (out / "summary.txt").write_text(analysis.summary() + "\n", encoding="utf-8")


def replace(out, new):
    """Move what is new into the folder out, over an earlier analysis there; what is not of an analysis stays."""
    out.mkdir(exist_ok=True)
    for old in [path for path in out.iterdir() if path.name in OUTPUTS]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path in new.iterdir():
        path.rename(out / path.name)


def main(argv=None) -> Path:
    """Run the script; returns the folder it wrote."""
    args = make_parser().parse_args(argv)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        recorded, other, out = open_all(args)
    for message in dict.fromkeys(str(warning.message) for warning in said):
        print(f"warning: {message}", file=sys.stderr)

    tell(f"measures and label errors of {len(recorded.given):,} samples")
    try:
        analysis = Analysis(recorded, args.smoothing, args.audit)
    except LessThanChance as problem:
        raise errors.BadInput(f"{args.path}: {problem}") from None
    if not len(analysis.order):
        raise errors.BadInput(f"{args.path}: no sample was recorded; take another run")
    steps = next_steps(args, sys.argv[1:] if argv is None else list(map(str, argv)))
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as partial:
        write_all(analysis, other, args, Path(partial), out, steps)
        replace(out, Path(partial))
    print(analysis.summary())
    if args.split == "train":
        print(f"open {out / 'player.html'} in a browser to watch the paths")
    print(f"open {out / 'report.html'} in a browser, mark samples from the first on, and export marks.csv; then")
    for what, command in steps:
        print(f"  {what}\n    {command}")
    print(out)
    return out


if __name__ == "__main__":
    errors.run_script(main)
