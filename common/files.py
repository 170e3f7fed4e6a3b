"""Files written whole or not at all (a temporary name, fsync, rename), and known again by their checksums.

checksums.json of a folder lists the SHA-256 of its files. It is written before the files it speaks of and lists what
each held before, too: either is accepted, so that a stop between two renames leaves nothing that looks damaged.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from common.errors import BadInput

CHECKSUMS = "checksums.json"
PARTIAL = ".partial"
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names of files may be no UTF-8


@contextlib.contextmanager
def partial_file(path, mode="wb"):
    """Open a file under a temporary name; it is on disk when the block ends. Yields the file; gone on an exception."""
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, mode, **({} if "b" in mode else TEXT)) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
    except BaseException as problem:
        partial.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            name_file(problem, path)
        raise


@contextlib.contextmanager
def naming(path):
    """Have an OSError of the block name the file, where it names none, as a full disk's does."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None:
            name_file(problem, path)
        raise


def name_file(problem, path):
    """Have an OSError name this file: a full disk's names none, others a temporary one."""
    problem.filename = str(path)


@contextlib.contextmanager
def whole_file(path, mode="wb"):
    """Open a file that appears under its name only when the block ends without an exception."""
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial_file(path, mode) as f:
            yield f
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class CheckedFiles:
    """Writes files of a folder together with their checksums."""

    def __init__(self, folder):
        self.folder = Path(folder)
        # name -> the SHA-256 sums that the file may have; two where a stop came between checksum and file
        self._accepted = read_checksums(self.folder)

    @contextlib.contextmanager
    def together(self):
        """Yields open(name, mode="wb"), a context manager; the files appear in that order when the block ends.

        Until then nothing is replaced: when one of them cannot be written, the folder is as it was.
        """
        names = []

        @contextlib.contextmanager
        def open_one(name, mode="wb"):
            with partial_file(self.folder / name, mode) as f:
                yield f
            names.append(name)

        try:
            yield open_one
            partials = {name: self.folder / (name + PARTIAL) for name in names}
            new = {name: sha256_of(partial) for name, partial in partials.items()}
            listed = {**self._accepted, **{name: [new[name], *self._accepted.get(name, [])] for name in names}}
            write_json(self.folder / CHECKSUMS, listed)
            for name, partial in partials.items():
                os.replace(partial, self.folder / name)
                self._accepted[name] = [new[name]]
            sync_folder(self.folder)
        except BaseException:
            for name in names:
                (self.folder / (name + PARTIAL)).unlink(missing_ok=True)
            raise


def read_checksums(folder):
    """{name: accepted SHA-256 sums} of a folder's checksums.json; empty where there is none."""
    file = Path(folder) / CHECKSUMS
    return read_json(file) if file.exists() else {}


def check_intact(path):
    """The path; BadInput when its folder's checksums.json lists it with another checksum. Unlisted files pass."""
    path = Path(path)
    accepted = read_checksums(path.parent).get(path.name)
    if accepted is not None and path.is_file() and sha256_of(path) not in accepted:
        raise BadInput(
            f"{path}: is not what was written (its checksum is not the one in {CHECKSUMS}): damaged or changed; "
            "take an intact copy"
        )
    return path


def sha256_of(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(folder):
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path, content):
    with whole_file(path, "w") as f:
        f.write(as_json(content))


def as_json(content):
    return json.dumps(content, indent=1) + "\n"


def read_json(path):
    """A JSON object; BadInput that names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{path}: not readable as JSON ({problem}); take an intact copy") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object; take an intact copy")
    content.pop("crc32", None)  # which earlier versions wrote
    return content
