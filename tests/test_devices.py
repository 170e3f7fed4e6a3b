"""The same science on a GPU: each test runs once a device and skips, saying so, where there is none."""

import numpy as np
import pytest
import torch

import main_distill
import main_gen_teacher
from benchmarks.workload import Product
from errors import Interrupted, Problems
from paths import recorder as recorder_module
from paths.recorder import PathRecorder
from supervision.table import PredictionTable
from training import interruption
from training.experiment import Experiment
from training.loop import READ_FINITE_EVERY, train_epoch
from training.observers import PathBeforeUpdates, TrainingPath
from training.run_folder import RunFolder
from utils import experiment_parser, get_loaders

AVAILABLE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.fixture(params=AVAILABLE)
def device(request):
    if not AVAILABLE[request.param]:
        pytest.skip(f"no {request.param} device on this machine")
    return request.param


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
def test_teacher_and_students_train_on_the_device(device, amp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--net", "smallcnn", "--epochs", "2", "--device", device, "--amp", amp, "--augment", "crop_flip"]
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
    flags = ["--dataset", "digits", "--net", "smallcnn", "--epochs", "3", "--device", device, "--deterministic"]
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
    problems = Problems()
    experiment = Experiment(main_gen_teacher.make_parser().parse_args(flags), problems, tmp_path / "unused")
    problems.stop_if_any()
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
        product = Product(experiment, [TrainingPath(coarse)])
        product.observers.insert(
            0, PathBeforeUpdates(fine, experiment.train_loader.of_samples(rows), product.forward, every=1)
        )
        product.epoch()
        state, watch = product.state, Watch()
        observers = [watch, *product.observers]
        try:
            train_epoch(state, product.forward, product.target, product.loss, 0.1, observers, watch.after_update)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert watch.updates == num_updates < READ_FINITE_EVERY
    assert np.load(tmp_path / "fine.npy").any(2).all()
    assert np.load(tmp_path / "path.npy")[experiment.data.train_idx].any(2).all()
