"""Label files made by people: FILE[:KEY] of --ny_file, and marks.csv, what a person said of each label."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.untrusted import (
    check_range,
    class_numbers,
    from_cell,
    load_npy,
    load_npz,
    load_pt,
    nfc,
    printable,
    reason,
    valid_text,
)
from data.noise import realised_rate

MARKS = ("right", "wrong", "unsure", "drop", "")


def split_file_and_key(spec: str) -> tuple[Path, str | None]:
    """`FILE[:KEY]` -> (Path, key or None). A colon that belongs to an existing file's name is not a separator."""
    if not Path(spec).exists() and ":" in spec:
        file, key = spec.rsplit(":", 1)
        return Path(file), key
    return Path(spec), None


def read_labels(
    spec: str, num_samples: int, class_names: list[str], paths: list[str] | None = None, clean: np.ndarray | None = None
) -> "tuple[np.ndarray, Marks | None]":
    """Labels (N,) int64 of the training split from `FILE[:KEY]`, N = num_samples, and the Marks of a marks.csv.

    .pt: a dictionary of arrays such as CIFAR-10N's, KEY with or without its `_label` ending; .npz: KEY, or the
    only array in it; .npy: (N,); .csv: a header with `label` and `idx` or `path`, a line a sample, labels as
    numbers or class names; or marks.csv, see read_marks. paths: the files of an image folder, by row. clean: (N,) the
    data set's labels, where they are known: clean labels that the file brings must be the same. Nothing is unpickled.
    Raises BadInput that names the file.
    """
    path, key = split_file_and_key(spec)
    what = f"--ny_file {path}"
    if not path.is_file():
        raise BadInput(f"{what}: there is no such file; give FILE or FILE:KEY")
    if key is not None and path.suffix not in (".pt", ".npz"):
        raise BadInput(f"--ny_file {spec}: a {path.suffix} file has no keys; leave :{key} out")
    if path.suffix == ".csv":
        marks = read_marks(path, num_samples, class_names, paths, clean)
        if marks is not None:
            return marks.label, marks.of(marks.label)
        rows = _by_row(*_csv_lines(path, what), num_samples, paths, what)
        return _labels(rows, "label", class_names, len(class_names), what), None
    labels = _read_array(path, key, what)
    if len(labels) != num_samples:
        raise BadInput(f"{what}: has {len(labels)} labels, the training set {num_samples} samples; give one for each")
    check_range(labels, len(class_names), what)
    if clean is not None and key:
        _check_alignment(path, clean, what)
    return labels, None


def _check_alignment(path, clean, what):
    """BadInput when a label file was made for rows in another order: where it brings clean labels, as
    CIFAR-10N's files do, these must be the data set's (N,)."""
    try:
        theirs = _read_array(path, "clean", what)
    except BadInput:  # it brings none
        return
    if len(theirs) == len(clean) and (wrong := realised_rate(clean, theirs)) > 0:
        raise BadInput(
            f"{what}: its clean_label differs from this data set's labels in {wrong:.1%} of the rows: "
            "it was made for rows in another order; use the data set it belongs to"
        )


def _read_array(path, key, what):
    """Class numbers (n,) of a .pt, .npz or .npy file."""
    damaged = f"{what}: cannot be read"
    if path.suffix == ".npy":
        found = load_npy(path, damaged)
    elif path.suffix == ".npz":
        (found,) = load_npz(path, lambda names: [_pick(path, names, key)], damaged).values()
    elif path.suffix == ".pt":
        found = load_pt(path, damaged, _NUMPY)
        found = found[_pick(path, found, key)] if isinstance(found, dict) else found
    else:
        raise BadInput(f"{what}: expected a .pt, .npy, .npz or .csv file")
    try:
        array = np.asarray(found)
    except Exception as problem:  # whatever numpy says of what is no array
        raise BadInput(f"{what}: holds no labels ({reason(problem)}); give an array of them") from None
    return class_numbers(array, what)


# The .pt files of CIFAR-10N hold numpy arrays: these constructors, also under the name they had before numpy 2, are all
# that may be called while reading.
_reconstruct = np._core.multiarray._reconstruct
_NUMPY = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")},
]


