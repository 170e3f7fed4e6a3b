"""report.html: the samples whose label is most likely wrong, as cards to go through, in one file that needs no network.

Its own parts are report_page.html, .css and .js; page.py puts them together.
"""

import hashlib
import html

import numpy as np

from paths.page import as_base64, jpeg, put_together, shrunk, tiled

LIMIT = 10_000  # cards
STEPS = 64  # points of a drawn path
SIDES = (224, 160, 112, 64)  # pixels: the longer side of an image at most; the first that fits
ROW = {224: 8, 160: 8, 112: 16, 64: 16}  # a sheet holds ROW x ROW images
SHEETS_BYTES = 27e6  # all sheets, at most: with base64 36 MB, so that the page stays below 50
QUALITIES = (90, 80, 70, 60, 45, 30, 15, 5)  # of JPEG; the first whose sheets fit
GOOD_ENOUGH = 60  # of JPEG: rather a smaller picture than a worse one
MOST_TEXT = 1500  # characters of a text on a card
EITHER = 0.5  # a second class is shown where it is at least this times as likely as the suggested one,
LIKELY = 0.1  # and at least this likely


def write_report(
    out,
    *,
    name: str,
    class_names: list[str],
    given,
    order,
    suggestion,
    score,
    reasons,
    path,
    probability=None,
    second=None,
    summary=(),
    suspects=(),
    audit=None,
    step_name="step",
    images=None,
    texts=None,
    files=None,
    files_at=None,
    original=None,
    marks=None,
    next_steps=(),
):
    """Write the page to the file `out`, whole or not at all.

    name: the run's. class_names: K texts. given: (N,) given labels, by idx. order: (M,) idx of the cards; the first
    LIMIT of them are shown. suggestion, score: (N,), by idx. reasons: a text by idx, as a dict or a sequence. path:
    (N, T, K), an array or memory map. probability: (N,) the suggestion's. second: ((N,) classes, (N,) probabilities)
    of the next likely class. summary: what is said of all, in lines. suspects: their idx. audit: (N,) text, the
    stratum of each card that was drawn. images: called with (n,) idx, n at most 256, returns n images (H, W, C)
    uint8, C 1 or 3, in an array or a list. texts: N texts, or N dictionaries of them. files: N file names; files_at:
    the folder they are in, as a URL relative to the page. original: (N,) the data set's own labels (the given ones).
    marks: earlier data.label_files.Marks of the given labels, which the page starts with. next_steps: (what it does,
    command) to go on with marks.csv.

    The reader's marks are kept in the browser under the SHA-256 of the name and the given labels, and leave it as
    marks.csv (data.label_files.read_marks), a row for all N samples. Raises ValueError for arguments that do not fit.
    """
    given, order, suggestion, score = (np.asarray(values) for values in (given, order, suggestion, score))
    original = given if original is None else np.asarray(original)
    _check(class_names, given, original, order, suggestion, score, path, files)
    rows = order[:LIMIT].astype(np.int64)
    lines, third = _lines(path, rows, given[rows], suggestion[rows])
    sheets, sizes, cells, side = ([], [], [], SIDES[0]) if images is None else _sheets(images, rows)
    kind, steps = _smallest_type(len(class_names)), _steps(path.shape[1])
    said, drawn = ({}, {}) if marks is None else _earlier(marks)
    if audit is not None:
        drawn = {i: str(audit[i]) for i in np.flatnonzero(audit != "").tolist()}
    limits = []
    if len(order) > LIMIT:
        limits.append(f"Shown are the {LIMIT:,} most suspicious of {len(order):,} ranked samples.")
    if side < SIDES[0] and any(max(size) == side for size in sizes):
        limits.append(f"Pictures are shrunk to {side} pixels, so that the page stays below 50 MB.")
    data = {
        "key": _key(name, given),
        "classNames": [str(c) for c in class_names],
        "given": as_base64(given.astype(kind)),
        "original": as_base64(original.astype(kind)),
        "labelBytes": np.dtype(kind).itemsize,
        "marks": said,
        "audit": drawn,
        "suspect": np.isin(rows, np.asarray(suspects, np.int64)).astype(int).tolist(),
        "idx": rows.tolist(),
        "suggestion": suggestion[rows].tolist(),
        "likely": [_likely(i, suggestion, probability, second) for i in rows.tolist()],
        "third": third.tolist(),  # -1: there is none
        "score": [f"{s:.4g}" for s in score[rows].tolist()],
        "reason": [str(_get(reasons, idx)) for idx in rows.tolist()],
        "text": None if texts is None else [_on_card(_get(texts, idx)) for idx in rows.tolist()],
        "file": None if files is None else [str(file) for file in files],  # by idx, as marks.csv has all
        "filesAt": files_at,
        "steps": steps.tolist(),
        "stepName": step_name,
        "lines": as_base64(lines),
        "sheetRow": ROW[side],
        "sizes": sizes,  # [width, height] of each card's image
        "cells": cells,  # the side of a sheet's cells
    }
    seen = images is not None or texts is not None
    parts = {
        "name": html.escape(name),
        "summary": "".join(f"<p><strong>{html.escape(line[:1].upper() + line[1:])}</strong></p>" for line in summary),
        "question": "Is the given label wrong?"
        if seen
        else "The samples themselves are not on this page: look each one up in your data, then mark its label.",
        "order": "The most suspicious come first, cards of the audit at random places between: look from the first on."
        if drawn
        else "The most suspicious come first.",
        "limit": " ".join(limits),
        "next": "".join(
            f"<li>{html.escape(what)}<pre tabindex=0>{html.escape(command)}</pre></li>" for what, command in next_steps
        ),
        "sheets": "".join(
            f'<script type="text/plain" id="sheet-{i}">{sheet}</script>\n' for i, sheet in enumerate(sheets)
        ),
    }
    put_together(out, "report_page", f"{name} – suspected labels", data, parts)


