"""data/datasets.py and data/images.py: where images and clean labels come from."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from common.errors import BadInput, NeedsDownload
from data import images as images_module
from data.datasets import CIFAR_MEAN, CIFAR_STD, Dataset, Split, fingerprint
from data.images import FolderImages, decode, mean_and_std
from data.refolder_tiny_imagenet import refolder

# --------------------------------------------------------------------------------------------- digits


@pytest.fixture(scope="module")
def digits(opened):
    return opened("digits").load()


def test_digits_are_1437_training_and_360_test_images_stratified(digits):
    assert (digits.num_train, len(digits.test.labels), digits.valid) == (1437, 360, None)
    assert digits.train.images.shape == (1437, 8, 8, 1) and digits.train.images.dtype == torch.uint8
    whole = np.bincount(np.concatenate([digits.train.labels, digits.test.labels]))
    assert whole.sum() == 1797
    assert np.abs(np.bincount(digits.test.labels) - whole * 360 / 1797).max() < 1


def test_the_split_of_digits_is_fixed(digits):
    # the rows that tables and label files of digits refer to: these must not change from version to version
    assert fingerprint(digits.train.labels)[:16] == "c1281028e5251b91"
    pixels = hashlib.sha256(digits.train.images.numpy().tobytes()).hexdigest()
    assert pixels[:16] == "c55533fa45b670a4"


def test_digits_are_normalised_by_their_training_images(digits):
    digits.measure()
    pixels = digits.train.images.double() / 255
    assert digits.mean == (round(pixels.mean().item(), 4),)
    assert digits.std == (round(pixels.std(correction=0).item(), 4),)


# ------------------------------------------------------------------------------------------------ npz


@pytest.fixture
def npz(tmp_path, opened):
    """npz(**changes) -> Dataset of a good file, with some of its arrays changed, or left out (None)."""

    def make(**changes):
        rng = np.random.default_rng(0)
        arrays = {
            "train_images": rng.integers(0, 256, (6, 9, 12, 3), dtype=np.uint8),
            "train_labels": np.array([0, 1, 2, 0, 1, 2]),
            "test_images": rng.integers(0, 256, (3, 9, 12, 3), dtype=np.uint8),
            "test_labels": np.array([2, 0, 1]),
        } | changes
        np.savez(tmp_path / "set.npz", **{key: value for key, value in arrays.items() if value is not None})
        return opened("npz", tmp_path / "set.npz")

    return make


def test_npz_rows_keep_their_order(npz, tmp_path):
    dataset = npz()
    with np.load(tmp_path / "set.npz") as file:
        assert np.array_equal(dataset.train.images.numpy(), file["train_images"])
        assert np.array_equal(dataset.test.images.numpy(), file["test_images"])
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2] and dataset.test.labels.tolist() == [2, 0, 1]
    assert (dataset.num_train, dataset.num_classes, dataset.channels) == (6, 3, 3)
    assert dataset.class_names == ["0", "1", "2"]
    assert dataset.image_size == 9  # the shorter side
    assert dataset.valid is None and not dataset.needs_download


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "u2"])
def test_npz_labels_of_shape_N_by_1_and_of_any_whole_number_type(npz, dtype):
    labels = npz(train_labels=np.array([[0], [1], [2], [0], [1], [2]], dtype)).train.labels
    assert labels.dtype == np.int64 and labels.tolist() == [0, 1, 2, 0, 1, 2]
    torch.from_numpy(labels)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_npz_grey_images_have_one_channel(npz, shape):
    dataset = npz(train_images=np.zeros((6, *shape), np.uint8), test_images=np.zeros((3, *shape), np.uint8))
    assert dataset.channels == 1 and dataset.train.images.shape == (6, 8, 8, 1)


def test_npz_val_arrays_are_a_validation_split_that_the_set_brings(npz):
    valid = npz(val_images=np.zeros((2, 9, 12, 3), np.uint8), val_labels=np.array([[1], [0]])).valid
    assert valid.images.shape == (2, 9, 12, 3) and valid.labels.tolist() == [1, 0]


def test_npz_class_names_say_how_many_classes_there_are(npz):
    dataset = npz(class_names=np.array(["ant", "bee", "cat", "never seen"]))
    assert dataset.class_names == ["ant", "bee", "cat", "never seen"] and dataset.num_classes == 4


def test_npz_labels_saved_as_floats(npz):
    labels = npz(train_labels=np.array([0.0, 1, 2, 0, 1, 2]), test_labels=np.array([[2.0], [0], [1]], np.float32))
    assert labels.train.labels.tolist() == [0, 1, 2, 0, 1, 2] and labels.test.labels.tolist() == [2, 0, 1]
    assert labels.train.labels.dtype == np.int64


FROM_ONE = {"train_labels": np.array([1, 2, 3, 1, 2, 3]), "test_labels": np.array([3, 1, 2])}


@pytest.mark.parametrize("names", [None, np.array(["ant", "bee", "cat"])])
def test_npz_labels_that_count_from_1_are_told_so(npz, refused, names):
    refused(lambda: npz(**FROM_ONE, class_names=names), "train_labels")


PIXELS = np.zeros((6, 9, 12, 3), np.uint8)
BAD_NPZ = {
    "train_labels missing": ({"train_labels": None}, ["train_labels"]),
    "two missing": ({"train_images": None, "test_labels": None}, ["train_images, test_labels"]),
    "half a validation split": ({"val_images": PIXELS}, ["val_labels"]),
    "other half": ({"val_labels": np.array([0, 1])}, ["val_images"]),
    "lengths differ": ({"train_labels": np.array([0, 1, 2])}, ["train_images", "train_labels", " 6", " 3"]),
    "test lengths differ": ({"test_labels": np.array([0, 1])}, ["test_images", "test_labels", " 3", " 2"]),
    "label negative": ({"train_labels": np.array([0, 1, 2, 0, 1, -1])}, ["train_labels", "-1"]),
    "test label unknown": ({"test_labels": np.array([0, 1, 3])}, ["test_labels", "3"]),
    "label without a name": ({"class_names": np.array(["a", "b"])}, ["train_labels", "2"]),
    "labels of two columns": ({"train_labels": np.zeros((6, 2), int)}, ["train_labels", "(6, 2)"]),
    "label is a number": ({"train_labels": np.array(3)}, ["train_labels", "()"]),
    "labels are fractions": ({"train_labels": np.full(6, 0.5)}, ["train_labels", "float64"]),
    "no rows": ({"train_labels": np.zeros(0, int), "train_images": PIXELS[:0]}, ["train_labels", "(0,)"]),
    "float images": ({"train_images": PIXELS / 255}, ["train_images", "uint8", "float64"]),
    "four channels": ({"train_images": np.zeros((6, 9, 12, 4), np.uint8)}, ["train_images", "(6, 9, 12, 4)"]),
    "image is a number": ({"train_images": np.array(3, np.uint8)}, ["train_images", "()"]),
    "no pixels": ({"train_images": np.zeros((6, 0, 12, 3), np.uint8)}, ["train_images", "(6, 0, 12, 3)"]),
    "other shape in test": ({"test_images": np.zeros((3, 8, 8, 3), np.uint8)}, ["(8, 8, 3)", "(9, 12, 3)"]),
    "one class name": ({"class_names": np.array("ant")}, ["class_names", "()"]),
    "class names as bytes": ({"class_names": np.array([b"a", b"b", b"c"])}, ["class_names", "|S1"]),
}


@pytest.mark.parametrize(("changes", "expected"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_npz_is_refused(npz, refused, tmp_path, changes, expected):
    refused(lambda: npz(**changes), f"--data_dir {tmp_path}/set.npz", *expected)


def test_npz_with_objects_is_refused_without_being_unpickled(npz, refused, bomb):
    refused(lambda: npz(class_names=np.array([bomb] * 3, object)), "set.npz")
    assert not Path(bomb.folder).exists()


def test_a_label_beyond_all_reason_makes_no_classes(npz, refused):
    refused(lambda: npz(train_labels=np.array([0, 1, 2, 0, 1, 2**60])), "train_labels")


@pytest.mark.parametrize("content", [b"not a zip archive", pickle.dumps([1, 2]), b""])
def test_a_file_that_is_no_npz_is_refused(tmp_path, opened, refused, content):
    (tmp_path / "set.npz").write_bytes(content)
    refused(lambda: opened("npz", tmp_path / "set.npz"), f"--data_dir {tmp_path}/set.npz")


def test_a_missing_npz_and_a_missing_flag_are_refused(tmp_path, opened, refused):
    refused(lambda: opened("npz", tmp_path / "nowhere.npz"), "nowhere.npz")
    refused(lambda: opened("npz", tmp_path), f"--data_dir {tmp_path}")
    for dataset in ("npz", "folder", "tinyimagenet"):
        refused(lambda dataset=dataset: opened(dataset), f"--dataset {dataset}", "--data_dir")


# ------------------------------------------------------------------------------------------ an image folder


@pytest.fixture
def tree(tmp_path, write_images):
    """train/ with 2 cats and 3 ants, test/ and val/ with one of each; 10x10 RGB."""
    names = ["train/cat/b.png", "train/cat/a.png", "train/ant/z.png", "train/ant/deep/er/y.PNG", "train/ant/10.png"]
    names += [f"{split}/{kind}/1.png" for split in ("test", "val") for kind in ("ant", "cat")]
    return write_images(tmp_path / "tree", {name: (10, 10, 3) for name in names})


def test_rows_of_a_folder_are_in_sorted_path_order_with_classes_by_name(tree, opened):
    dataset = opened("folder", tree, 10)
    assert dataset.train_paths == ["ant/10.png", "ant/deep/er/y.PNG", "ant/z.png", "cat/a.png", "cat/b.png"]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1] and dataset.train.labels.dtype == np.int64
    assert dataset.class_names == ["ant", "cat"]
    for row, path in enumerate(dataset.train_paths):
        expected = np.asarray(Image.open(tree / "train" / path))
        assert np.array_equal(dataset.train.images.decode_row(row), expected)


def test_test_and_val_are_test_set_and_validation_split(tree, opened):
    dataset = opened("folder", tree)
    assert dataset.test.images.root == tree / "test" and dataset.valid.images.root == tree / "val"


@pytest.mark.parametrize(("present", "absent"), [("test", "val"), ("val", "test")])
def test_the_only_one_of_test_and_val_is_the_test_set(tree, opened, present, absent):
    (tree / absent).rename(tree / "elsewhere")
    dataset = opened("folder", tree)
    assert dataset.test.images.root == tree / present and dataset.valid is None


def test_image_size_is_64_unless_it_is_given(tree, opened):
    assert opened("folder", tree).image_size == 64
    assert opened("folder", tree, 10).train.images.shape == (5, 10, 10, 3)


def test_files_that_are_no_images_by_name_are_passed_over(tree, opened):
    (tree / "train/ant/notes.txt").write_text("seen at dusk")
    (tree / "train/list.png.csv").write_text("")
    assert opened("folder", tree).num_train == 5


def test_a_folder_of_grey_images_has_one_channel(tmp_path, opened, write_images):
    names = [f"{split}/{kind}/1.png" for split in ("train", "test") for kind in ("a", "b")]
    dataset = opened("folder", write_images(tmp_path, {name: (10, 10) for name in names}), 10)
    assert dataset.channels == 1
    expected = np.asarray(Image.open(tmp_path / "train/a/1.png"))
    assert np.array_equal(dataset.train.images.decode_row(0)[..., 0], expected)


def test_grey_images_among_coloured_ones_are_repeated_to_three_channels(tree, opened, write_images):
    write_images(tree, {"train/ant/grey.png": (10, 10)})
    dataset = opened("folder", tree, 10)
    assert dataset.channels == 3
    pixels = dataset.train.images.decode_row(dataset.train_paths.index("ant/grey.png"))
    assert (pixels == pixels[..., :1]).all()


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path, write_images):
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200  # the centre square
    write_images(tmp_path, {"wide.png": wide, "tall.png": wide.T, "large.jpg": np.repeat(np.repeat(wide, 8, 0), 8, 1)})
    for name in ("wide.png", "tall.png", "large.jpg"):
        pixels = decode(tmp_path / name, 10, 1)
        assert pixels.shape == (10, 10, 1) and pixels.dtype == np.uint8
        assert np.abs(pixels[2:-2, 2:-2].astype(int) - 200).max() <= 2
    assert decode(tmp_path / "wide.png", 10, 3).shape == (10, 10, 3)


def test_images_of_the_right_size_are_not_resampled(tmp_path, write_images):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    write_images(tmp_path, {"x.png": pixels})
    assert np.array_equal(decode(tmp_path / "x.png", 7, 3), pixels)


def test_of_16_bits_the_upper_8_are_kept_and_32_are_refused(tmp_path, write_images):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    write_images(tmp_path, {"x.png": deep, "y.tif": deep.astype(np.int32), "z.tif": (deep / 65536).astype(np.float32)})
    assert np.array_equal(decode(tmp_path / "x.png", 8, 1)[..., 0], deep // 256)
    assert np.array_equal(decode(tmp_path / "x.png", 8, 3)[..., 2], deep // 256)
    for name in ("y.tif", "z.tif"):
        with pytest.raises(ValueError):
            decode(tmp_path / name, 8, 1)


def test_unreadable_images_are_named(tree, opened, refused):
    whole = (tree / "train/cat/a.png").read_bytes()
    (tree / "train/cat/a.png").write_bytes(whole[: len(whole) // 2])
    (tree / "train/ant/10.png").write_text("no image")
    dataset = opened("folder", tree, 10)
    refused(dataset.measure, f"{tree}/train/cat/a.png", f"{tree}/train/ant/10.png")


def png(width, height, rows=b""):
    """A PNG whose header claims a size; rows: its pixels, packed already."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    images = FolderImages(tmp_path, ["bomb.png"], 64, 1)
    with pytest.raises(BadInput, match="exceeds limit"):
        images.decode_rows(np.array([0]))
    assert images.count_channels() == 1


