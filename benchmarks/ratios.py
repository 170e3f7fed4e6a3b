"""Ratios of former runs, by kind of machine (ratios.json), and which of a new run's have become worse.

A ratio has become worse when its spread and the stored one tell the two runs apart: its median is worse than every
stored turn was, and the stored median better than every new turn is.
"""

import datetime
import json
import platform
from pathlib import Path

import numpy as np
import torch

STORED = Path(__file__).with_name("ratios.json")
WORSE, BETTER, ALIKE, NEW = "WORSE", "better", "as stored", "not stored"


def machine_kind(hardware, quick=False):
    """Under what a machine's ratios are stored: processor or GPU, threads, precision."""
    found = hardware.describe()
    kind = f"{found['hardware']}, {found['threads']} threads, {found['precision']}"
    return f"{kind}, quick" if quick else kind


def read(file=STORED):
    """{kind: {"date", "versions", "ratios": {name: {"median", "least", "most"}}}}."""
    return json.loads(Path(file).read_text()) if Path(file).exists() else {}


def store(kind, figures, file=STORED):
    """Put figures in the place of those stored under their names for this kind of machine."""
    machines = read(file)
    ratios = machines.get(kind, {}).get("ratios", {})
    ratios |= {f.name: {"median": f.median, "least": f.least, "most": f.most} for f in figures}
    machines[kind] = {
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "ratios": ratios,
    }
    Path(file).write_text(json.dumps(machines, indent=1) + "\n")


def compare(figure, stored):
    """WORSE, BETTER, ALIKE or NEW. stored: {"median", "least", "most"} of the same name, or None."""
    if stored is None:
        return NEW
    above = figure.median > stored["most"] and figure.least > stored["median"]
    below = figure.median < stored["least"] and figure.most < stored["median"]
    if not above and not below:
        return ALIKE
    return BETTER if above == figure.ratio.more_is_better else WORSE


def line(figure, stored):
    """What is printed of a figure."""
    ratio, digits = figure.ratio, figure.ratio.digits
    values = (figure.median, figure.least, figure.most, *figure.quartiles)
    median, least, most, low, high = (f"{v:.{digits}f}" for v in values)
    parts = [f"{median:>8} ({least} .. {most}; half {low} .. {high})"]
    parts.append("[{:.3g} / {:.3g} {}]".format(*figure.sides, ratio.unit))
    if ratio.goal is not None:
        sign = ">=" if ratio.more_is_better else "<="
        parts.append(f"goal {sign} {ratio.goal:g}: {'met' if figure.met else 'MISSED'}")
    parts.append(compare(figure, stored) + ("" if stored is None else f" ({stored['median']:.{digits}f})"))
    return f"  {figure.name:<64} {'  '.join(parts)}"
