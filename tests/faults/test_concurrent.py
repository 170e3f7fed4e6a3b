"""Several processes started at once in one folder: one of them runs, the others say why they do not."""

import os
import signal
import time
from functools import partial

import pytest

from tests.faults import processes, runs
from tests.faults.chain import CHAIN

STARTS = {"fresh": [], "with --overwrite": ["--overwrite"], "with --resume": ["--resume"]}
SCRIPT = "main_gen_path"  # which writes arrays in place, too


def start_and_finish_when_told(place):
    """Called in a process: it says that it is ready, starts when place/../start is there, and does not end its run
    before place/../finish is."""
    from runs.run_folder import RunFolder

    finish = RunFolder.finish

    def wait_and_finish(self, state):
        wait_for(place.parent / "finish")
        finish(self, state)

    RunFolder.finish = wait_and_finish
    (place / "ready").touch()
    wait_for(place.parent / "start")


def wait_for(file):
    while not file.exists():
        time.sleep(0.001)


def started_at_once(number, flags, folder):
    """[(exit code, output)] of processes of which all but one have ended before that one may."""
    places = [folder / str(n) for n in range(number)]  # the folder of their output
    for place in places:
        place.mkdir()
        (place / "results").symlink_to(folder / "results")
    running = [processes.start(SCRIPT, flags, place, partial(start_and_finish_when_told, place)) for place in places]
    for place in places:
        wait_for(place / "ready")
    (folder / "start").touch()
    deadline = time.monotonic() + 60
    while sum(process.is_alive() for process in running) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    (folder / "finish").touch()
    for process in running:
        process.join()
    return [(p.exitcode, (place / f"{SCRIPT}.out").read_text()) for p, place in zip(running, places, strict=True)]


@pytest.mark.parametrize("number", [4, 2, 3, 4, 8][: int(os.environ.get("FAULTS_STARTS", 1))])
@pytest.mark.parametrize("start", STARTS)
def test_of_several_processes_started_at_once_in_a_folder_one_runs(start, number, undisturbed, tmp_path, tell):
    (tmp_path / "results").mkdir()
    if start != "fresh":  # there is something to replace, or to go on with
        stop_early(tmp_path)
    ended = started_at_once(number, [*CHAIN[SCRIPT], *STARTS[start]], tmp_path)
    endings = sorted((code, output.splitlines()[-1]) for code, output in ended)
    assert [code for code, _ in endings] == [0] + [2] * (number - 1), "\n".join(f"{c} {line}" for c, line in endings)
    for code, output in ended:
        if code:
            (line,) = output.splitlines()[-1:]
            assert line.startswith(f"error: {runs.PATHS}: ") and "Traceback" not in output
    assert runs.differs(SCRIPT, undisturbed[0], tmp_path) == []
    ENDED.append(number)
    tell("concurrent starts", f"{sum(ENDED)} processes in {len(ENDED)} folders: one ran in each, as if it were alone")


ENDED = []


def stop_early(folder):
    """A run killed once it has saved."""
    process = processes.start(SCRIPT, CHAIN[SCRIPT], folder)
    while not (folder / runs.PATHS / "last.pt").exists():
        time.sleep(0.005)
        assert process.is_alive()
    os.killpg(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_folder_whose_holder_was_killed_can_be_taken_at_once(flag, undisturbed, tmp_path):
    stop_early(tmp_path)
    code, output = processes.run(SCRIPT, [*CHAIN[SCRIPT], flag], tmp_path)
    assert code == 0, output
    assert runs.differs(SCRIPT, undisturbed[0], tmp_path) == []