def test_a_large_image_is_no_warning(tmp_path):
    (tmp_path / "large.png").write_bytes(png(10_001, 10_000))
    code = "import sys; from data.images import decode; decode(sys.argv[1], 64, 1)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.png")],
        cwd=Path(images_module.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert "OSError" in done.stderr and "Warning" not in done.stderr  # it has no pixels


def test_a_large_image_and_a_long_one_are_no_bombs(tmp_path):
    (tmp_path / "large.png").write_bytes(png(10_000, 9_000, (b"\x00" + b"\xff" * 10_000) * 9_000))
    (tmp_path / "long.png").write_bytes(png(10_000, 10, (b"\x00" + b"\xff" * 10_000) * 10))
    for name in ("large.png", "long.png"):
        assert (decode(tmp_path / name, 8, 1) == 255).all()


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path):
    frames = [Image.new("L", (8, 8), value) for value in (50, 100, 150)]
    for name, kind in (("a.jpg", "GIF"), ("b.png", "PNG"), ("c.tif", "TIFF"), ("d.webp", "WEBP")):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], **lossless)
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 3
        assert (decode(tmp_path / name, 8, 1) == 50).all()


def test_formats_that_start_programs_are_no_images_whatever_the_file_is_called(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError):
        decode(tmp_path / "x.jpg", 8, 3)


