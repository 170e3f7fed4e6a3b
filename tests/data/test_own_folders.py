"""Image folders as people have them: without splits, with what other programs left in them, on any file system."""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
import main_distill
import main_gen_path
import main_gen_teacher
from common import errors
from common.errors import BadInput
from data.datasets import VALIDATION, open_dataset
from data.images import decode
from paths import loose_files
from runs.recorded_run import open_run
from runs.run_folder import read_args
from utils import experiment_parser

REPOSITORY = Path(evaluate.__file__).parent
QUICK = "--image_size 8 --net smallcnn --batch_size 10 --epochs 1 --device cpu --amp off --num_work 0".split()


def args_of(folder, *flags):
    return experiment_parser("test").parse_args(["--dataset", "folder", "--data_dir", str(folder), *QUICK, *flags])


def opened(folder, *flags):
    return open_dataset(args_of(folder, *flags))


@pytest.fixture
def animals(tmp_path, write_images):
    """40 images of ants and 40 of bees, without splits."""
    return write_images(tmp_path / "animals", {f"{k}/{i:02}.png": (8, 8, 3) for k in ("ant", "bee") for i in range(40)})


@pytest.fixture
def split(tmp_path, write_images):
    """train/ and test/, two classes of 12 and 3 images."""
    sizes = {"train": 12, "test": 3}
    names = [f"{part}/{k}/{i}.png" for part, n in sizes.items() for k in ("ant", "bee") for i in range(n)]
    return write_images(tmp_path / "split", {name: (8, 8, 3) for name in names})


def refusal(call):
    with pytest.raises(BadInput) as found:
        call()
    return str(found.value)


# ------------------------------------------------------------------------------------- folders without splits


def sides(dataset):
    return {"train": set(dataset.train.images.paths), "test": set(dataset.test.images.paths)}


def test_a_hash_of_the_bytes_decides_what_is_tested_on(animals):
    dataset = opened(animals, "--test_size", "0.3")
    files = sorted(p.relative_to(animals).as_posix() for p in animals.rglob("*.png"))
    digest = {file: hashlib.sha256((animals / file).read_bytes()).digest() for file in files}
    test = [file for file in files if int.from_bytes(digest[file][:8], "big") / 2**64 < 0.3]
    assert dataset.test.images.paths == test and 10 < len(test) < 40
    assert dataset.train_paths == [file for file in files if file not in test]
    assert dataset.train.labels.tolist() == [int(file.startswith("bee")) for file in dataset.train_paths]
    assert dataset.class_names == ["ant", "bee"] and dataset.valid is None


def test_a_corrected_label_and_a_duplicate_move_nothing_between_training_and_test(animals):
    before = sides(opened(animals))
    for side, other in (("train", "again.png"), ("test", "once more.png")):
        moved = min(before[side])
        (animals / moved).rename(animals / "bee" / f"corrected {side}.png")
        shutil.copy(animals / "bee" / f"corrected {side}.png", animals / "ant" / other)
        before[side] = before[side] - {moved} | {f"bee/corrected {side}.png", f"ant/{other}"}
    assert sides(opened(animals)) == before


def test_a_larger_share_adds_to_the_test_set(animals):
    assert sides(opened(animals, "--test_size", ".1"))["test"] < sides(opened(animals, "--test_size", ".4"))["test"]


def test_teacher_student_path_and_evaluation_share_the_split(animals, workplace, capsys):
    teacher = main_gen_teacher.main(["--dataset", "folder", "--data_dir", str(animals), "--test_size", ".4", *QUICK])
    num_test = read_args(teacher)["resolved"]["num_samples"]
    student = main_distill.main(["--teach_path", str(teacher), "--teach_type", "table", *QUICK])
    assert read_args(student)["test_size"] == 0.4
    assert (
        read_args(student)["resolved"]["num_samples"]
        == num_test
        == len(opened(animals, "--test_size", ".4").train_paths)
    )
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: main_distill.main(["--teach_path", str(teacher), "--test_size", ".3", *QUICK]))
    assert found.value.code == 2
    evaluate.main([str(student), "--device", "cpu"])
    run = main_gen_path.main(["--dataset", "folder", "--data_dir", str(animals), *QUICK])
    recorded = open_run(run)
    assert all((animals / file).is_file() for file in recorded.files) and recorded.images([0]) is not None


BAD_SPLITS = {
    "nothing to test on": ((), ("--test_size", "1e-6"), "--test_size"),
    "a class all tested on": (("cow/0.png",), ("--test_size", "0.9"), "cow"),
    "an empty class": (("cow/notes.txt",), (), "cow"),
    "Training": (("Training/ant/0.png",), (), "Training/"),
    "test alone": (("test/ant/0.png",), (), "train/"),
    "dev alone": (("dev/ant/0.png",), (), "train/"),
    "train alone": (("train/ant/0.png",), (), "train/"),
}


