"""RESULTS.md is what its rows say, and README.md, too."""

import re

import numpy as np
import pytest
from scipy import stats

import sweep
from experiments import tables

README = (tables.HERE.parent / "README.md").read_text(encoding="utf-8")
PAGE = tables.RESULTS.read_text(encoding="utf-8")


def test_the_tables_of_the_results_page_are_those_of_the_committed_rows():
    assert tables.written(PAGE) == PAGE
    on_page = set(re.findall(r"<!-- rows (\w+) -->", PAGE))
    assert on_page >= {file.stem for file in (tables.HERE / "raw").glob("*.csv")}


@pytest.mark.parametrize("grid", sorted(tables.HERE.glob("*.toml")), ids=lambda file: file.stem)
def test_rows_are_of_their_grids_runs_so_that_make_evidence_runs_what_is_missing(grid):
    script, runs, *_ = sweep.read_grid(grid)
    for row in sweep.read_rows(tables.HERE / "raw" / f"{grid.stem}.csv"):
        assert row["command"] == sweep.command(script, runs[row["run"]])


def test_the_pictures_of_the_results_page_are_there():
    for file in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (tables.RESULTS.parent / file).is_file(), file


def short(number):
    return f"{number:.3f}".lstrip("0")


def rows_at_40_percent(name):
    return [r for r in tables.read_rows(name) if (r["noise"], r["noise_kind"]) == ("0.4", "symmetric_exclusive")]


@pytest.mark.parametrize(("row", "name"), [("digits", "digits_noise"), ("ResNet-18", "cifar10_resnet18_gpu")])
def test_the_readmes_results_are_those_of_the_rows(row, name):
    (line,) = [line for line in README.split("## Quick start")[0].splitlines() if re.match(rf"\| .*{row}.*seeds", line)]
    rows = rows_at_40_percent(name)
    last, best = (tables.means(rows, f"test_acc_{moment}", "method") for moment in ("last", "best"))
    expected = [f"{short(last[m])} / {short(best[m])}" for m in ("OHT", "FilterKD", "ES-FilterKD")]
    assert [cell.strip(" *") for cell in line.split("|")[2:5]] == expected
    assert f"{len({r['seed'] for r in rows})} seeds" in line


def test_the_readmes_loss_is_the_results_pages():
    (line,) = [line for line in README.splitlines() if "**it hurts:**" in line]
    last, best = (
        re.search(rf"test accuracy, {epoch} epoch \| (.*) \|", PAGE.split("**A loss.**")[1])[1].split(" | ")
        for epoch in ("last", "best-validation")
    )
    assert [cell.strip(" *") for cell in line.split("|")[2:5]] == [f"{last[i]} / {best[i]}" for i in (0, 4, 5)]


def test_the_readmes_calibration_is_that_of_the_rows():
    ece = tables.means(rows_at_40_percent("digits_noise"), "ece_last", "method")
    found = re.search(r"ECE at\s+the last epoch is (\.\d+) for OHT and (\.\d+) for ES-FilterKD", README)
    assert list(found.groups()) == [short(ece["OHT"]), short(ece["ES-FilterKD"])]


def test_the_readmes_other_accuracies_are_those_of_the_rows():
    human = [r for r in tables.of_images() if r["noise"].endswith(":worse_label")]
    last, best = (tables.means(human, f"test_acc_{moment}", "method") for moment in ("last", "best"))
    ours = [r for r in rows_at_40_percent("own_method") if r["augment"] == "none"]
    accuracy, ece = (tables.means(ours, measure, "method")["SelfFilterKD"] for measure in ("test_acc_last", "ece_last"))
    for text in (
        *(
            f"{method} {'has ' * (method == 'OHT')}{short(last[method])} / {short(best[method])}"
            for method in ("OHT", "FilterKD")
        ),
        f"SelfFilterKD, our own, {short(accuracy)} ({short(ece)})",
    ):
        assert text in README


def test_holms_correction():
    assert tables.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # .01*3, .03*2, max(.06, .04*1)
    assert tables.holm([0.6, 0.7]).tolist() == [1, 1]


def rows_of(*values, **more):
    """Rows (method, seed, acc) under 40 % pair noise."""
    same = {"noise": "0.4", "noise_kind": "pair", "noise_realised": "0.4", "augment": "none", **more}
    return [{**same, "method": m, "seed": s, "acc": v} for m, s, v in values]


def test_differences_are_paired_by_seed_and_made_of_seeds_that_both_have():
    rows = rows_of(("OHT", "1", ".5"), ("OHT", "2", ".7"), ("KD", "2", ".8"), ("KD", "1", ".4"), ("LS", "2", ".9"))
    baseline, paired = tables.differences(rows, "acc")
    assert baseline["0.4 pair"].tolist() == [0.5, 0.7]
    np.testing.assert_allclose(paired["0.4 pair", "KD"], [0.1, -0.1])
    np.testing.assert_allclose(paired["0.4 pair", "LS"], [0.2])
    assert "+0.200 (n = 1) |" in tables.table(rows, "x", "acc")


def test_our_method_is_paired_with_rows_that_were_run_before(monkeypatch):
    def rows(*values):
        return [
            {**row, "test_acc_last": row["acc"], "test_acc_best": ".5", "ece_last": ".1"} for row in rows_of(*values)
        ]

    before = rows(("OHT", "1", ".5"), ("OHT", "2", ".6"), ("OHT", "3", ".1"), ("FilterKD", "2", ".75"))
    before += [{**row, "noise": "0.9"} for row in before]  # a condition that ours was not run on
    monkeypatch.setattr(tables, "read_rows", lambda name: before)
    (text,) = tables.own_method(rows(("SelfFilterKD", "1", ".6"), ("SelfFilterKD", "2", ".8")), ["x"])
    assert len(text.splitlines()) == 3
    assert f"| 0.4 pair | 2 | 0.700 ± 0.141 | 0.500 ± 0.000 | {tables.interval(np.array([0.1, 0.2]))} |" in text
    assert "| +0.050 (n = 1) |" in text


def test_conditions_are_told_apart_by_noise_file_and_augmentation():
    file = {"noise": "/x/CIFAR-10_human.pt:worse_label", "noise_kind": "file"}
    rows = rows_of(("OHT", "1", ".5")) + rows_of(("OHT", "1", ".4"), augment="crop", **file)
    assert list(tables.conditions(rows)) == ["0.4 pair, augment none", "CIFAR-10N worse_label, augment crop"]
    assert list(tables.conditions(rows[:1])) == ["0.4 pair"]


def test_an_interval_is_students():
    d = np.array([0.1, 0.2, 0.4])
    low, high = stats.t.interval(0.95, 2, d.mean(), stats.sem(d))
    assert tables.interval(d) == f"{d.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    assert tables.interval(d[:1]) == "+0.100" and tables.interval([]) == "-"


def test_a_rule_is_chosen_on_every_other_condition_and_judged_on_the_rest():
    said = [0.1, 0.1, 0.3, 0.3, 0.6, 0.5, 0.7, 0.8]
    gains = [-1, -1, -1, 1, 1, 1, 1, 1]  # the fourth pays below the threshold, .6, and so does the sixth
    found = [
        {"suspects_fitted": s, "fitted_against_mean": 0, f"{tables.TABLE} last": g, f"{tables.TABLE} best": g}
        for s, g in zip(said, gains, strict=True)
    ]
    assert "| suspects fitted | last | 0.600 | 0.33 / 1.00 | 3 pay, 1 do not |" in tables.rule(found)