def test_links_that_lead_back_are_passed_over_and_others_followed(tree, opened):
    expected = opened("folder", tree)
    for folder in (tree / "train", tree / "test", tree / "val", tree / "train/cat"):
        (folder / "again").symlink_to(".." if folder.name == "cat" else ".")
    for name, target in {"up": "..", "split": "../train", "twice": "cat", "a": "b", "b": "a", "self": "self"}.items():
        (tree / "train" / name).symlink_to(target)
    found = opened("folder", tree)
    assert (found.train_paths, found.class_names) == (expected.train_paths, expected.class_names)
    assert found.test.images.paths == expected.test.images.paths
    (tree / "train/ant").rename(tree / "elsewhere")
    (tree / "train/ant").symlink_to(tree / "elsewhere")
    assert opened("folder", tree).train_paths == expected.train_paths


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tree, opened, refused):
    (tree / "train/cat/x.jpg").symlink_to("nowhere.jpg")
    (tree / "train/cat/y.jpg").symlink_to("y.jpg")
    dataset = opened("folder", tree)
    assert dataset.num_train == 7
    refused(dataset.measure, "x.jpg", "y.jpg")


def test_names_that_are_no_utf_8_become_text_where_they_are_class_names(tree, opened):
    (tree / "train/ant").rename(tree / os.fsdecode(b"train/f\xf6"))
    for split in ("test", "val"):
        (tree / split / "ant").rename(tree / split / os.fsdecode(b"f\xf6"))
    dataset = opened("folder", tree, 10)
    assert dataset.class_names == ["cat", r"f\udcf6"]
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1] and dataset.train.images.decode_row(4).shape == (10, 10, 3)


