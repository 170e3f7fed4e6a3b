"""Scripts run as processes that can be killed, without paying for their imports each time."""

import contextlib
import multiprocessing
import os
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("main_gen_teacher", "main_distill", "main_gen_path", "cifar10h_gen_path", "old_cifar_noisy")

# A server that has everything imported and forks: 20 ms a process instead of 4 s.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([*SCRIPTS, "sklearn.datasets", "sklearn.model_selection", "torchvision"])


def start(script, flags, folder, before=None):
    """Start `python SCRIPT.py FLAGS` in a folder, output in SCRIPT.out there. before: called in the process first."""
    process = _server.Process(target=_run, args=(script, [str(f) for f in flags], str(folder), before))
    process.start()
    return process


def run(script, flags, folder, before=None):
    """The exit code of a process that is left alone, and what it printed."""
    process = start(script, flags, folder, before)
    process.join()
    return process.exitcode, (Path(folder) / f"{script}.out").read_text()


def _run(script, flags, folder, before):
    os.setsid()
    os.chdir(folder)
    with (
        open(f"{script}.out", "w", buffering=1) as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        import torch

        from common import errors

        torch.set_num_threads(1)
        sys.argv = [f"{script}.py", *flags]
        if before is not None:
            before()
        errors.run_script(import_module(script).main)
