"""make bench: that it runs and says what it should, and that it compares the same work."""

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.published_style import calibration_error, update_rows
from benchmarks.sections import SECTIONS, first_step
from benchmarks.side_by_side import Ratio, in_turns
from benchmarks.workload import Workload
from supervision.table import PredictionTable
from utils import expected_calibration_error

IN_PROCESS = [section for section in SECTIONS if section != "startup"]


def ratio(median, low, high, goal=None, more_is_better=False):
    return Ratio("ours / theirs", np.array([low, median, high]), 1.0, goal, more_is_better)


# ------------------------------------------------------------------------------------------ the whole of it


@pytest.fixture(scope="module")
def quick_run():
    return main(["--quick", "--device", "cpu", "--amp", "off", "--only", *IN_PROCESS])


def test_every_section_gives_ratios(quick_run):
    assert len({r.name for r in quick_run}) == len(quick_run) >= 2 * len(IN_PROCESS)
    assert all((r.values > 0).all() for r in quick_run)


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
    assert name in {f.name for f in quick_run}


def test_a_command_is_timed_up_to_its_first_step(tmp_path):
    first_step(Workload(tmp_path, quick=True, device="cpu"))
    assert not list(tmp_path.glob("results/*/*/metrics.csv"))  # it went no further


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


def test_a_ratio_is_taken_turn_by_turn():
    found = Ratio("r", np.array([2.0, 4.0, 8.0]), np.array([2.0, 2.0, 4.0]))
    assert found.values.tolist() == [1.0, 2.0, 2.0] and found.median == 2
    assert "[4 / 2 s]" in str(found)


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
    assert found.goal is None or f"{found.goal:g}" in str(found)
