"""data/refolder_tiny_imagenet.py: every image ends in its class folder, or nothing has moved."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import BadInput
from data import refolder_tiny_imagenet
from data.refolder_tiny_imagenet import refolder

SCRIPT = Path(refolder_tiny_imagenet.__file__)
CLASSES = ("n01", "n02", "n03")
ANNOTATIONS = "val/val_annotations.txt"


@pytest.fixture
def tree(tmp_path):
    """Three classes with two training images each, five validation images, a test folder."""
    root = tmp_path / "tiny-imagenet-200"
    for name in CLASSES:
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("boxes\n")
        for i in range(2):
            (root / "train" / name / "images" / f"{name}_{i}.JPEG").write_text(f"{name} {i}")
    for folder in ("val/images", "test/images"):
        (root / folder).mkdir(parents=True)
    lines = []
    for i in range(5):
        (root / "val/images" / f"val_{i}.JPEG").write_text(f"val {i}")
        lines.append(f"val_{i}.JPEG\t{CLASSES[i % 3]}\t0\t1\t62\t63\n")
    (root / ANNOTATIONS).write_text("".join(lines))
    (root / "test/images/test_0.JPEG").write_text("test 0")
    return root


def contents(root):
    """{path: text} of all files, {path: None} of all folders: two equal trees have equal contents."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def assert_refused(tree, *expected):
    """refolder refuses with a message in which each expected text occurs, and nothing has changed."""
    before = contents(tree)
    with pytest.raises(BadInput) as error:
        refolder(tree)
    assert contents(tree) == before
    for text in expected:
        assert text in str(error.value)


def test_images_go_to_their_class_folders_and_all_else_stays(tree):
    before = contents(tree)
    assert refolder(tree) == (11, 3)
    after = contents(tree)
    for name in CLASSES:
        assert sorted(os.listdir(tree / "train" / name)) == [f"{name}_0.JPEG", f"{name}_1.JPEG", f"{name}_boxes.txt"]
    assert {path: after[path] for path in after if path.startswith("val/n")} == {
        "val/n01": None,
        "val/n01/val_0.JPEG": b"val 0",
        "val/n01/val_3.JPEG": b"val 3",
        "val/n02": None,
        "val/n02/val_1.JPEG": b"val 1",
        "val/n02/val_4.JPEG": b"val 4",
        "val/n03": None,
        "val/n03/val_2.JPEG": b"val 2",
    }
    assert not (tree / "val/images").exists()
    kept = [path for path in before if path.startswith("test") or path.endswith(".txt")]
    assert all(after[path] == before[path] for path in kept)


def test_a_second_run_moves_nothing(tree):
    refolder(tree)
    after = contents(tree)
    assert refolder(tree) == (0, 3)
    assert contents(tree) == after


def test_an_interrupted_refolder_is_finished_by_a_second_run(tree, tmp_path, monkeypatch):
    done = tmp_path / "done"
    shutil.copytree(tree, done)
    refolder(done)
    interruptions = 0
    for steps in range(100):
        copy, left = tmp_path / f"copy_{steps}", [steps]
        shutil.copytree(tree, copy)

        def interruptible(step, left=left):
            def take(*args, **kwargs):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return step(*args, **kwargs)

            return take

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", interruptible(os.rename))
            patch.setattr(os, "mkdir", interruptible(os.mkdir))
            patch.setattr(os, "rmdir", interruptible(os.rmdir))
            try:
                refolder(copy)
            except KeyboardInterrupt:
                interruptions += 1
            else:
                break
        refolder(copy)
        assert contents(copy) == contents(done)
    assert interruptions >= 11 + 4  # before each move and each removed folder


def test_an_images_folder_with_something_else_in_it_is_kept(tree):
    (tree / "train/n01/images/notes.txt").write_text("mine")
    (tree / "val/images/._val_0.JPEG").write_text("left by another system")
    assert refolder(tree) == (11, 3)
    assert os.listdir(tree / "train/n01/images") == ["notes.txt"]
    assert os.listdir(tree / "val/images") == ["._val_0.JPEG"]


