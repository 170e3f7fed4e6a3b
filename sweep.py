"""Run a script over a grid of its flags, and show finished runs side by side.

    python sweep.py run experiments/digits_noise.toml
    python sweep.py table results/noisy_digits/run_a results/Gen_teacher/smallcnndigits_cosine
    python sweep.py table results/noisy_digits/run_* --csv experiments/raw/digits.csv

A grid file names the script, the flags that all its runs have, and lists of values: each combination is a run.

    script = "main_gen_teacher.py"
    [flags]
    dataset = "digits"
    [grid]               # or several [[grid]]: the combinations of each
    ny_ratio = [0.2, 0.4]
    seed = [1, 2, 3]

Runs are processes, as many at once as there are cores. Stopped, the same command goes on: what is in the CSV file is
done, what was begun is resumed. The rows are those of results.csv (last epoch, the one that validation chose, the best
test epoch), of any script's runs.
"""

import csv
import itertools
import os
import re
import subprocess
import sys
import time
import tomllib
from argparse import Namespace
from pathlib import Path

from common import errors
from common.errors import BadInput, RunFailure
from common.files import check_intact, read_json, whole_file
from common.flags import CheckedParser, count, one_of
from common.hardware import pick_device, usable_cpus
from comparison import results as comparison
from runs.run_folder import RESULTS, read_args
from training.loop import TrainingState

ROOT = Path(__file__).resolve().parent
SETTINGS = ("net", "width", "epochs", "batch_size")
COLUMNS = [
    *("run", *comparison.COLUMNS, "dataset", *SETTINGS, "augment", "smoothing"),
    *("precision", "hardware", "commit", "command"),
]
FIGURES = {  # of the printed table
    "last": "test_acc_last",
    "chosen": "test_acc_best",
    "oracle": "test_acc_oracle",
    "ECE": "ece_last",
    "NLL": "nll_last",
}
UNTOLD = {"resume", "overwrite", "path", "run_name", "data_dir"}  # of a command: how it was started, where things lay


def make_parser():
    parser = CheckedParser(description=__doc__)
    parser.add_argument("action", help="run a grid, or show runs", **one_of(["run", "table"]))
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run: the grid's file; table: folders of runs")
    flag = parser.add_argument
    flag("--csv", default=None, metavar="FILE", help="the rows, with all settings (of a grid: raw/GRID.csv beside it)")
    flag("--jobs", type=count, default=None, help="run: processes at once (as many as cores; on a GPU one)")
    return parser


# -------------------------------------------------------------------------------------------- a run's rows


def rows_of(folder):
    """(rows of COLUMNS, whether the run is finished) of a run's folder; BadInput when it is none."""
    folder = Path(folder)
    settings, environment = read_args(folder), read_json(check_intact(folder / "environment.json"))
    resolved = settings["resolved"]
    if (folder / "metrics.csv").is_file() or "methods" not in settings:
        epochs = read_rows(folder / "metrics.csv")
        rows, finished = [_result(epochs, settings)] if epochs else [], len(epochs) == settings["epochs"]
    else:
        rows = read_rows(folder / "results.csv")
        finished = len(rows) == len(settings["methods"]) * settings["seeds"]
    more = {
        "run": settings.get("path") or settings["run_name"] or folder.resolve().name,
        "dataset": settings["dataset"] + (f":{Path(settings['data_dir']).stem}" if settings["data_dir"] else ""),
        **{name: settings[name] for name in SETTINGS},
        "augment": resolved.get("augment", settings["augment"]),
        "smoothing": settings.get("smoothing", ""),
        "precision": environment["precision"],
        "hardware": environment["hardware"],
        "commit": environment["git_commit"] or "",
        "command": command(settings["script"], {name: settings[name] for name in settings["given"]}),
    }
    return [{**row, **more} for row in rows], finished


def _result(epochs, settings):
    """The row of results.csv of a single training, from its metrics.csv."""
    rows = [{name: float(value) for name, value in row.items() if value} for row in epochs]
    method = settings["resolved"].get("method") or settings.get("teach_type") or Path(settings["script"]).stem
    args, data = Namespace(**settings), Namespace(noise_realised=settings["resolved"]["noise_realised"])
    row = comparison.result_row(method, args, data, TrainingState(None, None, None, None, rows=rows), None)
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}