def _likely(i, suggestion, probability, second):
    """[[class, percent], ...] of the suggestion and, where it is about as likely, of the next class."""
    found = [[int(suggestion[i]), None if probability is None else round(100 * float(probability[i]))]]
    if second is not None and second[1][i] >= max(EITHER * probability[i], LIKELY):
        found.append([int(second[0][i]), round(100 * float(second[1][i]))])
    return found


def _on_card(text):
    if not isinstance(text, str):
        text = "\n".join(f"{column}: {value}" for column, value in text.items())
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " …"


def _earlier(marks):
    """{idx: {mark, label}} of the samples that have a mark, and {idx: audit} of those that have one."""
    said = {
        i: {"mark": str(marks.mark[i]), "label": int(marks.label[i])} for i in np.flatnonzero(marks.mark != "").tolist()
    }
    return said, {i: str(marks.audit[i]) for i in np.flatnonzero(marks.audit != "").tolist()}


def _check(class_names, given, original, order, suggestion, score, path, files):
    num_samples, num_classes = len(given), len(class_names)
    shapes = [labels.shape for labels in (given, original, suggestion, score)]
    if set(shapes) != {(num_samples,)}:
        raise ValueError(f"given, original, suggestion and score must have one shape (N,), not {shapes}")
    if path.ndim != 3 or (path.shape[0], path.shape[2]) != (num_samples, num_classes) or path.shape[1] == 0:
        raise ValueError(f"path must have shape ({num_samples}, T, {num_classes}), not {path.shape}")
    if files is not None and len(files) != num_samples:
        raise ValueError(f"files must name {num_samples} samples, not {len(files)}")
    by_class = (("given", given, num_classes), ("original", original, num_classes))
    for what, labels, end in (*by_class, ("order", order, num_samples)):
        if labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= end):
            raise ValueError(f"{what} must hold whole numbers from 0 to {end - 1}")
    if len(np.unique(order)) != len(order):
        raise ValueError("order names a sample twice")
    proposed = suggestion[order[:LIMIT].astype(np.int64)]
    if proposed.size and (proposed.dtype.kind not in "iu" or proposed.min() < 0 or proposed.max() >= num_classes):
        raise ValueError(f"suggestion must hold whole numbers from 0 to {num_classes - 1}")


# ------------------------------------------------------------------------------------------------- paths


def _steps(num_steps):
    """At most STEPS of the steps 0 .. num_steps - 1, evenly spread, with the first and the last."""
    return np.linspace(0, num_steps - 1, min(num_steps, STEPS)).round().astype(np.int64)


def _lines(path, rows, given, suggestion):
    """The drawn lines (n, 3, S) uint8, 255 for probability 1, and the third class (n,).

    The lines are those of the given class, the suggested one, and of the others the one with the largest mean
    probability, -1 where there is none. One pass over a path as it lies on disk, class after class.
    """
    steps = _steps(path.shape[1])
    lines = np.zeros((len(rows), 3, len(steps)), np.uint8)
    third, largest = np.full(len(rows), -1), np.full(len(rows), -1, np.float32)
    for k in range(path.shape[2]):
        q = np.nan_to_num(path.T[k][:, rows].astype(np.float32))  # (T, n)
        drawn = (q[steps].T * 255).round().clip(0, 255).astype(np.uint8)
        lines[given == k, 0] = drawn[given == k]
        lines[suggestion == k, 1] = drawn[suggestion == k]
        mean = q.mean(0)
        larger = (mean > largest) & (given != k) & (suggestion != k)
        third[larger], largest[larger], lines[larger, 2] = k, mean[larger], drawn[larger]
    return lines, third


# ------------------------------------------------------------------------------------------------ images


def _sheets(images, rows):
    """JPEG sheets of images as base64, each image's [width, height], each sheet's side of a cell, the longest side.

    The images are as large as a first sheet says that all can be.
    """
    side, first = SIDES[-1], list(images(rows[: ROW[SIDES[0]] ** 2]))
    for side in SIDES:
        sheet, _ = tiled([shrunk(image, side) for image in first], ROW[side])
        room = SHEETS_BYTES * len(first) / len(rows)
        if len(jpeg(sheet, room, QUALITIES[: QUALITIES.index(GOOD_ENOUGH) + 1])) <= room:
            break
    sheets, sizes, cells, row = [], [], [], ROW[side]
    blocks = [rows[start : start + row**2] for start in range(0, len(rows), row**2)]
    for block in blocks:
        small = [shrunk(image, side) for image in images(block)]
        if len(small) != len(block):
            raise ValueError(f"images returned {len(small)} images for {len(block)} samples")
        sheet, cell = tiled(small, row)
        sheets.append(as_base64(jpeg(sheet, SHEETS_BYTES * len(block) / len(rows), QUALITIES)))
        sizes += [[image.shape[1], image.shape[0]] for image in small]
        cells.append(cell)
    return sheets, sizes, cells, side


# ----------------------------------------------------------------------------------------------- the file


def _key(name, given):
    return hashlib.sha256(name.encode("utf-8", "replace") + b"\0" + given.astype("<i8").tobytes()).hexdigest()


def _smallest_type(num_classes):
    return next(kind for kind in ("u1", "<u2", "<u4") if num_classes <= 256 ** np.dtype(kind).itemsize)


def _get(reasons, idx):
    return reasons.get(idx, "") if isinstance(reasons, dict) else reasons[idx]
