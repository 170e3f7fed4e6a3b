"""data/loader.py: every sample once an epoch, its idx its own for ever, the same batches however they are read."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors
from common.errors import RunFailure
from common.hardware import usable_cpus
from data.images import FolderImages
from data.labels import load_data
from data.loader import IndexedLoader
from utils import experiment_parser, get_loaders

MEAN, STD = (0.5, 0.25, 0.0), (0.25, 0.5, 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(num=10, batch_size=4, *, train=True, seed=0, images=None, size=6, **settings):
    """A loader whose sample i has idx 100 + i, y = i and ny = -i, so that a mix-up shows."""
    if images is None:
        rng = np.random.default_rng(1)
        images = torch.from_numpy(rng.integers(0, 256, (num, size, size, 3), dtype=np.uint8))
    i = np.arange(num)
    if train:
        settings = {"order": seeded(seed), "augmentation": seeded(seed + 1)} | settings
    return IndexedLoader(images, i, -i, 100 + i, batch_size, MEAN, STD, "cpu", **settings)


def epoch(loader):
    return list(loader)


def assert_same_batches(a, b):
    for left, right in zip(a, b, strict=True):
        for one, other in zip(left, right, strict=True):
            assert torch.equal(one, other)


# ---------------------------------------------------------------------------------------- batches and idx


@settings(deadline=None)
@given(num=st.integers(1, 40), batch_size=st.integers(1, 15), train=st.booleans())
def test_every_sample_comes_once_an_epoch_with_its_own_labels(num, batch_size, train):
    loader = make(num, batch_size, train=train)
    for _ in range(2):
        batches = epoch(loader)
        assert len(batches) == len(loader)
        y, ny, idx = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[1:])
        assert sorted(idx.tolist()) == list(range(100, 100 + num))
        assert torch.equal(y, idx - 100) and torch.equal(ny, 100 - idx)


@pytest.mark.parametrize(
    ("num", "batch_size", "training", "evaluation"),
    [
        (8, 4, [4, 4], [4, 4]),
        (10, 4, [4, 4, 2], [4, 4, 2]),  # a short last batch is counted
        (9, 4, [4, 5], [4, 4, 1]),  # in training, a last batch of one joins the one before: BatchNorm needs two
        (3, 4, [3], [3]),
        (1, 4, [1], [1]),
        (3, 1, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_no_sample_is_dropped(num, batch_size, training, evaluation):
    for train, expected in ((True, training), (False, evaluation)):
        loader = make(num, batch_size, train=train)
        assert [len(idx) for *_, idx in loader] == expected
        assert len(loader) == len(expected) and loader.num_samples == num


def test_types_and_shapes():
    x, y, ny, idx = epoch(make(10, 4))[0]
    assert x.dtype == torch.float32 and x.shape == (4, 3, 6, 6)
    assert all(v.dtype == torch.int64 and v.shape == (4,) for v in (y, ny, idx))
    assert {v.device.type for v in (x, y, ny, idx)} == {"cpu"}


def test_pixels_are_normalised_by_hand():
    images = torch.tensor([[[[0, 0, 0]]], [[[255, 255, 255]]], [[[51, 51, 51]]]], dtype=torch.uint8)
    ((x, *_),) = make(3, 4, train=False, images=images)
    # (pixel / 255 - mean) / std
    expected = torch.tensor([[-2.0, -0.5, 0.0], [2.0, 1.5, 1.0], [-1.2, -0.1, 0.2]])
    assert torch.allclose(x[:, :, 0, 0], expected, atol=1e-6)


def test_height_and_width_stay_apart():
    images = torch.arange(2 * 3 * 5 * 3, dtype=torch.uint8).reshape(2, 3, 5, 3)
    ((x, *_),) = make(2, 4, train=False, images=images)
    assert x.shape == (2, 3, 3, 5)
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.allclose(x, expected, atol=1e-6)


# ------------------------------------------------------------------------------------------- randomness


def test_evaluation_serves_the_given_order_every_time():
    loader = make(10, 4, train=False)
    first, second = epoch(loader), epoch(loader)
    assert torch.cat([idx for *_, idx in first]).tolist() == list(range(100, 110))
    assert_same_batches(first, second)


def test_training_shuffles_anew_every_epoch():
    loader = make(50, 7)
    first, second = (torch.cat([idx for *_, idx in epoch(loader)]).tolist() for _ in range(2))
    assert first != second != sorted(second)


def test_order_and_augmentation_follow_from_their_own_generators():
    def run(order, augmentation):
        loader = make(30, 7, size=16, order=seeded(order), augmentation=seeded(augmentation), augment_kind="crop_flip")
        return epoch(loader)

    base = run(0, 1)
    assert_same_batches(base, run(0, 1))
    same_order = run(0, 2)
    assert all(torch.equal(a[3], b[3]) for a, b in zip(base, same_order, strict=True))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(base, same_order, strict=True))
    other_order = run(2, 1)
    assert not torch.equal(base[0][3], other_order[0][3])
    by_idx = [
        {int(i): image for x, *_, idx in batches for i, image in zip(idx, x, strict=True)}
        for batches in (base, other_order)
    ]
    assert all(
        torch.equal(image, by_idx[1][i]) for i, image in by_idx[0].items()
    )  # shift and flip belong to the sample


def test_an_epoch_draws_as_much_whatever_its_batches_are():
    loaders = [make(30, size, size=16, augment_kind="crop_flip") for size in (4, 30)]
    orders = []
    for loader in loaders:
        epoch(loader)
        orders.append(torch.cat([idx for *_, idx in epoch(loader)]))
    assert torch.equal(*orders)


def test_the_generators_states_resume_the_same_epochs():
    loader = make(20, 6, size=16, augment_kind="crop_flip")
    epoch(loader)
    state = loader.state_dict()
    expected = [epoch(loader), epoch(loader)]
    resumed = make(20, 6, size=16, seed=77, augment_kind="crop_flip")
    resumed.load_state_dict(state)
    for batches in expected:
        assert_same_batches(batches, epoch(resumed))


def test_clean_serves_the_same_samples_in_order_without_augmentation_and_draws_nothing():
    loader = make(20, 6, size=16, augment_kind="crop_flip")
    twin = make(20, 6, size=16, augment_kind="crop_flip")
    epoch(loader), epoch(twin)
    before = loader.state_dict(), torch.get_rng_state()
    clean = epoch(loader.clean())
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), loader.state_dict().values(), strict=True))
    assert torch.equal(before[1], torch.get_rng_state())
    assert_same_batches(clean, epoch(make(20, 6, size=16, train=False)))
    assert_same_batches(epoch(loader), epoch(twin))  # training goes on as if nothing had been


# ------------------------------------------------------------------------------------------ many processes


@settings(deadline=None)
@given(num=st.integers(8, 40), batch_size=st.integers(4, 12), world_size=st.integers(2, 3), train=st.booleans())
def test_the_ranks_share_each_batch_without_overlap(num, batch_size, world_size, train):
    def part(**ranks):
        return epoch(
            make(num, batch_size, train=train, size=16, augment_kind="crop_flip" if train else "none", **ranks)
        )

    whole = part()
    parts = [part(rank=rank, world_size=world_size) for rank in range(world_size)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for tensor, *tensors in zip(batch, *shares, strict=True):
            assert max(map(len, tensors)) - min(map(len, tensors)) <= 1
            for rank, share in enumerate(tensors):
                assert torch.equal(share, tensor[rank::world_size])


# --------------------------------------------------------------------------- images too large for memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_images):
    """A folder of 3 classes: 7 training images and 2 test images of each, 20x16 RGB."""
    root = tmp_path_factory.mktemp("folder")
    names = itertools.product(("train", "test"), ("a", "b", "c"), range(7))
    return write_images(root, {f"{s}/{c}/{i}.png": (20, 16, 3) for s, c, i in names if s == "train" or i < 2})


def folder_images(folder):
    paths = sorted(p.relative_to(folder / "train").as_posix() for p in (folder / "train").rglob("*.png"))
    return FolderImages(folder / "train", paths, 16, 3)


@pytest.mark.parametrize("num_work", [0, 2])
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_streamed_images_come_in_the_same_batches_as_those_in_memory(folder, monkeypatch, num_work, augment):
    flags = f"--dataset folder --data_dir {folder} --image_size 16 --batch_size 4 --valid_size 4 --ny_ratio .5"
    args = experiment_parser("test").parse_args([*flags.split(), f"--num_work={num_work}", f"--augment={augment}"])
    in_memory = get_loaders(args)
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    streamed = get_loaders(args)
    assert [loader.streamed for loader in (*in_memory, *streamed)] == [False] * 3 + [True] * 3
    before = torch.get_rng_state()
    for left, right in zip(in_memory, streamed, strict=True):
        for _ in range(2):
            assert_same_batches(epoch(left), epoch(right))
        for loader in (left, right):  # of most batches this rank has no sample
            loader.rank, loader.world_size = 4, 5
        assert_same_batches(epoch(left), epoch(right))
    assert_same_batches(epoch(in_memory[0].clean()), epoch(streamed[0].clean()))
    assert torch.equal(before, torch.get_rng_state())  # workers draw their seeds from no generator of the run


def test_streamed_images_are_not_kept_in_memory(folder, monkeypatch):
    monkeypatch.setattr(FolderImages, "into_memory", None)
    images = folder_images(folder)
    rows = np.array([4, 9, 20])
    loader = IndexedLoader(images, rows, rows, rows, 2, MEAN, STD, "cpu")
    expected = torch.stack([torch.from_numpy(images.decode_row(row).copy()) for row in rows])
    assert_same_batches(epoch(loader), epoch(IndexedLoader(expected, rows, rows, rows, 2, MEAN, STD, "cpu")))


@pytest.mark.parametrize("num_work", [0, 2])
def test_a_file_found_damaged_while_streaming_is_named(tmp_path, write_images, num_work):
    write_images(tmp_path, {f"{i}.png": (8, 8, 3) for i in range(6)})
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    images = FolderImages(tmp_path, [f"{i}.png" for i in range(6)], 8, 3)
    rows = np.arange(6)
    loader = IndexedLoader(images, rows, rows, rows, 2, MEAN, STD, "cpu", num_workers=num_work)
    with pytest.raises(RunFailure) as found:
        epoch(loader)
    assert str(tmp_path / "4.png") in str(found.value) and "Traceback" not in str(found.value)


class Deadly(FolderImages):
    """A worker that decodes row 4 dies as the system's killer of processes short of memory has it, or raises."""

    ends = "killed"

    def decode_row(self, row):
        if row == 4 and self.ends != "trained":
            if self.ends == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise MemoryError
        return super().decode_row(row)


