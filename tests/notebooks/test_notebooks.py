"""The notebooks as they are committed, and what execute.py keeps of one that it runs."""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("ipykernel", reason="notebooks need ipykernel to run: pip install -r requirements-dev.txt")
pytest.importorskip("nbclient", reason="notebooks need nbclient to run: pip install -r requirements-dev.txt")

import nbformat  # noqa: E402

from notebooks import execute  # noqa: E402

NAMES = [
    "CIFAR10_path_analysis",
    "ToyGaussian_Part1_noisylabel",
    "ToyGaussian_Part2_LearningDynamics",
    "ToyGaussian_Part3_NTK",
    "label_errors",
]

MACHINE_PATH = re.compile(r"(?<![\w./])/(?:work|tmp|root|home|Users|private|var)\b[^\s'\"]*")

# ------------------------------------------------------------------------------------------- as committed


@pytest.fixture(params=NAMES)
def notebook(request):
    return execute.read(request.param)


def with_tag(notebook, tag):
    return notebook.cells[execute.cell_with(notebook, tag)]


def test_there_are_these_notebooks():
    assert execute.names() == NAMES


def faults(notebook):
    """What of an executed notebook depends on the machine or went wrong: paths, warnings, widgets, errors."""
    found = []
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]
            found += [output] if output.output_type == "error" or execute.is_left_out(output) else []
        found += [path for text in texts for path in MACHINE_PATH.findall(text)]
        found += [text for text in texts[1:] if "Warning" in text]
    return found


def test_it_is_a_valid_notebook_of_less_than_2_mb_without_faults(notebook):
    nbformat.validate(notebook)
    assert faults(notebook) == []
    assert notebook.metadata == execute.METADATA
    assert len(nbformat.writes(notebook).encode()) < 2_000_000


def test_it_starts_with_parameters_and_setup(notebook):
    assert with_tag(notebook, "parameters").source.startswith('MODE = "FULL"')
    kinds = [cell.cell_type for cell in notebook.cells[:3]]
    assert kinds == ["markdown", "code", "code"] and with_tag(notebook, "setup") is notebook.cells[2]


def test_the_setup_cell_is_the_same_in_all(notebook):
    assert with_tag(notebook, "setup").source == with_tag(execute.read(NAMES[0]), "setup").source


def test_outputs_are_those_of_one_full_run_from_top_to_bottom(notebook):
    """Or there are none at all."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    if any(cell.outputs for cell in cells):
        assert counts == list(range(1, len(cells) + 1))
        assert with_tag(notebook, "setup").outputs[0].text.startswith("FULL ")
    else:
        assert set(counts) == {None}


def test_no_address_is_left_in_the_parameters(notebook):
    assert '\nREPO_URL = "" ' in with_tag(notebook, "parameters").source


def test_no_run_folder_is_left_in_the_parameters():
    assert "\nRUN_DIR = None " in with_tag(execute.read("CIFAR10_path_analysis"), "parameters").source


# ---------------------------------------------------------------------------------------------- setup cell


@pytest.fixture
def run_setup(tmp_path):
    """run_setup(url): the parameters, with that REPO_URL, and the setup cell, run in a folder away from a checkout."""
    (tmp_path / "gitconfig").write_text("[safe]\n\tdirectory = *\n")  # the checkout may be another user's
    (tmp_path / "empty").mkdir()
    cells = [with_tag(execute.read(NAMES[0]), tag).source for tag in ("parameters", "setup")]
    report = 'import supervision.table\nprint("found", supervision.table.__file__)'

    def run(url):
        code = "\n".join([cells[0], f"REPO_URL = {url!r}", cells[1], report])
        env = {**os.environ, "NOTEBOOK_MODE": "FAST", "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
        where = dict(cwd=tmp_path / "empty", env=env)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **where)

    return run


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_away_from_a_checkout_the_setup_cell_clones_and_imports(tmp_path, run_setup):
    if not (execute.ROOT / ".git").exists():
        pytest.skip("this copy of the project is no git repository to clone from")
    done = run_setup(execute.ROOT.as_uri())
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("FAST ")
    assert last == f"found {tmp_path / 'empty' / 'learning_paths' / 'supervision' / 'table.py'}"
    assert os.listdir(tmp_path / "empty") == ["learning_paths"]


def test_away_from_a_checkout_and_without_an_address_the_setup_cell_asks_for_one(tmp_path, run_setup):
    done = run_setup("")
    assert done.returncode == 1
    assert "REPO_URL" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path / "empty") == []


# ----------------------------------------------------------------------------------- what execute.py keeps

TINY = {
    "parameters": 'MODE = "FULL"\nRUN_DIR = None',
    "setup": 'import os, sys, warnings\nprint(os.environ["NOTEBOOK_MODE"], RUN_DIR, sys.executable == KERNEL)',
    "noise": 'print("progress", file=sys.stderr)\nwarnings.warn("a warning")\nprint(os.getcwd())\n1 + 1',
}


@pytest.fixture(scope="module")
def tiny():
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}) for tag, source in TINY.items()]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "absent", "display_name": ""}})
    return notebook, execute.execute(notebook, "FAST", {"RUN_DIR": "../results/run", "KERNEL": sys.executable})


def test_parameters_are_injected_for_the_run_and_then_gone(tiny):
    before, after = tiny
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.cells[1].outputs[0].text == "FAST ../results/run True\n"  # of this interpreter, whatever is installed
    assert [cell.execution_count for cell in after.cells] == [1, 2, 3]
    assert not before.cells[1].outputs


def test_progress_warnings_and_the_machines_paths_are_not_kept(tiny):
    _, after = tiny
    printed, value = after.cells[2].outputs
    assert printed.text == "notebooks\n" and value.data["text/plain"] == "2"
    assert faults(after) == []
    assert "execution" not in after.cells[2].metadata
