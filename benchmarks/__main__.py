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

from benchmarks.sections import SECTIONS
from benchmarks.side_by_side import Ratio
from benchmarks.workload import NETS, Workload
from common.errors import run_script
from common.flags import CheckedParser, one_of


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
    flag("--ratios", default=str(Path(__file__).with_name("ratios.json")), help="the file they are kept in")
    return parser


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
    started, ratios, lines, file = time.perf_counter(), [], [], Path(args.ratios)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir and str(Path(args.data_dir).resolve())
        work = Workload(folder, args.quick, args.device, args.amp, data_dir, args.nets)
        found = work.hardware.describe()
        kind = f"{found['hardware']}, {found['threads']} threads, {found['precision']}{', quick' * args.quick}"
        stored = json.loads(file.read_text()).get(kind, {}) if file.exists() else {}
        print(f"{work.hardware}; PyTorch {torch.__version__}; load {os.getloadavg()[0]:.1f} before it began")
        print(f"stored ratios of {kind}: {stored.get('date', 'none')} {stored.get('versions', '')}")
        for section in args.only:
            print(f"\n{section}: {SECTIONS[section].__doc__}", flush=True)
            for ratio in SECTIONS[section](work):
                ratios.append(ratio)
                lines.append(ratio.line(stored.get("ratios", {}).get(ratio.name)))
                print(lines[-1], flush=True)
    bad = [line for line in lines if "MISSED" in line or "WORSE" in line]
    print(f"\ngoals missed, or worse than stored: {len(bad)}", *bad, sep="\n")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.store:
        store(file, kind, ratios)
    return ratios


if __name__ == "__main__":
    run_script(main)
