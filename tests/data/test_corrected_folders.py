"""apply_marks.py on image folders: corrected copies, moves in place and back, and what can come in between."""

import csv
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

import apply_marks
from common.errors import BadInput, RunFailure
from data import corrected_folders
from data.corrected_folders import OWN, own_of
from data.datasets import open_dataset
from models import NETS
from utils import experiment_parser

CLASSES = ["cat", "dog", "owl"]


def contents(root):
    """{relative path: bytes, of a link where it leads}, of all files, and the folders."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        name = path.relative_to(root).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def write_marks(file, said, paths, split="", given=None):
    """marks.csv of the files (paths, in order); said: {path: (mark, class)}; given: {path: class} of noisy labels."""
    with open(file, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow("idx file original_label given_label label label_name mark audit".split())
        for i, path in enumerate(paths):
            original = CLASSES.index(path.split("/")[0])
            k = CLASSES.index((given or {}).get(path, CLASSES[original]))
            mark, name = said.get(path, ("", CLASSES[k]))
            label = CLASSES.index(name) if mark == "wrong" else k
            writer.writerow([i, split + path, original, k, label, CLASSES[label], mark, "2" if mark else ""])
    return str(file)


def rows(file):
    with open(file, newline="") as f:
        return list(csv.DictReader(f))


IMAGES = [f"{name}/{i}.png" for name in CLASSES for i in range(4)]
SAID = {
    "cat/0.png": ("right", "cat"),
    "cat/1.png": ("wrong", "dog"),  # where a 1.png is already
    "dog/1.png": ("wrong", "cat"),  # which leaves that place, to cat's
    "dog/2.png": ("drop", ""),
    "owl/0.png": ("unsure", ""),
    "owl/3.png": ("wrong", "cat"),
}


@pytest.fixture(params=["split", "classes alone"])
def data(request, workplace):
    """(folder, marks.csv, its prefix): with train/ and test/, or folders of classes alone."""
    prefix = "train/" if request.param == "split" else ""
    for i, path in enumerate(IMAGES):
        file = workplace / "data" / f"{prefix}{path}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"image {i}".encode())
    if prefix:
        shutil.copytree(workplace / "data" / "train", workplace / "data" / "test")
    (workplace / "data" / "words.txt").write_text("cat\n")
    return "data", write_marks("marks.csv", SAID, IMAGES, prefix), prefix


def corrected(before, prefix):
    """What contents() of the corrected folder should be, without its .corrections."""
    after, new = dict(before), {"cat/1.png": "dog/1_1.png", "dog/1.png": "cat/1_1.png", "owl/3.png": "cat/3_1.png"}
    for path in (*new, "dog/2.png"):
        value = after.pop(prefix + path)
        if path in new:
            after[prefix + new[path]] = value
    return dict(sorted(after.items()))


def without_own(found):
    return {name: value for name, value in found.items() if not name.startswith(OWN)}


@pytest.mark.parametrize("link", [False, True])
def test_a_corrected_copy_has_what_the_marks_say_and_nothing_else_changes(data, link, capsys):
    folder, marks, prefix = data
    before = contents(folder)
    flags = [marks, "--data_dir", folder, "--out", "new", *["--link"] * link]
    assert apply_marks.main(flags) == Path("new")
    expected = corrected(before, prefix)
    assert (
        without_own(
            {path: Path("new", path).read_bytes() if value else None for path, value in contents("new").items()}
        )
        == expected
    )
    assert contents(folder) == before
    told = capsys.readouterr().out
    assert "main_gen_path.py" in told and "--dataset folder" in told and "--data_dir new" in told

    changes = {
        row["file"]: (row["change"], row["new_name"], row["new_file"]) for row in rows(own_of("new") / "changes.csv")
    }
    assert changes == {
        prefix + "cat/1.png": ("relabel", "dog", prefix + "dog/1_1.png"),
        prefix + "dog/1.png": ("relabel", "cat", prefix + "cat/1_1.png"),
        prefix + "dog/2.png": ("drop", "", ""),
        prefix + "owl/3.png": ("relabel", "cat", prefix + "cat/3_1.png"),
    }
    again = contents("new")
    with pytest.raises(BadInput, match="--out new"):
        apply_marks.main(flags)
    assert contents("new") == again
    shutil.rmtree("new")  # but not what may lie beside it
    apply_marks.main(flags)
    assert contents("new") == again


def test_moved_in_place_and_back_to_the_byte(data, capsys):
    folder, marks, prefix = data
    before = contents(folder)
    flags = [marks, "--data_dir", folder, "--in_place"]
    apply_marks.main(flags)
    after = contents(folder)
    assert without_own(after) == corrected(before, prefix)
    told = capsys.readouterr().out  # no run is named: its network is left to be filled in, not to the default
    assert "--run " in told and re.search(r"--net (\S+)", told)[1] not in NETS
    with pytest.raises(BadInput, match="--undo"):
        apply_marks.main(flags)
    assert contents(folder) == after
    assert own_of(folder).is_dir()
    assert ImageFolder(Path(folder, prefix)).classes == CLASSES  # others, too, take none of that for a class
    apply_marks.main(["--undo", "--data_dir", folder])
    assert contents(folder) == before and not own_of(folder).exists()
    with pytest.raises(BadInput, match=f"--undo.* {folder}"):
        apply_marks.main(["--undo", "--data_dir", folder])


def test_a_second_round_is_of_the_corrected_data_and_undone_first(data):
    folder, marks, prefix = data
    before = contents(folder)
    apply_marks.main([marks, "--data_dir", folder, "--in_place"])
    between = contents(folder)
    carried = rows(own_of(folder) / "marks1.csv")
    there = sorted(
        path.removeprefix(prefix)
        for path in corrected(before, prefix)
        if path.startswith(prefix) and path.endswith(".png")
    )
    assert [row["file"] for row in carried] == [prefix + path for path in there if not path.startswith("test")]
    said = {row["file"].removeprefix(prefix): (row["mark"], row["label_name"]) for row in carried if row["mark"]}
    assert said == {
        "cat/0.png": ("right", "cat"),
        "cat/1_1.png": ("right", "cat"),
        "cat/3_1.png": ("right", "cat"),
        "dog/1_1.png": ("right", "dog"),
        "owl/0.png": ("unsure", "owl"),
    }
    assert not any(row["audit"] for row in carried)
    with pytest.raises(BadInput, match="copy.csv"):  # of the data as they were, but not the same file
        Path("copy.csv").write_text(Path(marks).read_text() + "\n")
        apply_marks.main(["copy.csv", "--data_dir", folder, "--in_place"])
    paths = [row["file"].removeprefix(prefix) for row in carried]
    second = write_marks("second.csv", {**said, "cat/3_1.png": ("wrong", "owl")}, paths, prefix)
    apply_marks.main([second, "--data_dir", folder, "--in_place"])
    assert contents(folder)[f"{prefix}owl/3_1.png"] == before[f"{prefix}owl/3.png"]
    apply_marks.main(["--undo", "--data_dir", folder])
    assert contents(folder) == between
    apply_marks.main(["--undo", "--data_dir", folder])
    assert contents(folder) == before


def test_labels_that_a_run_was_given_but_nobody_looked_at_do_not_get_into_the_data(data, capsys):
    """Synthetic noise is in given_label, and in label where there is no mark."""
    folder, _, prefix = data
    noisy = {"cat/2.png": "dog", "owl/1.png": "cat", "owl/2.png": "dog"}
    said = {"owl/1.png": ("wrong", "owl"), "owl/2.png": ("right", "dog")}  # found to be as on disk; to be another
    marks = write_marks("noisy.csv", said, IMAGES, prefix, given=noisy)
    apply_marks.main([marks, "--data_dir", folder, "--out", "new"])
    assert [(row["file"], row["new_name"]) for row in rows(own_of("new") / "changes.csv")] == [
        (f"{prefix}owl/2.png", "dog")
    ]
    assert re.search(r" 1 .*--ny_", capsys.readouterr().out)  # owl/1.png was so in the run alone


def test_names_that_clash_where_case_is_ignored_are_kept_apart(workplace):
    for path in ("cat/A.png", "cat/É.png", "dog/a.png", "dog/a_1.PNG", "dog/e\u0301.png", "dog/x.png"):
        file = workplace / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    said = {"cat/A.png": ("wrong", "dog")}
    files = sorted(str(p.relative_to("data")) for p in Path("data").rglob("*.*"))
    apply_marks.main([write_marks("marks.csv", said, files), "--data_dir", "data", "--in_place"])
    assert Path("data/dog/A_2.png").read_bytes() == b"cat/A.png"
    apply_marks.main(["--undo", "--data_dir", "data"])
    said = {"cat/É.png": ("wrong", "dog")}
    apply_marks.main([write_marks("marks.csv", said, files), "--data_dir", "data", "--in_place"])
    assert Path("data/dog/É_1.png").exists() and Path("data/dog/e\u0301.png").exists()


# --------------------------------------------------------------------------------------------- what goes wrong


def told(flags, *texts):
    before = contents(".")
    with pytest.raises(BadInput) as found:
        apply_marks.main(flags)
    for text in texts:
        assert text in str(found.value)
    assert contents(".") == before


def test_data_that_the_marks_do_not_belong_to_are_told(data):
    folder, marks, prefix = data
    flags = [marks, "--data_dir", folder, "--in_place"]
    os.rename(f"{folder}/{prefix}cat/0.png", f"{folder}/{prefix}cat/00.png")
    told(flags, f"{marks}: ", f"{prefix}cat/0.png")
    os.rename(f"{folder}/{prefix}cat/00.png", f"{folder}/{prefix}dog/00.png")
    told([write_marks("renamed.csv", {}, ["cat/00.png", *IMAGES[1:]], prefix), *flags[1:]], "cat/00.png")
    os.rename(f"{folder}/{prefix}dog/00.png", f"{folder}/{prefix}cat/0.png")
    lines = Path(marks).read_text().splitlines()
    Path("label.csv").write_text("\n".join([lines[0], lines[1].replace(",0,0,0,cat", ",1,0,0,cat"), *lines[2:]]))
    told(["label.csv", *flags[1:]], "line 2", "original_label")
    everything = {path: ("wrong", "cat") for path in IMAGES if path.startswith("owl")}
    told([write_marks("empty.csv", everything, IMAGES, prefix), *flags[1:]], "empty.csv", "owl")


def test_links_are_told(data):
    folder, marks, prefix = data
    flags = [marks, "--data_dir", folder, "--in_place"]
    (Path(folder) / f"{prefix}owl").rename("owls")
    Path(folder, f"{prefix}owl").symlink_to(Path("owls").resolve())
    told(flags, f"{folder}/{prefix}owl/3.png: ", "--out")
    apply_marks.main([marks, "--data_dir", folder, "--out", "new"])  # copies are what they lead to
    assert Path(f"new/{prefix}owl/2.png").read_bytes() == b"image 10" and not Path(f"new/{prefix}owl").is_symlink()


def test_a_copy_that_fails_leaves_nothing(data, monkeypatch):
    folder, marks, _ = data
    before, copy, count = contents("."), shutil.copy2, []

    def full(*args):
        count.append(args)
        if len(count) == 5:
            raise OSError(28, "No space left on device", "new")
        return copy(*args)

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space"):
        apply_marks.main([marks, "--data_dir", folder, "--out", "new"])
    assert contents(".") == before


def test_a_move_that_fails_moves_the_others_back(data, monkeypatch):
    folder, marks, _ = data
    before, rename, count = contents("."), os.rename, []

    def fails(old, new):
        count.append(old)
        if len(count) == 3:
            raise OSError(5, "Input/output error", str(old))
        return rename(old, new)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="Input/output"):
        apply_marks.main([marks, "--data_dir", folder, "--in_place"])
    assert contents(".") == before and len(count) == 5


def test_killed_at_any_move_it_is_taken_back(data):
    folder, marks, _ = data
    before = contents(folder)
    plan = corrected_folders.plan_folder(Path(folder), marks)
    for moves in range(4):
        child = os.fork()
        if child == 0:
            rename, made = os.rename, []

            def killed(old, new, most=moves, rename=rename, made=made):
                if len(made) == most:
                    os.kill(os.getpid(), signal.SIGKILL)
                made.append(old)
                rename(old, new)

            os.rename = killed
            corrected_folders.move_in_place(plan)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        apply_marks.main(["--undo", "--data_dir", folder])
        assert contents(folder) == before


def test_an_undo_overwrites_nothing_and_goes_on(data):
    folder, marks, prefix = data
    before = contents(folder)
    apply_marks.main([marks, "--data_dir", folder, "--in_place"])
    root = Path(folder, prefix)
    (root / "cat/1.png").write_bytes(b"somebody's new image")
    (root / "cat/3_1.png").rename("elsewhere.png")
    with pytest.raises(RunFailure, match="2 images moved back, 2 not"):
        apply_marks.main(["--undo", "--data_dir", folder])
    assert (root / "cat/1.png").read_bytes() == b"somebody's new image"
    assert (root / "dog/1_1.png").read_bytes() == before[f"{prefix}cat/1.png"]  # left, not lost
    assert contents(folder)[f"{prefix}dog/2.png"] == before[f"{prefix}dog/2.png"]
    (root / "cat/1.png").unlink()
    Path("elsewhere.png").rename(root / "cat/3_1.png")
    apply_marks.main(["--undo", "--data_dir", folder])
    assert contents(folder) == before


def test_the_journals_of_another_folder_are_never_replaced(data):
    folder, marks, prefix = data
    journal = own_of("new") / "1.json"  # with what it left out beside it
    journal.parent.mkdir()
    journal.write_text("{}")
    flags = [marks, "--data_dir", folder, "--out", "new"]
    if prefix:  # its own lie within the folder
        apply_marks.main(flags)
    else:
        told(flags, "new.corrections")
        assert not Path("new").exists()
    assert journal.is_file()


def test_an_undo_goes_by_contents(data):
    folder, marks, prefix = data
    before = contents(folder)
    apply_marks.main([marks, "--data_dir", folder, "--in_place"])
    root = Path(folder, prefix)
    (root / "cat/3_1.png").write_bytes(b"edited since")
    with pytest.raises(RunFailure, match="cat/3_1.png"):
        apply_marks.main(["--undo", "--data_dir", folder])
    assert (root / "cat/3_1.png").read_bytes() == b"edited since" and not (root / "owl/3.png").exists()
    (root / "cat/3_1.png").write_bytes(before[f"{prefix}owl/3.png"])
    apply_marks.main(["--undo", "--data_dir", folder])
    assert contents(folder) == before


def test_the_corrected_folder_is_a_data_set_whose_rows_the_carried_marks_name(workplace, write_images):
    names = [f"{name}/{i}.png" for name in CLASSES for i in range(12)]
    write_images("data", {name: (8, 8, 3) for name in names})
    args = experiment_parser("test").parse_args("--dataset folder --data_dir data --image_size 8".split())
    paths = open_dataset(args).train_paths  # a part: the rest is tested on, by a hash of the bytes
    assert 20 < len(paths) < 36
    said = {paths[0]: ("wrong", "owl"), paths[-1]: ("wrong", "dog"), paths[3]: ("drop", "")}
    apply_marks.main([write_marks("marks.csv", said, paths), "--data_dir", "data", "--out", "new"])
    args.data_dir = "new"
    dataset = open_dataset(args)
    carried = rows(own_of("new") / "marks.csv")
    assert [row["file"] for row in carried] == dataset.train_paths
    assert [int(row["original_label"]) for row in carried] == dataset.train.labels.tolist()
