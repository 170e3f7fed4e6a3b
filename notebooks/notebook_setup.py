"""What every notebook's first cell calls once it has found the code: installs what is missing, shows small figures."""

import importlib.util
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {  # import name: what to install
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "tqdm": "tqdm",
}


def set_up(mode="FULL"):
    """Install what is missing, print device and versions; returns (device, fast).

    mode: "FULL", or "FAST" for smaller numbers; the environment variable NOTEBOOK_MODE overrides it.
    """
    missing = [package for name, package in PACKAGES.items() if importlib.util.find_spec(name) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    import matplotlib
    import numpy
    import torch

    from common.hardware import pick_device

    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about themselves
    mode = os.environ.get("NOTEBOOK_MODE", mode)
    if mode not in ("FULL", "FAST"):
        raise ValueError(f"MODE is FULL or FAST, not {mode}")
    device = pick_device("auto")
    python = ".".join(map(str, sys.version_info[:3]))
    versions = (
        f"Python {python}, torch {torch.__version__}, numpy {numpy.__version__}, matplotlib {matplotlib.__version__}"
    )
    print(f"{mode} on {device}; {versions}; {torch.get_num_threads()} threads")
    return device, mode == "FAST"


def show(fig, width=None):
    """Show a matplotlib figure as a PNG of at most 256 colours: a notebook with its figures stays small."""
    from IPython.display import Image, display

    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=110)
    display(Image(_packed(drawn), width=width))


def show_file(path, width=None):
    """Show a picture, as PNG of at most 256 colours, or an animation that was written to a file."""
    from IPython.display import Image, display

    data = _packed(path) if Path(path).suffix == ".png" else Path(path).read_bytes()
    # A GIF as image/png, too: GitHub shows no image/gif of a notebook, and browsers go by what the data is.
    display(Image(data=data, format="png", width=width))


def _packed(picture):
    from PIL import Image

    packed = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()
