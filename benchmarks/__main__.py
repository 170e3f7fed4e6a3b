"""make bench: how long this code takes relative to alternatives, measured by turns, in about ten minutes.

    python -m benchmarks --only steps --nets smallcnn

A line is a ratio's median over repeats (min..max; IQR), the medians of its two sides, and its goal where there is one.
"""

import os
import tempfile
import time
from pathlib import Path

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
    return parser


def main(argv=None) -> list[Ratio]:
    """Run the benchmark; returns its ratios."""
    args = make_parser().parse_args(argv)
    torch.manual_seed(0)
    started, ratios = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir and str(Path(args.data_dir).resolve())
        work = Workload(folder, args.quick, args.device, args.amp, data_dir, args.nets)
        print(f"{work.hardware}; PyTorch {torch.__version__}; load {os.getloadavg()[0]:.1f} before it began")
        for section in args.only:
            print(f"\n{section}: {SECTIONS[section].__doc__}", flush=True)
            for ratio in SECTIONS[section](work):
                ratios.append(ratio)
                print(ratio, flush=True)
    missed = [ratio.name for ratio in ratios if ratio.met is False]
    print(f"\ngoals missed: {len(missed)}", *missed, sep="\n  ")
    print(f"\n{time.perf_counter() - started:.0f} s")
    return ratios


if __name__ == "__main__":
    run_script(main)
