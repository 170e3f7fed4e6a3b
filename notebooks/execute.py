"""Executes the notebooks in place, to be committed with their outputs.

    python notebooks/execute.py                        # all, FULL
    python notebooks/execute.py CIFAR10_path_analysis --run_dir results/Gen_path/run_npz_cosine_n0.4

Kept are figures and text; progress, warnings, widgets, machine paths and times are not. The tests in tests/notebooks
say whether the result can be committed.
"""

import argparse
import copy
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
# flags, and parameters of CIFAR10_path_analysis
RUNS = ("run_dir", "clean_run_dir", "human_run_dir", "human_noisy_run_dir", "data_dir")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def names() -> list[str]:
    """All notebooks, by name."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def cell_with(notebook, tag: str) -> int:
    """The place of the one cell with a tag."""
    (place,) = (i for i, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", []))
    return place


def execute(notebook, mode: str, parameters: dict | None = None) -> nbformat.NotebookNode:
    """The notebook as it is after a run from top to bottom, tidied.

    parameters: {name: value}, set for this run alone, in a cell after the parameters that the result does not have.
    """
    notebook = copy.deepcopy(notebook)
    injected = nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in (parameters or {}).items()))
    if parameters:
        notebook.cells.insert(cell_with(notebook, "parameters") + 1, injected)
    where, quiet = {"metadata": {"path": str(NOTEBOOKS)}}, ["--log-level=ERROR"]
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where, extra_arguments=quiet)
    client.execute(env={**os.environ, "NOTEBOOK_MODE": mode})
    if parameters:
        notebook.cells.remove(injected)
    return tidy(notebook)


def tidy(notebook):
    """Leave out of an executed notebook what depends on the machine or the moment."""
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in ("tags",) if key in cell.metadata})
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            cell.execution_count = count = count + 1
        cell.outputs = [output for output in cell.outputs if not is_left_out(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            if "text" in output:
                output.text = without_root(output.text)
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("text/")]:
                output.data[kind] = without_root(output.data[kind])
    return notebook


def is_left_out(output) -> bool:
    """Progress and warnings, widgets."""
    return output.get("name") == "stderr" or any("widget" in kind for kind in output.get("data", {}))


def without_root(text: str) -> str:
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks (all when not given)")
    parser.add_argument("--mode", choices=("FULL", "FAST"), default="FULL", help="FAST: smaller numbers")
    parser.add_argument("--out", type=Path, default=NOTEBOOKS, metavar="DIR", help="where to write (in place)")
    for name in RUNS:
        parser.add_argument(f"--{name}", metavar="PATH", help=f"{name.upper()} of CIFAR10_path_analysis, this once")
    return parser


def main(argv=None):
    """Run the script."""
    args = make_parser().parse_args(argv)
    chosen = [Path(name).stem for name in args.names] or names()
    if unknown := set(chosen) - set(names()):
        make_parser().error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    runs = {name.upper(): getattr(args, name) for name in RUNS if getattr(args, name)}
    runs = {name: Path(os.path.relpath(path, NOTEBOOKS)).as_posix() for name, path in runs.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        notebook, start = read(name), time.monotonic()
        known = notebook.cells[cell_with(notebook, "parameters")].source
        notebook = execute(notebook, args.mode, {key: path for key, path in runs.items() if f"{key} = " in known})
        nbformat.write(notebook, args.out / f"{name}.ipynb")
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