BAD_TREE = {
    "no train": (lambda tree: (tree / "train").rename(tree / "training"), ["train/"]),
    "neither test nor val": (lambda tree: [(tree / s).rename(tree / f"{s}s") for s in ("test", "val")], ["test/"]),
    "a class without images": (lambda tree: (tree / "train/bee").mkdir(), ["train/bee"]),
    "a class only in test": (lambda tree: (tree / "test/cat").rename(tree / "test/dog"), ["test/", "dog"]),
    "empty test": (lambda tree: [f.unlink() for f in (tree / "test").rglob("*.png")], ["tree/test"]),
    "images without classes": (
        lambda tree: [p.rename(tree / p.name) for p in (tree / "train").iterdir()],
        ["tree/train"],
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), BAD_TREE.values(), ids=BAD_TREE)
def test_a_bad_folder_is_refused(tree, opened, refused, spoil, expected):
    spoil(tree)
    refused(lambda: opened("folder", tree), f"--data_dir {tree}", *expected)


def test_rows_are_decoded_once_and_only_when_asked_for(tree, opened, monkeypatch):
    images, decoded = opened("folder", tree, 10).train.images, []
    decode_row = images.decode_row
    monkeypatch.setattr(images, "decode_row", lambda row: decoded.append(int(row)) or decode_row(row))
    first = images.into_memory(np.array([3, 1]))
    assert sorted(decoded) == [1, 3]
    assert np.array_equal(first[1], decode_row(1)) and np.array_equal(first[3], decode_row(3))
    again = images.into_memory(np.arange(5))
    assert sorted(decoded) == [0, 1, 2, 3, 4] and again.data_ptr() == first.data_ptr()


