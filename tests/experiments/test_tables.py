"""RESULTS.md is what its rows say."""

import numpy as np
import pytest

from experiments import tables


def test_the_tables_of_the_results_page_are_those_of_the_committed_rows():
    text = tables.RESULTS.read_text(encoding="utf-8")
    assert tables.written(text) == text and text.count("<!-- rows ") == 3


def test_holms_correction():
    assert tables.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # .01*3, .03*2, max(.06, .04*1)
    assert tables.holm([0.6, 0.7]).tolist() == [1, 1]


def test_differences_are_paired_by_seed():
    rows = [
        {"noise": "0.4", "noise_kind": "pair", "method": m, "seed": s, "acc": v}
        for m, s, v in [("OHT", "1", ".5"), ("OHT", "2", ".7"), ("KD", "2", ".8"), ("KD", "1", ".4")]
    ]
    baseline, paired = tables.differences(rows, "acc")
    assert baseline["0.4 pair"].tolist() == [0.5, 0.7]
    np.testing.assert_allclose(paired["0.4 pair", "KD"], [0.1, -0.1])
