"""Images in memory, in a cache or in their files: the same pixels; a cache that is whole, shared and of this data."""

import errno
import os

import numpy as np
import pytest
import torch

import main_distill
import main_gen_teacher
from common.errors import BadInput
from data import cached
from data.images import FolderImages, crop_row
from runs.teacher import Teacher
from tests.faults.calls import call
from tests.faults.test_full_disk import Disk
from utils import experiment_parser, get_loaders, load_data

QUICK = "--net smallcnn --batch_size 20 --lr .05 --scheduler multi --device cpu --amp off --num_work 0".split()


@pytest.fixture
def folder(tmp_path, write_images):
    """Three classes of 20 training and 3 test images, of sizes of their own."""
    sizes = {f"train/{c}/{i}.png": (24 + i, 30, 3) for c in "abc" for i in range(20)}
    return write_images(
        tmp_path / "images", {**sizes, **{f"test/{c}/{i}.png": (20, 16, 3) for c in "abc" for i in range(3)}}
    )


def args_of(folder, *flags):
    where = ["--dataset", "folder", "--data_dir", str(folder), "--image_size", "16", "--batch_size", "7"]
    return experiment_parser("test").parse_args([*where, "--num_work", "0", *flags])


def batches(loaders, epochs=2):
    return [batch for loader in loaders for _ in range(epochs) for batch in loader]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def cache_of(folder, split="train"):
    return folder / split / cached.FOLDER / "16x16x3.npy"


# ------------------------------------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("num_work", ["0", "2"])
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_every_backend_serves_the_same_batches(folder, num_work, augment):
    flags = ["--augment", augment, "--num_work", num_work, "--data_backend"]
    memory, cache, files = (get_loaders(args_of(folder, *flags, kind)) for kind in ("memory", "cache", "files"))
    assert [loader.streamed for loader in (*memory, *files)] == [False] * 3 + [True] * 3
    expected = batches(memory)
    assert_same(batches(cache), expected)
    assert_same(batches(files), expected)


def test_real_images_are_evaluated_alike_by_every_backend(real_data, tmp_path):
    for split in ("train", "test"):
        for kind in sorted((real_data / "cifar10_folder" / split).iterdir())[:3]:
            (tmp_path / split / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[:150]:
                (tmp_path / split / kind.name / file.name).symlink_to(file)
    flags = ["--image_size", "48", "--data_backend"]  # 450 images: more than a chunk, and than a batch
    _, _, test = get_loaders(args_of(tmp_path, *flags, "memory"))
    for kind in ("cache", "files"):
        assert_same(batches(get_loaders(args_of(tmp_path, *flags, kind))[2:], 1), batches([test], 1))


def test_a_run_is_resumed_bit_for_bit_with_another_backend(folder, workplace):
    def run(name, *flags):
        data = ["--dataset", "folder", "--data_dir", str(folder), "--image_size", "16", "--run_name", name]
        return main_gen_teacher.main([*data, *QUICK, *flags])

    whole = run("whole", "--epochs", "2", "--data_backend", "memory")
    run("stopped", "--epochs", "1", "--data_backend", "files")
    stopped = run("stopped", "--epochs", "2", "--resume", "--data_backend", "cache")
    assert np.array_equal(np.load(whole / "epoch_1.npy"), np.load(stopped / "epoch_1.npy"))


# --------------------------------------------------------------------------------------------- which of them


@pytest.mark.parametrize(
    "fits, room, expected", [(True, True, "memory"), (False, True, "cache"), (False, False, "files")]
)
def test_auto_takes_the_first_that_there_is_room_for(folder, monkeypatch, fits, room, expected):
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: fits)
    usage = cached.shutil.disk_usage(folder)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda place: usage._replace(free=10**12 if room else 10))
    train, _, _ = get_loaders(args_of(folder))
    assert train.streamed == (expected != "memory")
    assert cache_of(folder).exists() == (expected == "cache")


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--dataset", "digits", "--data_backend", "cache"], "--data_backend cache"),
        (["--dataset", "digits", "--augment", "resized_crop"], "--augment resized_crop"),
        (["--data_backend", "cache", "--augment", "resized_crop"], "--data_backend"),
        (["--data_backend", "files", "--cache_dir", "x"], "--cache_dir x"),
    ],
)
def test_flags_that_do_not_go_together_are_told(folder, workplace, refused, flags, named):
    data = [] if "digits" in flags else ["--dataset", "folder", "--data_dir", str(folder)]
    refused(lambda: main_gen_teacher.main([*data, *QUICK, *flags]), named)
    assert not any(workplace.iterdir())


def test_too_little_memory_is_told_where_memory_is_asked_for(folder, monkeypatch, refused):
    monkeypatch.setattr("data.images.available_memory", lambda: 1000)
    refused(lambda: get_loaders(args_of(folder, "--data_backend", "memory")), "--data_backend memory")


# ------------------------------------------------------------------------------------------------ the cache


def test_a_cache_is_made_once_and_shared(folder, tmp_path, monkeypatch):
    flags = ["--data_backend", "cache", "--cache_dir", str(tmp_path / "caches")]
    expected = batches(get_loaders(args_of(folder, *flags)))
    assert sorted(file.name for file in (tmp_path / "caches").iterdir()) == [
        f"images_{split}_16x16x3.{ending}" for split in ("test", "train") for ending in ("json", "npy")
    ]
    assert np.load(tmp_path / "caches" / "images_train_16x16x3.npy", mmap_mode="r").shape == (60, 16, 16, 3)
    assert not cache_of(folder).parent.exists()
    monkeypatch.setattr(FolderImages, "decode_row", None)
    assert_same(batches(get_loaders(args_of(folder, *flags, "--valid_size", ".1"))), expected)


