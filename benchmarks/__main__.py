"""make bench: how long this code takes relative to alternatives, measured by turns, in about ten minutes.

python -m benchmarks                 on this machine's GPU or its processor, beside the stored ratios of its kind
python -m benchmarks --device cpu --store

A line is a ratio's median over repeats (min..max; IQR), the medians of its two sides, its goal where there is one, and
the stored median of such a machine (ratios.json), marked WORSE where the repeats of both runs tell them apart.
"""

import datetime
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import distill, learning, primitives, published_style, saving, scaling, startup, steps
from benchmarks.side_by_side import Ratio, run
from benchmarks.workload import NETS, Workload
from common.errors import run_script
from common.flags import CheckedParser, one_of

STORED = Path(__file__).with_name("ratios.json")
SECTIONS = {
    "primitives": primitives,
    "steps": steps,
    "published_style": published_style,
    "distill": distill,
    "scaling": scaling,
    "saving": saving,
    "startup": startup,
    "learning": learning,
}


def make_parser() -> CheckedParser:
    parser = CheckedParser(description=__doc__)
    flag = parser.add_argument
    flag("--device", default="auto", help="as in training", **one_of(["auto", "cpu", "cuda", "mps"]))
    flag("--amp", default="auto", help="as in training", **one_of(["auto", "off", "bf16", "fp16"]))
    flag("--data_dir", default=None, help="a .npz of 32x32 images; made-up ones when not given")
    flag("--only", nargs="+", default=list(SECTIONS), help="these sections", **one_of(SECTIONS))
    flag("--nets", nargs="+", default=NETS, help="these networks", **one_of(NETS))
    flag("--quick", action="store_true", help="everything tiny: whether it runs, not how fast")
    flag("--store", action="store_true", help="keep the ratios, for later runs to be compared with")
    flag("--ratios", default=str(STORED), help="the file they are kept in")
    return parser


def line(ratio: Ratio, stored: dict | None) -> str:
    """What is printed of a ratio. stored: {"median", "min", "max"} of the same name, or None."""
    values = (f"{v:.{ratio.digits}f}" for v in np.quantile(ratio.values, (0.5, 0, 1, 0.25, 0.75)))
    text = "{:>8} ({}..{}; IQR {}..{})".format(*values)
    text += "  [{:.3g} / {:.3g} {}]".format(*ratio.sides, ratio.unit)
    if ratio.goal is not None:
        text += f"  goal {'>=' if ratio.more_is_better else '<='} {ratio.goal:g}: {'met' if ratio.met else 'MISSED'}"
    if stored:
        text += f"  {'WORSE than' if ratio.is_worse(stored) else 'stored'} {stored['median']:.{ratio.digits}f}"
    return f"  {ratio.name:<64} {text}"


def store(file: Path, kind: str, ratios: list[Ratio]):
    """Put ratios in the place of those stored under their names for this kind of machine."""
    machines = json.loads(file.read_text()) if file.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    machine = machines.setdefault(kind, {"ratios": {}})
    machine |= {"date": datetime.date.today().isoformat(), "versions": versions}
    for r in ratios:
        machine["ratios"][r.name] = {"median": r.median, "min": min(r.values), "max": max(r.values)}
    file.write_text(json.dumps(machines, indent=1) + "\n")


def main(argv=None) -> list[Ratio]:
    """Run the benchmark; returns its ratios."""
    args = make_parser().parse_args(argv)
    torch.manual_seed(0)
    started, ratios, worse, file = time.perf_counter(), [], [], Path(args.ratios)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir and str(Path(args.data_dir).resolve())
        work = Workload(folder, args.quick, args.device, args.amp, data_dir, args.nets)
        found = work.hardware.describe()
        kind = f"{found['hardware']}, {found['threads']} threads, {found['precision']}{', quick' * args.quick}"
        stored = json.loads(file.read_text()).get(kind, {}) if file.exists() else {}
        print(f"{work.hardware}; PyTorch {torch.__version__}; load {os.getloadavg()[0]:.1f} before it began")
        print(f"stored ratios of {kind}: {stored.get('date', 'none')} {stored.get('versions', '')}")
        for section in args.only:
            print(f"\n{section}: {SECTIONS[section].__doc__.splitlines()[0]}", flush=True)
            for race in SECTIONS[section].races(work):
                for ratio in run(race, work.wait):
                    before = stored.get("ratios", {}).get(ratio.name)
                    ratios.append(ratio)
                    worse += [ratio.name] if before and ratio.is_worse(before) else []
                    print(line(ratio, before), flush=True)
    missed = [r.name for r in ratios if r.met is False]
    for what, names in (("goals missed", missed), ("WORSE", worse)):
        print(f"\n{what}: {len(names)}", *names, sep="\n  ")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.store:
        store(file, kind, ratios)
    return ratios


if __name__ == "__main__":
    run_script(main)
