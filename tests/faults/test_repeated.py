"""The same command twice gives the same run, bit for bit, however many processes read its images."""

import os

import numpy as np
import pytest
from PIL import Image

from data.images import FolderImages
from tests.faults import runs
from tests.faults.calls import call
from tests.faults.chain import CHAIN, differences, prepare


def test_the_chain_a_second_time_is_the_same(undisturbed, tmp_path, no_drawing):
    """Within one process, while each of the first had its own; the comparison, which is long, in make faults alone."""
    prepare(tmp_path)
    for script in list(CHAIN)[: int(os.environ.get("FAULTS_SCRIPTS", 4))]:
        code, _, err = call(script, CHAIN[script], tmp_path)
        assert code == 0, err
        assert runs.differs(script, undisturbed[0], tmp_path) == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_order_augmentation_and_noise_depend_on_no_number_of_workers(tmp_path, monkeypatch, no_drawing):
    draw, root = np.random.default_rng(0), tmp_path / "images"
    for number in range(80):
        place = root / ("train" if number < 60 else "test") / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 10, 3), np.uint8)).save(place / f"{number}.png")
    monkeypatch.setattr(FolderImages, "fits_in_memory", lambda self, rows: False)
    flags = (
        "--dataset folder --image_size 12 --net smallcnn --batch_size 20 --epochs 2 --lr 0.05 --device cpu --amp off"
    )
    flags = [*flags.split(), "--data_dir", root, "--augment", "crop_flip", "--ny_ratio", 0.4]
    for workers in (0, 1, 3):
        (tmp_path / str(workers)).mkdir()
        code, _, err = call("main_gen_teacher", [*flags, "--num_work", workers], tmp_path / str(workers))
        assert code == 0, err
    assert differences(tmp_path / "0", tmp_path / "1") == differences(tmp_path / "0", tmp_path / "3") == []
    (table,) = (tmp_path / "3").rglob("epoch_1.npy")  # what each sample's image, augmentation and label came to
    assert np.load(table).any(1).sum() == 54
