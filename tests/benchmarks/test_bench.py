"""make bench: that it runs and says what it should, that it compares the same work, and sees what has become worse."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import ratios, startup
from benchmarks.__main__ import SECTIONS, main
from benchmarks.published_style import calibration_error, record_rows, update_rows
from benchmarks.side_by_side import Figure, Measured, Race, Ratio, in_turns, run
from benchmarks.workload import Workload
from paths.recorder import PathRecorder
from supervision.table import PredictionTable
from utils import expected_calibration_error

IN_PROCESS = [section for section in SECTIONS if section != "startup"]


def figure(median, least, most, goal=None, more_is_better=False, name="ours / theirs"):
    ratio = Ratio(name, "ours", "theirs", goal, more_is_better)
    return Figure(name, median, least, most, (least, most), ratio, (median, 1.0))


def kept(median, least, most):
    return {"median": median, "least": least, "most": most}


# ------------------------------------------------------------------------------------------ the whole of it


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "ratios.json"
    flags = ["--quick", "--device", "cpu", "--amp", "off", "--store", "--ratios", str(file)]
    return main([*flags, "--only", *IN_PROCESS]), ratios.read(file)


def test_every_section_gives_ratios_with_their_spread(quick_run):
    figures, _ = quick_run
    assert len({f.name for f in figures}) == len(figures) >= 2 * len(IN_PROCESS)
    for f in figures:
        assert 0 < f.least <= f.quartiles[0] <= f.median <= f.quartiles[1] <= f.most, f.name


@pytest.mark.parametrize(
    "name",
    [
        "smallcnn: product / bare loop",
        "smallcnn: product with paths / product",
        "smallcnn: published style / product",
        "published rows / table update, B=50, K=100",
        "smallcnn: teacher network / teacher table",
        "smallcnn: --save_every 1 / epoch",
    ],
)
def test_what_is_claimed_is_measured(quick_run, name):
    assert name in {f.name for f in quick_run[0]}


def test_a_command_is_timed_up_to_its_first_step(tmp_path):
    startup.first_step(Workload(tmp_path, quick=True, device="cpu"), ["--dataset", "digits"])
    assert not list(tmp_path.glob("results/*/*/metrics.csv"))  # it went no further


def test_what_was_stored_is_found_again_and_alike(quick_run):
    figures, stored = quick_run
    [(kind, machine)] = stored.items()
    assert "1 threads, float32, quick" in kind and {"date", "versions"} <= machine.keys()
    assert {ratios.compare(f, machine["ratios"][f.name]) for f in figures} == {ratios.ALIKE}


# ------------------------------------------------------------------------------------------- the same work


def test_the_published_style_table_is_the_same_table():
    table, rows = PredictionTable(30, 4, 0.1), torch.zeros(30, 4)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        idx = torch.randperm(30, generator=generator)[:20]
        prob = torch.randn(20, 4, generator=generator).softmax(1)
        table.update(idx, prob)
        update_rows(rows, idx, prob, 0.1)
    torch.testing.assert_close(table.values, rows, atol=1e-6, rtol=0)


def test_the_published_style_calibration_error_is_the_same_figure():
    generator = torch.Generator().manual_seed(0)
    confidence, correct = torch.rand(400, generator=generator), torch.rand(400, generator=generator) < 0.6
    confidence[:10] = torch.arange(1, 11) / 10  # on the edges of the bins
    ours = expected_calibration_error(confidence, correct)
    assert calibration_error(confidence, correct) == pytest.approx(ours, abs=1e-9)


def test_the_published_style_path_is_the_same_path(tmp_path):
    prob, path = torch.rand(12, 3).softmax(1), np.zeros((12, 2, 3))
    with PathRecorder(tmp_path / "path.npy", 12, 2, 3, dtype="float32") as recorder:
        for step in range(2):
            for idx in torch.randperm(12).split(5):
                recorder.record(step, idx, prob[idx] ** (step + 1))
                record_rows(path, step, idx, prob[idx] ** (step + 1))
    assert np.allclose(np.load(tmp_path / "path.npy"), path, atol=1e-7)


# ------------------------------------------------------------------------------------- turns and comparison


def test_contenders_take_turns():
    calls = []
    in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == list("ababab")


def test_turns_go_on_for_some_seconds_but_not_for_ever():
    calls = []
    work = {"a": lambda: calls.append("a")}
    in_turns(work, 3, seconds=1e-9)
    assert len(calls) == 3
    in_turns(work, 3, seconds=1000)
    assert len(calls) == 3 + 12


def test_a_ratio_is_of_the_time_of_a_unit_turn_by_turn():
    seconds = {"ours": iter([2.0, 4.0, 8.0]), "theirs": iter([10.0, 10.0, 10.0])}
    contenders = {name: lambda values=values: Measured(next(values)) for name, values in seconds.items()}
    race = Race(contenders, [Ratio("r", "ours", "theirs")], 3, units={"theirs": 5}, warm_up=False)
    [found] = run(race)
    assert (found.least, found.median, found.most) == (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    "now, verdict",
    [
        (figure(1.30, 1.25, 1.35), ratios.WORSE),
        (figure(1.08, 1.00, 1.30), ratios.ALIKE),  # within what was stored
        (figure(1.30, 1.00, 1.35), ratios.ALIKE),  # one of its own turns was as good as the stored median
        (figure(0.90, 0.85, 0.95), ratios.BETTER),
    ],
)
def test_only_what_is_beyond_the_spread_of_both_is_marked(now, verdict):
    assert ratios.compare(now, kept(1.10, 1.00, 1.20)) == verdict


def test_where_more_is_better_a_fallen_ratio_is_worse():
    fallen, risen = (figure(m, m - 0.1, m + 0.1, more_is_better=True) for m in (2.0, 4.0))
    assert ratios.compare(fallen, kept(3.0, 2.8, 3.2)) == ratios.WORSE
    assert ratios.compare(risen, kept(3.0, 2.8, 3.2)) == ratios.BETTER


def test_a_line_says_the_goal_and_what_has_become_of_it():
    assert "goal <= 1.15: met" in ratios.line(figure(1.1, 1.0, 1.2, goal=1.15), None)
    assert "goal <= 1.15: MISSED" in ratios.line(figure(1.2, 1.1, 1.3, goal=1.15), None)
    assert "goal >= 1.4: MISSED" in ratios.line(figure(1.2, 1.1, 1.3, goal=1.4, more_is_better=True), None)
    assert "goal" not in ratios.line(figure(1.2, 1.1, 1.3), None)
    assert "WORSE (1.10)" in ratios.line(figure(1.3, 1.25, 1.35), kept(1.1, 1.0, 1.2))


def test_storing_keeps_other_machines_and_what_was_not_measured(tmp_path):
    file = tmp_path / "ratios.json"
    ratios.store("a", [figure(1.0, 0.9, 1.1, name="x"), figure(2.0, 1.9, 2.1, name="y")], file)
    ratios.store("b", [figure(3.0, 2.9, 3.1, name="x")], file)
    ratios.store("a", [dataclasses.replace(figure(1.5, 1.4, 1.6), name="x")], file)
    found = {
        kind: {n: r["median"] for n, r in machine["ratios"].items()} for kind, machine in ratios.read(file).items()
    }
    assert found == {"a": {"x": 1.5, "y": 2.0}, "b": {"x": 3.0}}