def _pick(path, keys, key):
    """The one of a file's keys that `key` means."""
    keys = [k for k in keys if isinstance(k, str)]
    if key is None and len(keys) == 1:
        return keys[0]
    for name in (key, f"{key}_label"):
        if name in keys:
            return name
    found = f"has no {key}" if key else "holds several arrays"
    there = ", ".join(printable(k) for k in keys[:100])
    raise BadInput(f"--ny_file {path}: {found}; give {path.name}:KEY with one of {there}")


# ---------------------------------------------------------------------------------------------- CSV files


def _csv_lines(path, what):
    """The header of a CSV file, and of each line that is not empty its number and {column: cell}."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            first = f.readline()
            f.seek(0)
            delimiter = max(",;\t", key=first.count)  # many countries' spreadsheets separate by semicolons
            reader = csv.DictReader(f, skipinitialspace=True, delimiter=delimiter, restkey="", restval="")
            reader.fieldnames = header = [name.strip() for name in reader.fieldnames or []]
            lines = [(reader.line_num, line) for line in reader if any(line[name].strip() for name in header)]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise BadInput(f"{what}: not readable as CSV ({problem}); save it as CSV in UTF-8") from None
    return header, lines


def _by_row(header, lines, num_samples, paths, what):
    """[(line number, {column: cell})] of each training sample, by its row."""
    by = "idx" if "idx" in header else "path"
    if "label" not in header or by not in header:
        found = printable(",".join(header))
        raise BadInput(f"{what}: needs a header line with label and idx (or path), found {found}")
    if by == "path" and paths is None:
        raise BadInput(f"{what}: names its samples by path, which only image folders have; use idx,label")
    known = {str(i): i for i in range(num_samples)} if by == "idx" else {nfc(p): i for i, p in enumerate(paths)}
    rows = {}
    for number, line in lines:
        sample = _text(line[by])
        row = known.get(sample, known.get(sample.removeprefix("train/")))
        if row is None:
            raise BadInput(f"{what}, line {number}: {by} {printable(sample)} is not in the training set")
        if row in rows:
            raise BadInput(f"{what}, line {number}: {by} {printable(sample)} stands there twice")
        rows[row] = number, line
    if lacking := set(range(num_samples)) - set(rows):
        raise BadInput(
            f"{what}: has no label for {len(lacking)} of the {num_samples} training samples "
            f"(the first: row {min(lacking)}); give one for each"
        )
    return [rows[row] for row in range(num_samples)]


def _labels(rows, column, class_names, num_classes, what):
    """(N,) class numbers of a column of labels: class names or numbers; without class_names numbers alone.

    Where names are numbers a number is a name: 1 means the class 001, not the second one.
    """
    count = Counter(map(nfc, class_names))
    names = {nfc(name): k for k, name in enumerate(class_names) if count[nfc(name)] == 1}
    numbers = {str(int(name)): k for name, k in names.items() if name.isdecimal()}
    numbers = numbers or {str(k): k for k in range(num_classes)}
    labels = []
    for number, line in rows:
        text = _text(line[column])
        label = names.get(text, numbers.get(text))
        if label is None:
            raise BadInput(
                f"{what}, line {number}: {column} {printable(text)} is neither the name of one class "
                f"nor a class number from 0 to {num_classes - 1}"
            )
        labels.append(label)
    return np.array(labels, np.int64)


def _text(cell):
    return nfc(from_cell(cell.strip()))


# --------------------------------------------------------------------------------------------- marks.csv


@dataclass
class Marks:
    """What a person said of labels: marks.csv, by row.

    original, given, label: (N,) int64: the data set's label, the one that was looked at, the one that is right.
    mark: (N,) text of MARKS, judges given. audit: (N,) text, carried on as it is.
    """

    original: np.ndarray
    given: np.ndarray
    label: np.ndarray
    mark: np.ndarray
    audit: np.ndarray

    @property
    def settled(self) -> np.ndarray:
        """(N,) bool: whose label a person found right, or put in a wrong one's place. What is said in label holds."""
        return np.isin(self.mark, ("right", "wrong")) | ((self.mark == "") & (self.label != self.given))

    def of(self, given: np.ndarray) -> "Marks":
        """The same Marks as they judge other given labels (N,), such as the corrected ones that a run was trained on.

        A label that was found right, or put in a wrong one's place, is right where it is the given one now;
        any other is wrong there. An audit is one of the ranking that it was drawn from, and ends with its labels.
        """
        mark = np.where(self.settled, np.where(given == self.label, "right", "wrong"), self.mark)
        audit = self.audit if (given == self.given).all() else np.full_like(self.audit, "")
        return Marks(self.original, given, np.where(mark == "wrong", self.label, given), mark, audit)


