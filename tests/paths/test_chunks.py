"""Whatever goes through a path in chunks finds the same in one chunk and in many, the last one short."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import BadInput
from paths import exports, label_errors, measures, recorded, recorder

N, STEPS, CLASSES = 20, 12, 4
RNG = np.random.default_rng(0)
PATH = np.asfortranarray(RNG.dirichlet(np.full(CLASSES, 0.5), (N, STEPS)).astype(np.float32))
PATH[5] = 0  # never visited
LABELS = RNG.integers(CLASSES, size=N)
TRUTH = RNG.dirichlet(np.ones(CLASSES), N)
SUGGESTION = (LABELS + 1) % CLASSES


def exported(folder):
    rows = np.delete(np.arange(N), 5)
    analysis = SimpleNamespace(recorded=SimpleNamespace(path=PATH, given=LABELS), order=rows)
    exports.export_cleanlab(analysis, folder)
    return np.load(folder / "pred_probs.npy")


IN_CHUNKS = {
    "compute": lambda _: measures.compute(PATH, LABELS, TRUTH),
    "low_pass": lambda _: measures.low_pass(PATH),
    "distance_to": lambda _: measures.distance_to(PATH, TRUTH),
    "distance_to some": lambda _: measures.distance_to(PATH, TRUTH, rows=LABELS == 1),
    "accuracy_of": lambda _: measures.accuracy_of(PATH, LABELS),
    "accuracy_of some": lambda _: measures.accuracy_of(PATH, LABELS, rows=LABELS == 1),
    "find_label_errors": lambda _: label_errors.find_label_errors(PATH, LABELS),
    "all_scores": lambda _: label_errors.all_scores(PATH, LABELS),
    "reasons": lambda _: label_errors.reasons(PATH, LABELS, SUGGESTION, list("abcd")),
    "export_cleanlab": exported,
}


@pytest.mark.parametrize("size", [1, 6, 10])
@pytest.mark.parametrize("name", IN_CHUNKS)
def test_many_chunks_are_one(tmp_path, monkeypatch, name, size):
    whole = IN_CHUNKS[name](tmp_path)
    monkeypatch.setattr(measures, "CHUNK", size)
    found = IN_CHUNKS[name](tmp_path)
    if name == "reasons":
        assert found == whole and len(found) == N
        return
    whole, found = (
        v if isinstance(v, dict) else dict(enumerate([v] if isinstance(v, np.ndarray) else v)) for v in (whole, found)
    )
    assert found.keys() == whole.keys()
    for key in whole:
        np.testing.assert_allclose(found[key], whole[key], rtol=1e-4, atol=1e-6, err_msg=str(key))


@pytest.mark.parametrize("row", [0, 7, 19])
def test_a_prediction_that_is_none_is_found_in_every_chunk(tmp_path, monkeypatch, row):
    monkeypatch.setattr(measures, "CHUNK", 6)
    path = PATH.copy(order="F")
    path[row, 3] *= 0.5
    np.save(tmp_path / "path.npy", path)
    with pytest.raises(BadInput, match=f"row {row} "):
        recorded.open_path(tmp_path / "path.npy")


@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_a_path_that_is_written_in_several_goes_is_whole(tmp_path, monkeypatch, steps_at_once):
    monkeypatch.setattr(recorder, "FLUSH_BYTES", steps_at_once * 4 * N * CLASSES)
    with recorder.PathRecorder(tmp_path / "path.npy", N, STEPS, CLASSES, dtype="float32") as file:
        for step in range(STEPS):
            for idx in np.array_split(RNG.permutation(N), 3):
                idx = idx[PATH[idx, step].any(1)]  # the others were not seen in this step
                file.record(step, idx, PATH[idx, step])
    assert np.array_equal(np.load(tmp_path / "path.npy"), PATH)
    assert not recorder.damaged_steps(tmp_path / "path.npy")
