"""make bench: what the product costs, as ratios to what else there is, measured in turns, in about ten minutes.

python -m benchmarks                 on this machine's GPU or its processor, beside the stored ratios of its kind
python -m benchmarks --device cpu --store

A line is a ratio's median over the turns (least .. most; quartiles), its goal where there is one, and how it stands to
what benchmarks/ratios.json has for such a machine (benchmarks/ratios.py says when it is WORSE).
"""

import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import distill, primitives, published_style, ratios, saving, scaling, startup, steps
from benchmarks.side_by_side import run
from benchmarks.workload import NETS, Workload
from common.errors import run_script
from common.flags import CheckedParser, one_of

SECTIONS = {
    "primitives": primitives,
    "steps": steps,
    "published_style": published_style,
    "distill": distill,
    "scaling": scaling,
    "saving": saving,
    "startup": startup,
}


def make_parser():
    parser = CheckedParser(description=__doc__)
    flag = parser.add_argument
    flag("--device", default="auto", help="as in training", **one_of(["auto", "cpu", "cuda", "mps"]))
    flag("--amp", default="auto", help="as in training", **one_of(["auto", "off", "bf16", "fp16"]))
    flag("--data_dir", default=None, help="a .npz of 32x32 images; made-up ones when not given")
    flag("--only", nargs="+", default=list(SECTIONS), help="these sections", **one_of(SECTIONS))
    flag("--nets", nargs="+", default=NETS, help="these networks", **one_of(NETS))
    flag("--quick", action="store_true", help="everything tiny: whether it runs, not how fast")
    flag("--store", action="store_true", help="keep the ratios, for later runs to be compared with")
    flag("--ratios", default=str(ratios.STORED), help="the file they are kept in")
    return parser


def main(argv=None):
    """Run the benchmark; returns [Figure]."""
    args, problems = make_parser().parse_collecting(argv)
    problems.stop_if_any()
    torch.manual_seed(0)
    started, figures = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir and str(Path(args.data_dir).resolve())
        work = Workload(folder, args.quick, args.device, args.amp, data_dir, args.nets)
        kind = ratios.machine_kind(work.hardware, args.quick)
        stored = ratios.read(args.ratios).get(kind, {"ratios": {}})
        print(f"{work.hardware}; PyTorch {torch.__version__}; load {os.getloadavg()[0]:.1f} before it began")
        print(f"stored ratios of {kind}: {stored.get('date', 'none')} {stored.get('versions', '')}")
        for section in args.only:
            print(f"\n{section}: {SECTIONS[section].__doc__.splitlines()[0]}", flush=True)
            for race in SECTIONS[section].races(work):
                for figure in run(race, work.wait):
                    figures.append(figure)
                    print(ratios.line(figure, stored["ratios"].get(figure.name)), flush=True)
    worse = [f.name for f in figures if ratios.compare(f, stored["ratios"].get(f.name)) == ratios.WORSE]
    for what, names in (("goals missed", [f.name for f in figures if f.met is False]), ("WORSE", worse)):
        print(f"\n{what}: {len(names)}", *names, sep="\n  ")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.store:
        ratios.store(kind, figures, args.ratios)
    return figures


if __name__ == "__main__":
    run_script(main)
