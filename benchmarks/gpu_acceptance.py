"""Whether everything works on this machine's GPU, and how fast: about ten minutes.

    python -m benchmarks.gpu_acceptance --out FOLDER

Runs the tests of devices, teachers and students with and without --compile, a recording of paths, two deterministic
runs that must be equal and a third that is stopped and goes on, and the benchmark of steps; its images are made up.
FOLDER/results.json is written anew after each part: exit code, seconds, last words, and of a run each epoch's seconds
and test accuracy. A part that takes too long is ended, and the next begins. Exit code 1 when one failed.
"""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.workload import Workload
from common.errors import run_script
from common.files import write_json
from common.flags import CheckedParser, one_of

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/test_devices.py", "tests/training/test_device.py", "tests/supervision/test_table.py")
STOPPED = 128 + signal.SIGTERM


def make_parser():
    parser = CheckedParser(description=__doc__)
    flag = parser.add_argument
    flag("--out", default="gpu_acceptance", metavar="FOLDER", help="where results.json and tests.xml are written")
    flag("--device", default="cuda", help="what is tried", **one_of(["cpu", "cuda", "mps"]))
    flag("--only", nargs="+", default=list(PARTS), help="these parts", **one_of(PARTS))
    flag("--quick", action="store_true", help="everything tiny: whether this script works")
    return parser


class Acceptance:
    """What the parts share: where they work, their data, their results so far."""

    def __init__(self, args, folder):
        self.args, self.folder, self.out = args, Path(folder), Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        work = Workload(folder, args.quick, args.device)
        self.nets, self.compile = work.nets, ("off",) if args.quick else ("off", "on")
        self.data = ["--dataset", "npz", "--data_dir", work.data_dir]
        self.batch_size = str(work.batch_size)
        hardware = {**work.hardware.describe(), "torch": torch.__version__}
        self.results = {"hardware": hardware, "parts": []}

    def call(self, name, limit, words, expected=0, stop_when=lambda: False):
        """Run python with these words for at most `limit` seconds; note what came of it. Returns its last line, or
        None where it failed. stop_when(): asked while it runs, whether it is to be stopped by SIGTERM."""
        began, log = time.perf_counter(), self.folder / "log"
        limit *= 5 if self.args.quick else 1  # a processor may be slow
        with open(log, "w") as f:
            paths = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                [sys.executable, *map(str, words)], cwd=self.folder, env=os.environ | paths, stdout=f, stderr=f
            )
            while process.poll() is None and time.perf_counter() - began < limit and not stop_when():
                time.sleep(0.05)
            process.terminate()
            code = _end_of(process)
        told = log.read_text(errors="replace")
        good = code in (0, expected)
        seconds = round(time.perf_counter() - began, 1)
        part = {"name": name, "good": good, "exit_code": code, "seconds": seconds, "told": told[-3000:]}
        self.results["parts"].append(part)
        last = told.strip().splitlines()[-1] if good and told.strip() else None
        if last and (metrics := self.folder / last / "metrics.csv").is_file():
            with open(metrics) as f:
                part["epochs"] = [[float(row["seconds"]), float(row["test_acc"])] for row in csv.DictReader(f)]
        self.write()
        print(f"{'ok' if good else 'FAILED':<7}{seconds:6.1f} s  {name}  {part.get('epochs', '')}", flush=True)
        return last

    def run(self, name, script, flags, limit=60, data=True, **how):
        """A training script's run; returns its folder, or None."""
        words = [*(self.data if data else []), *flags.split(), "--device", self.args.device]
        words += ["--batch_size", self.batch_size, "--proj_name", "a", "--run_name", name]
        return self.call(name, limit, [ROOT / f"{script}.py", *words], **how)

    def check(self, name, good):
        """Note something that is true or not."""
        self.results["parts"].append({"name": name, "good": good})
        self.write()
        print(f"{'ok' if good else 'FAILED':<7}          {name}", flush=True)

    def write(self):
        write_json(self.out / "results.json", self.results)


def _end_of(process):
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tests(a):
    words = ["-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *(ROOT / name for name in TESTS)]
    chosen = "auto" if a.args.quick else f"{a.args.device} or gpu"
    a.call("tests", 150, [*words, "-k", chosen, f"--junitxml={a.out / 'tests.xml'}"])


def runs(a):
    for net in a.nets:
        for compiled in a.compile:
            flags = f"--net {net} --compile {compiled}"
            teacher = a.run(f"teacher_{net}_{compiled}", "main_gen_teacher", f"{flags} --epochs 3", 90)
            if teacher:
                flags = f"--teach_path {teacher} {flags} --epochs 2"
                a.run(f"student_{net}_{compiled}", "main_distill", flags, 90, data=False)


def paths(a):
    a.run("paths", "main_gen_path", "--net smallcnn --epochs 2 --fine_every 9")


def equal(a):
    flags = f"--net {a.nets[-1]} --epochs 3 --deterministic"
    folders = [a.run(name, "main_gen_teacher", flags) for name in ("first", "second")]
    begun = a.folder / f"results/a/{a.nets[-1]}third/metrics.csv"
    a.run("third", "main_gen_teacher", flags, expected=STOPPED, stop_when=begun.is_file)
    folders.append(a.run("third", "main_gen_teacher", f"{flags} --resume"))
    if all(folders):
        for name in ("epoch_2.pt", "epoch_2.npy"):
            contents = [(a.folder / folder / name).read_bytes() for folder in folders]
            a.check(f"{name} of two equal runs is equal", contents[0] == contents[1])
            a.check(f"{name} of a run that was stopped is equal", contents[0] == contents[2])


def steps(a):
    words = ["-m", "benchmarks", "--device", a.args.device, "--only", "steps", "--store"]
    a.call("steps", 180, [*words, "--ratios", a.out / "ratios.json", *(["--quick"] if a.args.quick else [])])


PARTS = {"tests": tests, "runs": runs, "paths": paths, "equal": equal, "steps": steps}


def main(argv=None):
    """Run the script; returns the results."""
    args, problems = make_parser().parse_collecting(argv)
    problems.stop_if_any()
    with tempfile.TemporaryDirectory() as folder:
        acceptance = Acceptance(args, folder)
        for part in args.only:
            PARTS[part](acceptance)
    failed = [part["name"] for part in acceptance.results["parts"] if not part["good"]]
    print(f"{len(failed)} failed", *failed, sep="\n  ")
    print(acceptance.out)
    return acceptance.results


def succeed_or_exit():
    if not all(part["good"] for part in main()["parts"]):
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(succeed_or_exit)
