"""Label files made by people: FILE[:KEY] of --ny_file, and marks.csv, what a person said of each label."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import BadInput
from common.untrusted import (
    count_from_one,
    from_cell,
    load_npy,
    load_npz,
    load_pt,
    nfc,
    printable,
    reason,
    valid_text,
    whole_numbers,
)
from data.noise import realised_rate

MARKS = ("right", "wrong", "unsure", "drop", "")


def split_file_and_key(spec):
    """`FILE[:KEY]` -> (Path, key or None). A colon that belongs to an existing file's name is not a separator."""
    if not Path(spec).exists() and ":" in spec:
        file, key = spec.rsplit(":", 1)
        return Path(file), key
    return Path(spec), None


def read_labels(spec, num_samples, class_names, paths=None):
    """Labels (N,) int64 of the training split from `FILE[:KEY]`, N = num_samples.

    .pt: a dictionary of arrays such as CIFAR-10N's, KEY with or without its `_label` ending; .npz: KEY, or the
    only array in it; .npy: (N,); .csv: a header with `label` and `idx` or `path`, a line a sample, labels as
    numbers or class names; or marks.csv, see read_marks. paths: the files of an image folder, by row. Nothing is
    unpickled. Raises BadInput that names the file.
    """
    path, key = split_file_and_key(spec)
    if not path.is_file():
        raise BadInput(f"--ny_file: there is no file {path}; give FILE or FILE:KEY")
    if key is not None and path.suffix in (".npy", ".csv"):
        raise BadInput(f"--ny_file {spec}: a {path.suffix} file has no keys; leave :{key} out")
    readers = {".pt": _read_pt, ".npz": _read_npz, ".npy": _read_npy}
    if path.suffix == ".csv":
        labels = _read_csv(path, num_samples, class_names, paths)
    elif path.suffix in readers:
        found = readers[path.suffix](path, key, f"--ny_file {path}: cannot be read")
        labels = _as_array(path, found)
    else:
        raise BadInput(f"--ny_file {path}: expected a .pt, .npy, .npz or .csv file")
    return _checked(path, labels, num_samples, len(class_names))


def _checked(path, labels, num_samples, num_classes):
    if labels.shape == (num_samples, 1):
        labels = labels[:, 0]
    if labels.shape != (num_samples,):
        raise BadInput(
            f"--ny_file {path}: has labels of shape {labels.shape}, the training set has {num_samples} "
            "samples; give one label for each row of it"
        )
    labels = whole_numbers(labels)
    if labels.dtype.kind not in "iu":
        raise BadInput(f"--ny_file {path}: labels must be whole numbers, these are {labels.dtype}")
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        hint = count_from_one(labels, num_classes)
        raise BadInput(f"--ny_file {path}: has the label {wrong}, labels go from 0 to {num_classes - 1}{hint}")
    return labels.astype(np.int64)


def _as_array(path, found):
    if isinstance(found, (list, tuple)) and not all(isinstance(v, (int, float)) for v in found):
        raise BadInput(f"--ny_file {path}: labels must be whole numbers; these are lists, or other things")
    try:
        return np.asarray(found)
    except Exception as problem:  # whatever numpy says of what is no array
        raise BadInput(f"--ny_file {path}: holds no labels ({reason(problem)}); give an array of them") from None


def _read_pt(path, key, what):
    # The .pt files of CIFAR-10N hold numpy arrays: these constructors, also under the name they had before
    # numpy 2, are all that may be called while reading.
    reconstruct = np._core.multiarray._reconstruct
    allowed = [
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")},
    ]
    content = load_pt(path, what, allowed)
    return content[_pick(path, content, key)] if isinstance(content, dict) else content


def _read_npz(path, key, what):
    (labels,) = load_npz(path, lambda names: [_pick(path, names, key)], what).values()
    return labels


def _read_npy(path, key, what):
    return load_npy(path, what)


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


def _read_csv(path, num_samples, class_names, paths):
    marks = read_marks(path, num_samples, class_names, paths)
    if marks is not None:
        return marks.label
    what = f"--ny_file {path}"
    header, lines = _csv_lines(path, what)
    rows = _by_row(header, lines, num_samples, paths, what)
    return _complete(_labels_of(rows, "label", class_names, len(class_names), what), num_samples, what)


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
    """{row: (number, cells)} of a file's lines."""
    by = "idx" if "idx" in header else "path"
    if "label" not in header or by not in header:
        header = printable(",".join(header))
        raise BadInput(f"{what}: needs a header line with label and idx (or path), found {header}")
    if by == "path" and paths is None:
        raise BadInput(f"{what}: names its samples by path, which only image folders have; use idx,label")
    known = {str(i): i for i in range(num_samples)} if by == "idx" else {nfc(p): i for i, p in enumerate(paths)}
    rows = {}
    for number, line in lines:
        sample = _text(line[by], known) if by == "path" else _whole(line[by])
        row = known.get(sample, known.get(_unix_path(sample)))
        if row is None:
            raise BadInput(f"{what}, line {number}: {by} {printable(sample)} is not in the training set")
        if row in rows:
            raise BadInput(f"{what}, line {number}: {by} {printable(sample)} stands there twice")
        rows[row] = number, line
    return rows


