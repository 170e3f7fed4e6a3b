"""Scripts called within this process, a tenth of a second each, as the shell sees them: exit code, output, files."""

import contextlib
import io
import json
import shutil
import signal
import stat
import traceback
from importlib import import_module
from pathlib import Path

from common import errors


def call(script, flags, folder):
    """(exit code, what was printed, error messages) of a script in a folder; with a traceback the code is None."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            errors.run_script(lambda: import_module(script).main([str(flag) for flag in flags]))
            code = 0
        except SystemExit as end:
            code = end.code
        except Exception:
            code = None
            err.write(traceback.format_exc())
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return code, out.getvalue(), err.getvalue()


FOLDER = "a folder"


def _mark(stats):
    return FOLDER if stat.S_ISDIR(stats.st_mode) else (stats.st_ino, stats.st_mtime_ns, stats.st_size)


class Copy:
    """A copy of a folder, to be damaged and made whole again; it knows what is otherwise in it than in the original."""

    def __init__(self, whole, folder):
        self.whole, self.folder = Path(whole), Path(folder)
        shutil.copytree(whole, folder)
        self._stats = self._look()

    def changed(self):
        """Relative paths of what is not as in the original: other bytes, gone, or new."""
        now = self._look()
        touched = [name for name in now.keys() | self._stats.keys() if now.get(name) != self._stats.get(name)]
        return sorted(name for name in touched if not self._is_whole(name))

    def mend(self):
        now = self._look()
        touched = {name for name in now.keys() | self._stats.keys() if now.get(name) != self._stats.get(name)}
        for name in sorted(touched, reverse=True):  # what is in a folder before the folder
            path = self.folder / name
            if name in now:
                path.rmdir() if now[name] == FOLDER else path.unlink()
        for name in sorted(touched & self._stats.keys()):
            if self._stats[name] == FOLDER:
                (self.folder / name).mkdir()
            else:
                shutil.copyfile(self.whole / name, self.folder / name)
        self._stats = self._look()

    def _look(self):
        """{relative path: what a write changes}"""
        return {str(path.relative_to(self.folder)): _mark(path.lstat()) for path in self.folder.rglob("*")}

    def _is_whole(self, name):
        mine, original = self.folder / name, self.whole / name
        if mine.is_symlink() or mine.is_dir() or original.is_dir():
            return not mine.is_symlink() and mine.is_dir() and original.is_dir()
        if not (mine.is_file() and original.is_file()):
            return False
        return mine.read_bytes() == original.read_bytes() or _list_the_same(mine, original)


def _list_the_same(file, other):
    """Whether two checksums.json accept the same: --resume may list a sum twice."""
    if file.name != "checksums.json":
        return False
    try:
        mine, theirs = (json.loads(f.read_text()) for f in (file, other))
        names = mine.keys() | theirs.keys()
        return all(set(mine[name]) == set(theirs[name]) for name in names - {"crc32"})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
