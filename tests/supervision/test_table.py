"""The prediction table of Filter-KD: the moving average by hand, and a file that is whole, readable and checked."""

import ast
import json
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supervision import table as table_module
from supervision.table import PredictionTable, ema_step, read_distributions, sidecar_path


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)


def filled(num_samples=5, num_classes=3, smoothing=0.25):
    """A table whose rows 0 and 2 were visited."""
    table = PredictionTable(num_samples, num_classes, smoothing)
    table.update(torch.tensor([2, 0]), rows([0.1, 0.2, 0.7], [0.5, 0.25, 0.25]))
    return table


def refusal(path):
    with pytest.raises(ValueError) as found:
        PredictionTable.load(path)
    return str(found.value)


def stop_before_rename_to(monkeypatch, ending):
    """As if the power failed just before a finished file got its name."""

    def replace(source, target):
        if str(target).endswith(ending):
            raise KeyboardInterrupt
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(table_module.os, "replace", replace)


# ---------------------------------------------------------------------------------------------- updates


def test_a_new_table_is_zeros_and_unvisited():
    table = PredictionTable(4, 3, smoothing=0.05)
    assert table.values.shape == (4, 3) and table.values.dtype == torch.float32
    assert not table.values.any()
    assert table.visited.dtype == torch.bool and not table.visited.any()


def test_first_visit_stores_the_prediction():
    table = filled()
    assert torch.equal(table.values[2], rows(0.1, 0.2, 0.7))
    assert torch.equal(table.values[0], rows(0.5, 0.25, 0.25))
    assert table.visited.tolist() == [True, False, True, False, False]
    assert not table.values[[1, 3, 4]].any()


def test_later_visits_mix_by_the_smoothing():
    table = PredictionTable(3, 2, smoothing=0.25)
    for prediction in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        table.update(torch.tensor([1]), rows(prediction))
    # .75 * (1, 0) + .25 * (0, 1) = (.75, .25); .75 * (.75, .25) + .25 * (.5, .5) = (.6875, .3125)
    assert torch.equal(table.values[1], rows(0.6875, 0.3125))


def test_a_batch_mixes_first_and_later_visits():
    table = filled(smoothing=0.5)
    table.update(torch.tensor([1, 2]), rows([0.0, 1.0, 0.0], [0.5, 0.4, 0.1]))
    assert torch.equal(table.values[1], rows(0.0, 1.0, 0.0))
    torch.testing.assert_close(table.values[2], rows(0.3, 0.3, 0.4))
    assert torch.equal(table.values[0], rows(0.5, 0.25, 0.25))


def test_smoothing_one_keeps_the_newest_prediction_only():
    table = filled(smoothing=1)
    table.update(torch.tensor([0]), rows([0.0, 0.0, 1.0]))
    assert torch.equal(table.values[0], rows(0.0, 0.0, 1.0))


