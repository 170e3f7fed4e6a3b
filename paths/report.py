"""report.html: the samples whose label is most likely wrong, as cards to go through, in one file that needs no network.

Its own parts are report_page.html, .css and .js; page.py puts them together.
"""

import hashlib
import html

import numpy as np

from common.plots import evenly
from paths.page import as_base64, in_words, pictures, put_together

LIMIT = 10_000  # cards
STEPS = 64  # points of a drawn path
SIDES = (224, 160, 112, 64, 32)  # pixels: the longer side of a picture at most; the first with which all fit
MOST_BYTES = 36e6  # of all pictures, so that the page stays below 50 MB
MOST_TEXT = 1500  # characters of a text on a card


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
    shown, side = ([], SIDES[0]) if images is None else pictures(images, rows, MOST_BYTES, SIDES)
    steps = evenly(path.shape[1], STEPS)
    drawn = {i: str(analysis.audit[i]) for i in np.flatnonzero(analysis.audit != "").tolist()}
    limits = []
    if len(order) > LIMIT:
        limits.append(f"Shown are the {LIMIT:,} most suspicious of {len(order):,} ranked samples.")
    if side < SIDES[0]:
        limits.append(f"Pictures are shrunk to {side} pixels, so that the page stays below 50 MB.")
    data = {
        "key": hashlib.sha256(name.encode("utf-8", "replace") + b"\0" + given.astype("<i8").tobytes()).hexdigest(),
        "classNames": [str(c) for c in class_names],
        "given": given.tolist(),
        "original": original.tolist(),
        "marks": {} if recorded.marks is None else _earlier(recorded.marks),
        "audit": drawn,
        "suspect": np.isin(rows, suspects).astype(int).tolist(),
        "idx": rows.tolist(),
        "suggestion": suggestion[rows].tolist(),
        "percent": np.round(100 * analysis.p[rows]).astype(int).tolist(),  # of the suggestion
        "third": third.tolist(),  # -1: there is none
        "score": [f"{s:.4g}" for s in analysis.score[rows].tolist()],
        "reason": [analysis.reasons[idx] for idx in rows.tolist()],
        "text": None if texts is None else [in_words(texts[idx], "\n", MOST_TEXT) for idx in rows.tolist()],
        "file": None if files is None else [str(file) for file in files],  # by idx, as marks.csv has all
        "filesAt": files_at,
        "steps": steps.tolist(),
        "stepName": recorded.step_name,
        "lines": as_base64(lines),
        "pictures": shown,
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
    }
    put_together(out, "report_page", f"{name} – suspected labels", data, parts)


def _earlier(marks):
    """{idx: {mark, label}} of the samples that have a mark."""
    marked = np.flatnonzero(marks.mark != "").tolist()
    return {i: {"mark": str(marks.mark[i]), "label": int(marks.label[i])} for i in marked}


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