@pytest.mark.parametrize(("names", "flags", "says"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_a_folder_that_cannot_be_split_is_told(animals, write_images, names, flags, says):
    for name in names:
        if name.endswith("txt"):
            (animals / name).parent.mkdir()
            (animals / name).write_text("")
        else:
            write_images(animals, {name: (8, 8, 3)})
    assert says in refusal(lambda: opened(animals, *flags))


def test_test_size_is_for_folders_without_splits_alone(split):
    assert "--test_size" in refusal(lambda: opened(split, "--test_size", ".3"))
    assert "--test_size" in refusal(
        lambda: open_dataset(experiment_parser("t").parse_args("--dataset digits --test_size .3".split()))
    )


@pytest.mark.parametrize("name", VALIDATION)
@pytest.mark.parametrize("with_test", [True, False])
def test_a_validation_folder_is_used_under_its_usual_names(split, name, with_test):
    shutil.copytree(split / "test", split / name)
    if not with_test:
        shutil.rmtree(split / "test")
    dataset = opened(split)
    used = dataset.valid if with_test else dataset.test
    assert used.images.root == split / name and len(used.labels) == 6
    assert (dataset.valid is None) != with_test and not dataset.notes


def test_a_second_validation_folder_is_named_as_unused(split):
    for name in ("val", "dev"):
        shutil.copytree(split / "test", split / name)
    dataset = opened(split)
    assert dataset.valid.images.root == split / "val"
    assert ["dev/" in note for note in dataset.notes] == [True]


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path):
    for dataset in ("folder", "tinyimagenet"):
        args = args_of(tmp_path / "nowhere")
        args.dataset = dataset
        assert f"--data_dir {args.data_dir}" in refusal(lambda args=args: open_dataset(args))


@pytest.mark.parametrize("kind", ["animals", "split", "flat", "npz"])
def test_ones_own_data_without_dataset_says_what_to_add(request, workplace, tmp_path, write_images, capsys, kind):
    if kind == "npz":
        path = tmp_path / "set.npz"
        np.savez(path, x=1)
    else:
        path = (
            write_images(tmp_path, {"flat/1.jpg": (8, 8, 3)}) / "flat"
            if kind == "flat"
            else request.getfixturevalue(kind)
        )
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: main_gen_teacher.main(["--data_dir", str(path), "--device", "cpu", "--check"]))
    assert found.value.code == 2
    assert f"--dataset {'npz' if kind == 'npz' else 'folder'}" in capsys.readouterr().err


def test_a_folder_with_something_else_in_it_can_be_downloaded_to(workplace, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "data").mkdir()
    main_gen_teacher.main(["--data_dir", str(tmp_path), "--device", "cpu", "--check"])  # CIFAR-10, and no mistake


# ----------------------------------------------------------------------------- what other programs leave behind

