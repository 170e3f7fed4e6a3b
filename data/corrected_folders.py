"""An image folder with its labels corrected: a tree of copies or links, or images moved where they lie, and back.

A sample is known by its file and its contents, never by its row: rows change when files move. What belongs to the
corrections lies where nothing takes it for data: in FOLDER/.corrections/ where classes lie in train/, else in
FOLDER.corrections/ beside it. That is a journal a correction made in place, the samples that it left out, lists of
changes, and marks.csv for the next round.
"""

import filecmp
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import BadInput, RunFailure
from common.files import as_json, read_json, sha256_of, sync_folder, whole_file
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
    """Where the images of a folder belong. stay: relative paths as they are. moves: {idx: (from, to)}; to is None for a
    sample that is left out. files: {idx: its file afterwards}. other: files that are no images. notes: what is passed
    over, in words."""

    root: Path
    corrections: Corrections
    stay: list
    moves: dict
    other: list
    notes: list

    @property
    def files(self):
        kept = np.flatnonzero(~self.corrections.dropped).tolist()
        return {i: self.moves.get(i, (None, self.corrections.files[i]))[1] for i in kept}


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
    files, labels, split = _files_of_marks(root, marks_file, images, folders, depth)
    if depth and (others := {p for p in images if p.startswith(f"{split}/") and p.count("/") > 1} - set(files)):
        raise BadInput(
            f"{marks_file}: knows nothing of {len(others)} images of {root / split}, such as "
            f"{printable(valid_text(min(others)))}: the marks were made on other data; give those"
        )
    found = read_corrections(marks_file, [valid_text(name) for name in folders], files, labels)
    left = np.bincount(found.labels[~found.dropped], minlength=len(folders))
    before = np.bincount(labels, minlength=len(folders))
    if (empty := np.flatnonzero((left == 0) & (before > 0))).size:
        raise BadInput(f"{marks_file}: leaves no image in {folders[empty[0]]}; take back some of the marks")
    moves = _moves({*images, *_everything(root)}, found, files, folders, depth)
    leaving = {old for old, _ in moves.values()}
    return Plan(root, found, [path for path in images if path not in leaving], moves, _others(root, images), notes)


def _files_of_marks(root, marks_file, images, folders, depth):
    """The files (N) on disk that the rows of the marks speak of, their labels (N,), and the split that they are of."""
    count, _, named = outline_of_marks(marks_file)
    if len(named) < count:
        raise BadInput(f"{marks_file}: does not name the files; give the data that the marks were made on")
    on_disk, number = {nfc(valid_text(path)): path for path in images}, {name: k for k, name in enumerate(folders)}
    files, labels = [""] * count, np.zeros(count, np.int64)
    for idx, name in named.items():
        path = on_disk.get(nfc(name))
        parts = [] if path is None else path.split("/")
        if idx >= count or len(parts) < depth + 2 or parts[depth] not in number:
            raise BadInput(
                f"{marks_file}: idx {idx} is the file {printable(name)}, which is in no class's folder of {root}: the "
                "marks were made on other data, or were applied already; give the data that they were made on"
            )
        files[idx], labels[idx] = path, number[parts[depth]]
    if len(set(files)) < count:
        raise BadInput(f"{marks_file}: names a file twice; export it anew")
    splits = {path.split("/")[0] for path in files} if depth else {""}
    if len(splits) > 1:
        raise BadInput(f"{marks_file}: speaks of several splits ({', '.join(sorted(splits))}); give marks of one")
    return files, labels, splits.pop()


def _moves(there, found, files, folders, depth):
    """{idx: (from, to)}: into the right class's folder, under a name that is free also where case is ignored."""
    taken, moves = {_folded(path) for path in there}, {}
    for i in np.flatnonzero(found.relabelled | found.dropped).tolist():
        if found.dropped[i]:
            moves[i] = files[i], None
            continue
        parts = files[i].split("/")
        to = PurePosixPath(*parts[:depth], folders[found.labels[i]], *parts[depth + 1 :])
        free, number = to, 1
        while _folded(str(free)) in taken:
            free, number = to.with_name(f"{to.stem}_{number}{to.suffix}"), number + 1
        taken.add(_folded(str(free)))
        moves[i] = files[i], str(free)
    return moves