def test_what_is_decoded_already_needs_no_more_memory(tree, opened, monkeypatch):
    images = opened("folder", tree, 10).train.images
    rows = np.arange(5)
    monkeypatch.setattr(images_module, "available_memory", lambda: 2 * 5 * 300)
    assert images.fits_in_memory(rows)
    monkeypatch.setattr(images_module, "available_memory", lambda: 2 * 5 * 300 - 1)
    assert not images.fits_in_memory(rows) and images.fits_in_memory(rows[:4])
    images.into_memory(rows[1:])
    assert images.fits_in_memory(rows)


def test_the_normalisation_does_not_depend_on_free_memory(tree, monkeypatch):
    def images():
        paths = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*.png"))
        return FolderImages(tree, paths, 10, 3)

    in_memory = mean_and_std(images())
    assert in_memory == mean_and_std(images().into_memory(np.arange(8)))
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    assert mean_and_std(images()) == in_memory


def test_mean_and_std_by_hand():
    images = torch.zeros(3000, 1, 2, 2, dtype=torch.uint8)
    images[::2, ..., 0] = 255  # channel 0: half 0, half 1
    images[..., 1] = 51  # channel 1: always .2
    assert mean_and_std(images) == ((0.5, 0.2), (0.5, 0.001))  # a constant channel keeps a deviation above 0