LEFT_BEHIND = [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", ".git", "$RECYCLE.BIN", "#recycle"]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_hidden_folders_are_no_classes_and_hold_no_images(animals, split, write_images, name):
    expected = [opened(folder) for folder in (animals, split)]
    for place in (animals, animals / "ant", split / "train", split / "test", split / "train/bee"):
        write_images(place, {f"{name}/0-checkpoint.png": (8, 8, 3), f"{name}/deep/1.png": (8, 8, 3)})
    for folder, before in zip((animals, split), expected, strict=True):
        found = opened(folder)
        assert (found.class_names, found.train_paths) == (before.class_names, before.train_paths)
        assert found.test.images.paths == before.test.images.paths
    assert evaluate.images_below(animals / "ant") == [f"{i:02}.png" for i in range(40)]
    assert loose_files._images(animals, 80)[1] == sorted(f"{k}/{i:02}.png" for k in ("ant", "bee") for i in range(40))


@pytest.mark.parametrize("depth", ["train", "train/ant", "train/ant/deep"])
def test_links_to_elsewhere_are_followed_at_any_depth(split, tmp_path, write_images, depth):
    write_images(tmp_path / "elsewhere", {f"{'ant/' if depth == 'train' else ''}x{i}.png": (8, 8, 3) for i in range(3)})
    (split / depth).mkdir(exist_ok=True)
    target = tmp_path / "elsewhere"
    link = split / "train/ant/more" if depth != "train" else split / "train/more"
    if depth == "train/ant/deep":
        link = split / depth / "more"
    link.symlink_to(target)
    if depth == "train":
        (split / "test/more").mkdir()
    found = opened(split)
    assert found.num_train == 24 + 3 and sum("x" in file.rsplit("/", 1)[1] for file in found.train_paths) == 3


def test_links_without_end_end_and_are_told(split, tmp_path, write_images):
    write_images(tmp_path / "elsewhere", {"x.png": (8, 8, 3)})
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    (split / "train/ant/more").symlink_to(tmp_path / "elsewhere")
    (split / "train/bee/ants").symlink_to("../ant")
    found = opened(split)
    assert found.num_train == 25
    assert sum("link" in note for note in found.notes) == 1


def test_a_folder_that_cannot_be_read_is_told(split, monkeypatch):
    scandir = os.scandir
    (split / "train/ant/deep").mkdir()

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "train/ant/deep" in refusal(lambda: opened(split))


def test_files_passed_over_are_counted_and_shown(split, write_images, workplace, capsys):
    for name in ("train/ant/a.heic", "train/ant/b.heic", "train/bee/notes.txt", "test/ant/README"):
        (split / name).write_text("")
    write_images(split, {"train/loose.png": (8, 8, 3)})
    main_gen_teacher.main(["--dataset", "folder", "--data_dir", str(split), *QUICK, "--check"])
    said = capsys.readouterr().out
    (train,) = [line for line in said.splitlines() if ".heic" in line]
    assert f"{split}/train" in train and re.findall(r" (\d+)", train) == ["3", "2", "1"]  # all, .heic, .txt
    assert any(f"{split}/test" in line and " 1 " in line for line in said.splitlines())
    (split / "train/bee").rename(split / "bee")
    (split / "train/bee").mkdir()
    (split / "train/bee/x.heic").write_text("")
    assert ".heic" in refusal(lambda: opened(split))  # a class without images: the reason is told with it


def test_a_class_that_is_not_trained_on_is_told(split, write_images, workplace, capsys):
    write_images(split, {"train/cow/0.png": (8, 8, 3)})
    flags = ["--dataset", "folder", "--data_dir", str(split), *QUICK, "--check", "--valid_size"]
    for size, told in (("1", 1), ("0", 0)):
        seeds = range(40)  # with one of 25 held out the cow is, for some seed
        said = [
            main_gen_teacher.main([*flags, size, "--data_seed", str(seed)]) or capsys.readouterr().out for seed in seeds
        ]
        assert any("cow" in text for text in said) == told


# ------------------------------------------------------------------------------------------------- file names


def test_a_name_in_two_unicode_forms_is_one_class(split):
    nfd = unicodedata.normalize("NFD", "é")
    (split / "train/ant").rename(split / "train" / nfd)
    (split / "test/ant").rename(split / "test" / "é")
    dataset = opened(split)
    assert dataset.class_names == ["bee", "é"] and dataset.test.labels.tolist() == [0] * 3 + [1] * 3 or nfd < "bee"
    assert np.array_equal(np.bincount(dataset.test.labels), [3, 3])
    assert [dataset.class_names[k] == "é" for k in dataset.train.labels] == [
        p.startswith("e") for p in dataset.train_paths
    ]
    shutil.copytree(split / "train" / nfd, split / "train" / "é")
    assert f"--data_dir {split}/train" in refusal(lambda: opened(split))


# --------------------------------------------------------------------------------- metadata and orientation

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize(("ending", "bits"), [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("webp", 8)])
def test_orientation_is_honoured_whatever_the_depth(tmp_path, ending, bits):
    pixels = PIXELS.astype(np.uint16) * 257 if bits == 16 else PIXELS
    exif = Image.Exif()
    exif[0x0112] = 6  # held turned by 90 degrees: the camera's row 0 is the right-hand column
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"x.{ending}", exif=exif, **lossless)
    for channels in (1, 3):
        assert np.array_equal(decode(tmp_path / f"x.{ending}", 8, channels)[..., 0], np.rot90(PIXELS, -1))


def orientation(kind, value):
    """An EXIF block of one entry: big-endian TIFF, tag 0x0112 of this kind, a value of four bytes, no next block."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12" + kind + b"\0\0\0\x01" + value + b"\0\0\0\0"


DAMAGED_EXIF = {
    "no header": b"Exif\0\0garbage that is no TIFF",
    "cut off": orientation(b"\0\x03", b"\0\x06\0\0")[:20],
    "text for a number": orientation(b"\0\x02", b"ab\0\0"),
    "no such orientation": orientation(b"\0\x03", b"\0\x63\0\0"),
}


@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_good_image_with_damaged_metadata_is_read(tmp_path, exif, ending):
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / f"x.{ending}", exif=exif)
    assert np.abs(decode(tmp_path / f"x.{ending}", 8, 3).astype(int) - 200).max() <= 2


def test_damaged_metadata_is_no_warning(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=DAMAGED_EXIF["cut off"])
    code = "import sys; from data.images import decode; decode(sys.argv[1], 8, 3)"
    command = [sys.executable, "-c", code, str(tmp_path / "x.jpg")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
