"""data/label_files.py: label files and marks.csv, made by people."""

import csv
import pickle
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.untrusted import as_cell
from data import label_files
from data.label_files import Marks, read_marks, split_file_and_key
from data.noise import realised_rate

NAMES = ["ant", "bee", "cat"]
LABELS = [2, 0, 1, 1]


@pytest.fixture
def label_file(tmp_path):
    """label_file(name, content) -> path as text; content: text, or what the ending's own writer takes."""

    def write(name, content):
        path = tmp_path / name
        if path.suffix == ".pt":
            torch.save(content, path)
        elif path.suffix == ".npy":
            np.save(path, content)
        elif path.suffix == ".npz":
            np.savez(path, **content)
        else:
            path.write_text(content, encoding="utf-8")
        return str(path)

    return write


def read(spec, paths=None):
    return read_labels(spec, 4, NAMES, paths)


def read_labels(*what):
    return label_files.read_labels(*what)[0]


def test_a_spec_is_a_file_and_a_key(tmp_path):
    assert split_file_and_key("a/b.pt:worse") == (Path("a/b.pt"), "worse")
    assert split_file_and_key("a/b.pt") == (Path("a/b.pt"), None)
    odd = tmp_path / "at 10:30.npy"
    odd.touch()
    assert split_file_and_key(str(odd)) == (odd, None)
    assert split_file_and_key(f"{odd}:key") == (odd, "key")


@pytest.mark.parametrize("key", ["worse", "worse_label"])
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "f4"])
def test_pt_dictionary_of_arrays_by_key_with_or_without_label_ending(label_file, key, dtype):
    file = label_file("n.pt", {"clean_label": np.zeros(4, int), "worse_label": np.array(LABELS, dtype)})
    labels = read(f"{file}:{key}")
    assert labels.dtype == np.int64 and labels.tolist() == LABELS