def _labels_of(rows, column, class_names, num_classes, what):
    """{row: label} of a column of labels: class names or numbers; without class_names numbers alone."""
    labels, meant = {}, _class_meant(class_names, num_classes)
    for row, (number, line) in rows.items():
        try:
            labels[row] = meant(line[column])
        except ValueError as problem:
            raise BadInput(f"{what}, line {number}: {column} {problem}") from None
    return labels


def _complete(values, num_samples, what):
    """(N,) array of {row: value}."""
    if lacking := set(range(num_samples)) - set(values):
        raise BadInput(
            f"{what}: has no label for {len(lacking)} of the {num_samples} training samples "
            f"(the first: row {min(lacking)}); give one for each"
        )
    return np.array([values[row] for row in range(num_samples)])


def _class_meant(class_names, num_classes):
    """A function of a cell: the number of the class that it means, by name or by number. ValueError: none, or two.

    Where names are numbers a number is a name: 1 means the class 001, not the second one.
    """
    names = {nfc(name): k for k, name in enumerate(class_names)}
    twice = {name for name, count in Counter(map(nfc, class_names)).items() if count > 1}
    by_value = {}
    for name, k in names.items():
        if name.isdecimal():
            by_value.setdefault(int(name), []).append(k)

    def meant(cell):
        label = _text(cell, names)
        if label in twice:
            raise ValueError(f"{printable(label)} is the name of several classes; give the class number")
        if label in names:
            return names[label]
        number = _whole(label)
        found = by_value.get(int(number), []) if number.isdecimal() and len(number) < 10 else []
        if len(found) == 1:
            return found[0]
        if not by_value and number.isdecimal() and len(number) < 10 and int(number) < num_classes:
            return int(number)
        or_number = "" if by_value else f" nor a class number from 0 to {num_classes - 1}"
        hint = " (counted from 0)" if number == str(num_classes) and not by_value else ""
        raise ValueError(f"{printable(label)} is {'no' if by_value else 'neither a'} class name{or_number}{hint}")

    return meant


def _text(cell, known):
    """The text in a cell: as it stands where that is `known`, else without the spaces around it."""
    text = nfc(from_cell(cell))
    return text if text in known else nfc(from_cell(cell.strip()))


def _unix_path(text):
    """A path as Windows or a shell writes it, as image folders' are kept."""
    return text.replace("\\", "/").removeprefix("./").removeprefix("train/")


def _whole(cell):
    """The number in a cell, of which a spreadsheet may have made 3.0 or 3,0."""
    return re.sub(r"[.,]0*$", "", from_cell(cell.strip()))


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
    def settled(self):
        """(N,) bool: whose label a person found right, or put in a wrong one's place. What is said in label holds."""
        return np.isin(self.mark, ("right", "wrong")) | ((self.mark == "") & (self.label != self.given))

    def of(self, given):
        """The same Marks as they judge other given labels (N,), such as the corrected ones that a run was trained on.

        A label that was found right, or put in a wrong one's place, is right where it is the given one now;
        any other is wrong there.
        """
        mark = np.where(self.settled, np.where(given == self.label, "right", "wrong"), self.mark)
        return Marks(self.original, given, np.where(mark == "wrong", self.label, given), mark, self.audit)


class Outline(NamedTuple):
    """What a marks.csv says by itself: rows, a name for each class, files by idx (those of an image folder)."""

    num_samples: int
    class_names: list
    files: dict


