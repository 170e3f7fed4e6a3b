"""sweep.py: a grid's runs, each done once and gone on with when stopped, and rows that are those of the runs."""

import csv
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import main_gen_teacher
import old_cifar_noisy
import sweep
from common import interruption
from common.errors import BadInput, Interrupted
from training import loop

GRID = """
script = "main_gen_teacher.py"
[flags]
dataset = "digits"
net = "smallcnn"
train_size = 200
batch_size = 50
epochs = 2
lr = {lr}
device = "cpu"
amp = "off"
deterministic = true
[grid]
seed = [1, 2]
"""


def rows(file):
    with open(file, newline="") as f:
        return list(csv.DictReader(f))


def write(text, name="tiny.toml"):
    Path(name).write_text(text)
    return name


# -------------------------------------------------------------------------------------------------- the grid


def test_each_combination_of_a_grid_is_a_run_and_of_several_grids_of_each(workplace):
    text = """
    script = "old_cifar_noisy.py"
    flags = {lr = 0.1}
    [[grid]]
    seed = [1, 2]
    ny_ratio = [0.2, 0.4]
    [[grid]]
    methods = [["OHT", "KD"]]
    [slurm]
    timeout_min = 5
    """
    script, runs, slurm = sweep.read_grid(Path(write(text, "g.toml")))
    assert script == "old_cifar_noisy.py" and len(runs) == 5 and slurm == {"timeout_min": 5}
    assert runs["g_seed2_ny_ratio0.4"] == {"lr": 0.1, "seed": 2, "ny_ratio": 0.4}
    (with_list,) = [flags for name, flags in runs.items() if "methods" in name]
    assert sweep.as_flags(with_list) == ["--lr", "0.1", "--methods", "OHT", "KD"]
    assert sweep.as_flags({"resume": True, "check": False, "epochs": 3}) == ["--epochs", "3", "--resume"]


@pytest.mark.parametrize(
    "text, named",
    [
        ("script = ", "tiny.toml"),
        ('script = "none.py"\n[grid]\nseed = [1]', "script"),
        ('script = "evaluate.py"\n[grid]\nseed = 1', "grid"),
        ('script = "evaluate.py"\ngrids = 3\n[grid]\nseed = [1]', "grids"),
        ('script = "evaluate.py"\n[grid]\nrun_name = ["a"]', "run_name"),
        (GRID.format(lr='"fast"'), "--lr fast"),
    ],
)
def test_a_mistake_in_the_grid_is_told_and_nothing_is_written(workplace, text, named):
    with pytest.raises(BadInput, match=named):
        sweep.main(["run", write(text)])
    assert [file.name for file in workplace.iterdir()] == ["tiny.toml"]


# ------------------------------------------------------------------------------------------------- the runs


@pytest.mark.long
def test_runs_are_finished_once_whatever_was_begun_before(workplace, monkeypatch):
    grid = write(GRID.format(lr=0.05))
    _, runs, _ = sweep.read_grid(Path(grid))
    name, flags = list(runs.items())[1]
    with monkeypatch.context() as patch, pytest.raises(Interrupted):  # one has been stopped after an epoch
        evaluate = loop.evaluate
        patch.setattr(loop, "evaluate", lambda *a: (patch.setattr(interruption, "_noted", 15), evaluate(*a))[1])
        main_gen_teacher.main([*sweep.as_flags(flags), "--run_name", name])
    first_epoch = Path(f"results/Gen_teacher/smallcnn{name}/metrics.csv").read_text()
    sweep.main(["run", grid, "--jobs", "2"])
    found = rows("raw/tiny.csv")
    assert sorted((row["run"], row["seed"], row["epochs"]) for row in found) == [
        ("tiny_seed1", "1", "2"),
        ("tiny_seed2", "2", "2"),
    ]
    for row in found:
        epochs = rows(f"results/Gen_teacher/smallcnn{row['run']}/metrics.csv")
        assert len(epochs) == 2 and row["test_acc_last"] == epochs[1]["test_acc"]
    assert (
        Path(f"results/Gen_teacher/smallcnn{name}/metrics.csv").read_text().startswith(first_epoch)
    )  # with its seconds

    def start(*args, **settings):
        raise AssertionError("a finished run is not started")

    monkeypatch.setattr(subprocess, "Popen", start)
    before = Path("raw/tiny.csv").read_bytes()
    sweep.main(["run", grid])
    assert Path("raw/tiny.csv").read_bytes() == before
    with pytest.raises(BadInput, match=r"tiny_seed\d"):
        sweep.main(["run", write(GRID.format(lr=0.06))])


