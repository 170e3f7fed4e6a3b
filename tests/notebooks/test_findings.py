"""What the notebooks find when they run: in FAST mode, the same cells on less."""

import functools
import json

import pytest

pytest.importorskip("ipykernel", reason="notebooks need ipykernel to run: pip install -r requirements-dev.txt")
pytest.importorskip("nbclient", reason="notebooks need nbclient to run: pip install -r requirements-dev.txt")

import nbformat  # noqa: E402

from notebooks import execute  # noqa: E402

pytestmark = pytest.mark.long


@functools.cache
def results(name):
    """The notebook's own results, after a run from top to bottom."""
    notebook = execute.read(name)
    notebook.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(results))"))
    return json.loads(execute.execute(notebook, "FAST").cells[-1].outputs[-1].text)


@pytest.mark.parametrize("noise", ["", "_noise"])
def test_part_1_accuracy_falls_and_ece_rises_with_the_distance_of_the_target_to_p_star(noise):
    found = results("ToyGaussian_Part1_noisylabel")
    low, high = found[f"rho_accuracy{noise}_interval"]
    assert low < found[f"rho_accuracy{noise}"] < high < -0.5 and found[f"rho_accuracy{noise}"] < -0.8
    low, high = found[f"rho_ece{noise}_interval"]
    assert 0.25 < low < found[f"rho_ece{noise}"] < high and found[f"rho_ece{noise}"] > 0.6


def test_part_1_a_student_from_its_teachers_own_weights_stays_near_the_teacher():
    found = results("ToyGaussian_Part1_noisylabel")
    for method in ("KD", "ESKD"):
        assert found[f"apart_{method}_own"] < 0.7 * found[f"apart_{method}_fresh"]
    assert found["apart_ESKD_own"] < 0.07 < 0.1 < found["apart_ESKD_fresh"]


def test_part_2_targets_are_as_far_from_p_star_as_their_methods_say():
    found = results("ToyGaussian_Part2_LearningDynamics")["target_distance"]
    assert found["OHT"] > found["LS"] > found["ESKD"] > found["GT"] == 0
    assert found["OHT"] > found["KD"] > 2 * found["ESKD"]  # a converged teacher has learned the labels


def test_part_2_the_hard_sample_that_is_shown_zig_zags():
    likeliest, label = results("ToyGaussian_Part2_LearningDynamics")["one_hard_sample"]
    true, at_stop, at_end = likeliest
    assert true > 0.8 and at_stop > 0.7 and at_end < 0.3
    assert label[0] < 0.1 and label[1] < 0.2 and label[2] > 0.6


def test_part_2_the_filtered_path_of_hard_samples_is_nearer_to_p_star():
    found = results("ToyGaussian_Part2_LearningDynamics")
    assert found["distance_hard_filtered"] < found["distance_hard_raw"]


def test_part_3_the_error_of_proposition_1_goes_with_the_learning_rate():
    assert 0.8 < results("ToyGaussian_Part3_NTK")["slope_lr"] < 1.2


def test_part_3_a_is_positive_semi_definite_to_rounding():
    assert results("ToyGaussian_Part3_NTK")["smallest_eigenvalue_of_A"] > -1e-12


def test_part_3_the_linearised_network_fits_as_well_as_the_real_one():
    real, linearised = results("ToyGaussian_Part3_NTK")["accuracy_real_and_linearised"]
    assert real == linearised > 0.9


def test_part_3_in_an_epoch_the_own_visit_pulls_one_way_and_the_others_the_other():
    """And the others pull less where the visit is left out."""
    found = results("ToyGaussian_Part3_NTK")
    for epoch in ("epoch_1", "epoch_11"):
        for own, others, others_alone in found[epoch]:
            assert own > 0.05
            assert others < 1.1 * others_alone < -0.05


def test_mislabelled_images_pass_their_clean_class_far_more_often_than_another():
    found = results("CIFAR10_path_analysis")
    assert found["reached"] > 0.8 > 3 * found["third_class"]
    assert found["zigzag"] > 0.2
    assert found["reached_filtered"] > 3 * found["third_class_filtered"]


def test_filtered_predictions_are_right_more_often_and_nearer_to_the_clean_label():
    found = results("CIFAR10_path_analysis")
    assert found["accuracy_filtered_clean"] > found["accuracy_raw_clean"]
    assert found["distance_filtered_hard"] < found["distance_raw_hard"]


def test_of_mislabelled_images_some_filter_is_better_than_none():
    found = results("CIFAR10_path_analysis")
    assert 0 < found["best_smoothing, noisy, mislabelled images"] < 1
    assert 0 < found["best_smoothing"] <= 1


def test_most_label_errors_are_found_and_counted():
    found = results("CIFAR10_path_analysis")
    assert found["precision"] > 0.9 and found["recall"] > 0.9
    assert found["true_errors"] == 504
    assert abs(found["num_errors"] / found["true_errors"] - 1) < 0.1


def test_label_errors_of_a_loop_a_trainer_and_a_folder_are_found_and_a_corrected_folder_teaches_better():
    pytest.importorskip("transformers", reason="pip install -r requirements-dev.txt")
    pytest.importorskip("accelerate", reason="pip install -r requirements-dev.txt")
    found = results("label_errors")
    for name in ("loop", "trainer"):
        assert found[name] > 0.85 and found[f"{name}_suggestion"] > 0.85
    assert found["found"] > 85  # of 100, among the first 120
    before, after = found["accuracy"]
    assert after > before
