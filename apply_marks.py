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
from common.errors import RunFailure
from data.corrected_folders import folder_of, is_applied, move_in_place, own_of, plan_folder, undo, write_tree
from data.corrections import correct_csv, correct_npy, correct_npz, read_corrections, write_once
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


def check(args):
    """BadInput, of what can be said of the flags before anything is read."""
    folder = args.data_dir is not None and not Path(args.data_dir).is_file()
    ways = [name for name in ("out", "in_place", "undo") if getattr(args, name)]
    if len(ways) != 1:
        found = " and ".join(f"--{name}" for name in ways) or "nothing to do"
        raise errors.BadInput(f"{found}: give one of --out, --in_place and --undo")
    if not args.undo and args.marks is None:
        raise errors.BadInput("MARKS: give the marks.csv that the page exported")
    elif args.marks is not None and not Path(args.marks).is_file():
        raise errors.BadInput(f"{args.marks}: there is no such file; give the marks.csv that the page exported")
    for name in ("in_place", "undo", "link"):
        if getattr(args, name) and not folder:
            raise errors.BadInput(f"--{name}: is for an image folder; give it with --data_dir")
    if args.link and not args.out:
        raise errors.BadInput("--link: goes with --out")
    if args.out and args.data_dir and Path(args.data_dir).is_file():
        kind = Path(args.data_dir).suffix
        if kind not in (".npz", ".npy", ".csv"):
            raise errors.BadInput(
                f"--data_dir {args.data_dir}: is no folder, .npz, .npy or .csv; without it a list is written"
            )
        elif Path(args.out).suffix != kind:
            raise errors.BadInput(f"--out {args.out}: must end in {kind}, as the data does")
    elif args.out and args.data_dir is None and Path(args.out).suffix != ".csv":
        raise errors.BadInput(
            f"--out {args.out}: a list of changes ends in .csv; to have data corrected give it with --data_dir"
        )


def correct_folder(args):
    """Returns the corrected folder, and whether anything was done."""
    root = folder_of(args.data_dir)
    if args.in_place and is_applied(root, args.marks):
        return root, False
    plan = plan_folder(root, args.marks)
    print(*plan.notes, plan.corrections, sep="\n")
    if not args.in_place:
        return Path(args.out), write_tree(plan, args.out, args.link)
    if plan.moves:
        move_in_place(plan, args.marks)
    return root, bool(plan.moves)


def correct_file(args):
    """The same for a file, or for a list of changes alone."""
    source, out = args.data_dir, Path(args.out)
    if source is None:
        found = read_corrections(args.marks)
        _, is_new = write_once(out, found.write_changes)
    else:
        one = {
            ".npz": partial(correct_npz, split=args.split),
            ".npy": correct_npy,
            ".csv": partial(correct_csv, column=args.column),
        }[Path(source).suffix]
        found, is_new = write_once(out, lambda new: one(source, new, args.marks))
        found.write_changes(out.with_name(f"{out.stem}_changes.csv"))
        if Path(source).suffix != ".npy":  # where samples that are left out keep their row
            found.write_marks(out.with_name(f"{out.stem}_marks.csv"))
    print(found)
    return out, is_new


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


def take_back(args):
    """--undo: returns the folder. RunFailure that names what could not be moved back; a second --undo tries again."""
    root = folder_of(args.data_dir)
    count, left = undo(root)
    print(f"{count} images moved back")
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise RunFailure(f"{left[0]}{more}")
    return root


def main(argv=None) -> Path:
    """Run the script; returns what it wrote."""
    args = make_parser().parse_args(argv)
    settings = read_args(args.run) if args.run else {}
    if args.data_dir is None and settings.get("dataset") in ("folder", "tinyimagenet", "npz"):
        args.data_dir = settings["data_dir"]
    check(args)
    if args.undo:
        out = take_back(args)
    else:
        is_folder = args.data_dir is not None and not Path(args.data_dir).is_file()
        out, is_new = (correct_folder if is_folder else correct_file)(args)
        if not is_new:
            print(f"{out}: these marks are applied there already; nothing was changed")
        if is_folder:
            print(f"lists of the changes, and marks.csv for the next round: {os.path.relpath(own_of(out))}")
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
