"""apply_marks.py on label files, and the list of changes for anything else."""

import csv
from pathlib import Path

import numpy as np
import pytest

import apply_marks
from common.errors import BadInput
from data.label_files import read_marks

ORIGINAL = np.array([0, 1, 2, 0, 1, 2, 0, 1])
NAMES = ["zebra", "ant", "cow"]
SAID = {1: ("wrong", 2), 2: ("right", 2), 4: ("drop", 1), 5: ("unsure", 2), 7: ("wrong", 0)}
CORRECTED = np.array([0, 2, 2, 0, 1, 2, 0, 0])


@pytest.fixture
def marks(workplace):
    """Of a run with synthetic noise in row 3, which nobody looked at."""
    with open("marks.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow("idx file original_label given_label label label_name mark audit".split())
        for i, original in enumerate(ORIGINAL):
            given = 1 if i == 3 else original
            mark, label = SAID.get(i, ("", given))
            writer.writerow([i, "", original, given, label, NAMES[label], mark, ""])
    return "marks.csv"


def rows(file):
    with open(file, newline="") as f:
        return list(csv.DictReader(f))


def not_again(flags, out):
    """A second time is refused, and what is there stays."""
    before = Path(out).read_bytes()
    with pytest.raises(BadInput, match=f"--out {out}"):
        apply_marks.main(flags)
    assert Path(out).read_bytes() == before


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_npz(marks, shape, split, capsys):
    rng, prefix = np.random.default_rng(0), {"train": "train", "valid": "val"}[split]
    data = {f"{name}_images": rng.integers(0, 256, (8, 4, 4), np.uint8) for name in ("train", "test", "val")}
    data |= {
        f"{name}_labels": np.roll(ORIGINAL, name != prefix).astype(np.uint8).reshape(shape)
        for name in ("train", "test", "val")
    }
    data |= {"class_names": np.array(NAMES), f"{prefix}_patients": np.arange(8.0)}
    np.savez("data.npz", **data)
    flags = [marks, "--data_dir", "data.npz", "--out", "new.npz", "--split", split]
    apply_marks.main(flags)
    told = capsys.readouterr().out
    assert "main_gen_path.py" in told and "--dataset npz" in told and "--data_dir new.npz" in told
    kept = [0, 1, 2, 3, 5, 6, 7]
    with np.load("new.npz") as new:
        assert new[f"{prefix}_labels"].dtype == np.uint8 and new[f"{prefix}_labels"].shape == (7, *shape[1:])
        np.testing.assert_array_equal(new[f"{prefix}_labels"].ravel(), CORRECTED[kept])
        for name in (f"{prefix}_images", f"{prefix}_patients"):
            np.testing.assert_array_equal(new[name], data[name][kept])
        assert set(new) == set(data)
        for name in set(data) - {f"{prefix}_{what}" for what in ("images", "labels", "patients")}:
            np.testing.assert_array_equal(new[name], data[name])
    found = read_marks("new_marks.csv", 7, NAMES, original=CORRECTED[kept])
    assert found.mark.tolist() == ["", "right", "right", "", "unsure", "", "right"]
    other = "train" if split == "valid" else "test"
    with pytest.raises(BadInput, match="original_label"):
        apply_marks.main([marks, "--data_dir", "data.npz", "--out", "other.npz", "--split", other])
    not_again(flags, "new.npz")


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_label_array_keeps_its_rows_and_a_sample_that_is_left_out_is_ignored_by_losses(marks, dtype):
    np.save("labels.npy", ORIGINAL.astype(dtype))
    flags = [marks, "--data_dir", "labels.npy", "--out", "new.npy"]
    apply_marks.main(flags)
    new = np.load("new.npy")
    assert new.tolist() == [0, 2, 2, 0, -100, 2, 0, 0] and new.dtype == np.int64
    assert [row["change"] for row in rows("new_changes.csv")] == ["relabel", "drop", "relabel"]
    not_again(flags, "new.npy")
    np.save("labels.npy", np.roll(ORIGINAL, 1))
    with pytest.raises(BadInput, match="original_label"):
        apply_marks.main([*flags[:-1], "other.npy"])


@pytest.mark.parametrize("labels", [NAMES, ["0", "1", "2"]], ids=["names", "numbers"])
@pytest.mark.parametrize("form", [",\n", ";\r\n"], ids=["comma", "semicolon and BOM"])
def test_csv(marks, labels, form):
    end, start = form[1:], "\ufeff" * (form[0] == ";")
    lines = [f'"text {i}, {end}quoted",{labels[k]},{i}'.replace('",', f'"{form[0]}') for i, k in enumerate(ORIGINAL)]
    lines = [line.rsplit(",", 1)[0] + form[0] + line.rsplit(",", 1)[1] for line in lines]
    text = start + end.join([form[0].join(["text", "y", "n"]), *lines]) + end
    Path("data.csv").write_bytes(text.encode())
    flags = [marks, "--data_dir", "data.csv", "--out", "new.csv", "--column", "y"]
    apply_marks.main(flags)
    kept = [line for i, line in enumerate(lines) if i != 4]
    for i, k in ((1, 2), (6, 0)):  # rows 1 and 7
        before = labels[ORIGINAL[1 if i == 1 else 7]]
        kept[i] = kept[i].replace(f"{form[0]}{before}{form[0]}", f"{form[0]}{labels[k]}{form[0]}")
    quoted = (start + end.join([form[0].join(["text", "y", "n"]), *kept]) + end).encode()
    assert Path("new.csv").read_bytes() == quoted
    with pytest.raises(BadInput, match="--column"):
        apply_marks.main([*flags[:-2], "--out", "other.csv"])
    not_again(flags, "new.csv")


def test_a_list_of_changes_for_anything_else(marks):
    flags = [marks, "--out", "changes.csv"]
    assert apply_marks.main(flags) == Path("changes.csv")
    found = [(row["idx"], row["change"], row["old_name"], row["new_name"]) for row in rows("changes.csv")]
    assert found == [("1", "relabel", "ant", "cow"), ("4", "drop", "ant", ""), ("7", "relabel", "ant", "zebra")]
    not_again(flags, "changes.csv")


@pytest.mark.parametrize(
    "flags, texts",
    [
        ("marks.csv", ["--out", "--in_place", "--undo"]),
        ("marks.csv --data_dir . --out new --in_place", ["--out and --in_place"]),
        ("--data_dir . --out new", ["MARKS"]),
        ("none.csv --data_dir . --out new", ["none.csv"]),
        ("labels.npy --data_dir . --out new", ["labels.npy"]),
        ("marks.csv --data_dir labels.npy --out new.csv", ["--out new.csv", ".npy"]),
        ("marks.csv --data_dir labels.npy --in_place", ["--in_place"]),
        ("marks.csv --data_dir nowhere --out new", ["--data_dir nowhere"]),
        ("marks.csv --out changes", ["--out changes", ".csv"]),
        ("marks.csv --data_dir . --out new", ["marks.csv", "idx 0"]),
        ("marks.csv --data_dir labels.npy --out none/new.npy", ["--out none/new.npy", "none"]),
        ("marks.csv --run nowhere --out changes.csv", ["nowhere"]),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(marks, flags, texts):
    np.save("labels.npy", ORIGINAL)
    before = sorted(Path().rglob("*"))
    with pytest.raises(BadInput) as found:
        apply_marks.main(flags.split())
    for text in texts:
        assert text in str(found.value)
    assert sorted(Path().rglob("*")) == before
