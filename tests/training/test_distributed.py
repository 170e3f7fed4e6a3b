"""Several processes train as one: gloo on the CPU, started by torchrun as a user does."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import BadInput
from common.files import read_json
from data.refolder_tiny_imagenet import refolder
from runs import run_folder
from tests.training import ranks
from training import distributed

pytestmark = pytest.mark.long

# 103 samples in batches of 25, 25, 25, 25 and 3: of the last, the fourth of four processes has none.
DATA = "--dataset digits --train_size 115 --valid_size 12 --ny_ratio 0.2 --batch_size 25 --augment crop_flip --seed 3"
FLAGS = f"{DATA} --net smallcnn --norm group --epochs 2 --lr 0.05 --device cpu --amp off"


def teacher(name, more=""):
    return f"float64 main_gen_teacher {FLAGS} --run_name {name} {more}"


def others(name):
    """The other scripts, and a run in float32."""
    student = f"main_distill {FLAGS} --teach_path smallcnnone --proj_name students --run_name {name} --teach_type net"
    path = f"main_gen_path {FLAGS} --fine_samples 7 --fine_every 2 --path_dtype float32 --run_name {name}"
    methods = f"old_cifar_noisy {FLAGS} --methods OHT ES-FilterKD SAT --path {name}"
    return (
        f"float64 {student}",
        f"float64 {path}",
        f"float64 {methods}",
        f"main_gen_teacher {FLAGS} --run_name {name}_32",
    )


def tiny(name, backend="cache"):
    """A teacher on a few images of Tiny ImageNet: 78, in batches of 25, 25, 25 and 3. Nothing where there are none."""
    data = (
        f"--dataset tinyimagenet --data_dir tiny --image_size 16 --data_backend {backend} --num_work 0 --valid_size 10"
    )
    settings = (
        "--batch_size 25 --net smallcnn --norm group --epochs 2 --lr 0.05 --device cpu --amp off --augment crop_flip"
    )
    return [f"float64 main_gen_teacher {data} {settings} --run_name tiny_{name}"] * Path("tiny").is_dir()


def copy_of_tiny_imagenet(root, classes=8, images=11):
    """A few classes' first images of the download, below ./tiny, in class folders; nothing where it is not there."""
    names = [entry.name for entry in sorted((root / "train").glob("n*"))[:classes]]
    lines = [line for line in (root / "val/val_annotations.txt").read_text().splitlines() if line.split()[1] in names]
    files = [file for name in names for file in sorted((root / "train" / name / "images").iterdir())[:images]]
    for file in [*files, *(root / "val/images" / line.split()[0] for line in lines)]:
        Path("tiny", file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, Path("tiny", file.relative_to(root)))
    Path("tiny/val/val_annotations.txt").write_text("\n".join(lines))
    refolder(Path("tiny"))