def outline_of_marks(path: str | Path) -> tuple[int, list[str], dict[int, str]]:
    """What a marks.csv says by itself: how many rows, a name for each class, {idx: file} (of an image folder).

    BadInput where the file is something else. What is odd in a line is left for read_marks to tell.
    """
    header, lines = _csv_lines(path, path)
    if not {"idx", "given_label", "label", "mark"} <= set(header) or not lines:
        found = printable(",".join(header))
        raise BadInput(f"{path}: is no marks.csv (its header: {found}); export one from the page of analyze_paths.py")
    names, files, most = {}, {}, 1
    for _, line in lines:
        idx, label = line["idx"].strip(), line["label"].strip()
        labels = [label, line["given_label"].strip(), line.get("original_label", "").strip()]
        most = max([most, *(int(text) for text in labels if text.isdecimal())])
        if label.isdecimal() and line.get("label_name", "").strip():
            names[int(label)] = from_cell(line["label_name"].strip())
        if idx.isdecimal() and line.get("file", "").strip():
            files[int(idx)] = from_cell(line["file"].strip())
    return len(lines), [names.get(k, str(k)) for k in range(most + 1)], files


def read_marks(
    path: str | Path,
    num_samples: int,
    class_names: list[str],
    paths: list[str] | None = None,
    original: np.ndarray | None = None,
    flag: str = "--ny_file",
) -> Marks | None:
    """The Marks in marks.csv as analyze_paths.py's page exports it; None where the file is something else.

    A row a sample: idx, file, original_label, given_label, label, label_name, mark, audit (an earlier form: idx,
    given_label, label, mark). Labels are class numbers, also where classes are named 0, 1, 10, 2; label_name is for
    people. paths: an image folder's files by row, original: (N,) the data set's labels, where they are known: the
    file's must be the same, of the earlier form given_label must agree more often than by chance. Raises BadInput
    that names file and line.
    """
    what, other_data = f"{flag} {path}", "the marks were made on other data; give those"
    if Path(path).suffix != ".csv" or "given_label" not in (read := _csv_lines(path, what))[0]:
        return None
    rows, is_new = _by_row(*read, num_samples, paths, what), "original_label" in read[0]
    label, given, theirs = (
        _labels(rows, column, [], len(class_names), what)
        for column in ("label", "given_label", "original_label" if is_new else "given_label")
    )
    mark = [line.get("mark", "").strip().lower() for _, line in rows]
    for row, (number, line) in enumerate(rows):
        if mark[row] not in MARKS:
            raise BadInput(
                f"{what}, line {number}: the mark is {printable(mark[row])}; give right, wrong, unsure, drop or nothing"
            )
        if mark[row] == "wrong" and label[row] == given[row]:
            raise BadInput(
                f"{what}, line {number}: is marked wrong, but label is given_label; give the right label, "
                "or mark it unsure or drop"
            )
        file = "" if paths is None else nfc(valid_text(paths[row]))
        if "file" in line and _text(line["file"]) not in (file, f"train/{file}", f"test/{file}"):
            raise BadInput(
                f"{what}, line {number}: file is not the data set's row {row}, {printable(file)}: {other_data}"
            )
        if is_new and original is not None and theirs[row] != original[row]:
            raise BadInput(f"{what}, line {number}: original_label differs from the data set's label: {other_data}")
    if not is_new and original is not None and agree_by_chance(original, given, len(class_names)):
        raise BadInput(
            f"{what}: given_label is the data's label in {np.mean(given == original):.1%} of the rows, no more than by "
            f"chance: {other_data}"
        )
    audit = [_text(line.get("audit", "")) for _, line in rows]
    original = theirs if original is None else original
    return Marks(original, given, label, np.array(mark, dtype="U6"), np.array(audit, dtype="U"))


def agree_by_chance(labels: np.ndarray, others: np.ndarray, num_classes: int) -> bool:
    """Whether two (N,) label arrays agree no more often than shuffled ones would: they are of different data."""
    agreement = np.mean(labels == others)
    shares = [np.bincount(each, minlength=num_classes) / len(labels) for each in (labels, others)]
    chance = shares[0] @ shares[1]
    return agreement < 1 and agreement <= chance + 5 * np.sqrt(chance * (1 - chance) / len(labels))
