"""report.html: the samples whose label is most likely wrong, as cards to go through, in one file that needs no network.

Its own parts are report_page.html, .css and .js; page.py puts them together.
"""

import hashlib
import html

import numpy as np

from common.plots import evenly
from paths.page import as_base64, in_words, jpeg, put_together, shrunk, tiled

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


def write_report(analysis, out, next_steps=(), files_at=None):
    """Write the page of a paths.analysis.Analysis to the file `out`, whole or not at all.

    Of its cards, those that somebody marked right last, the first LIMIT are shown. next_steps: (what it does, command)
    to go on with marks.csv. files_at: the folder that the files are in, as a URL relative to the page.

    The reader's marks are kept in the browser under the SHA-256 of the name and the given labels, and leave it as
    marks.csv (data.label_files.read_marks), a row for all N samples.
    """
    recorded, suggestion = analysis.recorded, analysis.suggestion
    name, class_names, given, path = recorded.name, recorded.class_names, recorded.given, recorded.path
    original = given if recorded.original is None else recorded.original
    images, texts, files = recorded.images, recorded.texts, recorded.files
    is_right = analysis.mark[analysis.cards] == "right"
    order = np.concatenate([analysis.cards[~is_right], analysis.cards[is_right]])
    rows, suspects = order[:LIMIT], analysis.order[: analysis.num_suspects]
    lines, third = _lines(path, rows, given[rows], suggestion[rows])
    sheets, sizes, cells, side = ([], [], [], SIDES[0]) if images is None else _sheets(images, rows)
    kind, steps = _smallest_type(len(class_names)), evenly(path.shape[1], STEPS)
    drawn = {i: str(analysis.audit[i]) for i in np.flatnonzero(analysis.audit != "").tolist()}
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
        "marks": {} if recorded.marks is None else _earlier(recorded.marks),
        "audit": drawn,
        "suspect": np.isin(rows, suspects).astype(int).tolist(),
        "idx": rows.tolist(),
        "suggestion": suggestion[rows].tolist(),
        "likely": [_likely(analysis, i) for i in rows.tolist()],
        "third": third.tolist(),  # -1: there is none
        "score": [f"{s:.4g}" for s in analysis.score[rows].tolist()],
        "reason": [analysis.reasons[idx] for idx in rows.tolist()],
        "text": None if texts is None else [in_words(texts[idx], "\n", MOST_TEXT) for idx in rows.tolist()],
        "file": None if files is None else [str(file) for file in files],  # by idx, as marks.csv has all
        "filesAt": files_at,
        "steps": steps.tolist(),
        "stepName": recorded.step_name,
        "lines": as_base64(lines),
        "sheetRow": ROW[side],
        "sizes": sizes,  # [width, height] of each card's image
        "cells": cells,  # the side of a sheet's cells
    }
    seen, summary = images is not None or texts is not None, [analysis.guessed(), *analysis.measured()]
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


def _likely(analysis, i):
    """[[class, percent], ...] of the suggestion and, where it is about as likely, of the next class."""
    p, (second, p_second) = analysis.p[i], analysis.second
    found = [[int(analysis.suggestion[i]), round(100 * float(p))]]
    if p_second[i] >= max(EITHER * p, LIKELY):
        found.append([int(second[i]), round(100 * float(p_second[i]))])
    return found


def _earlier(marks):
    """{idx: {mark, label}} of the samples that have a mark."""
    marked = np.flatnonzero(marks.mark != "").tolist()
    return {i: {"mark": str(marks.mark[i]), "label": int(marks.label[i])} for i in marked}


# ------------------------------------------------------------------------------------------------- paths


def _lines(path, rows, given, suggestion):
    """The drawn lines (n, 3, S) uint8, 255 for probability 1, and the third class (n,).

    The lines are those of the given class, the suggested one, and of the others the one with the largest mean
    probability, -1 where there is none. One pass over a path as it lies on disk, class after class.
    """
    steps = evenly(path.shape[1], STEPS)
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