def torchrun(world_size, *commands, fault=None):
    """The finished process; commands: of ranks.py."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world_size}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **({"FAULT": fault} if fault else {})}
    return subprocess.run([*launch, ranks.__file__, *commands], capture_output=True, text=True, env=env, timeout=600)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The folder of all runs: what one process computes, then what two, three and four do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("place"))
        patch.setattr(run_folder, "plot_curves", lambda rows, path: path.touch())
        root = Path(os.environ.get("TEST_DATA_DIR", "none"), "tiny-imagenet-200")
        if (root / "val/images").is_dir():
            copy_of_tiny_imagenet(root)
        for command in (teacher("one"), *others("one"), *tiny("one", "memory")):
            ranks.run(command)
        yield


@pytest.fixture(scope="module")
def two(place):
    """Ends stopped within an epoch, by a signal to one of the two."""
    commands = teacher("two"), *others("two"), *tiny("two"), teacher("stopped_at_two")
    return torchrun(2, *commands, fault="TERM 1 7")


@pytest.fixture(scope="module")
def three(two):
    """Goes on with what two have begun, and is stopped as well."""
    commands = teacher("three", "--accumulate 2 --table sharded"), teacher("stopped_at_two", "--resume"), *tiny("three")
    return torchrun(3, *commands, teacher("stopped_at_three"), fault="INT 0 8")


@pytest.fixture(scope="module")
def four(place):
    """Ends when one of the four is killed."""
    return torchrun(
        4, teacher("four"), *tiny("four", "files"), teacher("killed", "--save_minutes 1e-9"), fault="KILL 2 7"
    )


def run_of(name):
    return Path("results/Gen_teacher", f"smallcnn{name}")


def weights(run, name="epoch_1"):
    return torch.load(run / f"{name}.pt", weights_only=True)


def distance(run, other, name="epoch_1"):
    """The largest difference of a weight."""
    weights_of, theirs = weights(run, name), weights(other, name)
    return max(float((weights_of[key] - theirs[key]).abs().max()) for key in weights_of)


def assert_as_of_one(run, alone):
    print(run, distance(run, alone))
    assert distance(run, alone) <= 1e-12
    assert (run / "epoch_1.npy").read_bytes() == (alone / "epoch_1.npy").read_bytes()
    assert metrics(run) == metrics(alone)


def metrics(run):
    with open(run / "metrics.csv") as f:
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(f)]


@pytest.mark.parametrize("world_size", ["two", "three", "four"])
def test_many_compute_what_one_computes(world_size, request):
    request.getfixturevalue(world_size)
    assert_as_of_one(run_of(world_size), run_of("one"))


@pytest.mark.parametrize("world_size", ["two", "three", "four"])
def test_many_compute_what_one_computes_on_images_from_files(world_size, request):
    request.getfixturevalue(world_size)
    if not Path("tiny").is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with tiny-imagenet-200 in it, as downloaded")
    assert_as_of_one(run_of(f"tiny_{world_size}"), run_of("tiny_one"))


def test_a_batch_in_parts_is_the_batch(place):
    ranks.run(teacher("in_parts", "--accumulate 4"))
    assert_as_of_one(run_of("in_parts"), run_of("one"))


def test_students_paths_and_comparisons_are_those_of_one(two):
    assert_as_of_one(Path("results/students/net_best_acc_two"), Path("results/students/net_best_acc_one"))
    for name in ("PATH_TRAIN_COARSE", "PATH_BATCH_COARSE", "PATH_BATCH_FINE"):
        path, alone = (np.load(f"results/Gen_path/run_{who}/{name}.npy") for who in ("two", "one"))
        assert np.array_equal(path, alone) and path.any()
    compared, alone = (Path("results/noisy_digits", f"run_{name}") for name in ("two", "one"))
    assert (compared / "results.csv").read_bytes() == (alone / "results.csv").read_bytes()
    for method in ("ES-FilterKD", "SAT"):  # SAT scales by a mean over the batch
        assert_as_of_one(compared / "seed_3" / method, alone / "seed_3" / method)


def test_in_float32_a_few_steps_differ_by_rounding(two):
    assert 0 < distance(run_of("two_32"), run_of("one_32")) < 1e-5


def test_rank_0_alone_speaks_and_writes(two):
    assert len(re.findall(r"^digits: 103\b", two.stdout, re.M)) == 6  # the data set and its size, by each run
    assert not list(run_of("two").glob("*.partial"))
    assert read_json(run_of("two") / "environment.json")["processes"] == 2


def test_dropout_differs_between_ranks(two):
    drawn = [json.loads((run_of("two") / f"drawn_{rank}.json").read_text()) for rank in (0, 1)]
    assert drawn[0] != drawn[1]


def test_all_stop_at_one_step_and_any_number_resumes(two, three):
    assert two.returncode and "--resume" in two.stderr and three.returncode
    assert_as_of_one(run_of("stopped_at_two"), run_of("one"))  # three went on
    last = torch.load(run_of("stopped_at_three") / "last.pt", weights_only=True)
    assert last["update"] == 8 and last["epoch"] == 1
    ranks.run(teacher("stopped_at_three", "--resume"))
    assert_as_of_one(run_of("stopped_at_three"), run_of("one"))


def test_when_one_is_killed_all_end_and_the_run_resumes(four):
    assert four.returncode and four.stderr.count("error:") == 1 and "--resume" in four.stderr
    assert torch.load(run_of("killed") / "last.pt", weights_only=True)["update"] == 6
    ranks.run(teacher("killed", "--resume"))
    assert_as_of_one(run_of("killed"), run_of("one"))


def test_a_mistake_is_told_once_and_all_end_with_its_exit_code(place):
    ended = torchrun(2, teacher("bad"), fault="BAD 1")  # which rank 0 does not see
    assert ended.stderr.count("error:") == 1 and "error: --data_dir" in ended.stderr
    assert set(re.findall(r"exitcode +: (\S+)", ended.stderr)) == {"2"}
    assert not run_of("bad").exists()


@pytest.mark.parametrize(
    "flag, value, more",
    [
        ("batch_size", 3, {}),
        ("jobs", 2, {}),
        ("sync_bn", True, {"device": "cpu"}),  # also where there is a GPU
    ],
)
def test_flags_that_are_not_for_so_many_processes_are_bad_input(monkeypatch, flag, value, more):
    monkeypatch.setattr(distributed, "WORLD_SIZE", 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(BadInput, match=f"--{flag}"):
        distributed.check(SimpleNamespace(**{"batch_size": 4, "sync_bn": False, **more, flag: value}))