def _folded(path):
    return nfc(path).casefold()


def _everything(root):
    for here, folders, names in os.walk(root):
        for name in folders + names:
            yield Path(here, name).relative_to(root).as_posix()


def _others(root, images):
    """Files that are no images, such as words.txt; for these, links to folders are not followed."""
    known, found = set(images), []
    for here, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or name in HIDDEN))
        paths = (Path(here, name).relative_to(root) for name in sorted(names) if not name.startswith("."))
        found += [path.as_posix() for path in paths if path.as_posix() not in known and (root / path).is_file()]
    return found


# ------------------------------------------------------------------------------------------------- another tree


def write_tree(plan: Plan, out: str | Path, link: bool = False) -> bool:
    """Write the corrected tree to the folder out, of copies, or with link of symbolic links. Returns whether it did:
    not where it is there already. Whole or not at all."""
    out = Path(out)
    wanted = [*zip(plan.stay, plan.stay, strict=True), *[move for move in plan.moves.values() if move[1] is not None]]
    wanted += [(path, path) for path in plan.other]
    if out.resolve().is_relative_to(plan.root.resolve()):
        raise BadInput(f"--out {out}: lies in {plan.root}, the data itself; name another folder, or give --in_place")
    if out.exists():
        if _is_there(plan.root, out, wanted):
            return False
        raise BadInput(f"--out {out}: is there, and is something else; name another folder, or move it away")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}; make it first")
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as partial:
        tree = Path(partial, out.name)
        for source, target in wanted:
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
            if _journals(beside):
                raise BadInput(f"{beside}: is there, and has journals of another {out}; move it away")
            shutil.rmtree(beside, ignore_errors=True)  # what a stop between these two renames left
            own.rename(beside)
        tree.rename(out)
    return True


def _is_there(root, out, wanted):
    same = all((out / to).is_file() and filecmp.cmp(root / source, out / to) for source, to in wanted)
    return same and own_of(out).is_dir() and set(find_images(out).paths) <= {to for _, to in wanted}


def _write_lists(plan, folder, number=""):
    moved_to = {i: to for i, (_, to) in plan.moves.items() if to is not None}
    plan.corrections.write_changes(folder / f"changes{number}.csv", moved_to)
    plan.corrections.write_marks(folder / f"marks{number}.csv", plan.files)


# ------------------------------------------------------------------------------------------------------ in place


def is_applied(root: Path, marks_file: str) -> bool:
    """Whether these very marks were applied in place; where that was cut off, it is brought to its end."""
    digest = sha256_of(marks_file)
    for journal in _journals(own_of(root)):
        content = _read_journal(journal)
        if content["marks_sha256"] == digest:
            if content.get("undoing"):
                raise BadInput(f"{journal}: is half undone; run --undo again, it says what is in its way")
            _move(Path(root), journal, content["moves"])
            return True
    return False


def move_in_place(plan: Plan, marks_file: str) -> None:
    """Move the images to where they belong, all or none; the journal for undo() is written before the first moves."""
    root, own, moves = plan.root, own_of(plan.root), list(plan.moves.values())
    _check_can_move(root, own, moves)
    number = max((int(journal.stem) for journal in _journals(own)), default=0) + 1
    folders = {str(folder) for _, new in moves if new for folder in PurePosixPath(new).parents} - {"."}
    content = {
        "marks_sha256": sha256_of(marks_file),
        "moves": [{"from": old, "to": new, "sha256": sha256_of(root / old)} for old, new in moves],
        "made": sorted(name for name in folders if not (root / name).exists()),
    }
    own.mkdir(exist_ok=True)
    _write_lists(plan, own, number)
    journal = own / f"{number}.json"
    with whole_file(journal, "w") as f:
        f.write(as_json(content))
    sync_folder(own)
    try:
        _move(root, journal, content["moves"])
    except BaseException:
        undo(root)
        raise


def _places(root, journal, entry):
    """(from, to) of a move; what is left out goes beside the journal."""
    to = entry["to"]
    return root / entry["from"], _dropped(journal) / entry["from"] if to is None else root / to


def _dropped(journal):
    return journal.with_name(f"dropped{journal.stem}")


