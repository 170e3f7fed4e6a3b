"""Run folders that were moved or copied, and are used from where they lie now, from another current directory."""

import os
import shutil
import signal
import time

import pytest

from tests.faults import processes, runs
from tests.faults.calls import call
from tests.faults.chain import CHAIN, differences, epochs_done, prepare


@pytest.fixture
def elsewhere(tmp_path):
    """Where nothing is but what a test brings: no results/, no data."""
    folder = tmp_path / "else where"
    folder.mkdir()
    return folder


# The comparison takes as long as all the others together: make faults has it moved, too.
@pytest.mark.parametrize("script", list(runs.RUNS)[: int(os.environ.get("FAULTS_SCRIPTS", 4))])
def test_killed_moved_and_resumed_a_run_ends_as_undisturbed(script, undisturbed, tmp_path, elsewhere):
    here = tmp_path / "here"
    prepare(here)
    flags = list(CHAIN[script])
    if script == "main_distill":
        shutil.copytree(undisturbed[0] / runs.TEACHER, here / runs.TEACHER)
    process = processes.start(script, flags, here)
    while not list((here / runs.RUNS[script]).rglob("last.pt")):
        time.sleep(0.005)
        assert process.is_alive()
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    shutil.move(here / runs.RUNS[script], elsewhere / runs.RUNS[script])
    if script == "main_distill":  # its teacher has moved, too
        shutil.move(here / runs.TEACHER, tmp_path / "teacher")
        flags = [*flags, "--teach_path", tmp_path / "teacher", "--proj_name", runs.STUDENT.parent.name]
    shutil.move(here / "probs.npy", tmp_path / "moved.npy")
    if script == "cifar10h_gen_path":
        flags = [*flags, "--human_probs", tmp_path / "moved.npy"]
    shutil.rmtree(here)
    done = epochs_done(elsewhere)
    code, output = processes.run(script, [*flags, "--resume"], elsewhere)
    assert code == 0 and all(now.startswith(done.get(file, "")) for file, now in epochs_done(elsewhere).items()), output
    assert runs.differs(script, undisturbed[0], elsewhere) == []


@pytest.mark.parametrize("kind", ["net", "table"])
def test_a_copied_teacher_teaches_the_same(kind, undisturbed, elsewhere, no_drawing):
    """The only difference is what the student is called: its folder is named after its teacher's."""
    shutil.copytree(undisturbed[0] / runs.TEACHER, elsewhere / "copy")
    script, *flags = runs.teach(kind, "best_acc")
    here = elsewhere / "original"
    shutil.copytree(undisturbed[0] / runs.TEACHER, here / runs.TEACHER)
    assert call(script, flags, here)[0] == 0
    flags[flags.index("--teach_path") + 1] = elsewhere / "copy"
    (elsewhere / "deep" / "er").mkdir(parents=True)
    code, _, err = call(script, flags, elsewhere / "deep" / "er")
    assert code == 0, err
    assert differences(here / "results" / "new", elsewhere / "deep" / "er" / "results" / "new") == []


def test_a_copied_run_is_evaluated_and_analysed_as_the_original(undisturbed, elsewhere, no_drawing):
    made = {}
    for run, (script, *flags), names in (
        (runs.TEACHER, runs.evaluate("best_acc"), ["evaluation_best_acc/metrics.json"]),
        (runs.PATHS, runs.analyze(runs.PATHS), [f"analysis/{name}.csv" for name in ("samples", "suspects", "steps")]),
        (runs.HUMAN, runs.analyze(runs.HUMAN), [f"analysis/{name}.csv" for name in ("samples", "suspects", "steps")]),
    ):
        for name, folder in (("original", elsewhere / "original" / run), ("copy", elsewhere / f"copy {run.name}")):
            shutil.copytree(undisturbed[0] / run, folder)
            code, _, err = call(script, [folder, *flags[1:]], elsewhere)
            assert code == 0, err
            made[name] = [(folder / file).read_text() for file in names]
        assert made["copy"] == made["original"]