def test_no_more_processes_than_jobs_and_none_is_left_behind():
    started, ended = [], []

    def start(name):
        started.append(subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({0 if name < 4 else 60})"]))
        assert sum(process.poll() is None for process in started) <= 2
        return started[-1]

    def finish(name, code):
        ended.append((name, code))
        if name == 3:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        sweep.run_all(range(6), 2, start, finish)
    assert ended[-1] == (3, 0) and len(started) in (4, 5)
    assert all(process.poll() is not None for process in started)


# ------------------------------------------------------------------------- jobs of submitit, seeds as processes


def python(code, log):
    return sweep.starter([sys.executable, "-c", code], log, None)


def test_jobs_of_submitit_give_exit_codes_and_keep_what_was_printed(tmp_path):
    submit, codes = sweep.submitter("local", tmp_path / "jobs", {"timeout_min": 5}), {}
    work = {"good": "print(1)", "bad": "import sys; print(2); sys.exit('no')"}
    sweep.run_all(work, 2, lambda name: submit(python(work[name], tmp_path / name)), codes.__setitem__)
    assert codes == {"good": 0, "bad": 1}
    assert (tmp_path / "good.log").read_text() == "1\n" and (tmp_path / "bad.err").read_text() == "no\n"


def test_interrupted_jobs_of_submitit_are_asked_to_save_and_end(tmp_path):
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved")))
print("begun", flush=True)
time.sleep(60)
"""
    submit, log = sweep.submitter("local", tmp_path / "jobs", {}), tmp_path / "a.log"

    def interrupt(seconds):
        if log.is_file() and log.read_text():
            raise Interrupted(15)
        time.sleep(seconds)

    with pytest.raises(Interrupted), mock.patch.object(sweep, "time", SimpleNamespace(sleep=interrupt)):
        sweep.run_all(["a"], 1, lambda name: submit(python(code, tmp_path / name)), print)
    assert log.read_text() == "begun\nsaved\n"


@pytest.mark.parametrize("cluster, slurm", [("slurm", ""), ("local", "[slurm]\ncpus = 2")])
def test_a_cluster_that_is_not_there_or_takes_no_such_parameter_is_bad_input(workplace, monkeypatch, cluster, slurm):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=0))  # the check of the flags
    with pytest.raises(BadInput, match=f"--executor {cluster}"):
        sweep.main(["run", write(GRID.format(lr=0.05) + slurm), "--executor", cluster])


@pytest.mark.long
def test_a_grid_runs_as_jobs_of_submitit(workplace):
    sweep.main(["run", write(GRID.format(lr=0.05)), "--jobs", "2", "--executor", "local"])
    for row in rows("raw/tiny.csv"):
        epochs = rows(f"results/Gen_teacher/smallcnn{row['run']}/metrics.csv")
        assert len(epochs) == 2 and row["test_acc_last"] == epochs[1]["test_acc"]
    assert [row["seed"] for row in rows("raw/tiny.csv")] in (["1", "2"], ["2", "1"])


@pytest.mark.long
def test_seeds_as_processes_stopped_and_resumed_give_the_results_of_one_process(workplace, quick, monkeypatch):
    flags = quick("--methods", "FilterKD", "--seeds", 3, "--ny_ratio", 0.4, "--deterministic")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = old_cifar_noisy.main([*flags, "--path", "alone"])
    together, children, popen = Path("results/noisy_digits/run_together"), [], subprocess.Popen

    def start(words, **how):
        process = popen(words, **how)
        children.extend([process] if "--only_seed" in words else [])
        return process

    monkeypatch.setattr(subprocess, "Popen", start)

    def interrupt(seconds):
        if any(together.glob("seed_*/OHT/metrics.csv")):
            raise Interrupted(15)
        time.sleep(seconds)

    with pytest.raises(Interrupted), mock.patch.object(sweep, "time", SimpleNamespace(sleep=interrupt)):
        old_cifar_noisy.main([*flags, "--path", "together", "--jobs", "2"])
    assert len(children) == 2 and all(child.poll() is not None for child in children)
    old_cifar_noisy.main(["--path", "together", "--resume", "--jobs", "2"])
    assert len(children) == 5
    for name in ("results.csv", "results.txt"):
        assert (together / name).read_text() == (alone / name).read_text()


# ------------------------------------------------------------------------------------------------- the rows


@pytest.fixture(scope="module")
def place(quick, tmp_path_factory):
    """A comparison, a teacher, and a teacher that was stopped after an epoch of two."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        old_cifar_noisy.main(quick("--methods", "OHT", "LS", "--path", "both", "--ny_ratio", 0.4))
        patch.setattr(sys, "argv", ["main_gen_teacher.py"])  # which args.json names as the script
        main_gen_teacher.main(quick("--epochs", 5, "--run_name", "whole"))
        whole = loop.learning_rate
        patch.setattr(
            loop, "learning_rate", lambda e, a: (e and patch.setattr(interruption, "_noted", 15), whole(e, a))[1]
        )
        with pytest.raises(Interrupted):
            main_gen_teacher.main(quick("--run_name", "stopped"))
    return place


def test_the_rows_are_those_of_the_runs_with_their_settings(place, monkeypatch):
    monkeypatch.chdir(place)
    comparison, teacher = "results/noisy_digits/run_both", "results/Gen_teacher/smallcnnwhole"
    sweep.main(["table", comparison, teacher, "results/Gen_teacher/smallcnnstopped", "--csv", "out/all.csv"])
    oht, ls, single = rows("out/all.csv")  # the unfinished one is left out
    for row, expected in zip((oht, ls), rows(f"{comparison}/results.csv"), strict=True):
        assert expected.items() <= row.items()
    epochs = {name: np.array(v) for name, v in zip(*_columns(f"{teacher}/metrics.csv"), strict=True)}
    chosen = epochs["valid_acc"].argmax()
    assert float(single["test_acc_last"]) == epochs["test_acc"][-1]
    assert float(single["test_acc_best"]) == epochs["test_acc"][chosen]
    assert float(single["test_acc_oracle"]) == epochs["test_acc"].max()
    assert float(single["nll_last"]) == epochs["test_nll"][-1]
    settings = {"dataset": "digits", "net": "smallcnn", "width": "1", "batch_size": "50", "smoothing": "0.05"}
    settings |= {"augment": "none", "precision": "float32", "epochs": "5"}  # augment as auto came out
    assert settings.items() <= single.items()
    assert single["command"].startswith("main_gen_teacher.py --amp off --batch_size 50")


def _columns(file):
    found = rows(file)
    return list(found[0]), [[float(row[name]) for row in found] for name in found[0]]


def test_the_table_shows_unfinished_runs_and_says_so(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    sweep.main(["table", "results/noisy_digits/run_both/seed_10086/LS", "results/Gen_teacher/smallcnnstopped"])
    shown = capsys.readouterr()
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [
        ["both", "LS"],
        ["stopped", "main_gen_teacher"],
    ]
    assert "smallcnnstopped" in shown.err and "LS" not in shown.err


def test_what_is_no_run_is_bad_input(workplace):
    with pytest.raises(BadInput, match="args.json"):
        sweep.main(["table", "."])
