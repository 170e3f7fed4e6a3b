"""Corrections over several rounds: record, look, mark, export, train on it, and again; and what earlier versions wrote.

The page itself is tried in tests/paths/test_report.py; here its export is written from the data in it, as it does.
"""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import analyze_paths
import main_gen_path
from common.errors import BadInput
from common.files import read_json
from data.label_files import read_marks

OLD_RUN = Path(__file__).with_name("old_run")
QUICK = "--net smallcnn --batch_size 50 --lr 0.05 --augment none --device cpu --amp off --fine_every 50".split()
COLUMNS = "idx file original_label given_label label label_name mark audit".split()


@pytest.fixture(autouse=True)
def tables_only(monkeypatch):
    monkeypatch.setattr(analyze_paths, "draw", lambda *all_of_them: None)


def rows(file):
    with open(file, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def page_of(out):
    """What is in the page: its data, and the labels on disk and those given."""
    block = re.search(r'id="data">(.*?)</script>', (out / "report.html").read_text(encoding="utf-8"), re.S)[1]
    data = json.loads(block)
    return data, *(np.array(data[name]) for name in ("original", "given"))


def export(out, said, file):
    """Write marks.csv from the page as its button does; said: {idx: (mark, label)} of this round."""
    data, original, given = page_of(out)
    said = {int(i): (mark["mark"], mark["label"]) for i, mark in data["marks"].items()} | said
    with open(file, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(COLUMNS)
        for i, k in enumerate(given):
            mark, label = said.get(i, ("", k))
            label = label if mark == "wrong" else k
            name, audit = data["classNames"][label], data["audit"].get(str(i), "")
            writer.writerow([i, data["file"][i] if data["file"] else "", original[i], k, label, name, mark, audit])


# ----------------------------------------------------------------------------------------- two rounds


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """(folder of 600 real images, {file: its right class}): every tenth lies in the folder of the next class."""
    source = Path(os.environ.get("TEST_DATA_DIR", "nowhere")) / "cifar10_folder"
    if not source.is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    root, classes, truth = tmp_path_factory.mktemp("images"), ["airplane", "cat", "horse", "ship"], {}
    for split, each in (("train", 150), ("test", 10)):
        for k, name in enumerate(classes):
            for n, image in enumerate(sorted((source / split / name).iterdir())[:each]):
                wrong = split == "train" and n % 10 == 0
                label = (k + wrong) % 4
                to = root / split / classes[label] / f"{name}_{image.name}"
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(image, to)
                truth[f"{classes[label]}/{to.name}"] = k
    return root, truth


def test_two_rounds_of_marks_compose(images, workplace, capsys):
    root, truth = images
    flags = [*QUICK, "--dataset", "folder", "--data_dir", str(root), "--image_size", "32"]
    run = main_gen_path.main([*flags, "--run_name", "first", "--epochs", "3"])
    with np.load(run / "labels.npz") as kept:
        y, paths = kept["y"], kept["paths"].tolist()
    right = np.array([truth[path] for path in paths])
    assert len(y) == 600 and (y != right).sum() == 60

    seen, dropped = {}, None  # idx: the right label, of what the person has looked at
    for number, epochs in (("1", "3"), ("2", "1")):
        out = analyze_paths.main([str(run)])
        data, original, given = page_of(out)
        assert original.tolist() == y.tolist()
        assert not {i for i, suspect in zip(data["idx"], data["suspect"], strict=True) if suspect} & set(seen)
        assert set(map(int, data["marks"])) == set(seen) | ({dropped} - {None})
        assert "%" not in (out / "summary.txt").read_text()  # nothing is held against clean labels
        looked_at = data["idx"][:40]
        assert not set(looked_at) & set(seen)  # what was marked right does not come again
        said = {i: ("right" if given[i] == right[i] else "wrong", int(right[i])) for i in looked_at}
        assert "wrong" in {mark for mark, _ in said.values()}
        if dropped is None:
            dropped = looked_at.pop()
            said[dropped] = ("drop", int(given[dropped]))
        seen |= {i: right[i] for i in looked_at}
        export(out, said, f"marks{number}.csv")
        capsys.readouterr()
        marks = ["--ny_file", f"marks{number}.csv", "--run_name", number, "--epochs", epochs]
        run = main_gen_path.main([*flags, *marks])
        capsys.readouterr()
        settings = read_json(run / "args.json")["resolved"]
        assert settings["labels_corrected"] and settings["noise_realised"] == 0
        with np.load(run / "labels.npz") as kept:
            expected = y.copy()
            expected[list(seen)] = list(seen.values())
            assert kept["y"].tolist() == y.tolist() and kept["ny"].tolist() == expected.tolist()
            assert kept["idx"].tolist() == [i for i in range(600) if i != dropped]
            assert set(np.flatnonzero(kept["mark"] == "right")) == set(seen)
            assert kept["mark"][dropped] == "drop"

    found = rows(analyze_paths.main([str(run)]) / "suspects.csv")
    marked = {int(row["idx"]): row["mark"] for row in found}
    assert {i for i, mark in marked.items() if mark == "right"} == set(seen) and dropped not in marked
    assert not any(int(row["suspect"]) for row in found if row["mark"] == "right")
    with pytest.raises(BadInput, match="marks1.csv.* 2"):
        os.rename(root / "train" / paths[0], root / "train" / paths[0].replace("_", "_0", 1))
        main_gen_path.main([*flags, "--ny_file", "marks1.csv", "--run_name", "other"])


def test_marks_of_a_run_keep_what_is_right_from_its_suspects(workplace, capsys):
    """--marks, on the run that they were made on: same labels, other marks than on one trained on them."""
    flags = [*QUICK, "--dataset", "digits", "--train_size", "300", "--epochs", "5", "--ny_ratio", "0.3"]
    run = main_gen_path.main([*flags, "--run_name", "noisy"])
    out = analyze_paths.main([str(run)])
    before, (_, _, given) = rows(out / "suspects.csv"), page_of(out)
    count = sum(int(row["suspect"]) for row in before)
    first, second, third = (int(row["idx"]) for row in before[:3])
    better = int((given[third] + 1) % 10)
    export(out, {first: ("right", 0), second: ("right", 0), third: ("wrong", better)}, "marks.csv")
    out = analyze_paths.main([str(run), "--marks", "marks.csv"])
    after = rows(out / "suspects.csv")
    assert [row["idx"] for row in after] == [row["idx"] for row in [*before[2:], *before[:2]]]
    assert [int(row["suspect"]) for row in after] == [1] * (count - 2) + [0] * (len(before) - count + 2)
    assert [row["mark"] for row in after] == ["wrong", *[""] * (len(after) - 3), "right", "right"]
    assert page_of(out)[0]["marks"][str(third)] == {"mark": "wrong", "label": better}
    Path("others.csv").write_text("idx,label\n0,1\n")
    for file in ("others.csv", "none.csv", str(run / "labels.npz")):
        with pytest.raises(BadInput, match=f"--marks.*{file}"):
            analyze_paths.main([str(run), "--marks", file])


# ------------------------------------------------------------------------ what earlier versions wrote


@pytest.fixture
def old(workplace):
    """A run folder (its weights left out), its data and its marks.csv as an earlier version wrote them."""
    shutil.copytree(OLD_RUN, workplace, dirs_exist_ok=True)
    return workplace / "run_corrected"


def test_a_run_folder_of_an_earlier_version_is_read_with_its_corrections(old):
    """It kept no marks; what differs from the data's labels was corrected, so it is right."""
    out = analyze_paths.main([str(old)])
    with np.load(old / "labels.npz") as kept:
        changed = np.flatnonzero(kept["y"] != kept["ny"])
    assert len(changed) == 6 and "mark" not in kept
    assert {int(row["idx"]) for row in rows(out / "suspects.csv") if row["mark"] == "right"} == set(changed)
    assert "true:" not in (out / "summary.txt").read_text()
    out = analyze_paths.main([str(old), "--marks", "marks.csv"])
    marks = [row["mark"] for row in rows(out / "suspects.csv")]
    assert (marks.count("right"), marks.count("unsure"), marks.count("wrong")) == (9, 1, 0)


def test_marks_csv_of_an_earlier_version_is_trained_on_and_carried_on(old):
    flags = "--dataset npz --data_dir data.npz --epochs 2 --batch_size 20 --ny_file marks.csv --run_name new"
    run = main_gen_path.main([*QUICK, *flags.split()])
    with np.load(run / "labels.npz") as kept, np.load(old / "labels.npz") as before:
        assert kept["ny"].tolist() == before["ny"].tolist()
        marks = kept["mark"].tolist()
        export(analyze_paths.main([str(run)]), {0: ("drop", 0)}, "marks2.csv")
        found = read_marks("marks2.csv", 80, list("0123"), original=before["y"])
        assert found.given.tolist() == before["ny"].tolist()
    assert (marks.count("right"), marks.count("unsure"), marks.count("wrong")) == (9, 1, 0)
    assert found.mark.tolist() == ["drop", *marks[1:]]