def test_one_ema_step_weighs_the_newest_by_the_smoothing():
    assert ema_step(10.0, 20.0, 0.1) == pytest.approx(11.0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_vectorised_updates_equal_the_published_loop(data):
    num_samples, num_classes = data.draw(st.integers(1, 8)), data.draw(st.integers(2, 5))
    smoothing = data.draw(st.floats(0.01, 1))
    table, expected = PredictionTable(num_samples, num_classes, smoothing), {}
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    for _ in range(data.draw(st.integers(0, 5))):
        idx = data.draw(st.lists(st.integers(0, num_samples - 1), unique=True))
        prob = torch.rand(len(idx), num_classes, generator=generator).softmax(1)
        table.update(torch.tensor(idx, dtype=torch.int64), prob)
        for i, p in zip(idx, prob.double().numpy(), strict=True):
            expected[i] = p if i not in expected else (1 - smoothing) * expected[i] + smoothing * p
    for i in range(num_samples):
        np.testing.assert_allclose(table.values[i].numpy(), expected.get(i, np.zeros(num_classes)), atol=1e-6)
        assert bool(table.visited[i]) == (i in expected)


def test_a_sample_twice_in_a_batch_is_an_error_and_changes_nothing():
    table = filled()
    before = table.values.clone()
    with pytest.raises(ValueError, match="idx"):
        table.update(torch.tensor([1, 3, 1]), torch.full((3, 3), 1 / 3))
    assert torch.equal(table.values, before) and not table.visited[1]


def test_the_same_sample_in_two_batches_is_no_repeat():
    table = filled()
    table.update(torch.tensor([2, 0]), torch.full((2, 3), 1 / 3))
    table.update(torch.tensor([0, 2]), torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_prediction_that_is_not_finite_leaves_its_row_as_it_was(bad):
    table = filled()
    before = table.values.clone()
    table.update(torch.tensor([0, 1, 4]), rows([bad, 0.5, 0.5], [0.2, bad, 0.3], [0.0, 0.0, 1.0]))
    assert torch.equal(table.values[:4], before[:4])
    assert table.visited.tolist() == [True, False, True, False, True]
    assert torch.equal(table.values[4], rows(0.0, 0.0, 1.0))


def test_after_a_lost_first_visit_the_next_one_stores():
    table = PredictionTable(2, 2, smoothing=0.1)
    table.update(torch.tensor([0]), rows([float("nan"), 1.0]))
    table.update(torch.tensor([0]), rows([0.25, 0.75]))
    assert torch.equal(table.values[0], rows(0.25, 0.75))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_predictions_of_any_precision_are_averaged_in_float32(dtype):
    table = PredictionTable(1, 2, smoothing=0.001)
    table.update(torch.tensor([0]), rows([0.5, 0.5]).to(dtype))
    table.update(torch.tensor([0]), rows([1.0, 0.0]).to(dtype))
    assert table.values.dtype == torch.float32
    torch.testing.assert_close(table.values[0], rows(0.5005, 0.4995))  # float16 would have kept .5


def test_numpy_arrays_and_lists_are_taken_too():
    table = PredictionTable(3, 2, smoothing=0.5)
    table.update([2, 1], np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert torch.equal(table.values, rows([0, 0], [1.0, 0.0], [0.25, 0.75]))


def test_the_table_takes_no_part_in_the_gradient():
    logits = torch.zeros(1, 2, requires_grad=True)
    table = PredictionTable(1, 2, smoothing=0.5)
    table.update(torch.tensor([0]), logits.softmax(1))
    assert not table.values.requires_grad


def test_an_empty_batch_changes_nothing():
    table = filled()
    table.update(torch.tensor([], dtype=torch.int64), torch.zeros(0, 3))
    assert table.visited.sum() == 2


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (2,)])
def test_predictions_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=rf"prob.*\(2, 3\).*{re.escape(str(shape))}"):
        filled().update(torch.tensor([0, 1]), torch.zeros(shape))


LOGITS = {"a negative entry": [1.5, -0.5], "a sum above 1": [3.0, 2.0], "a sum below 1": [0.2, 0.3]}


@pytest.mark.parametrize("row", LOGITS.values(), ids=LOGITS)
def test_a_first_batch_that_holds_no_distributions_is_an_error_and_changes_nothing(row):
    table = PredictionTable(3, 2, 0.5)
    for _ in range(2):
        with pytest.raises(ValueError, match="prob"):
            table.update(torch.tensor([0, 2]), rows([0.5, 0.5], row))
    assert not table.visited.any() and not table.values.any()
    table.update(torch.tensor([0, 2]), rows([0.5, 0.5], [float("nan"), 7.0]))  # is told by nothing but its row
    assert table.visited.tolist() == [True, False, False]


def test_only_the_first_batch_is_held_against_one(monkeypatch):
    """On a GPU each further check would wait for the device."""
    checked, check = [], table_module._check_distributions
    monkeypatch.setattr(table_module, "_check_distributions", lambda prob: checked.append(len(prob)) or check(prob))
    table = PredictionTable(3, 2, 0.5)
    table.update(torch.tensor([], dtype=torch.int64), torch.zeros(0, 2))
    for _ in range(3):
        table.update(torch.tensor([0, 1]), rows([0.5, 0.5], [1.0, 0.0]))
    assert checked == [2]


