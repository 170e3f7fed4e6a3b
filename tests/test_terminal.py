"""Scripts where something around them gives way: memory, the terminal, whoever reads their output."""

import csv
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import main_gen_teacher
from common import errors
from runs import run_folder
from training import experiment

REPOSITORY = Path(__file__).parent.parent
FOLDER = "results/Gen_teacher/smallcnndigits_cosine"
SHORTAGES = [
    lambda: torch.empty(10**15),
    lambda: np.zeros(10**15),
    lambda: exec("raise MemoryError"),
    lambda: raise_(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")),
    lambda: raise_(RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)")),
    lambda: raise_(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    lambda: raise_(OSError(errno.ENOMEM, "Cannot allocate memory")),
]


def raise_(problem):
    raise problem


def ended(call, capsys):
    """(exit code, lines on standard error) of a script's main."""
    with pytest.raises(SystemExit) as found:
        errors.run_script(call)
    return found.value.code, capsys.readouterr().err.splitlines()


# -------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_too_little_memory_is_told_in_a_line(shortage, capsys):
    code, (line,) = ended(shortage, capsys)
    assert code == 1 and line.startswith("error: ") and "--batch_size" in line


def short_of_memory(*what, **more):
    torch.empty(10**15)


def test_memory_that_ends_while_training_saving_or_resuming_is_not_called_anything_else(
    quick, workplace, monkeypatch, capsys
):
    flags = quick("--epochs", 2)
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.TrainingState.state_dict", short_of_memory)
        code, (line,) = ended(lambda: main_gen_teacher.main(flags), capsys)
        assert code == 1 and "--batch_size" in line
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "fit", short_of_memory)
        code, (line,) = ended(lambda: main_gen_teacher.main([*flags, "--overwrite"]), capsys)
        assert code == 1 and "--batch_size" in line
    main_gen_teacher.main([*flags, "--overwrite"])
    monkeypatch.setattr("training.loop.TrainingState.load_state_dict", short_of_memory)
    code, (line,) = ended(lambda: main_gen_teacher.main([*flags, "--resume"]), capsys)
    assert code == 1 and "--batch_size" in line and "--overwrite" not in line


def test_other_errors_of_saving_are_not_called_a_full_disk(quick, workplace, monkeypatch):
    monkeypatch.setattr("training.loop.TrainingState.state_dict", lambda self: raise_(RuntimeError("our mistake")))
    with pytest.raises(RuntimeError, match="our mistake"):
        errors.run_script(lambda: main_gen_teacher.main(quick("--epochs", 1)))


# ------------------------------------------------------------------------------------ whose mistake it is


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError("could not get source code"),
        io.UnsupportedOperation("read"),
    ],
)
def test_an_os_error_of_the_program_itself_keeps_its_traceback(problem):
    with pytest.raises(OSError):
        errors.run_script(lambda: raise_(problem))


@pytest.mark.parametrize(
    "problem, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.npy"), "x.npy"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "reset"),
    ],
)
def test_an_os_error_of_disk_or_network_is_told_in_a_line(problem, words, capsys):
    code, (line,) = ended(lambda: raise_(problem), capsys)
    assert code == 1 and words in line


@pytest.mark.parametrize("debug", ["1", "0"])
def test_debug_shows_where_it_was(debug, monkeypatch, capsys):
    monkeypatch.setenv("DEBUG", debug)
    code, lines = ended(lambda: raise_(errors.BadInput("--lr 0: no")), capsys)
    assert code == 2 and lines[-1] == "error: --lr 0: no"
    assert any("Traceback" in line for line in lines) == (debug == "1")


# -------------------------------------------------------------------------------------------------- output


def as_program(quick, redirected, *flags, **environment):
    """main_gen_teacher run by a shell, its output redirected as said; one epoch."""
    command = f"'{sys.executable}' {REPOSITORY / 'main_gen_teacher.py'} {' '.join(quick('--epochs', 1, *flags))}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {redirected}"],
        capture_output=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("redirected", ["2>&- | true", "> /dev/full"])
def test_output_that_goes_nowhere_stops_nothing(redirected, quick, workplace):
    done = as_program(quick, redirected)
    assert done.returncode == 0, done.stderr
    assert (workplace / FOLDER / "best_acc.pt").is_file() and (workplace / FOLDER / "curves.png").is_file()


def test_a_terminal_of_few_letters_and_a_notebooks_backend_stop_nothing(quick, workplace):
    backend = "module://matplotlib_inline.backend_inline"
    flags = ("--run_name", "größe_日本")
    done = as_program(quick, "", *flags, MPLBACKEND=backend, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert b"gr\\xf6\\xdfe_\\u65e5\\u672c" in done.stdout.splitlines()[-1]
    assert (workplace / "results/Gen_teacher/smallcnngröße_日本/curves.png").is_file()


def test_a_run_ends_with_what_came_out_the_next_command_and_its_folder(quick, workplace, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "plot_curves", lambda rows, path: None)
    main_gen_teacher.main(quick("--epochs", 2))
    *_, last, best, evaluate, student, folder = capsys.readouterr().out.splitlines()
    with open(f"{FOLDER}/metrics.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    chosen = max(rows, key=lambda row: float(row["valid_acc"]))
    for line, row in ((last, rows[1]), (best, chosen)):
        assert row["epoch"] in re.findall(r"\d+", line) and f"{float(row['test_acc']):.4f}" in line
    assert evaluate.endswith(f"python evaluate.py {FOLDER}") and "--teach_path smallcnndigits_cosine " in student
    assert folder == FOLDER
