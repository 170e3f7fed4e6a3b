"""A disk that fills up while a run saves: a line says which file could not be written, what was saved before is whole,
and the run goes on where there is room again."""

import builtins
import errno
import os
import random
import resource
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common import plots
from common.files import check_intact, read_checksums
from comparison import results as comparison
from paths.recorder import damaged_steps
from runs import path_recording, run_folder
from supervision.table import PredictionTable
from tests.faults import processes
from tests.faults.calls import call
from tests.faults.chain import CHAIN, prepare
from tests.faults.runs import RUNS, differs

FULL_DISKS = int(os.environ.get("FAULTS_FULL_DISKS", 3))
SCRIPTS = ("main_gen_teacher", "main_gen_path", "cifar10h_gen_path", "main_gen_path", "old_cifar_noisy")
EVERY_UPDATE = ("--save_minutes", 1e-9)  # so that equal runs write equally often


class Disk:
    """Stands in for a folder's disk. is_full(file's name, writes so far) says whether there is no room for a write."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.writes, self.is_full, self.open = str(folder), 0, lambda name, writes: False, builtins.open
        pwrite, fsync = os.pwrite, os.fsync
        monkeypatch.setattr(builtins, "open", self._open)
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: self.write(lambda d: pwrite(fd, d, at), data, _name(fd)))
        monkeypatch.setattr(os, "fsync", lambda fd: self.write(lambda d: fsync(fd), b"", _name(fd)))

    def write(self, write, data, path):
        self.writes += 1
        if self.is_full(os.path.basename(path).removesuffix(".partial"), self.writes):
            write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(data)

    def _open(self, file, mode="r", *options, **more):
        opened = self.open(file, mode, *options, **more)
        below = isinstance(file, (str, os.PathLike)) and os.path.abspath(file).startswith(self.folder)
        return _File(opened, os.fspath(file), self) if below and set(mode) & set("wax+") else opened


def _name(fd):
    return os.readlink(f"/proc/self/fd/{fd}")


class _File:
    """A file whose writes the Disk sees: numpy, torch and Pillow go through write(), since it is no io.FileIO."""

    def __init__(self, file, path, disk):
        self._file, self._path, self._disk = file, path, disk

    def write(self, data):
        return self._disk.write(self._file.write, data if isinstance(data, str) else bytes(data), self._path)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self._file.close()


@pytest.fixture
def disk(tmp_path, monkeypatch):
    prepare(tmp_path)
    return Disk(tmp_path, monkeypatch)


def told(code, err):
    """The message of a failure, which is one line."""
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert code == 1 and line.startswith("error: "), (code, err)
    return line.removeprefix("error: ")


def check_whole(results):
    """Every file that anything reads is whole, and none is half-written under another name."""
    assert not list(results.rglob("*.partial"))
    for folder in [file.parent for file in results.rglob("checksums.json")]:
        for name in read_checksums(folder):
            check_intact(folder / name)
    for file in results.rglob("*.pt"):
        torch.load(file, weights_only=True)
    for sidecar in results.rglob("PATH_*.json"):
        assert damaged_steps(sidecar.with_suffix(".npy")) == []
    for file in results.rglob("*.npy"):
        assert np.isfinite(np.load(file)).all()
        if file.name != "true_probs.npy" and not file.name.startswith("PATH_"):
            PredictionTable.load(file)


def goes_on(script, folder, whole):
    """--resume ends as the undisturbed chain."""
    code, _, err = call(script, [*CHAIN[script], "--resume"], folder)
    assert code == 0, err
    assert differs(script, whole, folder) == []


def test_a_run_goes_on_after_the_disk_was_full(undisturbed, disk, tmp_path, no_drawing, tell):
    draw, totals = random.Random(0), {}
    for number in range(FULL_DISKS):
        script = SCRIPTS[number % len(SCRIPTS)]
        if script not in totals:
            disk.writes, disk.is_full = 0, lambda name, writes: False
            code, _, err = call(script, [*CHAIN[script], *EVERY_UPDATE], tmp_path)
            assert code == 0, err
            totals[script] = disk.writes
            shutil.rmtree(tmp_path / "results")
        room = draw.randrange(totals[script])
        disk.writes, disk.is_full = 0, lambda name, writes, room=room: writes > room
        code, _, err = call(script, [*CHAIN[script], *EVERY_UPDATE], tmp_path)
        told(code, err)
        check_whole(tmp_path / "results")
        disk.is_full = lambda name, writes: False
        goes_on(script, tmp_path, undisturbed[0])
        shutil.rmtree(tmp_path / "results")
    tell("full disks survived", f"{FULL_DISKS} of {FULL_DISKS}")


FILES = {
    "main_gen_teacher": "args.json environment.json labels.npz checksums.json last.pt metrics.csv best_acc.pt "
    "best_acc.npy best_acc.json curves.png",
    "main_gen_path": "PATH_TRAIN_COARSE.npy PATH_TRAIN_COARSE.json PATH_BATCH_FINE.npy PATH_BATCH_FINE.json",
    "cifar10h_gen_path": "true_probs.npy",
    "old_cifar_noisy": "result.json results.csv OHT.txt results.txt comparison.png",
}


@pytest.mark.parametrize("script, name", [(script, name) for script, names in FILES.items() for name in names.split()])
def test_the_message_names_the_file_that_could_not_be_written(script, name, disk, tmp_path, no_drawing, monkeypatch):
    def draw_badly(*what):
        plots.save(plots.figure()[0], what[-1])

    monkeypatch.setattr(run_folder, "plot_curves", draw_badly if name == "curves.png" else lambda *what: None)
    monkeypatch.setattr(comparison, "plot_comparison", draw_badly if name == "comparison.png" else lambda *what: None)
    disk.is_full = lambda full, writes: full == name
    short = ["--epochs", 1, "--seeds", 1] if script == "old_cifar_noisy" else ["--epochs", 1]
    code, _, err = call(script, [*CHAIN[script], *short], tmp_path)
    message = told(code, err)
    assert message.startswith(str(RUNS[script])) and message.split(": ")[0].endswith(f"/{name}"), message
    check_whole(tmp_path / "results")


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("script, size", [("main_gen_teacher", 300_000), ("main_gen_path", 10_000)])
def test_a_process_that_the_system_lets_write_no_further_fails_in_a_line(
    script, size, undisturbed, tmp_path, no_drawing
):
    prepare(tmp_path)
    code, output = processes.run(script, CHAIN[script], tmp_path, before=partial(limit_files, size))
    assert "Traceback" not in output
    assert told(code, output[output.index("error: ") :]).startswith(str(RUNS[script])), output
    check_whole(tmp_path / "results")
    goes_on(script, tmp_path, undisturbed[0])


@pytest.mark.parametrize("script", ["main_gen_path", "cifar10h_gen_path"])
def test_paths_that_cannot_fit_are_refused_before_training(script, tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.setattr(path_recording.shutil, "disk_usage", lambda place: SimpleNamespace(free=20_000))
    code, _, err = call(script, CHAIN[script], tmp_path)
    assert code == 2 and f"error: {RUNS[script]}: " in err and "--fine_every" in err, err
    assert not (tmp_path / "results").exists()