def outline_of_marks(path):
    """The Outline of a marks.csv, before it is held against its data. BadInput where the file is something else.

    What is odd in a line is left for read_marks to tell.
    """
    if not Path(path).is_file():
        raise BadInput(f"{path}: there is no such file; give marks.csv as the page of analyze_paths.py exports it")
    header, lines = _csv_lines(path, path)
    if not {"idx", "given_label", "label", "mark"} <= set(header) or not lines:
        found = printable(",".join(header))
        raise BadInput(f"{path}: is no marks.csv (its header: {found}); export one from the page of analyze_paths.py")
    names, files, most = {}, {}, 1
    for _, line in lines:
        numbers = [_whole(line.get(column, "")) for column in ("label", "given_label", "original_label")]
        most = max([most, *(int(number) for number in numbers if number.isdecimal() and len(number) < 10)])
        if numbers[0].isdecimal() and line.get("label_name", "").strip():
            names[int(numbers[0])] = from_cell(line["label_name"].strip())
        if (idx := _whole(line["idx"])).isdecimal() and line.get("file", "").strip():
            files[int(idx)] = from_cell(line["file"].strip())
    return Outline(len(lines), [names.get(k, str(k)) for k in range(most + 1)], files)


def read_marks(spec, num_samples, class_names, paths=None, original=None, flag="--ny_file"):
    """The Marks in marks.csv as analyze_paths.py's page exports it; None where the file is something else.

    A row a sample: idx, file, original_label, given_label, label, label_name, mark, audit (an earlier form: idx,
    given_label, label, mark). Labels are class numbers, also where classes are named 0, 1, 10, 2; label_name is for
    people. paths: an image folder's files by row, original: (N,) the data set's labels, where they are known: the
    file's must be the same, of the earlier form given_label must agree more often than by chance. Raises BadInput
    that names file and line.
    """
    path, _ = split_file_and_key(spec)
    what = f"{flag} {path}"
    if path.suffix != ".csv" or "given_label" not in (read := _csv_lines(path, what))[0]:
        return None
    header, lines = read
    rows, is_new = _by_row(header, lines, num_samples, paths, what), "original_label" in header
    label, given, theirs = (
        _complete(_labels_of(rows, column, [], len(class_names), what), num_samples, what)
        for column in ("label", "given_label", "original_label" if is_new else "given_label")
    )
    mark = [rows[row][1].get("mark", "").strip().lower() for row in range(num_samples)]
    audit = [from_cell(rows[row][1].get("audit", "").strip()) for row in range(num_samples)]
    for row, (number, line) in sorted(rows.items()):
        if mark[row] not in MARKS:
            raise BadInput(
                f"{what}, line {number}: the mark is {printable(mark[row])}; give right, wrong, unsure, drop or nothing"
            )
        if mark[row] == "wrong" and label[row] == given[row]:
            raise BadInput(
                f"{what}, line {number}: is marked wrong, and label is given_label all the same; give the right label, "
                "or mark it unsure or drop"
            )
        file = "" if paths is None else nfc(valid_text(paths[row]))
        if "file" in header and _text(line["file"], (file,)) not in (file, f"train/{file}", f"test/{file}"):
            raise BadInput(
                f"{what}, line {number}: file {printable(line['file'])} is not the data set's row {row}, "
                f"{printable(file) or 'which has no file'}: the marks were made on other data; give those"
            )
    if is_new and original is not None and (differ := np.flatnonzero(theirs != original)).size:
        raise BadInput(
            f"{what}, line {rows[differ[0]][0]}: original_label differs from the data set's label, here and in "
            f"{len(differ) - 1} more rows: the marks were made on other data; give those"
        )
    if not is_new and original is not None and agree_by_chance(original, given, len(class_names)):
        raise BadInput(
            f"{what}: given_label is the data's label in {np.mean(given == original):.1%} of the rows, no more than by "
            "chance: the marks were made on other data; give those"
        )
    original = theirs if original is None else original
    return Marks(original, given, label, np.array(mark, dtype="U6"), np.array(audit, dtype="U"))


def agree_by_chance(labels, others, num_classes):
    """Whether two (N,) label arrays agree no more often than shuffled ones would: they are of different data."""
    agreement = np.mean(labels == others)
    shares = [np.bincount(each, minlength=num_classes) / len(labels) for each in (labels, others)]
    chance = shares[0] @ shares[1]
    return agreement < 1 and agreement <= chance + 5 * np.sqrt(chance * (1 - chance) / len(labels))


def check_alignment(spec, clean, class_names):
    """BadInput when a label file was made for rows in another order: where it brings clean labels, as
    CIFAR-10N's files do, these must be the data set's (N,)."""
    path, _ = split_file_and_key(spec)
    try:  # under the key clean or clean_label
        theirs = read_labels(f"{path}:clean", len(clean), class_names)
    except BadInput:  # it brings none
        return
    if (wrong := realised_rate(clean, theirs)) > 0:
        raise BadInput(
            f"--ny_file {path}: its clean_label differs from this data set's labels in {wrong:.1%} of the rows: "
            "it was made for rows in another order; use the data set it belongs to"
        )
