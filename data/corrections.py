"""What a marks.csv changes in a data set: labels, and samples that are left out; label files written anew with it.

Image folders have a file of their own: corrected_folders.py.
"""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import BadInput
from common.files import whole_file
from common.untrusted import as_cell, class_numbers, load_npy, load_npz, nfc, printable, valid_text
from data.label_files import Marks, outline_of_marks, read_marks

LEFT_OUT = -100  # the label of a sample that is left out of an array: torch's losses ignore it
SPLITS = {"train": "train", "valid": "val", "test": "test"}  # as .npz files call them


@dataclass
class Corrections:
    """A marks.csv, read against its data: marks, and names, one a class, files, one a sample, or None."""

    marks: Marks
    names: list
    files: list | None = None

    @property
    def labels(self):
        """(N,) the data's own labels, but where a person settled another: what nobody looked at stays as it is."""
        return np.where(self.marks.settled, self.marks.label, self.marks.original)

    @property
    def dropped(self):
        return self.marks.mark == "drop"

    @property
    def relabelled(self):
        return (self.labels != self.marks.original) & ~self.dropped

    def __str__(self):
        marks = self.marks
        text = (
            f"{np.count_nonzero(self.relabelled)} labels changed, {np.count_nonzero(self.dropped)} samples left out, "
            f"of {np.count_nonzero(marks.mark != '')} looked at and {len(self.labels)} in all"
        )
        if noise := np.count_nonzero(marks.settled & (marks.label == marks.original) & (marks.given != marks.original)):
            text += f"; {noise} wrong labels were the run's own noise (--ny_*): the data have the right ones already"
        return text

    def write_changes(self, path, moved_to=None):
        """changes.csv, a row a change, for whatever keeps its labels in another form. moved_to: {idx: file}."""
        with whole_file(path, "w") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow(["idx", "file", "change", "old_label", "old_name", "new_label", "new_name", "new_file"])
            for i in np.flatnonzero(self.relabelled | self.dropped).tolist():
                old, new = int(self.marks.original[i]), int(self.labels[i])
                file = "" if self.files is None else as_cell(valid_text(self.files[i]))
                said = ["drop", old, as_cell(self.names[old]), "", "", ""]
                if not self.dropped[i]:
                    to = as_cell(valid_text((moved_to or {}).get(i, "")))
                    said = ["relabel", old, as_cell(self.names[old]), new, as_cell(self.names[new]), to]
                writer.writerow([i, file, *said])

    def write_marks(self, path, files=None):
        """marks.csv of the corrected data, with which the next round starts: what was settled is right there.

        files: {idx: its file there}; rows are then in their order. Samples that are left out have no row. An audit
        is of the data that it was drawn from: the next round draws its own.
        """
        rows = np.flatnonzero(~self.dropped).tolist()
        rows = rows if files is None else sorted(rows, key=files.get)
        with whole_file(path, "w") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow("idx file original_label given_label label label_name mark audit".split())
            for idx, i in enumerate(rows):
                label = int(self.labels[i])
                mark = "right" if self.marks.settled[i] else self.marks.mark[i]
                file = "" if files is None else as_cell(valid_text(files[i]))
                writer.writerow([idx, file, label, label, label, as_cell(self.names[label]), mark, ""])


def read_corrections(
    marks_file: str, names: list[str] | None = None, files: list[str] | None = None, original: np.ndarray | None = None
) -> Corrections:
    """The Corrections of a marks.csv. BadInput where it does not belong to the data: class names, files and original
    labels, by row, as far as they are known."""
    count, class_names, _ = outline_of_marks(marks_file)
    if original is not None and len(original) != count:
        raise BadInput(
            f"{marks_file}: has {count} rows, the data has {len(original)} samples: the marks were made "
            "on other data; give those"
        )
    names = class_names if names is None else names
    marks = read_marks(str(marks_file), count, names, files, original, flag="MARKS")
    return Corrections(marks, names, files)