def read_deadly(folder, ends):
    """A run's life around a loader whose workers die; its exit code is 1 and it ends."""
    images = folder_images(folder)
    images = Deadly(images.root, images.paths, 16, 3)
    images.ends = ends
    rows = np.arange(21)
    loader = IndexedLoader(images, rows, rows, rows, 2, MEAN, STD, "cpu", num_workers=2)
    if ends == "trained":  # the workers are well, and training it is that breaks while they read on
        batches = iter(loader)
        next(batches)
        sys.modules["kept"] = batches  # as a traceback keeps it
        sys.exit(7)
    errors.run_script(lambda: epoch(loader))


@pytest.mark.parametrize("ends, words", [("killed", "--num_work 0"), ("raised", "--batch_size")])
def test_a_worker_that_dies_or_raises_ends_the_run_with_a_message(folder, ends, words, capsys):
    with pytest.raises(SystemExit) as found:
        read_deadly(folder, ends)
    (line,) = capsys.readouterr().err.splitlines()
    assert found.value.code == 1 and line.startswith("error: ") and words in line
    assert not multiprocessing.active_children()


def test_a_process_ends_though_its_workers_read_on(folder):
    """Python would wait for them for ever: they ignore the signal that it ends them with."""
    code = f"import pathlib, tests.data.test_loader as t; t.read_deadly(pathlib.Path({str(folder)!r}), 'trained')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        assert process.wait(120) == 7
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_there_are_as_many_workers_as_processors_up_to_four():
    assert experiment_parser("test").parse_args([]).num_work == min(4, usable_cpus())


