"""make bench: that it runs and says what it should, that it compares the same work, and sees what has become worse."""

import json

import numpy as np
import pytest
import torch

from benchmarks import startup
from benchmarks.__main__ import SECTIONS, line, main, store
from benchmarks.published_style import calibration_error, update_rows
from benchmarks.side_by_side import Measured, Race, Ratio, in_turns, run
from benchmarks.workload import Workload
from supervision.table import PredictionTable
from utils import expected_calibration_error

IN_PROCESS = [section for section in SECTIONS if section != "startup"]


def ratio(median, low, high, goal=None, more_is_better=False, name="ours / theirs"):
    found = Ratio(name, "ours", "theirs", goal, more_is_better)
    found.values, found.sides = np.array([low, median, high]), (median, 1.0)
    return found


def kept(median, low, high):
    return {"median": median, "min": low, "max": high}


# ------------------------------------------------------------------------------------------ the whole of it


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "ratios.json"
    flags = ["--quick", "--device", "cpu", "--amp", "off", "--store", "--ratios", str(file)]
    return main([*flags, "--only", *IN_PROCESS]), json.loads(file.read_text())


def test_every_section_gives_ratios(quick_run):
    ratios, _ = quick_run
    assert len({r.name for r in ratios}) == len(ratios) >= 2 * len(IN_PROCESS)
    assert all((r.values > 0).all() and len(r.sides) == 2 for r in ratios)


@pytest.mark.parametrize(
    "name",
    [
        "smallcnn: ours / bare loop",
        "smallcnn: ours with paths / ours",
        "smallcnn: published style / ours",
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


def test_what_was_stored_is_of_this_kind_of_machine_and_no_worse(quick_run):
    ratios, stored = quick_run
    [(kind, machine)] = stored.items()
    assert "1 threads, float32, quick" in kind and {"date", "versions"} <= machine.keys()
    assert not any(r.is_worse(machine["ratios"][r.name]) for r in ratios)


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
    assert found.values.tolist() == [1.0, 2.0, 4.0] and found.sides == (4.0, 2.0)


@pytest.mark.parametrize(
    "now, worse",
    [
        (ratio(1.30, 1.25, 1.35), True),
        (ratio(1.08, 1.00, 1.30), False),  # within what was stored
        (ratio(1.30, 1.00, 1.35), False),  # one of its own repeats was as good as the stored median
        (ratio(0.90, 0.85, 0.95), False),
        (ratio(0.90, 0.85, 0.95, more_is_better=True), True),
        (ratio(1.30, 1.25, 1.35, more_is_better=True), False),
    ],
)
def test_only_what_is_beyond_the_spread_of_both_is_worse(now, worse):
    assert now.is_worse(kept(1.10, 1.00, 1.20)) == worse
    assert "1.10" in line(now, kept(1.10, 1.00, 1.20))


@pytest.mark.parametrize(
    "found, met",
    [
        (ratio(1.1, 1.0, 1.2, goal=1.15), True),
        (ratio(1.2, 1.1, 1.3, goal=1.15), False),
        (ratio(1.2, 1.1, 1.3, goal=1.4, more_is_better=True), False),
        (ratio(1.2, 1.1, 1.3), None),
    ],
)
def test_a_goal_is_met_by_the_median(found, met):
    assert found.met is met
    assert found.goal is None or f"{found.goal:g}" in line(found, None)


def test_storing_keeps_other_machines_and_what_was_not_measured(tmp_path):
    file = tmp_path / "ratios.json"
    store(file, "a", [ratio(1.0, 0.9, 1.1, name="x"), ratio(2.0, 1.9, 2.1, name="y")])
    store(file, "b", [ratio(3.0, 2.9, 3.1, name="x")])
    store(file, "a", [ratio(1.5, 1.4, 1.6, name="x")])
    machines = json.loads(file.read_text())
    found = {kind: {n: r["median"] for n, r in machine["ratios"].items()} for kind, machine in machines.items()}
    assert found == {"a": {"x": 1.5, "y": 2.0}, "b": {"x": 3.0}}
