"""The comparison's figures: paired intervals, recovered labels, and which epoch a number is of."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from comparison.results import (
    ACCURACY,
    CALIBRATION,
    COLUMNS,
    format_table,
    labels_recovered,
    report,
    result_row,
    write_results,
)
from data.loader import IndexedLoader
from supervision.targets import OneHot, SmoothedLabel, TeacherNetwork, TeacherTable


def result(method, seed, last, best=None, recovered=0.0, **more):
    """A row of results.csv."""
    figures = dict.fromkeys(COLUMNS, 0.25)
    return {
        **figures,
        "method": method,
        "seed": seed,
        "test_acc_last": last,
        "test_acc_best": last if best is None else best,
        "labels_recovered": recovered,
        **more,
    }


def cells(results):
    """{method: {column title: cell}} of the printed tables."""
    found = {}
    for columns in (ACCURACY, CALIBRATION):
        text = format_table(results, columns).splitlines()
        lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text]
        assert len({len(line) for line in lines}) == len({len(line) for line in text}) == 1
        for line in lines[1:]:
            found.setdefault(line[0], {}).update(zip(lines[0], line, strict=True))
    return found


# --------------------------------------------------------------------------------- the paired difference


def test_the_paired_difference_has_scipys_t_interval():
    oht, kd = [0.70, 0.72, 0.68], [0.80, 0.79, 0.81]
    found = cells([result("OHT", s, v) for s, v in enumerate(oht)] + [result("KD", s, v) for s, v in enumerate(kd)])
    low, high = stats.ttest_rel(kd, oht).confidence_interval(0.95)
    assert found["KD"]["last - OHT"] == f"+0.100 [{low:+.3f}, {high:+.3f}]"


def test_the_paired_difference_by_hand():
    # differences .1, .2 and .3: mean .2, deviation .1, standard error .0577, t(2) = 4.303: half a width of .248
    results = [result("OHT", s, 0.5) for s in range(3)] + [result("LS", s, 0.6 + 0.1 * s) for s in range(3)]
    assert cells(results)["LS"]["last - OHT"] == "+0.200 [-0.048, +0.448]"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8), st.randoms())
def test_differences_are_paired_by_seed_whatever_the_order(pairs, random):
    oht = [result("OHT", seed, a) for seed, (a, _) in enumerate(pairs)]
    kd = [result("KD", seed, b) for seed, (_, b) in enumerate(pairs)]
    expected = cells(oht + kd)["KD"]["last - OHT"]
    random.shuffle(oht)
    assert cells(oht + kd)["KD"]["last - OHT"] == expected
    mean = np.mean([b - a for a, b in pairs])
    assert float(expected.split()[0]) == pytest.approx(mean, abs=6e-4)


def test_last_and_chosen_epoch_have_a_difference_each():
    results = [result("OHT", s, 0.5, best=0.7) for s in range(2)] + [result("KD", s, 0.8, best=0.6) for s in range(2)]
    found = cells(results)["KD"]
    assert found["last - OHT"].startswith("+0.300") and found["chosen - OHT"].startswith("-0.100")


def test_one_seed_has_a_difference_and_no_interval():
    found = cells([result("OHT", 0, 0.5), result("KD", 0, 0.8)])
    assert found["KD"]["last - OHT"] == found["KD"]["chosen - OHT"] == "+0.300"
    assert found["KD"]["test acc, last"] == "0.800"


def test_oht_and_comparisons_without_it_have_no_difference():
    results = [result("OHT", s, 0.5) for s in range(3)]
    assert cells(results)["OHT"]["last - OHT"] == "-"
    assert cells([result("LS", s, 0.5) for s in range(3)])["LS"]["last - OHT"] == "-"


def test_several_seeds_are_given_as_mean_and_standard_deviation():
    found = cells([result("OHT", s, v) for s, v in enumerate((0.6, 0.7, 0.8))])
    assert found["OHT"]["test acc, last"] == "0.700 ± 0.100"


# -------------------------------------------------------------------------------------- recovered labels

Y = np.array([0, 1, 2, 0, 1, 2, 0])
NY = np.array([0, 1, 2, 1, 0, 0, 2])  # the last four are mislabelled
ROWS = np.array([2, 4, 5, 7, 8, 10, 11])  # of a larger split


def loader(ny=NY, augment="none"):
    images = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(7, 8, 8, 1).contiguous()
    return IndexedLoader(
        images, Y, ny, ROWS, 3, (0.0,), (1 / 255,), "cpu",
        order=torch.Generator().manual_seed(0), augmentation=torch.Generator().manual_seed(1), augment_kind=augment,
    )  # fmt: skip


def table_that_says(classes):
    values = torch.zeros(12, 3)
    values[ROWS] = torch.eye(3)[classes] * 0.6 + 0.4 / 3
    return values


def test_recovered_is_the_share_of_mislabelled_samples_whose_target_peaks_at_the_true_label():
    # of the four mislabelled, the table is right about the first and the last
    assert labels_recovered(TeacherTable(table_that_says([1, 0, 2, 0, 2, 0, 0])), loader()) == 0.5


def test_samples_with_a_right_label_do_not_count():
    assert labels_recovered(TeacherTable(table_that_says([2, 2, 1, 0, 1, 2, 0])), loader()) == 1.0


@pytest.mark.parametrize("target", [OneHot(3), SmoothedLabel(3, 0.1)])
def test_targets_made_of_the_given_label_recover_none(target):
    assert labels_recovered(target, loader()) == 0


def test_without_noise_there_is_nothing_to_recover():
    assert labels_recovered(OneHot(3), loader(ny=Y)) is None
    assert cells([result("OHT", 0, 0.5, recovered=None)])["OHT"]["labels recovered"] == "-"


def test_the_target_sees_the_image_without_augmentation():
    class Mean(torch.nn.Module):
        """Says the class that belongs to the image's grey, and nothing for an image that was cropped."""

        def forward(self, x):
            grey = x.mean((1, 2, 3)).round().long()
            assert torch.equal(x, x.mean((1, 2, 3), keepdim=True).expand_as(x))
            return torch.eye(3)[torch.from_numpy(Y)[grey]]

    assert labels_recovered(TeacherNetwork(Mean(), 1.0), loader(augment="crop_flip")) == 1.0


