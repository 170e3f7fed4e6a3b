"""An image folder with its labels corrected: a tree of copies or links, or images moved where they lie, and back.

A sample is known by its file, never by its row: rows change when files move. What belongs to the corrections lies where
nothing takes it for data: in FOLDER/.corrections/ where classes lie in train/, else in FOLDER.corrections/ beside it.
That is a journal a correction made in place, the samples that it left out, lists of changes, and marks.csv for the next
round.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import BadInput, RunFailure
from common.files import read_json, sha256_of, sync_folder, write_json
from common.untrusted import nfc, printable, valid_text
from data.corrections import Corrections, outline_of_marks, read_corrections
from data.images import HIDDEN, find_images

OWN = ".corrections"


def own_of(root: Path) -> Path:
    """The folder of what belongs to the corrections of an image folder."""
    root = Path(root).resolve()
    return root / OWN if (root / "train").is_dir() else root.with_name(root.name + OWN)


@dataclass
class Plan:
    """Where the images of a folder belong. images: relative paths as they are. moves: {idx: (from, to)}; to is None for
    a sample that is left out. notes: what is passed over, in words."""

    root: Path
    corrections: Corrections
    images: list
    moves: dict
    notes: list


def folder_of(data_dir: str | Path) -> Path:
    """The folder that holds train/, or the classes. BadInput where there is none."""
    root = Path(data_dir)
    if not root.is_dir():
        raise BadInput(f"--data_dir {root}: there is no such file or folder; give the data that the marks were made on")
    below = root / "tiny-imagenet-200"
    return below if not (root / "train").is_dir() and (below / "train").is_dir() else root


def plan_folder(root: Path, marks_file: str) -> Plan:
    """The Plan of an image folder. BadInput where marks and folder do not agree, or a class would be left empty."""
    images, _, notes = find_images(root)
    depth = 1 if (root / "train").is_dir() else 0  # of the classes' folders
    inside = [path for path in images if path.count("/") > depth and (not depth or path.startswith("train/"))]
    folders = sorted({path.split("/")[depth] for path in inside})
    files, labels = _files_of_marks(root, marks_file, images, folders, depth)
    found = read_corrections(marks_file, [valid_text(name) for name in folders], files, labels)
    if emptied := set(labels.tolist()) - set(found.labels[~found.dropped].tolist()):
        raise BadInput(f"{marks_file}: leaves no image in {folders[min(emptied)]}; take back some of the marks")
    return Plan(root, found, images, _moves(images, found, folders, depth), notes)


def _files_of_marks(root, marks_file, images, folders, depth):
    """The files (N) on disk that the rows of the marks speak of, and their labels (N,)."""
    count, _, named = outline_of_marks(marks_file)
    on_disk, number = {nfc(valid_text(path)): path for path in images}, {name: k for k, name in enumerate(folders)}
    files, labels = [], []
    for idx in range(count):
        path = on_disk.get(nfc(named.get(idx, "")), "")
        parts = path.split("/")
        if len(parts) < depth + 2 or parts[depth] not in number:
            raise BadInput(
                f"{marks_file}: idx {idx} is the file {printable(named.get(idx, '(none)'))}, which is in no class's "
                f"folder of {root}: the marks were made on other data, or were applied already; give the data that "
                "they were made on, or --undo"
            )
        files.append(path)
        labels.append(number[parts[depth]])
    return files, np.array(labels, np.int64)


def _moves(images, found, folders, depth):
    """{idx: (from, to)}: into the right class's folder, under a name that is free also where case is ignored."""
    taken, moves = {_folded(path) for path in images}, {}
    for i in np.flatnonzero(found.relabelled | found.dropped).tolist():
        if found.dropped[i]:
            moves[i] = found.files[i], None
            continue
        parts = found.files[i].split("/")
        to = PurePosixPath(*parts[:depth], folders[found.labels[i]], *parts[depth + 1 :])
        free, number = to, 1
        while _folded(str(free)) in taken:
            free, number = to.with_name(f"{to.stem}_{number}{to.suffix}"), number + 1
        taken.add(_folded(str(free)))
        moves[i] = found.files[i], str(free)
    return moves


def _folded(path):
    return nfc(path).casefold()


# ------------------------------------------------------------------------------------------------- another tree


