"""Files written whole or not at all: a temporary name, fsync, rename."""

import contextlib
import json
import os
from pathlib import Path

from errors import BadInput


@contextlib.contextmanager
def whole_file(path, mode="wb"):
    """Open a file that appears under its name only when the block ends without an exception."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""})) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except BaseException as problem:
        partial.unlink(missing_ok=True)
        if isinstance(problem, OSError):  # a full disk's error names no file, others the temporary one
            problem.filename = str(path)
        raise


def write_json(path, content):
    with whole_file(path, "w") as f:
        json.dump(content, f, indent=1)
        f.write("\n")


def read_json(path):
    """A JSON object; BadInput that names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except ValueError as problem:
        raise BadInput(f"{path}: not readable as JSON ({problem}); take an intact copy") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object; take an intact copy")
    return content
