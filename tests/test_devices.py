"""The same science on a GPU: each test runs once a device and skips, saying so, where there is none.

On every machine the same code runs on devices that are pretended (tests/pretend_device.py).
"""

import csv
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

import cifar10h_gen_path
import evaluate
import main_distill
import main_gen_path
import main_gen_teacher
import old_cifar_noisy
from benchmarks.workload import Bare, Ours, Workload, operations_of_an_update
from common import interruption
from common.errors import BadInput, Interrupted
from data.images import FolderImages
from data.seeds import with_weight_seed
from paths import recorder as recorder_module
from paths.recorder import PathRecorder
from runs.run_folder import RunFolder
from supervision.table import PredictionTable
from tests.pretend_device import PretendedDevice
from training.experiment import Experiment
from training.loop import READ_FINITE_EVERY, train_epoch
from training.observers import PathBeforeUpdates, TrainingPath
from utils import experiment_parser, get_loaders

MOST_MORE = {"cuda": 30, "mps": 32, "cpu": 33}  # on a CPU the table looks at values first
AVAILABLE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def skip_unless_there(kind):
    if not AVAILABLE[kind]:
        pytest.skip(f"no {kind} device on this machine")


@pytest.fixture(params=AVAILABLE)
def real_device(request):
    skip_unless_there(request.param)
    return request.param


@pytest.fixture(params=[*AVAILABLE, *(f"pretended-{kind}" for kind in AVAILABLE)])
def device(request):
    pretended, kind = "pretended" in request.param, request.param.split("-")[-1]
    if not pretended:
        skip_unless_there(kind)
    with PretendedDevice(kind) if pretended else nullcontext():
        yield kind


def test_a_batch_is_the_same_on_every_device(device):
    flags = ["--dataset", "digits", "--augment", "crop_flip", "--batch_size", "100"]
    here, there = (
        next(iter(get_loaders(experiment_parser("").parse_args([*flags, "--device", name]))[0]))
        for name in ("cpu", device)
    )
    assert all(part.device.type == device for part in there)
    torch.testing.assert_close(there[0].cpu(), here[0])
    for ours, theirs in zip(here[1:], there[1:], strict=True):
        assert torch.equal(ours, theirs.cpu())


def test_the_table_averages_the_same_on_every_device(device):
    generator = torch.Generator().manual_seed(0)
    tables = [PredictionTable(50, 10, 0.05, name) for name in ("cpu", device)]
    for _ in range(5):
        idx = torch.randperm(50, generator=generator)[:20]
        prob = torch.rand(20, 10, generator=generator).softmax(1)
        prob[3, 4] = float("nan")
        for table in tables:
            table.update(idx.to(table.values.device), prob.to(table.values.device))
    torch.testing.assert_close(tables[1].values.cpu(), tables[0].values)
    assert torch.equal(tables[1].visited.cpu(), tables[0].visited)


