"""The sparse table: the k largest entries and the mass of the rest by hand, and what is off from a dense table."""

import json

import numpy as np
import pytest
import torch

from supervision import sparse_table
from supervision.sparse_table import SparseTable
from supervision.table import PredictionTable

HALF = 2.0**-11  # of a value, what float16 rounds at most


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)


def batches(num_samples, num_classes, number, size, scale=2.0):
    """[(distinct idx, prob)] of random predictions."""
    random = torch.Generator().manual_seed(0)
    return [
        (
            torch.randperm(num_samples, generator=random)[:size],
            (torch.randn(size, num_classes, generator=random) * scale).softmax(1),
        )
        for _ in range(number)
    ]


def filled(num_samples=300, num_classes=40, k=5, **settings):
    table = SparseTable(num_samples, num_classes, k, 0.25, **settings)
    for idx, prob in batches(num_samples, num_classes, 4, 90):
        table.update(idx, prob)
    return table


def refusal(path):
    with pytest.raises(ValueError) as found:
        SparseTable.load(path)
    return str(found.value)


# ---------------------------------------------------------------------------------------------- by hand


def test_the_rest_is_spread_evenly_over_the_classes_that_are_not_kept():
    table = SparseTable(3, 6, 2, smoothing=0.25)
    table.update(torch.tensor([1]), rows([0.0625, 0.5, 0.125, 0.25, 0.0625, 0]))
    assert sorted(zip(table.index[1].tolist(), table.value[1].tolist(), strict=True)) == [(1, 0.5), (3, 0.25)]
    assert table.rest[1] == 0.25
    assert torch.equal(table.rows(torch.tensor([1, 0])), rows([0.0625, 0.5, 0.0625, 0.25, 0.0625, 0.0625], [0] * 6))
    # .75 * (.0625, .5, .0625, .25, .0625, .0625) + .25 * (0, 0, 1, 0, 0, 0): classes 1 and 2 are the largest now
    table.update(torch.tensor([1]), rows([0, 0, 1.0, 0, 0, 0]))
    assert sorted(table.index[1].tolist()) == [1, 2]
    other = (1 - 0.375 - 0.296875) / 4  # and the .1875 of class 3 is spread
    torch.testing.assert_close(table.rows(torch.tensor([1]))[0], rows(other, 0.375, 0.296875, other, other, other))
    assert table.visited.tolist() == [False, True, False]


def test_a_row_is_a_distribution_though_float16_is_not_exact():
    table = filled()
    torch.testing.assert_close(table.rows(torch.arange(300)).sum(1), table.visited.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_with_all_classes_kept_it_is_the_dense_table_but_for_float16(smoothing):
    sparse, dense = SparseTable(70, 12, 12, smoothing), PredictionTable(70, 12, smoothing)
    largest = torch.zeros(70, 12)
    for idx, prob in batches(70, 12, 60, 30):
        sparse.update(idx, prob)
        dense.update(idx, prob)
        largest = torch.maximum(largest, dense.values)
    assert torch.equal(sparse.visited, dense.visited)
    ours = sparse.rows(torch.arange(70))
    # an average forgets what a visit rounds as it forgets a prediction
    assert ((ours - dense.values).abs() <= 1.01 * HALF / smoothing * largest).all()


@pytest.mark.parametrize("num_classes", [2**15, 2**16, 2**16 + 1], ids=str)
def test_the_type_of_the_index_holds_every_class(num_classes, tmp_path):
    table, last = SparseTable(2, num_classes, 3, 0.5), num_classes - 1
    prob = torch.zeros(1, num_classes)
    prob[0, [0, last - 1, last]] = rows(0.25, 0.25, 0.5)
    table.update(torch.tensor([1]), prob)
    assert torch.equal(table.rows(torch.tensor([1])), prob)
    table.save(tmp_path / "q.npz")
    saved = np.load(tmp_path / "q.npz")["index"]
    assert saved.itemsize == (2 if num_classes <= 2**16 else 4) and sorted(saved[1]) == [0, last - 1, last]
    assert torch.equal(SparseTable.load(tmp_path / "q.npz").rows(torch.tensor([1])), prob)


def test_a_prediction_that_is_not_finite_leaves_its_row_as_it_was():
    table = filled()
    before = {name: getattr(table, name).clone() for name in (*table.stores, "visited")}
    visited, other = table.visited.nonzero()[:2, 0], (~table.visited).nonzero()[:1, 0]
    prob = torch.full((3, 40), 1 / 40)
    prob[:, 7] = float("nan")
    table.update(torch.cat([visited, other]), prob)
    assert all(torch.equal(getattr(table, name), value) for name, value in before.items())


# ------------------------------------------------------------------------------------ the sampled rows


def test_the_error_is_that_against_a_dense_table(monkeypatch):
    monkeypatch.setattr(sparse_table, "SAMPLED", 100)
    table, dense = filled(), PredictionTable(300, 40, 0.25)
    for idx, prob in batches(300, 40, 4, 90):
        dense.update(idx, prob)
    sampled = table.sampled[dense.visited[table.sampled]]
    assert len(table.sampled) == len(set(table.sampled.tolist())) == 100 and 0 < len(sampled) < 100
    p, q = dense.values[sampled].double().numpy(), table.rows(sampled).double().numpy()
    error = table.error()
    assert error["rows"] == len(sampled)
    assert error["l1"] == pytest.approx(np.abs(p - q).sum(1).mean(), rel=1e-4) and error["l1"] > 0.1
    assert error["kl"] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)
    assert error["same_argmax"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean())