def test_pt_written_with_the_module_names_of_numpy_1(tmp_path):
    old = pickle.dumps({"worse_label": np.array(LABELS)}, protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in old
    path = tmp_path / "n.pt"
    torch.save({"worse_label": 0}, path, _use_new_zipfile_serialization=False)
    head = path.read_bytes()  # torch's older format: magic number, version, system, content, storages
    content = pickle.dumps({"worse_label": 0}, protocol=2)
    assert content in head
    path.write_bytes(head.replace(content, old))
    assert read(str(path)).tolist() == LABELS


@pytest.mark.parametrize("content", [{"only": LABELS}, {"only": torch.tensor(LABELS)}, torch.tensor(LABELS), LABELS])
def test_pt_of_a_single_list_or_tensor_needs_no_key(label_file, content):
    assert read(label_file("n.pt", content)).tolist() == LABELS


def test_npy_and_npz(label_file):
    assert read(label_file("n.npy", np.array(LABELS, np.uint8))).tolist() == LABELS
    assert read(label_file("column.npy", np.array(LABELS)[:, None])).tolist() == LABELS
    assert read(label_file("one.npz", {"ny": np.array(LABELS)})).tolist() == LABELS
    both = label_file("two.npz", {"y": np.zeros(4, int), "ny": np.array(LABELS)})
    assert read(f"{both}:ny").tolist() == LABELS


@pytest.mark.parametrize("name", ["n.pt", "n.npz"])
def test_keys_are_listed_when_the_key_is_missing_or_unknown(label_file, refused, name):
    file = label_file(name, {"clean_label": np.array(LABELS), "worse_label": np.array(LABELS)})
    refused(lambda: read(file), file, "clean_label", "worse_label")
    refused(lambda: read(f"{file}:worst"), file, "worst", "clean_label", "worse_label")


def test_a_key_for_a_file_without_keys_is_refused(label_file, refused):
    file = label_file("n.npy", np.array(LABELS))
    refused(lambda: read(f"{file}:worse"), file)


def test_csv_by_idx_in_any_order_with_numbers_or_class_names(label_file):
    assert read(label_file("n.csv", "idx,label\n3,1\n0,cat\n2,bee\n1,0\n")).tolist() == LABELS


def test_csv_as_spreadsheets_write_it(label_file):
    content = '\ufeffidx, who, label\r\n0, me, "2"\r\n1, me, 0\r\n\r\n2, me, bee\r\n3, me, 1\r\n'
    assert read(label_file("n.csv", content)).tolist() == LABELS


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_csv_by_path_of_an_image_folder(label_file, prefix):
    paths = ["ant/1.png", "bee/1.png", "bee/2.png", "cat/1.png"]
    lines = "".join(f"{prefix}{path},{label}\n" for path, label in zip(paths, LABELS, strict=True))
    assert read(label_file("n.csv", "path,label\n" + lines), paths).tolist() == LABELS


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=30), data=st.data())
def test_csv_gives_every_idx_its_own_label(labels, data):
    order = data.draw(st.permutations(range(len(labels))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "n.csv")
        file.write_text("idx,label\n" + "".join(f"{i},{labels[i]}\n" for i in order))
        assert read_labels(str(file), len(labels), NAMES).tolist() == labels


@pytest.mark.parametrize("by", ["idx", "path"])
def test_csv_of_names_that_a_spreadsheet_would_run(tmp_path, by):
    names = ["=x", "'=x", "''=x", "'x", "x", "+1", "-", "@a", "\tb", "\rc", "1", '=x,"']
    with open(tmp_path / "n.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow([by, "label"])
        writer.writerows([i if by == "idx" else as_cell(name), as_cell(name)] for i, name in enumerate(names))
    assert read_labels(str(tmp_path / "n.csv"), len(names), names, names).tolist() == list(range(len(names)))


ROWS = {
    "semicolons": "idx;label\n3;1\n0;2\n2;1\n1;0\n",
    "tabs": "idx\tlabel\n3\t1\n0\t2\n2\t1\n1\t0\n",
    "a semicolon in a cell": 'idx,label,why\n0,2,"a;b;c"\n1,0,\n2,1,\n3,1,;;;\n',
    "empty rows": "idx,label\n0,2\n,\n1,0\n , \n2,1\n3,1\n\n,\n",
    "Excel's CSV in UTF-8": "\ufeffidx;label\r\n0;cat\r\n1;ant\r\n2;bee\r\n3;bee\r\n;\r\n",
}


@pytest.mark.parametrize("content", ROWS.values(), ids=ROWS)
def test_csv_as_other_programs_write_it(label_file, content):
    assert read(label_file("n.csv", content)).tolist() == LABELS


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_csv_knows_a_name_in_either_unicode_form(label_file, form):
    content = unicodedata.normalize(form, "path,label\nfée/é.png,fée\n")
    for kept in ("NFC", "NFD"):
        name = unicodedata.normalize(kept, "fée")
        paths = [unicodedata.normalize(kept, "fée/é.png")]
        assert read_labels(label_file("n.csv", content), 1, ["bee", name], paths).tolist() == [1]


@pytest.mark.parametrize(
    ("names", "label", "meant"),
    [
        (["001", "002", "003"], "1", 0),
        (["001", "002", "003"], "002", 1),
        (["001", "002", "003"], "3", 2),
        (["001", "002", "003"], "0", None),  # no class is called so
        (["1", "2", "3"], "3", 2),
        (["1", "2", "3"], "0", None),
        (["0", "1", "10", "2"], "2", 3),
        (["10", "20", "bee"], "2", None),
        (["1", "01", "bee"], "1", 0),
        (["ant", "ant", "bee"], "ant", None),
        (["ant", "ant", "bee"], "1", 1),
        (["ant", "ant", "bee"], "bee", 2),
    ],
)
def test_a_class_name_wins_over_a_number_and_two_meanings_are_told(label_file, refused, names, label, meant):
    file = label_file("n.csv", f"idx,label\n0,{label}\n")
    if meant is None:
        refused(lambda: read_labels(file, 1, names), file, "line 2", label)
    else:
        assert read_labels(file, 1, names).tolist() == [meant]


@pytest.mark.parametrize("name", ["n.npy", "n.pt", "n.npz"])
def test_labels_that_count_from_1_are_told_so(label_file, refused, name):
    file = label_file(name, np.array([1, 2, 3, 1]) if name == "n.npy" else {"ny": np.array([1, 2, 3, 1])})
    refused(lambda: read(file), file, "1")


def test_the_array_that_needs_unpickling_is_named(tmp_path, refused):
    np.savez(tmp_path / "n.npz", good=np.array(LABELS), odd=np.array([1, "a", None, 2], object))
    refused(lambda: read(f"{tmp_path}/n.npz:odd"), "n.npz", "odd")
    assert read(f"{tmp_path}/n.npz:good").tolist() == LABELS


BAD_CSV = {
    "idx,label\n0,1\n1,1\n3,1\n": ["1", "4", "2"],
    "idx,label\n0,1\n1,1\n1,1\n3,1\n": ["line 4", "1"],
    "idx,label\n0,1\n1,1\n\n2,1\n4,1\n": ["line 6", "4"],
    "idx,label\n-1,1\n": ["-1"],
    "idx,label\n0,dog\n1,1\n2,1\n3,1\n": ["line 2", "dog"],
    "idx,label\n0,3\n1,1\n2,1\n3,1\n": ["line 2", "3"],
    "idx,label\n0,-1\n1,1\n2,1\n3,1\n": ["line 2", "-1"],
    "idx,label\n0,1.5\n1,1\n2,1\n3,1\n": ["line 2", "1.5"],
    f"idx,label\n0,{9:050}\n1,1\n2,1\n3,1\n": ["line 2"],
    "idx,label\n0\n1,1\n2,1\n3,1\n": ["line 2"],
    "idx,noisy\n0,1\n": ["idx,noisy"],
    "sample,label\n0,1\n": ["sample,label"],
    "": [],
    "path,label\na.png,1\n": ["path"],
}


@pytest.mark.parametrize(("content", "expected"), BAD_CSV.items())
def test_bad_csv_is_refused_by_line(label_file, refused, content, expected):
    file = label_file("n.csv", content)
    refused(lambda: read(file), "--ny_file", file, *expected)


def test_csv_that_is_not_text_is_refused(tmp_path, refused):
    file = tmp_path / "n.csv"
    file.write_bytes(b"idx,label\n0,\xff\xfe\n")
    refused(lambda: read(str(file)), str(file))


BAD_ARRAYS = {
    "too short": (LABELS[:3], ["3", "4"]),
    "too long": (LABELS + [0], ["5", "4"]),
    "two columns": (np.zeros((4, 2), int), ["(4, 2)"]),
    "not an array": (np.array(7), ["()"]),
    "label too high": ([0, 1, 2, 3], ["3", "2"]),
    "label negative": ([0, -1, 2, 1], ["-1"]),
    "fractions": ([0.0, 0.5, 1.0, 2.0], ["float"]),
    "not a number": ([0.0, np.nan, 1.0, 2.0], []),
    "infinite": ([0.0, np.inf, 1.0, 2.0], []),
    "text": (["a", "b", "c", "d"], []),
}


@pytest.mark.parametrize("name", ["n.pt", "n.npy", "n.npz"])
@pytest.mark.parametrize(("content", "expected"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_labels_are_refused(label_file, refused, name, content, expected):
    file = label_file(name, np.array(content) if name == "n.npy" else {"ny": np.array(content)})
    if name == "n.pt" and np.array(content).dtype.kind == "U":
        expected = []  # arrays of text are none of what may be constructed
    refused(lambda: read(file), "--ny_file", file, *expected)


@pytest.mark.parametrize("content", [{"a": [0, [1], 2, 0]}, {"a": torch.rand(4, requires_grad=True)}, {}, {"a": {}}])
def test_odd_content_of_a_pt_file_is_refused(label_file, refused, content):
    file = label_file("n.pt", content)
    refused(lambda: read(file), "--ny_file", file)


def test_keys_are_named_so_that_no_terminal_acts_on_them(label_file, refused):
    file = label_file("n.pt", {"a\x1b[2J\nb": LABELS, 7: LABELS, ("t",): LABELS})
    assert all(message.isprintable() for message in refused(lambda: read(f"{file}:c"), r"a\x1b[2J\nb"))


def test_a_missing_file_and_an_unknown_ending_are_refused(label_file, refused):
    refused(lambda: read("nowhere.pt:worse"), "nowhere.pt")
    file = label_file("labels.txt", "0 1 2")
    refused(lambda: read(file), file, ".csv")


def test_a_pickle_bomb_is_refused_without_being_executed(tmp_path, refused, bomb):
    objects = np.array([bomb] * 4, dtype=object)
    torch.save({"worse_label": bomb}, tmp_path / "torch.pt")
    torch.save({"worse_label": objects}, tmp_path / "objects.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(bomb, protocol=2))
    np.save(tmp_path / "objects.npy", objects)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(bomb))
    np.savez(tmp_path / "objects.npz", worse_label=objects)
    for file in ("torch.pt", "objects.pt", "plain.pt", "objects.npy", "plain.npy", "objects.npz"):
        refused(lambda file=file: read(str(tmp_path / file)), file)
        assert not Path(bomb.folder).exists()


# ------------------------------------------------------------------- the real human labels, CIFAR-10N


@pytest.fixture(scope="module")
def cifar10_labels(real_data):
    with np.load(real_data / "cifar10.npz") as file:
        return file["train_labels"]


@pytest.mark.parametrize(
    ("key", "published"),
    [
        ("clean", 0.0),
        ("aggre", 0.0903),
        ("worse", 0.4021),
        ("random_label1", 0.1723),
        ("random_label2", 0.1812),
        ("random_label3", 0.1764),
    ],
)
def test_cifar10n_has_its_published_noise_rates_in_the_rows_of_cifar10(real_data, cifar10_labels, key, published):
    human = read_labels(f"{real_data}/CIFAR-10_human.pt:{key}", 50_000, [str(k) for k in range(10)])
    assert realised_rate(cifar10_labels, human) == pytest.approx(published, abs=0.0003)


def test_cifar10n_without_a_key_lists_its_keys(real_data, refused):
    file = f"{real_data}/CIFAR-10_human.pt"
    names = [str(k) for k in range(10)]
    refused(lambda: read_labels(file, 50_000, names), "aggre_label", "worse_label", "random_label3")
    refused(lambda: read_labels(f"{file}:worse", 1437, names), "50000", "1437")


# ------------------------------------------------------------------------------------------ marks.csv

FILES = ["ant/a.png", "ant/b, c.png", "bee/=d.png", "cat/caf\udce9.png"]
MARKED = """idx,file,original_label,given_label,label,label_name,mark,audit
0,train/ant/a.png,2,2,0,ant,wrong,1
1,"train/ant/b, c.png",0,0,0,ant,right,
2,bee/=d.png,1,0,0,ant,unsure,
3,cat/caf\\udce9.png,1,1,1,bee,drop,6
"""
EARLIER = "idx,given_label,label,mark\n0,2,0,wrong\n1,0,0,right\n2,0,0,unsure\n3,1,1,drop\n"


def marks_of(file, paths=FILES, original=LABELS):
    return read_marks(file, 4, NAMES, paths, original=np.array(original))


def test_marks_csv_is_read_column_by_column(label_file):
    found = marks_of(label_file("marks.csv", MARKED))
    assert found.original.tolist() == LABELS
    assert found.given.tolist() == [2, 0, 0, 1]
    assert found.label.tolist() == [0, 0, 0, 1]
    assert found.mark.tolist() == ["wrong", "right", "unsure", "drop"]
    assert found.audit.tolist() == ["1", "", "", "6"]
    labels, marks = label_files.read_labels(label_file("marks.csv", MARKED), 4, NAMES, FILES)
    assert labels.tolist() == [0, 0, 0, 1] and marks.mark.tolist() == ["right", "right", "unsure", "drop"]
    numerals = read_marks(label_file("m.csv", "idx,given_label,label,mark\n0,0,2,wrong\n"), 1, ["0", "1", "10", "2"])
    assert numerals.label.tolist() == [2]  # a number, not a name


def test_the_earlier_form_is_read_too_and_other_label_files_are_no_marks(label_file):
    found = marks_of(label_file("marks.csv", "idx,given_label,label,mark\n3,1,1,\n2,1,1,\n1,0,0,right\n0,2,1,wrong\n"))
    assert found.original.tolist() == LABELS and found.label.tolist() == [1, 0, 1, 1]
    assert found.mark.tolist() == ["wrong", "right", "", ""] and found.audit.tolist() == [""] * 4
    assert marks_of(label_file("n.csv", "idx,label\n0,1\n")) is None


@pytest.mark.parametrize(
    "spreadsheet",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n") + "\r\n",
        lambda text: text + ",,,,,,,\n",
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",2,2,0,", ',"2","2","0",'),
        lambda text: "\n".join([text.splitlines()[0], *reversed(text.splitlines()[1:])]),
        lambda text: text.replace("wrong", " Wrong ").replace("audit", "audit "),
    ],
    ids="BOM line_ends empty_line semicolons quotes order capitals".split(),
)
@pytest.mark.parametrize("form", ["this", "earlier"])
def test_what_spreadsheets_do_to_marks_is_no_obstacle(label_file, spreadsheet, form):
    paths = [name.replace(",", "") for name in FILES]
    text = MARKED.replace('"train/ant/b, c.png"', paths[1]) if form == "this" else EARLIER
    found = read_marks(label_file("marks.csv", spreadsheet(text)), 4, NAMES, paths)
    assert found.given.tolist() == [2, 0, 0, 1] and found.label.tolist() == [0, 0, 0, 1]
    assert found.mark.tolist() == ["wrong", "right", "unsure", "drop"]
    assert found.audit.tolist() == (["1", "", "", "6"] if form == "this" else [""] * 4)


BAD_MARKS = {
    "a missing row": (lambda text: text.rsplit("\n", 2)[0] + "\n", ["4", "3"]),
    "another file": (lambda text: text.replace("ant/a.png", "ant/z.png"), ["line 2", "ant/a.png"]),
    "no file": (lambda text: text.replace("bee/=d.png", ""), ["line 4", "bee/=d.png"]),
    "another data set's label": (lambda text: text.replace(",2,2,0,", ",1,2,0,"), ["line 2", "original_label"]),
    "no mark": (lambda text: text.replace("unsure", "dunno"), ["line 4", "dunno", "unsure"]),
    "wrong, and not put right": (lambda text: text.replace(",2,2,0,", ",2,2,2,"), ["line 2", "wrong"]),
    "no class": (lambda text: text.replace(",2,2,0,", ",2,2,3,"), ["line 2", "3"]),
    "no given class": (lambda text: text.replace(",2,2,0,", ",2,,0,"), ["line 2", "given_label"]),
    "twice": (lambda text: text.replace("\n1,", "\n0,"), ["line 3"]),
}


@pytest.mark.parametrize(("change", "expected"), BAD_MARKS.values(), ids=BAD_MARKS)
def test_marks_that_cannot_be_meant_are_refused_by_line(label_file, refused, change, expected):
    file = label_file("marks.csv", change(MARKED))
    refused(lambda: marks_of(file), "--ny_file", file, *expected)


def test_marks_with_files_are_not_those_of_data_without(label_file, refused):
    refused(lambda: marks_of(label_file("marks.csv", MARKED), paths=None), "line 2", "file")


def test_marks_of_the_earlier_form_must_agree_with_the_data_more_than_by_chance(label_file, refused):
    rng = np.random.default_rng(0)
    clean = rng.integers(3, size=200)

    def read_those_on(given):
        lines = "".join(f"{i},{k},0,\n" for i, k in enumerate(given))
        file = label_file("marks.csv", f"idx,given_label,label,mark\n{lines}")
        return read_marks(file, 200, NAMES, original=clean)

    noisy = np.where(rng.random(200) < 0.6, rng.integers(3, size=200), clean)
    for labels in (clean, noisy):
        assert read_those_on(labels).given.tolist() == labels.tolist()
    refused(lambda: read_those_on(rng.permutation(clean)), "marks.csv", "given_label")


def test_marks_judge_the_labels_that_are_given_now():
    """Trained on: a wrong is a right. Given something else than what was said to be right: that is wrong."""
    marks = Marks(
        *np.array([[0] * 7, [0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1, 1]]),
        np.array(["wrong", "right", "unsure", "drop", "", "", "wrong"]),
        np.array(["a"] + [""] * 6),
    )
    trained_on = marks.of(marks.label)
    assert trained_on.mark.tolist() == ["right", "right", "unsure", "drop", "", "right", "right"]
    assert trained_on.label.tolist() == marks.label.tolist() and not any(trained_on.audit)
    assert marks.of(marks.given).audit[0] == "a"  # an audit is of the labels that it was drawn on
    assert marks.of(marks.given).mark.tolist() == ["wrong", "right", "unsure", "drop", "", "wrong", "wrong"]
    other = marks.of(np.array([2, 2, 2, 2, 2, 2, 1]))
    assert other.mark.tolist() == ["wrong", "wrong", "unsure", "drop", "", "wrong", "right"]
    assert other.label.tolist() == [1, 0, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("ending", ["pt", "npz"])
def test_one_clean_label_that_differs_says_that_a_label_file_is_of_other_rows(label_file, refused, ending):
    clean = np.arange(200) % 3
    for wrong in (0, 1):
        theirs = np.where(np.arange(200) < wrong, 1 - clean, clean)
        file = label_file(f"n.{ending}", {"noisy": np.zeros(200, int), "clean_label": theirs})
        if not wrong:
            read_labels(f"{file}:noisy", 200, NAMES, None, clean)
        else:
            refused(lambda: read_labels(f"{file}:noisy", 200, NAMES, None, clean), file, "0.5%")  # noqa: B023
