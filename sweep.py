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
    [slurm]              # for --executor slurm, if you like: parameters of submitit's AutoExecutor
    timeout_min = 600
    gpus_per_node = 1
    slurm_partition = "gpu"

Runs are processes, as many at once as there are cores, or with --executor slurm jobs of Slurm (submitit). The command
waits for them and adds each finished run to the CSV file. Stopped, it ends them; the same command resumes: what is in
the CSV file is done, what was begun goes on from its last checkpoint. The rows are those of results.csv (last epoch,
best-validation epoch, best test epoch), of any script's runs.
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
from common.flags import CheckedParser, as_flags, count, one_of
from common.hardware import pick_device, usable_cpus
from comparison import results as comparison
from runs.run_folder import RESULTS, read_args, read_metrics
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
    flag("--jobs", type=count, default=None, help="run: at once (as many as cores; on a GPU one; on Slurm all)")
    flag(
        "--executor",
        default=None,
        help="run: as jobs of submitit, on Slurm or (local) on this machine; it must be installed",
        **one_of(["slurm", "local"]),
    )
    return parser


# -------------------------------------------------------------------------------------------- a run's rows


def rows_of(folder) -> tuple[list[dict], bool]:
    """(rows of COLUMNS, whether the run is finished) of a run's folder; BadInput when it is none."""
    folder = Path(folder)
    settings, environment = read_args(folder), read_json(check_intact(folder / "environment.json"))
    resolved = settings["resolved"]
    if (folder / "metrics.csv").is_file() or "methods" not in settings:
        epochs = read_metrics(folder)
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
    method = settings["resolved"].get("method") or settings.get("teach_type") or Path(settings["script"]).stem
    args, data = Namespace(**settings), Namespace(noise_realised=settings["resolved"]["noise_realised"])
    row = comparison.result_row(method, args, data, TrainingState(None, None, None, None, rows=epochs), None)
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}