# ------------------------------------------------------------------------------------------- label files


def correct_npz(source: str, out: Path, marks_file: str, split: str = "train") -> Corrections:
    """Write the .npz data set anew, its labels corrected, samples that are left out gone. Returns the Corrections."""
    arrays = load_npz(source, lambda names: names, f"--data_dir {source}: not readable as .npz")
    prefix = f"{SPLITS[split]}_"
    if f"{prefix}labels" not in arrays:
        raise BadInput(f"--data_dir {source}: has no {prefix}labels; give the data set that the marks were made on")
    labels = arrays[f"{prefix}labels"]
    names = arrays.get("class_names")
    names = None if names is None else [valid_text(str(name)) for name in names]
    found = read_corrections(marks_file, names, original=class_numbers(labels, f"--data_dir {source}: {prefix}labels"))
    arrays[f"{prefix}labels"] = found.labels.astype(labels.dtype).reshape(labels.shape)
    for key, values in arrays.items():  # images, and whatever else there is by sample
        if key.startswith(prefix) and values.shape[:1] == found.labels.shape:
            arrays[key] = values[~found.dropped]
    with whole_file(out) as f:
        np.savez_compressed(f, **arrays)
    return found


def correct_npy(source: str, out: Path, marks_file: str) -> Corrections:
    """Write an (N,) array of labels anew; what is left out is labelled LEFT_OUT, so that rows stay where they are."""
    labels = load_npy(source, f"--data_dir {source}: not a readable .npy array")
    found = read_corrections(marks_file, original=class_numbers(labels, f"--data_dir {source}"))
    values = np.where(found.dropped, LEFT_OUT, found.labels)
    if found.dropped.any() and not np.can_cast(np.int8, labels.dtype):
        labels = labels.astype(np.int64)  # unsigned: has no room for it
    with whole_file(out) as f:
        np.save(f, values.astype(labels.dtype).reshape(labels.shape))
    return found


def correct_csv(source: str, out: Path, marks_file: str, column: str) -> Corrections:
    """Write a CSV file anew: row idx of the marks is its line idx after the header. Other columns stay as they are."""
    what = f"--data_dir {source}"
    content = Path(source).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise BadInput(f"{what}: not readable as CSV ({problem}); save it as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    header, *lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    if column not in header:
        names = printable(", ".join(header))
        raise BadInput(f"{what}: has no column {column}; name the one with the labels by --column: {names}")
    place = header.index(column)
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if short := [i for i, line in enumerate(lines) if len(line) <= place]:
        raise BadInput(f"{what}: row {short[0]} has no {column}; mend the file")
    cells = [line[place].strip() for line in lines]
    _, class_names, _ = outline_of_marks(marks_file)
    names = _texts_of_classes(cells, class_names, what)
    number = {nfc(name): k for k, name in enumerate(names)}
    found = read_corrections(marks_file, names, original=np.array([number[nfc(cell)] for cell in cells]))
    with whole_file(out, "w") as f:
        f.write("\ufeff" * content.startswith(codecs.BOM_UTF8))
        writer = csv.writer(f, delimiter=delimiter, lineterminator="\r\n" if first.endswith("\r") else "\n")
        writer.writerow(header)
        for i, line in enumerate(lines):
            if found.relabelled[i]:
                line[place] = names[found.labels[i]]
            if not found.dropped[i]:
                writer.writerow(line)
    return found


def _texts_of_classes(cells, names, what):
    """The text that stands for each class in a column of labels: numbers, or names, which the marks know."""
    if all(cell.isdecimal() for cell in cells):
        return [str(k) for k in range(max([*map(int, cells), len(names) - 1]) + 1)]
    known = {nfc(name) for name in names}
    if unknown := sorted({cell for cell in cells if nfc(cell) not in known}):
        raise BadInput(
            f"{what}: the label {printable(unknown[0])} is none of the class names of the marks; give the file that "
            "they were made on, or one with class numbers"
        )
    return names
