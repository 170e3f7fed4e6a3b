"""From the command of main_gen_teacher.py to its first training step, relative to importing torch.

As a script (python -m benchmarks.startup FLAGS) it runs main_gen_teacher.py FLAGS up to its first step.
"""

import os
import subprocess
import sys
from pathlib import Path

import main_gen_teacher
from benchmarks.side_by_side import Race, Ratio
from training.loop import EpochSoFar

ROOT = Path(__file__).resolve().parent.parent
REACHED = 7  # exit code of a process that came to its first step


def races(work):
    start = {
        "import torch": lambda: command(work, ["-c", "import torch"], 0),
        "digits": lambda: first_step(work, ["--dataset", "digits"]),
    }
    ratio = Ratio("digits: to the first step / import torch", "digits", "import torch")
    yield Race(start, [ratio], 1 if work.quick else 3, warm_up=False)


def command(work, words: list[str], expected: int):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, *words], cwd=work.folder, env=environment, capture_output=True, text=True)
    if found.returncode != expected:
        raise SystemExit(f"{' '.join(words)}: exit code {found.returncode}\n{found.stderr}")


def first_step(work, data: list[str]):
    flags = [*data, "--net", "smallcnn", "--overwrite", *work.device_flags]
    command(work, ["-m", "benchmarks.startup", *flags], REACHED)


if __name__ == "__main__":
    EpochSoFar.add = lambda *_: os._exit(REACHED)  # what train_epoch calls after a step
    main_gen_teacher.main(sys.argv[1:])
