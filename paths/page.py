"""A page in one file that needs no network: page.html, in it NAME.html, NAME.css, and page.js with NAME.js.

Everything that comes from outside (names, reasons) is data in a JSON block, which the script shows as text; the page's
policy (a CSP) allows that one script and style by their hashes, images in the page, and no request at all.
"""

import base64
import hashlib
import html
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import whole_file


def put_together(out, name, title, data, parts):
    """Write the page to the file `out`, whole or not at all. data: for the script. parts: of NAME.html, as HTML."""
    style, script, body = _style_script_body(name)
    parts = parts | {
        "policy": f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'",
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # so that no </script> ends it
    }
    template = _read("page.html").replace("{{body}}", body)
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    with whole_file(out) as f:
        f.write(page.encode("utf-8", "replace"))


def length_of(name):
    """Characters of a page without its data and parts."""
    return sum(map(len, (_read("page.html"), *_style_script_body(name))))


def _style_script_body(name):
    return _read(f"{name}.css"), _read("page.js") + _read(f"{name}.js"), _read(f"{name}.html")


def _read(file):
    return Path(__file__).with_name(file).read_text(encoding="utf-8")


def _hash(text):
    return f"'sha256-{as_base64(hashlib.sha256(text.encode()).digest())}'"


def as_base64(values):
    return base64.b64encode(values if isinstance(values, bytes) else np.ascontiguousarray(values)).decode()


def in_words(text, separator, most):
    """A text sample, or a dictionary of them, of at most so many characters."""
    if isinstance(text, dict):
        text = separator.join(f"{name}: {value}" for name, value in text.items())
    return text if len(text) <= most else f"{text[:most]}…"


# --------------------------------------------------------------------------------------- sheets of pictures


def shrunk(image, side):
    """(H, W, C) uint8 with both sides at most `side`, its proportions kept; never enlarged."""
    image = np.asarray(image)
    small = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small).reshape(small.height, small.width, -1)


def tiled(images, row):
    """One array of square cells, `row` a line, and their side.

    The side is a multiple of 8, JPEG's block, so that no block has pixels of two images; the rest of a cell
    repeats its image's border, so that the block there has no edge.
    """
    side = max(max(image.shape[:2]) for image in images)
    side += -side % 8
    channels = max(image.shape[2] for image in images)
    sheet = np.zeros((-(-len(images) // row) * side, min(len(images), row) * side, channels), np.uint8)
    for place, image in enumerate(images):
        top, left = place // row * side, place % row * side
        padded = np.pad(image, ((0, side - image.shape[0]), (0, side - image.shape[1]), (0, 0)), mode="edge")
        sheet[top : top + side, left : left + side] = padded
    return sheet, side


def jpeg(sheet, max_bytes, qualities):
    """A sheet as JPEG, of the first of the qualities with which it is small enough, else of the last."""
    for quality in qualities:
        file = io.BytesIO()
        # subsampling=0: colour at full resolution, or it would run from one block into the next
        Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet).save(
            file, "JPEG", quality=quality, subsampling=0
        )
        if file.tell() <= max_bytes:
            break
    return file.getvalue()