def test_a_loaded_tables_first_batch_is_checked_too(tmp_path):
    filled().save(tmp_path / "q.npy")
    with pytest.raises(ValueError, match="prob"):
        PredictionTable.load(tmp_path / "q.npy").update(torch.tensor([0]), rows([3.0, -1.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_softmax_of_any_precision_passes_for_a_distribution(dtype):
    logits = torch.randn(200, 1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    PredictionTable(200, 1000, 0.5).update(torch.arange(200), logits.softmax(1))


@pytest.mark.parametrize("smoothing", [0, -0.1, 1.01, float("nan")])
def test_a_smoothing_outside_its_range_is_an_error(smoothing):
    with pytest.raises(ValueError, match="smoothing"):
        PredictionTable(2, 2, smoothing)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_table_on_the_gpu_holds_the_same_averages():
    on_cpu, on_gpu = PredictionTable(50, 4, 0.1), PredictionTable(50, 4, 0.1, device="cuda")
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        idx = torch.randperm(50, generator=generator)[:20]
        prob = torch.rand(20, 4, generator=generator).softmax(1)
        on_cpu.update(idx, prob)
        on_gpu.update(idx.cuda(), prob.cuda())
    torch.testing.assert_close(on_gpu.values.cpu(), on_cpu.values)
    assert torch.equal(on_gpu.visited.cpu(), on_cpu.visited)


def test_rows_are_read_by_idx():
    table = filled()
    assert torch.equal(table.rows(torch.tensor([2, 1, 2])), rows([0.1, 0.2, 0.7], [0, 0, 0], [0.1, 0.2, 0.7]))


# ------------------------------------------------------------------------------------------- state dict


def test_a_state_dict_makes_another_table_the_same_from_then_on():
    table, other = filled(smoothing=0.25), PredictionTable(5, 3, smoothing=0.9)
    other.load_state_dict(table.state_dict())
    for t in (table, other):
        t.update(torch.tensor([0, 1]), rows([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]))
    assert torch.equal(other.values, table.values) and torch.equal(other.visited, table.visited)
    assert other.smoothing == 0.25


def test_a_loaded_state_is_a_copy():
    table, other = filled(), PredictionTable(5, 3, smoothing=0.5)
    other.load_state_dict(table.state_dict())
    table.update(torch.tensor([4]), rows([1.0, 0.0, 0.0]))
    assert not other.visited[4] and not other.values[4].any()


def test_a_state_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"\(5, 3\).*\(4, 3\)"):
        PredictionTable(4, 3, 0.5).load_state_dict(filled().state_dict())


# -------------------------------------------------------------------------------------------- the files


def test_plain_numpy_reads_a_saved_table(tmp_path):
    table = filled()
    table.save(tmp_path / "q_smooth.npy")
    values = np.load(tmp_path / "q_smooth.npy")
    assert values.shape == (5, 3) and values.dtype == np.float32 and values.flags.c_contiguous
    assert np.array_equal(values, table.values.numpy())
    np.save(tmp_path / "plain.npy", table.values.numpy())
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "q_smooth.npy").read_bytes()
    assert not values[[1, 3, 4]].any()


def test_a_saved_table_loads_with_all_it_knew(tmp_path):
    table = filled(smoothing=0.25)
    table.save(tmp_path / "q.npy")
    loaded = PredictionTable.load(tmp_path / "q.npy")
    assert torch.equal(loaded.values, table.values) and torch.equal(loaded.visited, table.visited)
    for t in (table, loaded):
        t.update(torch.tensor([0, 1]), rows([0.0, 1.0, 0.0], [1.0, 0.0, 0.0]))
    assert torch.equal(loaded.values, table.values)


def test_the_json_describes_the_table_and_keeps_the_metadata(tmp_path):
    filled(smoothing=0.25).save(tmp_path / "q.npy", {"dataset": "digits", "noise": {"ny_ratio": 0.4}, "epoch": 7})
    described = json.loads((tmp_path / "q.json").read_text())
    assert described["shape"] == [5, 3]
    assert described["smoothing"] == 0.25
    assert described["rows_visited"] == 2
    assert described["dataset"] == "digits" and described["noise"] == {"ny_ratio": 0.4} and described["epoch"] == 7
    assert len(described["sha256"]) == 64


def test_metadata_cannot_hide_what_the_table_says_of_itself(tmp_path):
    filled().save(tmp_path / "q.npy", {"shape": [1, 1], "sha256": "0"})
    assert PredictionTable.load(tmp_path / "q.npy").values.shape == (5, 3)


def test_saving_leaves_two_files_and_no_other(tmp_path):
    filled().save(tmp_path / "q.npy")
    filled().save(tmp_path / "q.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.json", "q.npy"]


@pytest.mark.parametrize("place", [3, 60, -1])
def test_a_flipped_bit_is_found_and_its_file_named(tmp_path, place):
    path = tmp_path / "q.npy"
    filled().save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert f"{path}: " in refusal(path) and "q.json" in refusal(path)  # which has another checksum


@pytest.mark.parametrize("with_json", [True, False])
@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept, with_json):
    path = tmp_path / "q.npy"
    filled().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    if not with_json:
        sidecar_path(path).unlink()
    assert str(path) in refusal(path)


def test_rows_that_got_lost_are_not_taken_for_rows_never_visited(tmp_path):
    table = filled()
    table.save(tmp_path / "q.npy")
    described = json.loads((tmp_path / "q.json").read_text())
    table.values[2] = 0
    table.save(tmp_path / "lost.npy", {})  # its own .json still counts two rows
    assert json.loads((tmp_path / "lost.json").read_text())["rows_visited"] == described["rows_visited"] == 2
    assert "rows_visited" in refusal(tmp_path / "lost.npy")


@pytest.mark.parametrize("content", ["", "{", "[1, 2]"])
def test_a_damaged_json_is_refused_by_name(tmp_path, content):
    filled().save(tmp_path / "q.npy")
    (tmp_path / "q.json").write_text(content)
    assert str(tmp_path / "q.json") in refusal(tmp_path / "q.npy")


@pytest.mark.parametrize("with_json", [True, False])
def test_a_missing_file_is_named(tmp_path, with_json):
    if with_json:
        (tmp_path / "q.json").write_text("{}")
    assert str(tmp_path / "q.npy") in refusal(tmp_path / "q.npy")


def test_a_table_without_json_is_accepted_with_one_warning(tmp_path):
    published = np.array([[0.25, 0.75], [0, 0], [1, 0]])  # float64, and a row never visited
    np.save(tmp_path / "epoch_4.npy", published)
    with pytest.warns(UserWarning, match="epoch_4") as said:
        table = PredictionTable.load(tmp_path / "epoch_4.npy")
    assert len(said) == 1
    assert table.values.dtype == torch.float32 and np.array_equal(table.values.numpy(), published)
    assert table.visited.tolist() == [True, False, True]


def test_a_table_without_json_needs_a_smoothing_before_it_is_updated(tmp_path):
    np.save(tmp_path / "q.npy", np.array([[1.0, 0.0]]))
    with pytest.warns(UserWarning):
        table = PredictionTable.load(tmp_path / "q.npy")
    with pytest.raises(ValueError, match="smoothing"):
        table.update(torch.tensor([0]), rows([0.0, 1.0]))
    table.smoothing = 0.5
    table.update(torch.tensor([0]), rows([0.0, 1.0]))
    assert torch.equal(table.values, rows([0.5, 0.5]))


@pytest.mark.parametrize("order, kind", [("C", "<f4"), ("F", "<f4"), ("C", ">f8"), ("F", "<f2")])
def test_any_layout_and_byte_order_of_floats_is_read(tmp_path, order, kind):
    values = np.array([[0.25, 0.75], [0.5, 0.5], [0, 0]], dtype=kind, order=order)
    np.save(tmp_path / "q.npy", values)
    with pytest.warns(UserWarning):
        table = PredictionTable.load(tmp_path / "q.npy")
    assert np.array_equal(table.values.numpy(), values)


WRONG_VALUES = {
    "NaN": np.array([[np.nan, 1.0], [0.5, 0.5]]),
    "infinity": np.array([[np.inf, 0.0], [0.5, 0.5]]),
    "a negative entry": np.array([[-0.5, 1.5], [0.5, 0.5]]),
    "rows that do not sum to 1": np.array([[0.5, 0.4], [0.5, 0.5]]),
    "logits": np.array([[5.0, -3.0], [2.0, 2.0]]),
    "counts": np.array([[1, 0], [0, 1]]),
    "booleans": np.array([[True, False]]),
    "one dimension": np.array([0.5, 0.5]),
    "three dimensions": np.full((2, 2, 2), 0.5),
    "text": np.array([["a", "b"]]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("values", WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_what_is_no_table_is_refused_by_name(tmp_path, values):
    np.save(tmp_path / "q.npy", values)
    assert str(tmp_path / "q.npy") in refusal(tmp_path / "q.npy")


def test_an_archive_of_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "q.npz", values=np.array([[1.0, 0.0]]))
    os.rename(tmp_path / "q.npz", tmp_path / "q.npy")
    assert str(tmp_path / "q.npy") in refusal(tmp_path / "q.npy")


class Unwanted:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_array", [True, False], ids=["an object array", "a bare pickle"])
def test_objects_are_refused_without_unpickling_them(tmp_path, as_array):
    trap = tmp_path / "unpickled"
    with open(tmp_path / "q.npy", "wb") as f:
        if as_array:
            np.save(f, np.array([[Unwanted(trap)]], dtype=object), allow_pickle=True)
        else:
            pickle.dump(Unwanted(trap), f)
    assert str(tmp_path / "q.npy") in refusal(tmp_path / "q.npy")
    assert not trap.exists()


def test_rows_of_zeros_are_no_distributions_where_none_may_be_missing(tmp_path):
    np.save(tmp_path / "p.npy", np.array([[0.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="p.npy"):
        read_distributions(tmp_path / "p.npy")
    assert read_distributions(tmp_path / "p.npy", may_be_zero=True).shape == (2, 2)


# -------------------------------------------------------------------------------------- whole or not at all


def test_a_stop_between_json_and_table_leaves_the_old_table_loadable(tmp_path, monkeypatch):
    table = filled()
    table.save(tmp_path / "q.npy", {"epoch": 0})
    old = table.values.clone()
    table.update(torch.tensor([1]), rows([1.0, 0.0, 0.0]))
    with monkeypatch.context() as patch:
        stop_before_rename_to(patch, ".npy")
        with pytest.raises(KeyboardInterrupt):
            table.save(tmp_path / "q.npy", {"epoch": 1})
    assert json.loads((tmp_path / "q.json").read_text())["epoch"] == 1  # the .json is the newer of the two
    assert torch.equal(PredictionTable.load(tmp_path / "q.npy").values, old)
    table.save(tmp_path / "q.npy", {"epoch": 1})
    assert torch.equal(PredictionTable.load(tmp_path / "q.npy").values, table.values)


def test_a_stop_before_the_json_leaves_the_old_table_loadable(tmp_path, monkeypatch):
    table = filled()
    table.save(tmp_path / "q.npy")
    old = table.values.clone()
    table.update(torch.tensor([1]), rows([1.0, 0.0, 0.0]))
    stop_before_rename_to(monkeypatch, ".json")
    with pytest.raises(KeyboardInterrupt):
        table.save(tmp_path / "q.npy")
    assert torch.equal(PredictionTable.load(tmp_path / "q.npy").values, old)


def test_a_full_disk_leaves_the_old_table_and_names_the_file(tmp_path, monkeypatch):
    table = filled()
    table.save(tmp_path / "q.npy")
    old = table.values.clone()
    table.update(torch.tensor([1]), rows([1.0, 0.0, 0.0]))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_module, "write_npy", full)
    with pytest.raises(OSError) as found:
        table.save(tmp_path / "q.npy")
    assert found.value.filename == str(tmp_path / "q.npy")
    assert torch.equal(PredictionTable.load(tmp_path / "q.npy").values, old)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.json", "q.npy"]


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(table_module.os, "fsync", lambda f: (happened.append("fsync"), fsync(f)))
    monkeypatch.setattr(table_module.os, "replace", lambda a, b: (happened.append(Path(b).suffix), replace(a, b)))
    filled().save(tmp_path / "q.npy")
    assert happened == ["fsync", ".json", "fsync", ".npy"]


# ------------------------------------------------------------------------------------------- copied alone


def test_the_module_needs_nothing_but_torch_and_numpy():
    tree = ast.parse(Path(table_module.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"torch", "numpy"}
