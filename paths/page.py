"""A page in one file that needs no network: page.html, in it NAME.html, and page.css and .js with NAME's own.

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
    style, script = (_read(f"page.{kind}") + _read(f"{name}.{kind}") for kind in ("css", "js"))
    parts = parts | {
        "policy": f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'",
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # so that no </script> ends it
    }
    template = _read("page.html").replace("{{body}}", _read(f"{name}.html"))
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    with whole_file(out) as f:
        f.write(page.encode("utf-8", "replace"))


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


# ------------------------------------------------------------------------------------------------- pictures


def pictures(images, rows, most_bytes, sides):
    """(the images of idx `rows`, each as [WebP in base64, width, height], the longest side that one may have).

    That side is the first of `sides` with which all take at most so many bytes, else the last. images: a function of
    (n,) idx that gives n uint8 (H, W, C). None is enlarged.
    """
    for side in sides:
        found, size = [], 0
        for start in range(0, len(rows), 256):
            found += [_picture(image, side) for image in images(rows[start : start + 256])]
            size = sum(len(file) for file, _, _ in found)
            if size > most_bytes * len(found) / len(rows) and side != sides[-1]:
                break
        else:
            return found, side


def _picture(image, side):
    image, file = np.asarray(image), io.BytesIO()
    small = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(file, "WEBP", quality=85, method=0)  # smaller than JPEG, above all where a picture has few pixels
    return [as_base64(file.getvalue()), small.width, small.height]
