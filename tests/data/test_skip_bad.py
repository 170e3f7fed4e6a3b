"""--skip_bad: images that cannot be read are left out, and nothing else of a data set changes."""

import re

import numpy as np
import pytest
import torch

import evaluate
import main_gen_teacher
from common import errors
from common.errors import BadInput, RunFailure
from common.files import read_json
from data import images as images_module
from data.datasets import open_dataset
from data.images import FolderImages
from data.labels import load_data
from utils import experiment_parser, get_loaders

BAD = ["train/cat/03.png", "train/dog/00.png", "train/dog/17.png", "val/cat/1.png", "test/dog/2.png"]
BAD_ROWS = [3, 20, 37]


@pytest.fixture
def folder(tmp_path, write_images):
    """20 training images a class, 4 of each in test/ and val/, all intact."""
    names = [f"train/{kind}/{i:02}.png" for kind in ("cat", "dog") for i in range(20)]
    names += [f"{split}/{kind}/{i}.png" for split in ("test", "val") for kind in ("cat", "dog") for i in range(4)]
    return write_images(tmp_path / "set", {name: (8, 8, 3) for name in names})


def spoil(folder, names=BAD):
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:60])


def args_of(folder, flags=""):
    settings = (
        f"--dataset folder --data_dir {folder} --image_size 8 --batch_size 5 --device cpu --ny_ratio 0.5 --num_work 0"
    )
    return experiment_parser("test").parse_args(f"{settings} {flags}".split())


def rows_of(loader):
    return torch.cat([idx for *_, idx in loader]).tolist()


@pytest.fixture
def streamed(monkeypatch):
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)


@pytest.mark.parametrize("flags", ["", "--train_size 30", "--train_size 30 --valid_size 0"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_images_are_served_nowhere_and_all_other_rows_are_as_before(folder, monkeypatch, flags, in_memory):
    if not in_memory:
        monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    before = load_data(args_of(folder, flags))
    pixels = before.dataset.train.images.decode_rows(np.arange(40))
    spoil(folder)
    args = args_of(folder, f"{flags} --skip_bad")
    data = load_data(args)
    assert np.array_equal(data.ny, before.ny) and data.ny.size == 40 and data.dataset.num_train == 40
    in_use = 30 if "train_size" in flags else 37
    assert len(data.train_idx) == in_use and not np.isin(BAD_ROWS, data.train_idx).any()
    assert data.dataset.num_skipped == 5 and data.dataset.num_usable == 37

    train, valid, test = get_loaders(args, data)
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.dataset.mean, data.dataset.std))
    for x, y, ny, idx in train.clean():
        torch.testing.assert_close((x * std + mean) * 255, torch.from_numpy(pixels[idx]).permute(0, 3, 1, 2).float())
        assert np.array_equal(y, data.y[idx]) and np.array_equal(ny, data.ny[idx])
    assert sorted(rows_of(train)) == data.train_idx.tolist()
    assert rows_of(test) == [0, 1, 2, 3, 4, 5, 7]
    assert (valid is None) == ("valid_size" in flags) and (valid is None or rows_of(valid) == [0, 2, 3, 4, 5, 6, 7])


def test_a_validation_split_is_cut_from_what_can_be_read(folder):
    (folder / "val").rename(folder / "elsewhere")
    spoil(folder, BAD[:3])
    data = load_data(args_of(folder, "--skip_bad --valid_size 10"))
    assert len(data.valid_idx) == 10 and sorted([*data.valid_idx, *data.train_idx, *BAD_ROWS]) == list(range(40))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_normalisation_is_that_of_the_images_that_can_be_read(folder, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    spoil(folder, BAD)
    skipping = open_dataset(args_of(folder, "--skip_bad"))
    skipping.measure()
    for name in BAD:
        (folder / name).unlink()
    intact = open_dataset(args_of(folder))
    intact.measure()
    assert (skipping.mean, skipping.std) == (intact.mean, intact.std)


def test_every_file_is_decoded_once_where_all_fit_in_memory(folder, monkeypatch):
    spoil(folder)
    decoded, decode = [], images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, *rest: decoded.append(str(path)) or decode(path, *rest))
    get_loaders(args_of(folder, "--skip_bad"))
    assert len(decoded) == len(set(decoded)) == 56


def test_without_the_flag_the_bad_ones_are_counted_and_five_named(folder):
    bad = [f"train/cat/{i:02}.png" for i in range(7)]
    spoil(folder, bad)
    with pytest.raises(BadInput) as found:
        get_loaders(args_of(folder))
    (message,) = found.value.messages
    assert " 7 " in message
    assert [name for name in bad if name in message] == bad[:5]


def test_without_the_flag_a_streamed_image_is_named_when_it_is_decoded(folder, streamed, monkeypatch):
    spoil(folder, ["train/cat/03.png"])
    monkeypatch.setattr("data.datasets.mean_and_std", lambda images: ((0.5,) * 3, (0.5,) * 3))
    train, _, _ = get_loaders(args_of(folder, "--data_backend files"))
    with pytest.raises(RunFailure, match="train/cat/03.png"):
        rows_of(train)


@pytest.mark.parametrize(
    "flags, says",
    [
        ("--train_size 38", "--train_size 38.* 37 "),
        ("--batch_size 38", "--batch_size 38.* 37 "),
    ],
)
def test_sizes_are_held_against_what_is_left(folder, flags, says):
    spoil(folder)
    load_data(args_of(folder, flags))
    with pytest.raises(BadInput, match=says):
        load_data(args_of(folder, f"{flags} --skip_bad"))


def test_a_split_without_any_image_is_refused_all_the_same(folder):
    spoil(folder, [f"test/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)])
    with pytest.raises(BadInput, match="set/test"):
        get_loaders(args_of(folder, "--skip_bad"))


def test_a_run_stops_before_it_writes_or_leaves_them_out(folder, workplace, capsys):
    spoil(folder)
    flags = (
        f"--dataset folder --data_dir {folder} --image_size 8 --net smallcnn --epochs 1 --batch_size 10 --device cpu"
    )
    with pytest.raises(SystemExit) as found:
        errors.run_script(lambda: main_gen_teacher.main(flags.split()))
    assert found.value.code == 2 and not list(workplace.iterdir())
    assert "set/train: 3 " in capsys.readouterr().err
    run = main_gen_teacher.main([*flags.split(), "--skip_bad"])
    assert re.search(r"\b5\b", capsys.readouterr().out)  # of both splits
    assert read_json(evaluate.main([str(run), "--device", "cpu"]) / "metrics.json")["test_samples"] == 7
