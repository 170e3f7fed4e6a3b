"""What every notebook's first cell calls once it has found the code: device and versions, small figures."""

import io
import os
import platform
import warnings
from pathlib import Path

import matplotlib
import numpy
import torch
from IPython.display import Image, display
from PIL import Image as Picture

from common.hardware import pick_device


def set_up(mode: str = "FULL") -> tuple[torch.device, bool]:
    """Print device and versions; returns (device, fast).

    mode: "FULL", or "FAST" for smaller numbers; the environment variable NOTEBOOK_MODE overrides it.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about themselves
    mode = os.environ.get("NOTEBOOK_MODE", mode)
    if mode not in ("FULL", "FAST"):
        raise ValueError(f"MODE is FULL or FAST, not {mode}")
    device = pick_device("auto")
    versions = f"torch {torch.__version__}, numpy {numpy.__version__}, matplotlib {matplotlib.__version__}"
    print(f"{mode} on {device}; Python {platform.python_version()}, {versions}; {torch.get_num_threads()} threads")
    return device, mode == "FAST"


def show(fig, width=None):
    """Show a matplotlib figure as a PNG of at most 256 colours: a notebook with its figures stays small."""
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=110)
    display(Image(_packed(drawn), width=width))


def show_file(path, width=None):
    """Show a picture, as PNG of at most 256 colours, or an animation that was written to a file."""
    data = _packed(path) if Path(path).suffix == ".png" else Path(path).read_bytes()
    # A GIF as image/png, too: GitHub shows no image/gif of a notebook, and browsers go by what the data is.
    display(Image(data=data, format="png", width=width))


def _packed(picture):
    packed = io.BytesIO()
    with Picture.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Picture.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()
