"""player.html: every sample's learning path as a moving dot, in one file that needs no network.

Its own parts are player_page.html, .css and .js; page.py puts them together. A dot lies where a linear map takes its
prediction: class k's corner of the simplex goes to a corner of the picture.
"""

import gzip
import html

import numpy as np

from common.plots import evenly
from paths.measures import chunks, default_smoothing
from paths.page import as_base64, in_words, pictures, put_together

MOST_PATH, MOST_PICTURES = 12_500_000, 4_000_000  # bytes; with texts and all else the page stays below 20 MB
MOST_STEPS = 100
MOST_SAMPLES = 2000
MOST_VALUES = 64_000_000  # of (samples, steps, classes): a byte each while the page is made and shown
SIDES = (64, 48, 32, 24, 16, 8)  # pixels of a picture's longer side: the first with which all fit
MOST_TEXT = 240  # characters of a text sample
KINDS = OTHER, EASY, HARD, WRONG = range(4)


def write_player(analysis, out):
    """Write the page of a paths.analysis.Analysis to the file `out`, whole or not at all."""
    recorded = analysis.recorded
    kinds = kinds_of(analysis)
    drawn = [i for rows in analysis.groups().values() for i in rows]
    featured = {kind: [i for i in drawn if kinds[i] == kind] for kind in (EASY, HARD, WRONG)}  # their pictures stay
    others = np.random.default_rng(0).permutation(np.sort(analysis.order))  # so the first n are a fair choice, too
    wanted = np.array(list(dict.fromkeys([*sum(featured.values(), []), *others])))[:MOST_SAMPLES]
    steps = evenly(recorded.path.shape[1], MOST_STEPS)
    rows, packed = _packed(recorded.path, wanted, steps)
    place = {row: i for i, row in enumerate(rows.tolist())}
    texts = None if recorded.texts is None else [in_words(recorded.texts[row], "; ", MOST_TEXT) for row in rows]
    shown, side = (None, 0) if recorded.images is None else pictures(recorded.images, rows, MOST_PICTURES, SIDES)
    truth = analysis.suggestion if recorded.clean is None else recorded.clean
    data = {
        "classNames": [str(name) for name in recorded.class_names],
        "stepName": recorded.step_name,
        "steps": steps.tolist(),
        "idx": rows.tolist(),
        "given": recorded.given[rows].tolist(),
        "truth": truth[rows].tolist(),
        "known": recorded.clean is not None,
        "text": texts,
        "kind": kinds[rows].tolist(),
        "featured": {kind: [place[row] for row in found if row in place] for kind, found in featured.items()},
        "hardest": "the label's mean probability" if recorded.true_probs is None else "the distance of the label to p*",
        "smoothing": default_smoothing(len(steps)),
        "pictures": shown,
    }
    parts = {
        "name": html.escape(recorded.name),
        "count": f"{len(rows):,}",
        "note": html.escape(_note(analysis, rows, steps, side)),
        "path": packed,
    }
    put_together(out, "player_page", f"{recorded.name} – learning paths", data, parts)


def kinds_of(analysis):
    """(N,) WRONG where the label is (a suspect where nobody knows); of the others the hardest tenth and easier half."""
    kinds, (wrong, right) = np.full(len(analysis.recorded.given), OTHER), analysis.wrong_and_right()
    kinds[right[: len(right) // 10]] = HARD
    kinds[right[len(right) - len(right) // 2 :]] = EASY
    kinds[wrong] = WRONG
    return kinds


def _packed(path, rows, steps):
    """(the first of the rows that fit, their path (n, T, K) as bytes in base64, gzipped, 255 for probability 1)."""
    rows = rows[: max(1, MOST_VALUES // (len(steps) * path.shape[2]))]
    q = np.concatenate([q[:, steps].T for _, q in chunks(path[rows])])
    q = (q * 255).round().clip(0, 255).astype(np.uint8)
    while True:
        packed = as_base64(gzip.compress(q.tobytes(), 6, mtime=0))
        if len(packed) <= MOST_PATH or len(q) == 1:
            return rows[: len(q)], packed
        q = q[: max(1, int(len(q) * 0.95 * MOST_PATH / len(packed)))]


def _note(analysis, rows, steps, side):
    """What is not shown, or not as it is."""
    recorded, said = analysis.recorded, []
    num_samples, num_steps = len(analysis.order), recorded.path.shape[1]
    if len(rows) < num_samples:
        said.append(f"{len(rows):,} of {num_samples:,} samples, drawn at random")
    if len(steps) < num_steps:
        said.append(f"{len(steps)} of {num_steps:,} {recorded.step_name}s")
    said.append("probabilities to 1/255; dots of one place are spread a little")
    if side:
        said.append(f"pictures of up to {side} pixels")
    return f"Shown: {'; '.join(said)}."