def read_rows(file: Path) -> list[dict]:
    """The rows of a CSV file; none where there is no file."""
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write_rows(file: Path, rows: list[dict]):
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file, "w") as f:
        writer = csv.DictWriter(f, comparison.with_more(COLUMNS, rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(folders: list, file=None):
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


def command(script: str, flags: dict) -> str:
    """What was run, for a person to read and to tell whether it was the same."""
    return " ".join([script, *as_flags({name: value for name, value in flags.items() if name not in UNTOLD})])


def read_grid(file: Path) -> tuple[str, dict, dict]:
    """(script, {name of a run: its flags}, parameters of submitit) of a grid's file; BadInput when it is none."""
    try:
        grid = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadInput(f"{file}: cannot be read as a grid ({problem}); --help shows one") from None
    parts = ("script", "flags", "grid", "slurm")
    script, fixed, grids, slurm = map(grid.get, parts)
    grids = grids if isinstance(grids, list) else [grids]
    if grid.keys() - set(parts) or not isinstance(script, str) or not (ROOT / script).is_file():
        raise BadInput(
            f"{file}: expected script (one of this folder), [flags], [grid], [slurm]; found {', '.join(grid)}"
        )
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
    return script, runs, slurm or {}


def _in_a_name(value):
    return re.sub(r"[^\w.+-]+", "-", str(value))


def run_grid(file, out=None, jobs: int | None = None, executor: str | None = None) -> Path:
    """Run what of a grid is not in the CSV file yet; returns that file. executor: None, "slurm" or "local"."""
    file = Path(file)
    script, runs, parameters = read_grid(file)
    out, logs = Path(out or file.parent / "raw" / f"{file.stem}.csv"), (RESULTS / f"sweep_{file.stem}").resolve()
    if executor == "slurm":
        jobs, environment, here = jobs or len(runs), None, ["--device", "auto", "--amp", "auto"]  # no GPU here, perhaps
    else:
        jobs, here = jobs or (usable_cpus() if pick_device("auto").type == "cpu" else 1), []
        environment = with_threads(jobs)
    rows = read_rows(out)
    done = {row["run"]: row["command"] for row in rows if row["run"] in runs}
    if other := next((name for name in done if done[name] != command(script, runs[name])), None):
        raise BadInput(f"{out}: {other} had other flags, {done[other]}; delete its rows, or rename {file.name}")
    waiting, failed = [name for name in runs if name not in done], []
    print(f"{len(runs)} runs, {len(done)} of them done; {jobs} at once", flush=True)

    def words(name):
        return [sys.executable, str(ROOT / script), *as_flags(runs[name]), "--run_name", name, "--resume"]

    def start(name):
        starting = starter(words(name), logs / name, environment)
        return submit(starting) if executor else starting()

    def finish(name, code):
        if code == 0:
            found, _ = rows_of((logs / f"{name}.log").read_text(encoding="utf-8").splitlines()[-1])
            rows.extend({**row, "run": name, "command": command(script, runs[name])} for row in found)
            write_rows(out, rows)
        else:
            failed.append(name)
        print(f"{name}: {'done' if code == 0 else f'failed with exit code {code}, see {logs / name}.err'}", flush=True)

    if waiting:  # a mistake in the flags is told once, by the script itself, before anything is written
        check = [*words(waiting[0]), "--check", *here]
        checked = subprocess.run(check, capture_output=True, text=True, env=environment)
        if checked.returncode:
            raise BadInput(*(line.removeprefix("error: ") for line in checked.stderr.splitlines()))
        submit = executor and submitter(executor, logs / "submitit", parameters)
        logs.mkdir(parents=True, exist_ok=True)
    run_all(waiting, jobs, start, finish)
    if failed:
        raise RunFailure(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
    return out


def with_threads(jobs: int) -> dict:
    """The environment of processes of which so many share this machine's cores."""
    return {"OMP_NUM_THREADS": str(max(1, usable_cpus() // jobs)), **os.environ}


def starter(words: list[str], log: Path, environment: dict | None):
    """A function that starts a process with its output in log.log and log.err; it can be pickled and sent elsewhere."""
    where = os.getcwd()

    def start():
        with open(f"{log}.log", "w") as out, open(f"{log}.err", "w") as err:
            # in a session of its own: Ctrl-C reaches it once, by run_all()
            return subprocess.Popen(words, stdout=out, stderr=err, env=environment, cwd=where, start_new_session=True)

    return start


def submitter(cluster: str, folder: Path, parameters: dict):
    """submit(starting) -> Job, by submitit. folder: for its files. BadInput where it or the cluster is not there."""
    try:
        import submitit

        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**{"timeout_min": 24 * 60, **parameters})
    except (ImportError, RuntimeError, NameError, ValueError, AssertionError) as found:
        reason = str(found).splitlines()[0]
        raise BadInput(f"--executor {cluster}: {reason}; it takes pip install submitit and a valid [slurm]") from None

    def submit(starting):
        def work():
            process = starting()
            try:
                return process.wait()
            finally:
                process.terminate()
                process.wait()  # it saves first

        return Job(executor.submit(work))

    return submit


class Job:
    """A job of submitit in the words of a process."""

    def __init__(self, job):
        self.job, self.terminate, self.wait = job, job.cancel, job.wait

    def poll(self):
        return (1 if self.job.exception() else self.job.result()) if self.job.done() else None


def run_all(waiting, jobs: int, start, finish):
    """start(name) -> process or Job, for each name, `jobs` at once; finish(name, exit code). Interrupted, all end."""
    waiting, running = list(waiting), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = start(name)
            time.sleep(0.1)
            codes = {name: process.poll() for name, process in running.items()}
            for name in [name for name, code in codes.items() if code is not None]:
                del running[name]
                finish(name, codes[name])
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def main(argv=None):
    """Run the script."""
    args = make_parser().parse_args(argv)
    if args.action == "run" and len(args.paths) > 1:
        raise BadInput(f"run: takes one grid, found {len(args.paths)}; run them one after another")
    if args.action == "table":
        table(args.paths, args.csv)
    else:
        print(run_grid(args.paths[0], args.csv, args.jobs, args.executor))


if __name__ == "__main__":
    errors.run_script(main)