# -------------------------------------------------------------------------------------- Tiny ImageNet


@pytest.fixture
def tiny(tmp_path, write_images):
    """Two classes as downloaded: train/ID/images, val/images + val_annotations.txt, an unlabelled test/."""
    root = tmp_path / "tiny-imagenet-200"
    names = [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in ("n02", "n01") for i in (0, 1)]
    write_images(root, {name: (64, 64, 3) for name in [*names, "val/images/val_0.JPEG", "test/images/test_0.JPEG"]})
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\n")
    (root / "words.txt").write_text("n01\tant, emmet\nn02\tbee\nn03\tcat\n")
    return root


def test_tiny_imagenet_as_downloaded_asks_for_refolder(tiny, opened, refused):
    refused(lambda: opened("tinyimagenet", tiny), f"--data_dir {tiny}", "refolder_tiny_imagenet.py")


@pytest.mark.parametrize("parent", [False, True])
def test_tiny_imagenet_after_refolder_tests_on_val_and_ignores_test(tiny, opened, parent):
    refolder(tiny)
    dataset = opened("tinyimagenet", tiny.parent if parent else tiny)
    assert (dataset.name, dataset.image_size, dataset.channels, dataset.valid) == ("tinyimagenet", 64, 3, None)
    assert dataset.num_train == 4 and dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [1] and dataset.test.images.root == tiny / "val"
    assert dataset.class_names == ["ant", "bee"]
    assert opened("tinyimagenet", tiny, 32).train.images.shape == (4, 32, 32, 3)


def test_tiny_imagenet_without_words_has_its_ids_as_class_names(tiny, opened):
    refolder(tiny)
    (tiny / "words.txt").unlink()
    assert opened("tinyimagenet", tiny).class_names == ["n01", "n02"]


def test_lists_of_tiny_imagenet_may_begin_with_a_byte_order_mark(tiny, opened):
    for name in ("val/val_annotations.txt", "words.txt"):
        (tiny / name).write_text((tiny / name).read_text(), encoding="utf-8-sig")
    refolder(tiny)
    assert opened("tinyimagenet", tiny).class_names == ["ant", "bee"]


def test_no_tiny_imagenet_says_how_to_fetch_it(tmp_path, opened, refused):
    refused(lambda: opened("tinyimagenet", tmp_path), "data/download.py tinyimagenet")


# ---------------------------------------------------------------------------------- CIFAR, as torchvision has it