def _move(root, journal, moves):
    """Make the moves of a journal that are not made: those whose image is still what and where it was."""
    for entry in moves:
        old, new = _places(root, journal, entry)
        if not os.path.lexists(new) and os.path.lexists(old) and sha256_of(old) == entry["sha256"]:
            new.parent.mkdir(parents=True, exist_ok=True)
            os.rename(old, new)


def undo(root: Path) -> tuple[int, list[str]]:
    """Take back the last correction made in place. Returns (images moved back, what could not be, in words).

    An image is moved back where it still is what it was, and nothing new lies at its old place. The others stay where
    they are, and in the journal: a second undo() tries them again.
    """
    journals, done, left = _journals(own_of(root)), 0, {}
    if not journals:
        raise BadInput(f"--undo: no correction was made in place in {root}, or all are undone; nothing was changed")
    content = _read_journal(journals[-1])
    for i, entry in reversed([*enumerate(content["moves"])]):
        old, new = _places(root, journals[-1], entry)
        try:
            problem = _why_not_back(old, new, entry["sha256"])
            if problem is None and os.path.lexists(new):
                old.parent.mkdir(parents=True, exist_ok=True)
                os.rename(new, old)
                done += 1
        except OSError as failed:
            problem = f"{new}: cannot be moved back to {old} ({failed.strerror})"
        if problem:
            left[i] = problem
    if left:
        with whole_file(journals[-1], "w") as f:
            moves = [entry for i, entry in enumerate(content["moves"]) if i in left]
            f.write(as_json({**content, "moves": moves, "undoing": True}))
    else:
        _forget(root, journals[-1], content["made"])
    return done, list(left.values())


def _why_not_back(old, new, sha256):
    """In words, why an image cannot be moved back from new to old; None where it can be, or lies there already."""
    at_old, at_new = os.path.lexists(old), os.path.lexists(new)
    if at_old and sha256_of(old) != sha256:
        return f"{old}: something new lies there; move it away, then undo again"
    if at_old:
        return f"{new}: is at {old}, too, where it belongs; remove it, then undo again" if at_new else None
    if not at_new:
        return f"{new}: is gone, which was {old}; put it back, then undo again"
    return None if sha256_of(new) == sha256 else f"{new}: was changed since it was {old}; put what it was back"


def _forget(root, journal, made):
    """Remove a journal that is undone, its lists, and the folders that were made for it, where they are empty."""
    for name in ("changes", "marks"):
        journal.with_name(f"{name}{journal.stem}.csv").unlink(missing_ok=True)
    journal.unlink()
    dropped = _dropped(journal)
    folders = [dropped, *dropped.rglob("*"), *(root / name for name in made)]
    for folder in [*sorted(folders, key=lambda path: -len(path.parts)), journal.parent]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _journals(own):
    return sorted((path for path in own.glob("*.json") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _read_journal(journal):
    """Its content. BadInput where it is damaged, or leads out of the folder."""
    content = read_json(journal)
    try:
        ends = [entry[end] for entry in content["moves"] for end in ("from", "to")]
        places = [PurePosixPath(end) for end in ends if end is not None]
        places += [PurePosixPath(name) for name in content["made"]]
        fits = all(isinstance(entry["sha256"], str) for entry in content["moves"]) and "marks_sha256" in content
    except (KeyError, TypeError):
        places, fits = [], False
    if not fits or any(place.is_absolute() or ".." in place.parts for place in places):
        raise BadInput(f"{journal}: is no journal of a correction; take an intact copy")
    return content


def _check_can_move(root, own, moves):
    """BadInput that names links, which may lead elsewhere once moved, and folders that cannot be written to."""
    problems = []
    for old, new in moves:
        inside = [path for path in (root / old, *(root / old).parents) if root in path.parents]
        links = filter(Path.is_symlink, inside)
        problems += [f"{path}: is a link; put the image or folder itself there, or give --out" for path in links]
        targets = [next(path for path in (root / new).parents if path.is_dir())] if new else []
        for folder in [(root / old).parent, *targets, own if own.is_dir() else own.parent]:
            if not os.access(folder, os.W_OK | os.X_OK):
                problems.append(f"{folder}: is write-protected; mend its permissions, or give --out")
    if problems:
        raise BadInput(*list(dict.fromkeys(problems))[:10])
