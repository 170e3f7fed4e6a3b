"""Every claim's grid in miniature, from its first run to its tables, in a minute or two: python -m experiments.quick

The first run of each grid (of `start`, which compares two, both), with one seed and few students, on 200 digits for
three epochs. It shows that the evidence can be made anew, and nothing about the claims.
"""

import contextlib
import importlib
import io
import tempfile
from pathlib import Path

import sweep
from experiments import tables

SMALL = {"dataset": "digits", "net": "smallcnn", "train_size": 200, "batch_size": 50, "device": "cpu", "amp": "off"}


def shrunk(flags):
    """A run's flags, its size taken away."""
    small = {**flags, **SMALL, "epochs": 3}
    if "seeds" in flags:
        small["seeds"] = 1
    if "students" in flags:
        small["students"] = flags["students"][:: max(1, len(flags["students"]) // 3)]
    for name in ("data_dir", "ny_file", "true_probs"):  # of other images
        small.pop(name, None)
    if "true_probs" in flags:
        small["students"] = ["clean", *(set(small["students"]) - {"truth", "clean"})]
    return small


def rows_of_grid(file):
    """The rows of a grid's first runs, shrunk; they run below the current folder."""
    script, runs, *_ = sweep.read_grid(file)
    main, rows = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, []
    for name in list(runs)[: 2 if file.stem == "start" else 1]:
        flags = shrunk(runs[name])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            folder = main([*sweep.as_flags(flags), "--run_name", name])
        found, finished = sweep.rows_of(folder)
        assert finished
        rows += [{**row, "command": sweep.command(script, flags)} for row in found]
    sweep.write_rows(Path("rows.csv"), rows)
    return sweep.read_rows(Path("rows.csv"))


def main():
    """{grid: its rows}, made in a folder that is thrown away."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for file in sorted(tables.HERE.glob("*.toml")):
            rows = found[file.stem] = rows_of_grid(file)
            parts = tables.CLAIMS.get(file.stem, tables.comparison)(rows)
            print(f"{file.stem}: {len(rows)} rows, {len(parts)} tables", flush=True)
    return found


if __name__ == "__main__":
    main()