def test_a_folder_without_splits_has_a_cache_of_each_part_and_share(tmp_path, write_images):
    root = write_images(tmp_path / "images", {f"{c}/{i}.png": (16, 16, 3) for c in "ab" for i in range(40)})
    for share in ("0.2", "0.5"):
        flags = ["--test_size", share, "--data_backend"]
        memory, made, found = (batches(get_loaders(args_of(root, *flags, k))) for k in ("memory", "cache", "cache"))
        assert_same(made, memory)
        assert_same(found, memory)
    assert len(list((root / cached.FOLDER).glob("*.npy"))) == 4


@pytest.mark.parametrize("what", ["changed", "renamed", "added"])
def test_a_cache_of_other_data_is_refused(folder, write_images, refused, what):
    get_loaders(args_of(folder, "--data_backend", "cache"))
    file = folder / "train" / "b" / "7.png"
    if what == "changed":
        write_images(folder, {"train/b/7.png": (40, 40, 3)})
    elif what == "renamed":
        file.rename(file.with_name("77.png"))
    else:
        write_images(folder, {"train/b/new.png": (40, 40, 3)})
    refused(lambda: get_loaders(args_of(folder, "--data_backend", "cache")), str(cache_of(folder)))


def test_a_full_disk_leaves_nothing(folder, workplace, monkeypatch):
    disk = Disk(folder, monkeypatch)
    disk.is_full = lambda name, writes: name == "16x16x3.npy"
    flags = ["--dataset", "folder", "--data_dir", str(folder), "--image_size", "16", "--data_backend", "cache"]
    code, _, err = call("main_gen_teacher", [*flags, *QUICK, "--epochs", "1"], workplace)
    (line,) = err.splitlines()
    assert code == 1 and str(cache_of(folder)) in line and os.strerror(errno.ENOSPC) in line
    assert not cache_of(folder).parent.exists() and not any(workplace.iterdir())


def test_what_a_kill_left_half_written_is_made_anew(folder):
    cache_of(folder).parent.mkdir()
    cache_of(folder).with_name("16x16x3.npy.partial").write_bytes(b"x" * 100_000)
    loaders = get_loaders(args_of(folder, "--data_backend", "cache"))
    assert_same(batches(loaders), batches(get_loaders(args_of(folder, "--data_backend", "memory"))))
    assert sorted(file.name for file in cache_of(folder).parent.iterdir()) == ["16x16x3.json", "16x16x3.npy"]


def test_images_that_cannot_be_read_are_told_or_left_out_as_without_a_cache(folder, refused, monkeypatch):
    (folder / "train" / "a" / "3.png").write_bytes(b"no image")
    refused(lambda: get_loaders(args_of(folder, "--data_backend", "cache")), "3.png")
    assert not cache_of(folder).parent.exists()
    expected = batches(get_loaders(args_of(folder, "--skip_bad", "--data_backend", "memory")))
    for _ in range(2):  # made, then read
        assert_same(batches(get_loaders(args_of(folder, "--skip_bad", "--data_backend", "cache"))), expected)
        monkeypatch.setattr(FolderImages, "decode_row", None)
    refused(lambda: get_loaders(args_of(folder, "--data_backend", "cache")), "3.png")


# -------------------------------------------------------------------------------- crops of the files themselves


def test_crops_follow_from_the_generator_alone_whatever_reads_them(folder):
    flags = ["--augment", "resized_crop", "--num_work"]
    before = torch.get_rng_state()
    one, other = (get_loaders(args_of(folder, *flags, workers)) for workers in ("0", "2"))
    first = batches(one[:1], 1)
    assert_same(batches(other[:1], 1), first)
    second = batches(one[:1], 1)
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(batches(one[2:], 1), batches(get_loaders(args_of(folder, "--data_backend", "memory"))[2:], 1))


def test_a_crop_is_cut_out_of_the_whole_file_and_mirrored_half_of_the_time(tmp_path, write_images):
    across = np.broadcast_to(
        np.arange(240, dtype=np.uint8)[None, :, None], (120, 240, 3)
    )  # as bright as it is far left
    write_images(tmp_path, {"0.png": np.ascontiguousarray(across)})
    crops = [crop_row(FolderImages(tmp_path, ["0.png"], 8, 3), 0, seed).float() for seed in range(300)]
    assert all(crop.shape == (8, 8, 3) for crop in crops)
    left = torch.stack([crop[:, :, 0].mean(0) for crop in crops])  # by column
    mirrored = (left[:, 0] > left[:, -1]).float().mean()
    assert 0.4 < mirrored < 0.6
    assert left.min() < 10 and left.max() > 229  # beyond the centre, which is 60 to 180
    width = (left[:, -1] - left[:, 0]).abs() * 8 / 7
    assert width.min() > 35 and width.max() < 210  # areas of .08 to 1 of 120 x 240, aspects of 3/4 to 4/3


# ------------------------------------------------------------------------------------ idx and the list of files


def test_a_teacher_of_other_files_is_refused_though_the_labels_are_the_same(folder, workplace, refused):
    data = ["--dataset", "folder", "--data_dir", str(folder), "--image_size", "16"]
    run = main_gen_teacher.main([*data, *QUICK, "--epochs", "1"])
    file = folder / "train" / "b" / "7.png"
    file.rename(file.with_name("00.png"))  # the order of class b is another one, its labels are not
    args = main_distill.make_parser().parse_args(["--batch_size", "7"])
    teacher = Teacher(run, "table", "best_acc")
    teacher.pass_on_settings(args)
    refused(lambda: teacher.check_data(load_data(args)), "files")
    with pytest.raises(BadInput, match="paths_sha256"):
        main_gen_teacher.main([*data, *QUICK, "--epochs", "2", "--resume"])