def test_rows_are_sampled_of_those_in_use():
    in_use = np.arange(100, 200)
    table = SparseTable(300, 4, 2, 0.5, in_use=in_use)
    assert table.sampled.tolist() == list(in_use) and table.error() is None


# ----------------------------------------------------------------------------------------------- files


def test_plain_numpy_reads_a_saved_table_and_the_json_tells_the_error(tmp_path):
    table = filled(in_use=np.arange(20))
    table.save(tmp_path / "q.npz", {"epoch": 3})
    with np.load(tmp_path / "q.npz") as saved:
        assert {name: (saved[name].dtype.str, saved[name].shape) for name in saved.files} == {
            "index": ("<u2", (300, 5)),
            "value": ("<f2", (300, 5)),
            "rest": ("<f4", (300,)),
        }
    described = json.loads((tmp_path / "q.json").read_text())
    assert described["shape"] == [300, 40] and described["k"] == 5 and described["epoch"] == 3
    assert described["error"] == table.error() and described["rows_visited"] == int(table.visited.sum())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.json", "q.npz"]


def test_a_saved_table_loads_and_goes_on(tmp_path):
    table = filled()
    table.save(tmp_path / "q.npz")
    loaded = SparseTable.load(tmp_path / "q.npz")
    for t in (table, loaded):
        t.update(*batches(300, 40, 1, 90)[0])
    assert all(torch.equal(getattr(loaded, name), getattr(table, name)) for name in (*table.stores, "visited"))


def test_a_state_makes_another_table_the_same_from_then_on():
    table, other = filled(in_use=np.arange(20)), SparseTable(300, 40, 5, 0.9, in_use=np.arange(20))
    other.load_state_dict(table.state_dict())
    for t in (table, other):
        t.update(*batches(300, 40, 1, 90)[0])
    assert all(torch.equal(getattr(other, name), getattr(table, name)) for name in (*table.stores, "visited"))
    assert other.error() == table.error()
    with pytest.raises(ValueError, match=r"\(300, 5\).*\(300, 6\)"):
        SparseTable(300, 40, 6, 0.9).load_state_dict(table.state_dict())


def saved(folder):
    filled(in_use=[]).save(folder / "q.npz")
    return folder / "q.npz"


def test_rows_that_got_lost_are_not_taken_for_rows_never_visited(tmp_path):
    table = filled(in_use=[])
    table.visited.fill_(True)
    table.save(tmp_path / "q.npz")
    assert "rows_visited" in refusal(tmp_path / "q.npz")


def test_a_table_that_was_changed_or_lost_its_json_is_refused_by_name(tmp_path):
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    assert f"{path}: " in refusal(path) and "q.json" in refusal(path)  # which has another checksum
    path.with_suffix(".json").unlink()
    assert str(path) in refusal(path)


def test_all_of_it_moves_to_a_device():
    table = filled().to("meta")
    kept = {**table.state_dict(), **table.dense.state_dict()}
    assert {value.device.type for value in kept.values() if isinstance(value, torch.Tensor)} == {"meta"}
