"""The rooms are floors: a room imports from those below it alone, and no import runs in a circle."""

import ast
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the ground up; what stands on one floor does not import each other, but for modules of one room.
FLOORS = [
    ["common"],
    ["dynamics", "supervision", "models", "data"],
    ["paths", "integrations"],
    ["utils"],
    ["runs"],
    ["training"],
    ["comparison"],
    ["evaluate", "analyze_paths", "apply_marks", "sweep"],
    ["main_gen_teacher", "main_distill", "main_gen_path", "cifar10h_gen_path", "old_cifar_noisy"],
    ["notebooks", "experiments", "benchmarks"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
COPIED = ["supervision/table.py", "paths/recorder.py"]  # people copy these two: nothing of the project in them


def tracked():
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in files.stdout.split() if not name.startswith("tests/")]


def modules_imported(name):
    """The project's modules that a file imports, as dotted names; imports within functions count, too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {m for m in submodules if (ROOT / (m.replace(".", "/") + ".py")).is_file()} or {node.module}
    return {module for module in found if module.split(".")[0] in FLOOR}


@pytest.mark.parametrize("name", tracked())
def test_no_import_runs_up_or_aside(name):
    room = name.split("/")[0].removesuffix(".py")
    upwards = [m for m in modules_imported(name) if m.split(".")[0] != room and FLOOR[m.split(".")[0]] >= FLOOR[room]]
    assert not upwards
    if name in COPIED:
        assert not modules_imported(name)


def test_no_import_runs_in_a_circle():
    graph = {n.removesuffix(".py").removesuffix("/__init__").replace("/", "."): modules_imported(n) for n in tracked()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