def read_rows(file):
    """The rows of a CSV file; none where there is no file."""
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file, "w") as f:
        writer = csv.DictWriter(f, comparison.with_more(COLUMNS, rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(folders, file=None):
    """Print runs side by side; file: a CSV file for the rows of those that are finished."""
    kept, shown = [], []
    for folder in folders:
        rows, finished = rows_of(folder)
        shown += rows
        kept += rows if finished else []
        if not finished:
            print(f"{folder}: is not finished{', and left out of the file' if file else ''}", file=sys.stderr)
    lines = [["run", "method", "seed", "noise", *FIGURES, "precision", "commit"]]
    for row in shown:
        noise = f"{row['noise']} {row['noise_kind']}" if float(row["noise_realised"]) else "none"
        figures = [f"{float(row[name]):.4f}" for name in FIGURES.values()]
        lines.append(
            [row["run"], row["method"], f"{row['seed']}", noise, *figures, row["precision"], row["commit"][:7]]
        )
    print(comparison.aligned(lines))
    if file:
        write_rows(Path(file), kept)
        print(file)


# -------------------------------------------------------------------------------------------------- a grid


def as_flags(flags):
    """{name: value} as a command line: true is a flag alone, false none, a list several values."""
    words = []
    for name, value in sorted(flags.items()):
        if value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f"--{name}", *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return words


def command(script, flags):
    """What was run, for a person to read and to tell whether it was the same."""
    return " ".join([script, *as_flags({name: value for name, value in flags.items() if name not in UNTOLD})])


def read_grid(file):
    """(script, {name of a run: its flags}) of a grid's file; BadInput when it is none."""
    try:
        grid = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadInput(f"{file}: cannot be read as a grid ({problem}); --help shows one") from None
    script, fixed, grids = (grid.get(name) for name in ("script", "flags", "grid"))
    grids = grids if isinstance(grids, list) else [grids]
    if grid.keys() - {"script", "flags", "grid"} or not isinstance(script, str) or not (ROOT / script).is_file():
        raise BadInput(f"{file}: expected script (one of this folder), [flags] and [grid]; found {', '.join(grid)}")
    if not all(isinstance(part, dict) and all(isinstance(v, list) for v in part.values()) for part in grids):
        raise BadInput(f"{file}: [grid] must have a list of values for each flag")
    runs, own = {}, {"run_name", "path", "resume", "overwrite"}
    for part in grids:
        if taken := own & {*(fixed or {}), *part}:
            raise BadInput(f"{file}: {', '.join(sorted(taken))} is given by sweep.py; leave it out")
        for values in itertools.product(*part.values()):
            chosen = dict(zip(part, values, strict=True))
            name = "_".join([file.stem, *(f"{flag}{_in_a_name(value)}" for flag, value in chosen.items())])
            runs[name] = {**(fixed or {}), **chosen}
    return script, runs


def _in_a_name(value):
    return re.sub(r"[^\w.+-]+", "-", str(value))


def run_grid(file, out=None, jobs=None):
    """Run what of a grid is not in the CSV file yet; returns that file."""
    file = Path(file)
    script, runs = read_grid(file)
    out, logs = Path(out or file.parent / "raw" / f"{file.stem}.csv"), RESULTS / f"sweep_{file.stem}"
    jobs = jobs or (usable_cpus() if pick_device("auto").type == "cpu" else 1)
    environment = {"OMP_NUM_THREADS": str(max(1, usable_cpus() // jobs)), **os.environ}
    rows = read_rows(out)
    done = {row["run"]: row["command"] for row in rows if row["run"] in runs}
    if other := next((name for name in done if done[name] != command(script, runs[name])), None):
        raise BadInput(f"{out}: {other} had other flags, {done[other]}; delete its rows, or rename {file.name}")
    waiting, failed = [name for name in runs if name not in done], []
    print(f"{len(runs)} runs, {len(done)} of them done; {jobs} at once", flush=True)

    def words(name):
        return [sys.executable, str(ROOT / script), *as_flags(runs[name]), "--run_name", name, "--resume"]

    def start(name):
        with open(logs / f"{name}.log", "w") as log, open(logs / f"{name}.err", "w") as err:
            # in a session of its own: Ctrl-C reaches it once, by run_all()
            return subprocess.Popen(words(name), stdout=log, stderr=err, env=environment, start_new_session=True)

    def finish(name, code):
        if code == 0:
            found, _ = rows_of((logs / f"{name}.log").read_text(encoding="utf-8").splitlines()[-1])
            rows.extend({**row, "run": name, "command": command(script, runs[name])} for row in found)
            write_rows(out, rows)
        else:
            failed.append(name)
        print(f"{name}: {'done' if code == 0 else f'failed with exit code {code}, see {logs / name}.err'}", flush=True)

    if waiting:  # a mistake in the flags is told once, by the script itself, before anything is written
        checked = subprocess.run([*words(waiting[0]), "--check"], capture_output=True, text=True, env=environment)
        if checked.returncode:
            raise BadInput(*(line.removeprefix("error: ") for line in checked.stderr.splitlines()))
        logs.mkdir(parents=True, exist_ok=True)
    run_all(waiting, jobs, start, finish)
    if failed:
        raise RunFailure(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
    return out


def run_all(waiting, jobs, start, finish):
    """start(name) -> process, for each name, `jobs` at once; finish(name, exit code). Interrupted, all save and end."""
    waiting, running = list(waiting), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = start(name)
            time.sleep(0.1)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                finish(name, running.pop(name).returncode)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def main(argv=None):
    """Run the script."""
    args, problems = make_parser().parse_collecting(argv)
    if args.action == "run" and len(args.paths) > 1:
        problems.add(f"run: takes one grid, found {len(args.paths)}; run them one after another")
    problems.stop_if_any()
    if args.action == "table":
        table(args.paths, args.csv)
    else:
        print(run_grid(args.paths[0], args.csv, args.jobs))


if __name__ == "__main__":
    errors.run_script(main)