@pytest.fixture
def fake_cifar(tmp_path, monkeypatch):
    """A CIFAR-10 of 3 + 2 training and 2 test images: (archive that torchvision accepts, its images, its labels)."""
    cifar10 = torchvision.datasets.CIFAR10
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    batches = {"data_batch_1": slice(0, 3), "data_batch_2": slice(3, 5), "test_batch": slice(5, 7)}
    labels = [3, 1, 2, 9, 0, 5, 5]
    members = {
        name: pickle.dumps({"data": images[rows].reshape(-1, 3072), "labels": labels[rows]})
        for name, rows in batches.items()
    }
    members["batches.meta"] = pickle.dumps({"label_names": [f"class {k}" for k in range(10)]})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in members.items()}
    archive = tmp_path / "data" / "fake.tar.gz"  # where torchvision would download it to
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{cifar10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(cifar10, "url", (tmp_path / "no server").as_uri())
    monkeypatch.setattr(cifar10, "filename", archive.name)
    monkeypatch.setattr(cifar10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar10, "train_list", [[n, md5[n]] for n in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(cifar10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar10, "meta", {**cifar10.meta, "md5": md5["batches.meta"]})
    return archive, images.transpose(0, 2, 3, 1), labels


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_opening_an_absent_cifar_downloads_nothing_and_writes_nothing(tmp_path, opened, monkeypatch, name, num_classes):
    def forbidden(self):
        raise AssertionError("download")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", forbidden)
    dataset = opened(name, tmp_path / "absent")
    assert dataset.needs_download and not (tmp_path / "absent").exists()
    assert (dataset.num_train, dataset.num_classes, dataset.channels, dataset.image_size) == (
        50_000,
        num_classes,
        3,
        32,
    )
    assert (dataset.mean, dataset.std) == (CIFAR_MEAN, CIFAR_STD)


def test_class_names_of_cifar_are_known_before_it_is_there(tmp_path, opened):
    names = opened("cifar100", tmp_path).class_names
    assert len(set(names)) == 100 and names == sorted(names) and names[0] == "apple" and names[-1] == "worm"
    assert opened("cifar10", tmp_path).class_names[3] == "cat"


def test_cifar_is_unpacked_when_it_is_loaded_and_read_the_next_time(tmp_path, opened, fake_cifar):
    archive, images, labels = fake_cifar
    dataset = opened("cifar10", tmp_path / "data")
    assert dataset.needs_download and list(archive.parent.iterdir()) == [archive]
    dataset.load()
    archive.unlink()
    for found in (dataset, opened("cifar10", tmp_path / "data")):
        assert not found.needs_download
        assert np.array_equal(found.train.images.numpy(), images[:5])
        assert np.array_equal(found.test.images.numpy(), images[5:])
        assert found.train.labels.tolist() == labels[:5] and found.train.labels.dtype == np.int64
        assert found.class_names[9] == "class 9"


def test_a_download_that_fails_is_a_mistake_of_its_own_kind(tmp_path, opened, fake_cifar):
    archive, *_ = fake_cifar
    archive.unlink()
    dataset = opened("cifar10", tmp_path / "data")
    with pytest.raises(NeedsDownload, match=f"--dataset cifar10.*{tmp_path}/data"):
        dataset.load()
    assert dataset.needs_download


def test_a_cifar_batch_with_the_wrong_checksum_is_never_unpickled(tmp_path, opened, fake_cifar, bomb):
    opened("cifar10", tmp_path / "data").load()
    (tmp_path / "data/cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(bomb))
    assert opened("cifar10", tmp_path / "data").needs_download
    assert not Path(bomb.folder).exists()


# -------------------------------------------------------------------------------------------- real data


def test_cifar10_as_a_folder_and_as_npz_are_the_same_images(real_data, opened):
    folder = opened("folder", real_data / "cifar10_folder", 32)
    assert (folder.num_train, len(folder.test.labels), folder.channels) == (50_000, 10_000, 3)
    assert folder.train_paths == sorted(folder.train_paths)
    npz = opened("npz", real_data / "cifar10.npz")
    assert npz.class_names == folder.class_names
    for row in range(0, 50_000, 2500):
        number = int(Path(folder.train_paths[row]).stem)  # the row in CIFAR-10's own order
        assert folder.train.labels[row] == npz.train.labels[number]
        assert np.array_equal(folder.train.images.decode_row(row), npz.train.images[number].numpy())


def test_tiny_imagenet_as_downloaded_is_recognised(real_data, opened, refused):
    refused(lambda: opened("tinyimagenet", real_data / "tiny-imagenet-200"), "refolder_tiny_imagenet.py")


def test_fingerprints_are_equal_exactly_when_the_labels_are():
    labels = np.array([0, 1, 2])
    same = [labels, labels.astype(">i4"), labels.astype(np.uint8), [0, 1, 2]]
    assert len({fingerprint(each) for each in same}) == 1
    assert fingerprint([0, 1, 2]) != fingerprint([0, 2, 1])
    expected = hashlib.sha256(b"".join(k.to_bytes(8, "little") for k in (0, 1, 2))).hexdigest()
    assert fingerprint(labels) == expected


def test_a_set_that_is_there_loads_without_asking_for_anything():
    split = Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), np.array([0, 1]))
    dataset = Dataset("toy", 2, ["a", "b"], 1, 1, split, split)
    assert dataset.load() is dataset
    dataset.measure()
    assert dataset.mean == (0.0,)