# ------------------------------------------------------------------- idx from the flags to the last batch


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--train_size", "500"],
        ["--valid_size", "0"],
        ["--train_size", "333", "--valid_size", "33", "--seed", "3", "--batch_size", "100"],
        ["--ny_ratio", ".4", "--data_seed", "8"],
    ],
)
def test_idx_is_the_row_in_the_training_split_whatever_the_subset_split_and_order(flags):
    args = experiment_parser("test").parse_args(["--dataset", "digits", *flags])
    data = load_data(args)
    train, valid, test = get_loaders(args, data)
    dataset = data.dataset

    def normalised(split, idx):
        return (split.images[idx].permute(0, 3, 1, 2) / 255 - dataset.mean[0]) / dataset.std[0]

    seen = []
    for loader in filter(None, (train, valid)):
        for _ in range(2):
            parts = [torch.cat(parts) for parts in zip(*loader, strict=True)]
            x, y, ny, idx = parts
            assert torch.allclose(x, normalised(dataset.train, idx), atol=1e-5)
            assert np.array_equal(y, data.y[idx]) and np.array_equal(ny, data.ny[idx])
        seen += idx.tolist()
    assert len(seen) == len(set(seen)) == (args.train_size or 1437)
    x, y, ny, idx = [torch.cat(parts) for parts in zip(*test, strict=True)]
    assert torch.equal(y, ny) and np.array_equal(y, dataset.test.labels) and idx.tolist() == list(range(360))
    assert torch.allclose(x, normalised(dataset.test, idx), atol=1e-5)


def test_loaders_of_all_seeds_read_one_copy_of_the_images():
    args = experiment_parser("test").parse_args(["--dataset", "digits", "--seed", "1"])
    first = load_data(args)
    other = experiment_parser("test").parse_args(["--dataset", "digits", "--seed", "2", "--train_size", "500"])
    loaders = [*get_loaders(args, first)[:2], *get_loaders(other, load_data(other, first.dataset))[:2]]
    assert {loader.images.data_ptr() for loader in loaders} == {first.dataset.train.images.data_ptr()}
    assert len({tuple(loader.idx.tolist()) for loader in loaders}) == 4
