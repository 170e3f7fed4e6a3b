"""Runs on real images, as many as it takes to cross every chunk and batch: what the README lists as run is run here."""

import csv
import itertools
import shutil

import numpy as np
import pytest

import evaluate
import main_distill
import main_gen_teacher
from common.files import read_json
from data import refolder_tiny_imagenet
from data.images import FolderImages, chunk_size, mean_and_std
from runs.run_folder import read_args

QUICK = "--net smallcnn --batch_size 50 --epochs 1 --device cpu --amp off".split()


@pytest.fixture(scope="session")
def my_images(real_data, tmp_path_factory):
    """The first 28 training and 2 test images of each of CIFAR-10's classes, as links."""
    folder = tmp_path_factory.mktemp("images") / "my_images"
    for split, count in (("train", 28), ("test", 2)):
        for kind in sorted((real_data / "cifar10_folder" / split).iterdir()):
            (folder / split / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[:count]:
                (folder / split / kind.name / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="session")
def tiny_imagenet(real_data, tmp_path_factory):
    """Eight classes of 50 training images, and their validation images, refoldered from the download's layout."""
    source, folder = real_data / "tiny-imagenet-200", tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    (folder / "val/images").mkdir(parents=True)
    classes = sorted(kind.name for kind in (source / "train").iterdir())[:8]
    lines = (source / "val/val_annotations.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.split("\t")[1] in classes][:20]
    (folder / "val/val_annotations.txt").write_text("\n".join(kept) + "\n")
    for line in kept:
        shutil.copy(source / "val/images" / line.split("\t")[0], folder / "val/images")
    for kind in classes:
        shutil.copytree(source / "train" / kind, folder / "train" / kind)
    shutil.copy(source / "words.txt", folder)
    refolder_tiny_imagenet.main([str(folder)])
    return folder


def figures(run):
    with open(run / "metrics.csv") as f:
        (row,) = csv.DictReader(f)
    return row


# More images than a chunk holds, and few of them trained on: above 64 px with the ImageNet stem and resized crops.
@pytest.mark.parametrize(
    ("dataset", "side", "size", "streamed"),
    [
        ("tinyimagenet", 64, [], False),
        ("tinyimagenet", 64, ["--train_size", "60"], True),
        ("folder", 72, [], True),
        ("folder", 72, ["--train_size", "60"], False),
    ],
)
def test_image_folders_are_trained_on(request, workplace, monkeypatch, dataset, side, size, streamed):
    folder = request.getfixturevalue("my_images" if dataset == "folder" else "tiny_imagenet")
    if streamed:
        monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    flags = ["--dataset", dataset, "--data_dir", str(folder), "--image_size", str(side), "--num_work", "2"]
    run = main_gen_teacher.main([*flags, *size, *QUICK])
    num = read_args(run)["resolved"]["num_samples"]
    assert num > chunk_size((1, side, side, 3))
    with np.load(run / "labels.npz") as labels:
        assert len(labels["idx"]) == (54 if size else num * 9 // 10)
    assert 0 < float(figures(run)["train_loss"]) < 4


def test_the_commands_of_the_readme_for_ones_own_images(my_images, workplace):
    flags = ["--dataset", "folder", "--data_dir", str(my_images), "--image_size", "32", "--train_size", "60", *QUICK]
    run = main_gen_teacher.main(flags)
    out = evaluate.main([str(run), "--device", "cpu", "--amp", "off"])
    assert read_json(out / "metrics.json")["test_samples"] == 20
    out = evaluate.main([str(run), "--device", "cpu", "--images", str(my_images / "test"), "--out", "predictions.csv"])
    with open(out) as f:
        files = [row["file"] for row in csv.DictReader(f)]
    assert len(files) == 20 and files == sorted(files)


def test_teacher_and_student_on_an_npz_of_several_chunks(real_data, workplace):
    rows = 3000  # chunks of 1365 at 32 px
    with np.load(real_data / "cifar10.npz") as f:
        arrays = {key: f[key] if key == "class_names" else f[key][: rows if "train" in key else 50] for key in f}
    np.savez("cifar10.npz", **arrays)
    flags = ["--dataset", "npz", "--data_dir", "cifar10.npz", "--train_size", "100", "--ny_ratio", "0.4", *QUICK]
    teacher = main_gen_teacher.main(flags)
    mean = arrays["train_images"].mean((0, 1, 2), dtype=np.float64) / 255
    assert read_args(teacher)["resolved"]["mean"] == pytest.approx(mean, abs=5e-5 + 1e-9)
    for kind in ("table", "net"):
        student = main_distill.main(["--teach_path", str(teacher), "--teach_type", kind, *QUICK])
        assert np.isfinite(float(figures(student)["test_loss"]))


def test_resnet18_is_trained_for_an_epoch_on_cifar_images(real_data, workplace):
    with np.load(real_data / "cifar10.npz") as f:
        np.savez("few.npz", **{key: f[key] if key == "class_names" else f[key][:40] for key in f})
    flags = ["--dataset", "npz", "--data_dir", "few.npz", "--batch_size", "18", "--epochs", "1", "--device", "cpu"]
    run = main_gen_teacher.main([*flags, "--amp", "off", "--net", "resnet18"])
    assert np.isfinite(float(figures(run)["test_loss"]))


@pytest.mark.parametrize(("in_memory", "num"), [*itertools.product([True, False], [1, 7, 9, 11])])
def test_mean_and_deviation_of_any_number_of_chunks(tmp_path, write_images, monkeypatch, in_memory, num):
    """Chunks of three images: one, exactly three, and more."""
    monkeypatch.setattr("data.images.chunk_size", lambda shape: 3)
    write_images(tmp_path, {f"{i:02}.png": (4, 4, 3) for i in range(num)})
    images = FolderImages(tmp_path, [f"{i:02}.png" for i in range(num)], 4, 3)
    pixels = images.decode_rows(np.arange(num)).astype(np.float64) / 255
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: in_memory)
    mean, std = mean_and_std(images)
    assert mean == pytest.approx(pixels.mean((0, 1, 2)), abs=6e-5)
    assert std == pytest.approx(pixels.std((0, 1, 2)), abs=6e-5)


@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_images_are_found_in_every_chunk(tmp_path, write_images, monkeypatch, in_memory):
    monkeypatch.setattr("data.images.chunk_size", lambda shape: 3)
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: in_memory)
    write_images(tmp_path, {f"{i:02}.png": (4, 4, 3) for i in range(10)})
    for i in (0, 4, 5, 9):
        (tmp_path / f"{i:02}.png").write_text("no image")
    images = FolderImages(tmp_path, [f"{i:02}.png" for i in range(10)], 4, 3, skip_bad=True)
    assert images.usable.tolist() == [1, 2, 3, 6, 7, 8]
    assert np.array_equal(images.into_memory(images.usable)[7], images.decode_row(7))
    mean_and_std(images)
