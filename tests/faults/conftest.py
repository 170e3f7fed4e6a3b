"""What the tests of faults share: a chain that nothing happens to, and a line each at the end of what was survived."""

import time

import pytest

import analyze_paths
import evaluate
from comparison import results as comparison
from runs import run_folder
from tests.faults import processes
from tests.faults.chain import CHAIN, prepare

SUMMARY = pytest.StashKey()


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(SUMMARY, {})
    if lines:
        terminalreporter.section("faults")
        for what, figures in lines.items():
            terminalreporter.write_line(f"{what:<28} {figures}")


@pytest.fixture
def tell(request):
    """tell("kills survived", "5 of 5"): a line at the end of the whole run."""
    return request.config.stash.setdefault(SUMMARY, {}).__setitem__


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A chain that nothing happens to: (folder, {script: seconds})."""
    folder, seconds = tmp_path_factory.mktemp("undisturbed"), {}
    prepare(folder)
    processes.run("main_gen_teacher", ["--help"], folder)  # starts the server
    for script, flags in CHAIN.items():
        started = time.monotonic()
        code, output = processes.run(script, flags, folder)
        assert code == 0, output
        seconds[script] = time.monotonic() - started
    return folder, seconds


@pytest.fixture
def no_drawing(monkeypatch):
    """Pictures take longer than all the rest of a quick run."""
    for module, name in ((run_folder, "plot_curves"), (comparison, "plot_comparison")):
        monkeypatch.setattr(module, name, lambda *what: None)
    for module, name in ((evaluate, "plot_reliability"), (evaluate, "plot_confusion")):
        monkeypatch.setattr(module, name, lambda *what: None)
    for name in ("draw", "write_report"):
        monkeypatch.setattr(analyze_paths, name, lambda *what: None)
