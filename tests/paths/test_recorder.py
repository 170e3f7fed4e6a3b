"""The recorder: what is on disk at any moment, what a crash leaves, what resuming does."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from paths import recorder as module
from paths.recorder import PathRecorder, damaged_steps, read_sidecar


def predictions(step, num_samples=20, num_classes=3):
    generator = torch.Generator().manual_seed(step)
    return torch.rand(num_samples, num_classes, generator=generator).softmax(1)


def record_steps(recorder, steps, num_samples=20):
    for step in steps:
        order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(100 + step))
        for idx in order.split(7):
            recorder.record(step, idx, predictions(step, num_samples)[idx])


def expected(steps, total, dtype=np.float16):
    path = np.zeros((20, total, 3), dtype)
    for step in steps:
        path[:, step] = predictions(step).numpy().astype(dtype)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_plain_numpy_reads_what_was_recorded(tmp_path, dtype):
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3, dtype=dtype) as recorder:
        record_steps(recorder, range(5))
    path = np.load(tmp_path / "p.npy", mmap_mode="r")
    assert path.flags.f_contiguous  # a step is K contiguous runs
    np.testing.assert_array_equal(path, expected(range(5), 5, dtype))
    assert read_sidecar(tmp_path / "p.npy")["complete_steps"] == 5
    assert damaged_steps(tmp_path / "p.npy") == []


def test_a_step_is_complete_when_a_later_one_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0)
    recorder = PathRecorder(tmp_path / "p.npy", 20, 5, 3)
    record_steps(recorder, [0, 1])
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0"]
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy", mmap_mode="r"), expected([0], 5))
    recorder.close()
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0", "1"]


def test_an_exception_does_not_complete_the_open_step(tmp_path):
    with pytest.raises(ZeroDivisionError), PathRecorder(tmp_path / "p.npy", 20, 5, 3) as recorder:
        record_steps(recorder, [0, 1, 2])
        raise ZeroDivisionError
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0", "1"]
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected([0, 1], 5))


def test_followed_samples_are_named_by_their_own_idx(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 3, 2, 3, rows=[17, 4, 9]) as recorder:
        recorder.record(0, torch.tensor([9, 17]), predictions(0)[:2])
        recorder.record(1, torch.tensor([4]), predictions(1)[:1])
        for unknown in (5, 18):
            with pytest.raises(ValueError, match="idx"):
                recorder.record(1, torch.tensor([unknown]), predictions(1)[:1])
    path = np.load(tmp_path / "p.npy")
    np.testing.assert_array_equal(path[[2, 0], 0], predictions(0)[:2].numpy().astype(np.float16))
    np.testing.assert_array_equal(path[1, 1], predictions(1)[0].numpy().astype(np.float16))
    assert not path[1, 0].any()
    assert read_sidecar(tmp_path / "p.npy")["rows"] == [17, 4, 9]


def test_a_prediction_that_is_not_finite_is_not_stored(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 1, 3) as recorder:
        prob = predictions(0)
        prob[4, 1] = float("nan")
        recorder.record(0, torch.arange(20), prob)
    path = np.load(tmp_path / "p.npy")
    assert not path[4].any() and np.isfinite(path).all() and path[5].any()


def test_steps_do_not_go_backwards_or_outside(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3) as recorder:
        record_steps(recorder, [0, 2])
        for step in (1, 5, -1):
            with pytest.raises(ValueError, match=f"step {step} "):
                recorder.record(step, torch.arange(20), predictions(step % 5))


def test_an_existing_path_is_not_overwritten(tmp_path):
    PathRecorder(tmp_path / "p.npy", 20, 5, 3).close()
    with pytest.raises(FileExistsError, match="p.npy"):
        PathRecorder(tmp_path / "p.npy", 20, 5, 3)
    with pytest.raises(ValueError, match=r"p\.npy.*\(20, 5, 3\)"):
        PathRecorder(tmp_path / "p.npy", 20, 4, 3, resume=True)


def test_a_resumed_path_may_grow(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 3, 3) as recorder:
        record_steps(recorder, range(3))
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3, resume=True) as recorder:
        record_steps(recorder, [3, 4])
    with PathRecorder(tmp_path / "whole.npy", 20, 5, 3) as recorder:
        record_steps(recorder, range(5))
    assert (tmp_path / "p.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert damaged_steps(tmp_path / "p.npy") == [] and read_sidecar(tmp_path / "p.npy")["shape"] == [20, 5, 3]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p.json", "p.npy", "whole.json", "whole.npy"]


def test_a_damaged_path_is_not_gone_on_with(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 3, 3) as recorder:
        record_steps(recorder, range(3))
    content = bytearray((tmp_path / "p.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "p.npy").write_bytes(content)
    with pytest.raises(ValueError, match="p.npy: step 2 "):
        PathRecorder(tmp_path / "p.npy", 20, 3, 3, resume=True)


def test_a_resumed_recorder_goes_on_after_its_complete_steps(tmp_path):
    with pytest.raises(RuntimeError), PathRecorder(tmp_path / "p.npy", 20, 5, 3) as recorder:
        record_steps(recorder, [0, 1, 2])
        raise RuntimeError
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3, resume=True) as recorder:
        with pytest.raises(ValueError, match="step 1 "):
            record_steps(recorder, [1])
        record_steps(recorder, [2, 3, 4])
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected(range(5), 5))


def test_a_checkpoint_in_the_middle_of_a_step_is_gone_back_to_exactly(tmp_path):
    whole = PathRecorder(tmp_path / "p.npy", 20, 5, 3)
    record_steps(whole, [0])
    first, second = torch.arange(20).split(10)
    whole.record(1, first, predictions(1)[first])
    saved = whole.state_dict()
    torch.save(saved, tmp_path / "state.pt")
    whole.record(1, second, predictions(1)[second])
    record_steps(whole, [2, 3])
    del whole  # killed: never closed

    with PathRecorder(tmp_path / "p.npy", 20, 5, 3, resume=True) as again:
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0"]
        again.record(1, second, predictions(1)[second])
        record_steps(again, [2, 3, 4])
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected(range(5), 5))
    assert damaged_steps(tmp_path / "p.npy") == []


def test_the_state_survives_what_is_recorded_after_it_was_taken(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3) as recorder:
        recorder.record(0, torch.arange(10), predictions(0)[:10])
        saved = recorder.state_dict()["values"].clone()
        state = recorder.state_dict()
        recorder.record(0, torch.arange(10, 20), predictions(0)[10:])
        assert torch.equal(state["values"], saved)


def test_a_bit_flip_is_found(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 20, 5, 3) as recorder:
        record_steps(recorder, range(5))
    data = bytearray((tmp_path / "p.npy").read_bytes())
    data[128 + 2 * (20 * 3 + 7)] ^= 4  # class 0 of step 3, sample 7
    (tmp_path / "p.npy").write_bytes(data)
    assert damaged_steps(tmp_path / "p.npy") == [3]


def test_a_killed_run_leaves_a_path_whose_complete_steps_are_right(tmp_path):
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
import torch
from paths import recorder
recorder.FLUSH_SECONDS = 0
r = recorder.PathRecorder("p.npy", 20, 10**5, 3)
for step in range(10**5):
    g = torch.Generator().manual_seed(step)
    r.record(step, torch.arange(20), torch.rand(20, 3, generator=g).softmax(1))
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.1)
        if (tmp_path / "p.json").exists() and json.loads((tmp_path / "p.json").read_text())["complete_steps"] > 3:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    steps = [int(step) for step in read_sidecar(tmp_path / "p.npy")["complete"]]
    assert len(steps) > 3 and steps == list(range(len(steps)))
    path = np.load(tmp_path / "p.npy", mmap_mode="r")
    for step in steps:
        np.testing.assert_array_equal(path[:, step], predictions(step).numpy().astype(np.float16))


def test_the_file_needs_torch_and_numpy_only():
    code = (
        "import ast, sys; print(*{n.split('.')[0] for t in ast.walk(ast.parse(open(sys.argv[1]).read())) "
        "for n in ([a.name for a in t.names] if isinstance(t, ast.Import) else "
        "[t.module] if isinstance(t, ast.ImportFrom) else [])})"
    )
    found = subprocess.run([sys.executable, "-c", code, module.__file__], capture_output=True, text=True).stdout.split()
    assert set(found) - set(sys.stdlib_module_names) == {"numpy", "torch"}


@pytest.mark.parametrize(
    "idx, shape, message",
    [
        ([0, 20], (2, 3), "idx.* 19"),
        ([-1, 0], (2, 3), "idx.* 19"),
        ([0, 1], (2, 1), r"prob.*\(2, 3\)"),
        ([0, 1], (1, 3), r"prob.*\(2, 3\)"),
        ([0, 1], (2, 4), r"prob.*\(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_broadcast(tmp_path, idx, shape, message):
    with PathRecorder(tmp_path / "p.npy", 20, 2, 3) as recorder, pytest.raises(ValueError, match=message):
        recorder.record(0, torch.tensor(idx), torch.rand(shape).softmax(1))


@pytest.mark.parametrize("row", [[1.5, -0.5, 0.0], [3.0, 2.0, 1.0], [0.2, 0.3, 0.1]])
def test_a_first_batch_that_holds_no_distributions_is_refused_and_leaves_nothing(tmp_path, row):
    with PathRecorder(tmp_path / "p.npy", 20, 2, 3) as recorder:
        for _ in range(2):
            with pytest.raises(ValueError, match="prob"):
                recorder.record(0, torch.tensor([0, 1]), torch.tensor([[0.5, 0.25, 0.25], row]))
        recorder.record(1, torch.tensor([0, 1]), torch.tensor([[0.5, 0.25, 0.25], [float("nan"), 1, 1]]))
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["1"]
    assert np.load(tmp_path / "p.npy").nonzero()[0].tolist() == [0, 0, 0]


def test_only_the_first_batch_is_held_against_a_distribution(tmp_path, monkeypatch):
    checked, check = [], module._check_distributions
    monkeypatch.setattr(module, "_check_distributions", lambda prob: checked.append(len(prob)) or check(prob))
    with PathRecorder(tmp_path / "p.npy", 20, 2, 3) as recorder:
        record_steps(recorder, range(2))
    assert checked == [7]


# ------------------------------------------------------------------------------------- small things with a value


def test_a_sample_recorded_twice_in_a_step_has_its_last_prediction(tmp_path):
    with PathRecorder(tmp_path / "p.npy", 4, 2, 2, dtype="float32") as recorder:
        recorder.record(0, torch.tensor([0, 1]), torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
        recorder.record(0, torch.tensor([1, 2]), torch.tensor([[1.0, 0.0], [0.75, 0.25]]))
        recorder.record(0, torch.tensor([2]), torch.tensor([[float("nan"), 0.0]]))  # the one before stays
    expected = [[0.5, 0.5], [1.0, 0.0], [0.75, 0.25], [0.0, 0.0]]
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy")[:, 0], expected)


def test_a_step_that_was_open_at_a_checkpoint_is_not_complete_when_it_is_gone_back_to(tmp_path):
    """Step 1 was recorded to its end after the checkpoint, and is on disk: it counts as not recorded all the same."""
    recorder = PathRecorder(tmp_path / "p.npy", 4, 3, 2, dtype="float32")
    recorder.record(0, torch.arange(4), torch.tensor([[0.5, 0.5]] * 4))
    recorder.record(1, torch.tensor([0, 1]), torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    saved = recorder.state_dict()
    recorder.record(1, torch.tensor([2, 3]), torch.tensor([[0.0, 1.0]] * 2))
    recorder.close()
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0", "1"]
    resumed = PathRecorder(tmp_path / "p.npy", 4, 3, 2, dtype="float32", resume=True)
    resumed.load_state_dict(saved)
    assert list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0"]
    del resumed  # killed again, before the step's end
    with PathRecorder(tmp_path / "p.npy", 4, 3, 2, dtype="float32", resume=True) as again:
        again.load_state_dict(saved)
        again.record(1, torch.tensor([2, 3]), torch.tensor([[0.75, 0.25]] * 2))  # and not "complete already"
    path = np.load(tmp_path / "p.npy")
    np.testing.assert_array_equal(path[:, 1], [[0.25, 0.75], [1, 0], [0.75, 0.25], [0.75, 0.25]])
    assert not path[:, 2].any() and list(read_sidecar(tmp_path / "p.npy")["complete"]) == ["0", "1"]


def test_steps_are_written_when_enough_of_them_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_BYTES", 2 * 20 * 3 * 4)  # two steps
    monkeypatch.setattr(module, "FLUSH_SECONDS", 1e9)
    recorder = PathRecorder(tmp_path / "p.npy", 20, 6, 3)
    for step, complete in enumerate([0, 0, 2, 2, 4, 4]):
        record_steps(recorder, [step])
        assert read_sidecar(tmp_path / "p.npy")["complete_steps"] == complete
    recorder.close()


def test_steps_are_on_disk_before_the_json_lists_them(tmp_path, monkeypatch):
    recorder = PathRecorder(tmp_path / "p.npy", 20, 2, 3)
    record_steps(recorder, range(2))
    happened, fsync, replace, write = [], os.fsync, os.replace, os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda *a: (happened.append("write"), write(*a))[1])
    monkeypatch.setattr(module.os, "fsync", lambda f: (happened.append("fsync"), fsync(f)))
    monkeypatch.setattr(module.os, "replace", lambda a, b: (happened.append(b.name), replace(a, b)))
    recorder.close()
    assert happened == ["write"] * 6 + ["fsync", "fsync", "p.json"]  # 3 classes of 2 steps, then their .json
