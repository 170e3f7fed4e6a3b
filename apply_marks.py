"""Correct a data set by marks.csv, which the page of analyze_paths.py exports.

    python apply_marks.py marks.csv --data_dir FOLDER --out CORRECTED       # a corrected copy; --link: of links
    python apply_marks.py marks.csv --data_dir FOLDER --in_place            # images are moved where they lie
    python apply_marks.py --undo --data_dir FOLDER                          # and back
    python apply_marks.py marks.csv --data_dir DATA.npz --out CORRECTED.npz # .npy (labels) and .csv, too
    python apply_marks.py marks.csv --out changes.csv                       # a list, for anything else

Labels change where a person said so; samples marked drop are left out. What has no mark
stays as it is. Prints the command that trains on the corrected data, with --run in full.
"""

import os
from functools import partial
from pathlib import Path
from shlex import quote

from common import errors, flags
from common.errors import BadInput
from data.corrected_folders import folder_of, move_in_place, own_of, plan_folder, undo, write_tree
from data.corrections import correct_csv, correct_npy, correct_npz, read_corrections
from runs.run_folder import command_again, read_args


def make_parser():
    parser = flags.CheckedParser(description=__doc__)
    parser.add_argument("marks", nargs="?", metavar="MARKS", help="marks.csv")
    flag = parser.add_argument
    flag("--data_dir", default=None, metavar="DATA", help="image folder, .npz, .npy of labels, .csv (--run's)")
    flag("--out", default=None, help="what to write: a folder, or a file of the same kind as DATA")
    flag("--link", action="store_true", help="folder: symbolic links to the images of DATA, which must stay, no copies")
    flag("--in_place", action="store_true", help="folder: move the images of DATA; a journal is kept in it")
    flag("--undo", action="store_true", help="folder: take back the last --in_place")
    flag("--split", default="train", help=".npz: whose labels", **flags.one_of(["train", "valid", "test"]))
    flag("--column", default="label", help=".csv: the column of the labels")
    flag(
        "--run",
        default=None,
        metavar="RUN_DIR",
        help="the run that the marks were made on: it says where DATA lies, and with which settings to train again",
    )
    return parser


def is_folder(data_dir):
    """Also of one that is not there, which is told when it is opened."""
    return data_dir is not None and not Path(data_dir).is_file()


def check(args):
    """BadInput, of what can be said of the flags before anything is read."""
    folder = is_folder(args.data_dir)
    ways = [name for name in ("out", "in_place", "undo") if getattr(args, name)]
    if len(ways) != 1:
        found = " and ".join(f"--{name}" for name in ways) or "nothing to do"
        raise BadInput(f"{found}: give one of --out, --in_place and --undo")
    if not args.undo and not (args.marks and Path(args.marks).is_file()):
        raise BadInput(f"MARKS {args.marks or ''}: there is no such file; give the marks.csv that the page exported")
    for name in ("in_place", "undo", "link"):
        if getattr(args, name) and not folder:
            raise BadInput(f"--{name}: is for an image folder; give it with --data_dir")
    if not args.out:
        if args.link:
            raise BadInput("--link: goes with --out")
        return
    kind = Path(args.data_dir).suffix if args.data_dir else ".csv"
    if not folder and kind not in (".npz", ".npy", ".csv"):
        raise BadInput(f"--data_dir {args.data_dir}: is no folder, .npz, .npy or .csv; without it a list is written")
    out = Path(args.out)
    if not folder and out.suffix != kind:
        raise BadInput(f"--out {out}: must end in {kind}, as the data does, or a list of changes without --data_dir")
    if out.exists():
        raise BadInput(f"--out {out}: is there already; choose another name, or move it away")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}; make it first")


def correct_folder(args):
    """Returns the corrected folder."""
    root = folder_of(args.data_dir)
    plan = plan_folder(root, args.marks)
    print(*plan.notes, plan.corrections, sep="\n")
    out = root if args.in_place else Path(args.out)
    if args.in_place:
        move_in_place(plan)
    else:
        write_tree(plan, out, args.link)
    print(f"lists of the changes, and marks.csv for the next round: {os.path.relpath(own_of(out))}")
    return out


def correct_file(args):
    """The same for a file, or for a list of changes alone."""
    source, out = args.data_dir, Path(args.out)
    if source is None:
        found = read_corrections(args.marks)
        found.write_changes(out)
    else:
        correct = {
            ".npz": partial(correct_npz, split=args.split),
            ".npy": correct_npy,
            ".csv": partial(correct_csv, column=args.column),
        }[out.suffix]
        found = correct(source, out, args.marks)
        found.write_changes(out.with_name(f"{out.stem}_changes.csv"))
        if out.suffix != ".npy":  # where samples that are left out keep their row
            found.write_marks(out.with_name(f"{out.stem}_marks.csv"))
    print(found)
    return out


def next_command(args, settings, out):
    """What trains on the corrected data: the command of --run, but for data and name. None: nothing here can."""
    dataset = settings.get("dataset")
    if out.is_dir() or out.suffix == ".npz":
        kind = "npz" if out.is_file() else "tinyimagenet" if dataset == "tinyimagenet" else "folder"
        data = {"dataset": kind, "data_dir": out}
    elif dataset:  # one that is not on disk as it is, such as CIFAR-10: the marks themselves are labels
        data = {"dataset": dataset, "data_dir": settings["data_dir"], "ny_file": args.marks}
    else:
        return None
    name, net = f"{settings.get('run_name') or data['dataset']}_corrected", {} if settings else {"net": "NET"}
    return " ".join(map(quote, ["python", *command_again(settings, **net, **data, run_name=name)]))


def main(argv=None) -> Path:
    """Run the script; returns what it wrote."""
    args = make_parser().parse_args(argv)
    settings = read_args(args.run) if args.run else {}
    if args.data_dir is None and settings.get("dataset") in ("folder", "tinyimagenet", "npz"):
        args.data_dir = settings["data_dir"]
    check(args)
    if args.undo:
        out = folder_of(args.data_dir)
        print(f"{undo(out)} images moved back")
    else:
        out = correct_folder(args) if is_folder(args.data_dir) else correct_file(args)
        if command := next_command(args, settings, out):
            print(f"next: {command}")
            if not args.run:
                print("NET and further flags: those of the run that was marked; --run RUN_DIR fills them in")
        else:
            print(f"next: train on {out}")
    print(out)
    return out


if __name__ == "__main__":
    errors.run_script(main)
