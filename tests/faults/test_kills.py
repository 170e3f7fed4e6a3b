"""Runs killed and stopped at random moments, and gone on with: they end as runs that nothing happened to."""

import math
import os
import random
import signal
import time

import pytest

from tests.faults import processes
from tests.faults.chain import CHAIN, differences, epochs_done, prepare

KILLS = int(os.environ.get("FAULTS_KILLS", 5))  # in the whole chain; make faults sends more


def test_killed_at_random_moments_and_resumed_a_chain_ends_bit_for_bit_as_undisturbed(undisturbed, tmp_path, tell):
    whole, seconds = undisturbed
    prepare(tmp_path)
    draw, survived = random.Random(0), 0
    for script, flags in CHAIN.items():
        kills, start = math.ceil(KILLS * seconds[script] / sum(seconds.values())), "--resume"
        while kills:
            process = processes.start(script, [*flags, start], tmp_path)
            process.join(draw.uniform(0.02, seconds[script]))
            if process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), (tmp_path / f"{script}.out").read_text()
            kills, survived = kills - (process.exitcode != 0), survived + (process.exitcode != 0)
            start = "--resume" if process.exitcode else "--overwrite"  # a run that was done before the kill: once more
        code, output = processes.run(script, [*flags, "--resume"], tmp_path)
        assert code == 0 and "Traceback" not in output, output
    assert differences(whole, tmp_path) == []
    tell("kills survived", f"{survived} of {survived}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", CHAIN)
def test_asked_to_stop_a_run_saves_says_how_to_go_on_and_ends_as_undisturbed(script, number, undisturbed, tmp_path):
    whole, seconds = undisturbed
    prepare(tmp_path)
    if script == "main_distill":
        processes.run("main_gen_teacher", CHAIN["main_gen_teacher"], tmp_path)
    process = processes.start(script, CHAIN[script], tmp_path)
    last = tmp_path / "results"
    while not any(last.rglob("last.pt")) or (script == "main_distill" and not any(last.glob("Dist*/*/last.pt"))):
        time.sleep(0.005)
        assert process.is_alive()
    os.kill(process.pid, number)
    process.join(30)
    output = (tmp_path / f"{script}.out").read_text()
    assert process.exitcode == 128 + number, output
    assert number.name in output and "--resume" in output and "Traceback" not in output
    done = epochs_done(tmp_path)
    code, output = processes.run(script, [*CHAIN[script], "--resume"], tmp_path)
    assert code == 0 and all(now.startswith(done.get(file, "")) for file, now in epochs_done(tmp_path).items()), output
    mine = [name for name in differences(whole, tmp_path) if (tmp_path / name).exists()]
    assert mine == []
