"""From command to first training step, beside importing torch alone; the peak memory of steps, beside a bare loop's.

As a script (python -m benchmarks.startup WHAT FLAGS): first_step runs main_gen_teacher.py FLAGS up to its first step;
product and bare print the peak memory of a step in MB.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

import main_gen_teacher
from benchmarks.path_memory import high_water
from benchmarks.side_by_side import Measured, Race, Ratio
from benchmarks.workload import Bare, Product, Workload
from training.loop import EpochSoFar

ROOT = Path(__file__).resolve().parent.parent
REACHED = 7  # exit code of a process that came to its first step


def races(work):
    start = {
        "import torch": lambda: command(work, [sys.executable, "-c", "import torch"], 0),
        "digits": lambda: first_step(work, ["--dataset", "digits"]),
    }
    npz = Path(work.data_dir)
    name = f"{npz.stat().st_size / 1e6:.0f} MB .npz"
    if not work.quick:
        start[name] = lambda: first_step(work, ["--dataset", "npz", "--data_dir", str(npz.resolve())])
    ratios = [Ratio(f"{what}: to the first step / import torch", what, "import torch") for what in start]
    yield Race(start, ratios[1:], 1 if work.quick else 3, warm_up=False)

    if not work.quick and (work.device.type == "cuda" or Path("/proc/self/clear_refs").exists()):
        for net in work.nets:
            contenders = {what: lambda what=what, net=net: peak(work, what, net) for what in ("product", "bare")}
            name = f"{net}: peak memory of steps, product / bare loop"
            yield Race(contenders, [Ratio(name, "product", "bare", unit="MB")], 2, warm_up=False)


def command(work, words, expected):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(words, cwd=work.folder, env=environment, capture_output=True, text=True)
    if found.returncode != expected:
        raise SystemExit(f"{' '.join(words)}: exit code {found.returncode}\n{found.stderr}")
    return found.stdout


def first_step(work, data):
    flags = [*data, "--net", "smallcnn", "--overwrite", *work.device_flags]
    command(work, [sys.executable, "-m", "benchmarks.startup", "first_step", *flags], REACHED)


def peak(work, what, net):
    words = [what, net, work.data_dir, *work.device_flags]
    return Measured(command(work, [sys.executable, "-m", "benchmarks.startup", *words], 0).split()[-1])


# ------------------------------------------------------------------------------------------ in the subprocess


def stop_at_first_step(flags):
    EpochSoFar.add = lambda *_: os._exit(REACHED)  # what train_epoch calls after a step
    main_gen_teacher.main(flags)


def peak_of_steps(what, net, data_dir, device, amp):
    work = Workload(".", device=device, amp=amp, data_dir=data_dir)
    experiment = work.experiment(net, 1)
    contender = {"product": Product, "bare": Bare}[what](experiment)
    contender.epoch()
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    contender.epoch()
    return torch.cuda.max_memory_allocated() / 2**20 if work.device.type == "cuda" else high_water("self")


if __name__ == "__main__":
    if sys.argv[1] == "first_step":
        stop_at_first_step(sys.argv[2:])
    else:
        what, net, data_dir, _, device, _, amp = sys.argv[1:]
        print(peak_of_steps(what, net, data_dir, device, amp))
