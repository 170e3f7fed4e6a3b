"""Files written whole or not at all (a temporary name, fsync, rename), and known again by their checksums.

checksums.json of a folder lists the SHA-256 of its files. It is written before the files it speaks of and lists what
each held before, too: either is accepted, so that a stop between two renames leaves nothing that looks damaged.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from common.errors import BadInput

CHECKSUMS = "checksums.json"
PARTIAL = ".partial"
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names of files may be no UTF-8


@contextlib.contextmanager
def partial_file(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file under a temporary name, which its caller removes; it is on disk when the block ends."""
    with naming(path), open(partial_name(path), mode, **({} if "b" in mode else TEXT)) as f:
        yield f
        f.flush()
        os.fsync(f.fileno())


def partial_name(path: str | Path) -> Path:
    return Path(f"{path}{PARTIAL}")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Have an OSError of the block name the file: a full disk's names none, others may name the temporary one."""
    try:
        yield
    except OSError as problem:
        problem.filename = str(problem.filename or path).removesuffix(PARTIAL)
        raise


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that appears under its name only when the block ends without an exception."""
    try:
        with partial_file(path, mode) as f:
            yield f
        os.replace(partial_name(path), path)
    finally:
        partial_name(path).unlink(missing_ok=True)


class CheckedFiles:
    """Writes files of a folder together with their checksums."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        # name -> the SHA-256 sums that the file may have; two where a stop came between checksum and file
        self._accepted = read_checksums(self.folder)

    @contextlib.contextmanager
    def together(self) -> Iterator[Callable]:
        """Yields open(name, mode="wb"), a context manager; the files appear in that order when the block ends.

        Until then nothing is replaced: when one of them cannot be written, the folder is as it was.
        """
        partials = {}

        def open_one(name, mode="wb"):
            partials[name] = partial_name(self.folder / name)
            return partial_file(self.folder / name, mode)

        try:
            yield open_one
            new = {name: sha256_of(partial) for name, partial in partials.items()}
            both = {name: [new[name], *self._accepted.get(name, [])] for name in new}
            write_json(self.folder / CHECKSUMS, self._accepted | both)
            for name, partial in partials.items():
                os.replace(partial, self.folder / name)
                self._accepted[name] = [new[name]]
            sync_folder(self.folder)
        finally:
            for partial in partials.values():
                partial.unlink(missing_ok=True)


def read_checksums(folder: str | Path) -> dict[str, list[str]]:
    """{name: accepted SHA-256 sums} of a folder's checksums.json; empty where there is none."""
    file = Path(folder) / CHECKSUMS
    return read_json(file) if file.exists() else {}


def check_intact(path: str | Path) -> Path:
    """The path; BadInput when its folder's checksums.json lists it with another checksum. Unlisted files pass."""
    path = Path(path)
    accepted = read_checksums(path.parent).get(path.name)
    if accepted is not None and path.is_file() and sha256_of(path) not in accepted:
        raise BadInput(
            f"{path}: is not what was written (its checksum is not the one in {CHECKSUMS}): damaged or changed; "
            "take an intact copy"
        )
    return path


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(folder: str | Path) -> None:
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, content: dict) -> None:
    with whole_file(path, "w") as f:
        f.write(as_json(content))


def as_json(content: dict) -> str:
    return json.dumps(content, indent=1) + "\n"


def read_json(path: str | Path) -> dict:
    """A JSON object; BadInput that names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{path}: not readable as JSON ({problem}); take an intact copy") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object; take an intact copy")
    return content
