"""What torchrun starts in test_distributed.py: scripts one after the other, such as "float64 main_distill --tau 2".

FAULT says what happens in the last one: "KILL 1 7" sends rank 1 a SIGKILL after update 7, "BAD 1" is bad input there.
"""

import contextlib
import importlib
import json
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402

from common import errors  # noqa: E402
from common.hardware import Hardware  # noqa: E402
from runs import run_folder  # noqa: E402
from training import distributed, experiment, loop  # noqa: E402


@contextlib.contextmanager
def float64():
    """Network and loss in float64 within the block: what is left of a difference is no rounding of float32."""
    before = Hardware.place, Hardware.forward_of, experiment.fit

    def fit(*given, loss, **options):
        return before[2](*given, loss=lambda logits, p_tar: loss(logits, p_tar.double()), **options)

    Hardware.place = lambda self, model: before[0](self, model).double()
    Hardware.forward_of = lambda self, model: lambda x: model(x.double())
    experiment.fit = fit
    try:
        yield
    finally:
        Hardware.place, Hardware.forward_of, experiment.fit = before


def fault(kind, rank, update=None):
    if distributed.RANK != int(rank):
        return
    if kind == "BAD":

        def check_data(*_):
            raise errors.BadInput("--data_dir: is another one on this machine")

        experiment.check_data = check_data
        return
    end_update = loop.end_update

    def end_and_signal(state, *given):
        end_update(state, *given)
        if state.update == int(update):
            os.kill(os.getpid(), getattr(signal, f"SIG{kind}"))

    loop.end_update = end_and_signal


def run(command):
    """Run a script; its name is in the scripts' folder. Returns the folder it wrote."""
    first, *flags = shlex.split(command)
    with float64() if first == "float64" else contextlib.nullcontext():
        script, *flags = flags if first == "float64" else (first, *flags)
        return importlib.import_module(script).main(flags)


def main(commands):
    for command in commands:
        if command == commands[-1] and "FAULT" in os.environ:
            fault(*os.environ["FAULT"].split())
        folder = run(command)
        drawn = torch.rand(3).tolist()  # as dropout would draw
        Path(folder, f"drawn_{distributed.RANK}.json").write_text(json.dumps(drawn))


if __name__ == "__main__":
    run_folder.plot_curves = lambda rows, path: path.touch()
    errors.run_script(distributed.on_all_ranks(partial(main, sys.argv[1:])))