def test_a_listed_image_that_is_missing_stops_everything(tree):
    (tree / "val/images/val_3.JPEG").unlink()
    assert_refused(tree, "val_3.JPEG")


def test_an_image_in_the_wrong_class_folder_counts_as_missing(tree):
    (tree / "val/n02").mkdir()
    (tree / "val/images/val_0.JPEG").rename(tree / "val/n02/val_0.JPEG")
    assert_refused(tree, "val_0.JPEG")


def test_an_unlisted_image_stops_everything(tree):
    (tree / "val/images/holiday.JPEG").write_text("mine")
    assert_refused(tree, "holiday.JPEG")


@pytest.mark.parametrize("place", ["train/n02/n02_1.JPEG", "val/n02/val_1.JPEG"])
def test_a_place_that_is_taken_stops_everything(tree, place):
    (tree / place).parent.mkdir(exist_ok=True)
    (tree / place).write_text("another image")
    assert_refused(tree, place)


@pytest.mark.parametrize(
    "line",
    ["val_4.JPEG n02", "val_4.JPEG\t", "../val_4.JPEG\tn02", "val_4.JPEG\tn99", "val_4.JPEG\t../n02", "\0\xff\tn01"],
)
def test_a_wrong_annotation_stops_everything(tree, line):
    lines = (tree / ANNOTATIONS).read_text().splitlines()
    (tree / ANNOTATIONS).write_text("\n".join([*lines[:4], line]), encoding="latin-1")
    assert_refused(tree, "val_annotations.txt")


def test_missing_annotations_stop_everything(tree):
    (tree / ANNOTATIONS).unlink()
    assert_refused(tree, "val_annotations.txt")


def test_the_command_prints_the_count_and_the_folder(tree):
    def run(*arguments, cwd=tree.parent):
        return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=cwd, capture_output=True, text=True)

    stray = tree / "val/images/stray.JPEG"
    stray.write_text("mine")
    refused = run(str(tree))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: ") and "stray.JPEG" in refused.stderr
    stray.unlink()

    first = run(str(tree.parent))
    assert (first.returncode, first.stderr) == (0, "")  # no progress bar: this is no terminal
    counts, folder = first.stdout.splitlines()
    assert re.findall(r"\d+", counts) == ["11", "3"] and folder == str(tree)  # images moved, classes
    assert re.findall(r"\d+", run(str(tree)).stdout.splitlines()[0]) == ["0", "3"]

    (tree.parent / "datasets").mkdir()
    tree.rename(tree.parent / "datasets" / tree.name)
    assert run().stdout.splitlines()[-1] == "datasets/tiny-imagenet-200"
    nowhere = run("nowhere")
    assert nowhere.returncode == 2 and "nowhere" in nowhere.stderr


def test_the_real_subset_becomes_class_folders(tmp_path):
    data = os.environ.get("TEST_DATA_DIR")
    if not data or not (Path(data) / "tiny-imagenet-200/val/images").is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with tiny-imagenet-200 in it, as downloaded")
    root = tmp_path / "tiny-imagenet-200"
    shutil.copytree(Path(data) / "tiny-imagenet-200", root)
    labels = dict(line.split("\t")[:2] for line in (root / ANNOTATIONS).read_text().splitlines())
    images = sum(1 for _ in root.glob("train/*/images/*.JPEG"))
    assert refolder(root) == (images + len(labels), 200)
    assert sum(1 for _ in root.glob("train/*/*.JPEG")) == images
    assert {path.name: path.parent.name for path in root.glob("val/*/*.JPEG")} == labels
    assert not list(root.glob("train/*/images")) and not (root / "val/images").exists()
    assert refolder(root) == (0, 200)