def test_counting_recovered_labels_draws_from_no_generator():
    loaded = loader(augment="crop_flip")
    before = loaded.state_dict()
    labels_recovered(OneHot(3), loaded)
    assert all(torch.equal(before[name], state) for name, state in loaded.state_dict().items())


# ---------------------------------------------------------------------------------------- rows and files


def run_of(accuracies, best):
    rows = [{"test_acc": acc, "test_ece": acc / 10, "test_nll": 1 - acc, "test_brier": acc / 2} for acc in accuracies]
    return SimpleNamespace(rows=rows, best={"acc": (best, 0.9), "loss": (0, 1.0)})


ARGS = SimpleNamespace(seed=3, ny_file=None, ny_ratio=0.4, ny_kind="pair", dataset="digits", net="smallcnn")


def test_a_row_says_which_epoch_its_figures_are_of():
    data = SimpleNamespace(noise_realised=0.39)
    row = result_row("KD", ARGS, data, run_of([0.2, 0.8, 0.5, 0.4], best=2), recovered=0.75)
    assert list(row) == COLUMNS
    assert (row["method"], row["seed"]) == ("KD", 3)
    assert (row["noise"], row["noise_kind"], row["noise_realised"]) == (0.4, "pair", 0.39)
    assert row["test_acc_last"] == 0.4 and row["test_acc_best"] == 0.5 and row["test_acc_oracle"] == 0.8
    assert row["ece_last"] == 0.4 / 10 and row["ece_best"] == 0.5 / 10
    assert row["nll_last"] == 1 - 0.4 and row["brier_last"] == 0.4 / 2
    assert row["labels_recovered"] == 0.75


def test_the_columns_are_those_of_the_design():
    assert (
        COLUMNS
        == (
            "method seed noise noise_kind noise_realised test_acc_last test_acc_best test_acc_oracle ece_last ece_best "
            "nll_last brier_last labels_recovered"
        ).split()
    )


def test_results_csv_has_a_row_a_method_and_seed_and_empty_cells_for_none(tmp_path):
    with open(tmp_path / "results.csv", "w") as f:
        write_results(f, [result("OHT", 0, 0.5, recovered=None), result("KD", 0, 1 / 3)])
    with open(tmp_path / "results.csv", newline="") as f:
        first, second = csv.DictReader(f)
    assert first["method"] == "OHT" and first["labels_recovered"] == ""
    assert second["test_acc_last"] == "0.333333" and second["labels_recovered"] == "0"


def test_the_report_heads_the_table_with_the_realised_noise(tmp_path):
    results = [result(m, s, 0.5 + s / 10, noise_realised=0.36) for m in ("OHT", "ES-FilterKD") for s in range(2)]
    curves = {m: [[0.4, 0.5], [0.5, 0.6]] for m in ("OHT", "ES-FilterKD")}
    args = SimpleNamespace(**vars(ARGS), epochs=2, seeds=2, valid_size=0.1)
    text = report(results, args, curves, tmp_path)
    head = text.strip().splitlines()[0]
    assert {"digits", "pair", "0.4", "0.360", "2"} <= set(re.findall(r"[\w.]+", head))  # 2 seeds
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    unsplit = report(results, SimpleNamespace(**{**vars(args), "valid_size": 0}), curves, tmp_path)
    lines = zip(unsplit.splitlines(), text.splitlines(), strict=True)
    assert sum(a != b for a, b in lines) == 1  # the one that says that the test set chose


def test_a_target_that_asks_for_the_students_logits_gets_them():
    class Itself:
        def __call__(self, x, label, idx, logits):
            return logits.softmax(1)

    says = torch.eye(3)[torch.tensor([1, 0, 2, 0, 2, 0, 0])]
    grey = lambda x: x.mean((1, 2, 3)).round().long()  # noqa: E731
    assert labels_recovered(Itself(), loader(), lambda x: says[grey(x)]) == 0.5