@pytest.mark.parametrize("amp", ["off", "auto", "fp16"])
def test_teacher_and_students_train_on_the_device(real_device, amp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--net", "smallcnn", "--epochs", "2", "--device", real_device, "--amp", amp, "--augment", "crop_flip"]
    teacher = main_gen_teacher.main(["--dataset", "digits", "--ny_ratio", "0.4", *common])
    for kind in ("net", "table"):
        student = main_distill.main(["--teach_path", str(teacher), "--teach_type", kind, *common])
        assert np.isfinite(np.load(student / "best_acc.npy")).all()


def test_the_same_seed_twice_gives_the_same_batches_on_the_device(device):
    flags = ["--dataset", "digits", "--device", device]
    first, second = (
        [idx.cpu() for *_, idx in get_loaders(experiment_parser("").parse_args(flags))[0]] for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_deterministic_runs_are_equal_bit_for_bit_interrupted_or_not(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = "--dataset digits --net smallcnn --epochs 3 --train_size 300 --batch_size 60 --deterministic".split()
    flags += ["--device", device]
    runs = [main_gen_teacher.main([*flags, "--run_name", name]) for name in ("one", "two")]
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(RunFolder, "time_to_save", lambda run: patch.setattr(interruption, "_noted", 15))
        main_gen_teacher.main([*flags, "--run_name", "three"])
    runs.append(main_gen_teacher.main([*flags, "--run_name", "three", "--resume"]))
    torch.use_deterministic_algorithms(False)
    for name in ("epoch_2.pt", "epoch_2.npy"):
        assert len({(run / name).read_bytes() for run in runs}) == 1, name


def test_nothing_waits_for_the_gpu_between_the_updates_of_an_epoch(device, tmp_path, monkeypatch):
    if device != "cuda":
        pytest.skip("only CUDA can say where it was waited for")
    flags = ["--dataset", "digits", "--net", "smallcnn", "--device", device, "--batch_size", "100", "--augment", "none"]
    experiment = Experiment(main_gen_teacher.make_parser().parse_args(flags), tmp_path / "unused")
    experiment.start()
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 1e9)  # or writing might fall into the epoch that is watched
    rows, num_updates = experiment.data.train_idx[:50], len(experiment.train_loader)

    class Watch:
        """From before the first update's forward pass to after the last one's step."""

        updates = 0

        def before_update(self, update, model):
            torch.cuda.set_sync_debug_mode("error")

        def after_update(self):
            self.updates += 1
            if self.updates == num_updates:
                torch.cuda.set_sync_debug_mode("default")

    with (
        PathRecorder(tmp_path / "path.npy", len(experiment.data.y), 2, 10) as coarse,
        PathRecorder(tmp_path / "fine.npy", len(rows), 2 * num_updates, 10, rows=rows) as fine,
    ):
        ours = Ours(experiment, [TrainingPath(coarse)])
        ours.observers.insert(
            0, PathBeforeUpdates(fine, experiment.train_loader.of_samples(rows), ours.forward, every=1)
        )
        ours.epoch()
        state, watch = ours.state, Watch()
        observers = [watch, *ours.observers]
        try:
            train_epoch(state, ours.forward, ours.target, ours.loss, 0.1, observers, watch.after_update)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert watch.updates == num_updates < READ_FINITE_EVERY
    assert np.load(tmp_path / "fine.npy").any(2).all()
    assert np.load(tmp_path / "path.npy")[experiment.data.train_idx].any(2).all()


@pytest.mark.parametrize("kind", ["cpu", *AVAILABLE])
def test_an_update_hands_few_operations_more_to_the_device_than_a_bare_loop(kind, tmp_path):
    # the batch 8, p_tar and cross-entropy with it 7, softmax and table 13, figures 1
    with PretendedDevice(kind) if kind != "cpu" else nullcontext():
        work = Workload(tmp_path, quick=True, device=kind, amp="off")
        work.image_size = 32  # shifted and flipped
        work.data_dir = work._make_up()
        bare, ours = (operations_of_an_update(work, "smallcnn", kind) for kind in (Bare, Ours))
    assert bare >= 40  # they are counted
    assert ours - bare <= MOST_MORE[kind]


# ----------------------------------------------------------------------------- whole scripts, on every machine


@pytest.fixture(params=AVAILABLE)
def pretended(request):
    """The kind of a device; nothing is pretended yet."""
    return request.param


@pytest.fixture(scope="module")
def lab(quick, tmp_path_factory):
    """A teacher trained on the CPU, and the files that some scripts need."""
    place = tmp_path_factory.mktemp("lab")
    human = np.full((360, 10), 0.02)
    human[np.arange(360), digits_test_labels()] = 0.82
    np.save(place / "cifar10h-probs.npy", human.astype(np.float32))
    np.save(place / "true.npy", np.full((1437, 10), 0.1, np.float32))
    for split, each in (("train", 6), ("test", 2)):
        for c in "ab":
            (folder := place / "images" / split / c).mkdir(parents=True)
            for i in range(each):
                pixels = np.random.default_rng(i + 9 * ord(c)).integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main_gen_teacher.main(quick("--ny_ratio", 0.4))
    return place


def digits_test_labels():
    return get_loaders(experiment_parser("").parse_args(["--dataset", "digits", "--device", "cpu"]))[2].ny.numpy()


TEACH = "--teach_path smallcnndigits_cosine_n0.4 --teach_type"
FOLDER = "--dataset folder --data_dir images --image_size 16 --train_size 12 --batch_size 5 --valid_size 0"
SCRIPTS = {
    "teacher": (main_gen_teacher, "--augment crop_flip --ny_ratio 0.2 --run_name a"),
    "network teaches": (main_distill, f"{TEACH} net --tau 2"),
    "table teaches": (main_distill, f"{TEACH} table"),
    "labels teach": (main_distill, "--teach_type onehot --eval_train"),
    "smooth labels teach": (main_distill, "--teach_type smooth"),
    "truth teaches": (main_distill, "--teach_type true --true_probs true.npy"),
    "paths": (main_gen_path, "--fine_every 3"),
    "paths in eval mode": (main_gen_path, "--fine_every 3 --record eval"),
    "human labels": (cifar10h_gen_path, "--human_probs cifar10h-probs.npy --fine_every 2 --fine_samples 20"),
    "comparison": (old_cifar_noisy, "--seeds 1 --methods OHT LS KD FilterKD --path a"),
    "streamed folder": (main_gen_teacher, f"{FOLDER} --augment crop_flip --num_work 0"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_comes_to_the_same_on_a_pretended_device(name, pretended, lab, quick, tmp_path, monkeypatch):
    script, flags = SCRIPTS[name]
    if name == "streamed folder":
        monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    found = []
    for kind in ("cpu", pretended):
        monkeypatch.chdir(shutil.copytree(lab, tmp_path / kind))
        with PretendedDevice(kind) if kind != "cpu" else nullcontext():
            folder = script.main(quick("--epochs", 1, "--device", kind, *flags.split()))
            if name == "teacher":
                evaluate.main([str(folder), "--device", kind])
        found.append({file: rows_of(file) for file in sorted(folder.rglob("metrics.csv"))})
        found[-1] |= {file: np.load(file) for file in sorted(folder.rglob("*.npy"))}
    here, there = found
    assert here.keys() == there.keys() and here
    for file, values in here.items():
        np.testing.assert_allclose(there[file], values, atol=2e-3, err_msg=str(file))


def rows_of(file):
    """The figures of a metrics.csv that depend on no clock."""
    with open(file) as f:
        rows = [{k: v for k, v in row.items() if "seconds" not in k and v} for row in csv.DictReader(f)]
    return np.array([[float(v) for v in row.values()] for row in rows])


def test_a_run_goes_on_where_there_are_fewer_gpus(workplace, quick):
    for count, flags in ((2, ["--epochs", 1]), (1, ["--epochs", 2, "--resume"])):
        with PretendedDevice("cuda", count=count):
            folder = main_gen_teacher.main(quick("--device", "cuda", "--scheduler", "multi", *flags))
    assert len(rows_of(folder / "metrics.csv")) == 2


def test_the_generator_of_the_device_that_is_used_is_saved_and_no_other(pretended, workplace, quick):
    with PretendedDevice(pretended) as gpu:
        folder = main_gen_teacher.main(quick("--epochs", 1, "--device", pretended))
        saved = torch.load(folder / "last.pt", weights_only=True)
        other = main_gen_teacher.main(quick("--epochs", 1, "--run_name", "b"))
        of_cpu = torch.load(other / "last.pt", weights_only=True)
    [state] = saved["cuda_generators"] if pretended == "cuda" else [saved["mps_generator"]]
    assert torch.equal(state, gpu.generators[0].get_state())
    assert not {"cuda_generators", "mps_generator"} & of_cpu.keys()


def test_images_that_a_gpu_cannot_hold_are_a_mistake_or_streamed(lab, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(lab, tmp_path / "lab"))
    with PretendedDevice("cuda", free=5_000) as gpu:
        with pytest.raises(BadInput, match="--device cuda"):
            main_gen_teacher.main(quick("--device", "cuda", "--run_name", "b"))
        assert not list(tmp_path.rglob("smallcnnb"))
        train, _, test = get_loaders(
            experiment_parser("").parse_args([*FOLDER.split(), *"--num_work 0 --device cuda".split()])
        )
        gpu.waited.clear()
        assert train.streamed and test.streamed and len(list(train)) == 3
    assert gpu.waited["copy to the host"] == 1  # the rows of all batches at once


def test_drawing_weights_asks_no_gpu(monkeypatch):
    with PretendedDevice("cuda", count=3):
        for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a GPU's generator was asked"))
        with_weight_seed(1, lambda: torch.rand(2))