def write_tree(plan: Plan, out: Path, link: bool = False) -> None:
    """Write the corrected tree to out, a new folder, of copies, or with link of symbolic links; whole or not at all."""
    if out.resolve().is_relative_to(plan.root.resolve()):
        raise BadInput(f"--out {out}: lies in {plan.root}, the data itself; name another folder, or give --in_place")
    places = {path: path for path in plan.images + _others(plan)} | dict(plan.moves.values())
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as partial:
        tree = Path(partial, out.name)
        for source, target in places.items():
            if target is None:
                continue
            place = tree / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                raise RunFailure(f"{out / target}: two files have this name on a disk that ignores case; rename one")
            if link:
                place.symlink_to((plan.root / source).resolve())
            else:
                shutil.copy2(plan.root / source, place)
        own = own_of(tree)
        own.mkdir()
        _write_lists(plan, own)
        if own.name != OWN:  # beside it
            beside = out.with_name(own.name)
            if _journals(beside):  # and images that were left out, perhaps
                raise BadInput(f"{beside}: is there, and has journals of another {out}; move it away")
            shutil.rmtree(beside, ignore_errors=True)  # of an earlier out, which is gone
            own.rename(beside)
        tree.rename(out)


def _others(plan):
    """Relative paths of the files that are no images, such as words.txt."""
    known = set(plan.images)
    found = sorted(path.relative_to(plan.root) for path in plan.root.rglob("*") if path.is_file())
    shown = [path for path in found if not any(name.startswith(".") or name in HIDDEN for name in path.parts)]
    return [path.as_posix() for path in shown if path.as_posix() not in known]


def _write_lists(plan, folder, number=""):
    moved_to = {i: to for i, (_, to) in plan.moves.items()}
    files = dict(enumerate(plan.corrections.files)) | moved_to
    plan.corrections.write_changes(folder / f"changes{number}.csv", moved_to)
    plan.corrections.write_marks(folder / f"marks{number}.csv", files)


# ------------------------------------------------------------------------------------------------------ in place


def move_in_place(plan: Plan) -> None:
    """Move the images to where they belong, all or none; the journal for undo() is written before the first moves."""
    root, own, moves = plan.root, own_of(plan.root), list(plan.moves.values())
    for old, _ in moves:
        if (root / old).resolve() != root.resolve() / old:
            raise BadInput(f"{root / old}: is a link, or in one; put the image itself there, or give --out")
    number = max((int(journal.stem) for journal in _journals(own)), default=0) + 1
    own.mkdir(exist_ok=True)
    _write_lists(plan, own, number)
    journal = own / f"{number}.json"
    entries = [{"from": old, "to": new, "sha256": sha256_of(root / old)} for old, new in moves]
    write_json(journal, {"moves": entries})
    sync_folder(own)
    try:
        for entry in entries:
            old, new = _places(root, journal, entry)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.rename(old, new)
    except BaseException:
        undo(root)
        raise


def _places(root, journal, entry):
    """(from, to) of a move; what is left out goes beside the journal."""
    kept = root / entry["to"] if entry["to"] else journal.with_name(f"dropped{journal.stem}") / entry["from"]
    return root / entry["from"], kept


def undo(root: Path) -> int:
    """Take back the last correction made in place. Returns how many images were moved back.

    RunFailure that names what could not be: what is gone, or has something new at its old place. The journal stays, so
    that a second undo() tries these again.
    """
    journals, done, left = _journals(own_of(root)), 0, []
    if not journals:
        raise BadInput(f"--undo: no correction was made in place in {root}, or all are undone; nothing was changed")
    for entry in reversed(read_json(journals[-1])["moves"]):
        old, new = _places(root, journals[-1], entry)
        if not new.exists():
            if not old.exists() or sha256_of(old) != entry["sha256"]:
                left.append(f"{new}: is gone, which was {old}; put it back, then undo again")
        elif old.exists():
            left.append(f"{old}: something new lies there; move it away, then undo again")
        elif sha256_of(new) != entry["sha256"]:
            left.append(f"{new}: was changed since it was {old}; put what it was back, then undo again")
        else:
            try:
                old.parent.mkdir(parents=True, exist_ok=True)
                os.rename(new, old)
                done += 1
            except OSError as problem:
                left.append(f"{new}: cannot be moved back to {old} ({problem.strerror}); mend it, then undo again")
        if new.parent.is_dir():
            _remove_if_empty(new.parent)
    if left:
        raise RunFailure(f"{left[0]} ({done} images moved back, {len(left)} not)")
    for name in ("changes", "marks"):
        journals[-1].with_name(f"{name}{journals[-1].stem}.csv").unlink(missing_ok=True)
    journals[-1].unlink()
    _remove_if_empty(journals[-1].parent)
    return done


def _remove_if_empty(folder):
    """And those above that are empty then."""
    while not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _journals(own):
    return sorted((path for path in own.glob("*.json") if path.stem.isdecimal()), key=lambda path: int(path.stem))
