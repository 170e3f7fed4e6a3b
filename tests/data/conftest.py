"""What the tests of data/ share: opening a data set, image folders made on the spot, real data where there is some."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import BadInput
from data.datasets import open_dataset
from utils import experiment_parser


@pytest.fixture(scope="session")
def real_data():
    """The folder with the unpacked real data; read only."""
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not Path(folder, "cifar10.npz").is_file():
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    return Path(folder)


@pytest.fixture(scope="session")
def opened():
    """opened(dataset, data_dir, image_size=None) -> Dataset, as the scripts open it."""

    def call(dataset, data_dir=None, image_size=None):
        given = {"dataset": dataset, "data_dir": data_dir, "image_size": image_size}
        flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return open_dataset(experiment_parser("test").parse_args(flags))

    return call


@pytest.fixture(scope="session")
def refused():
    """refused(call, *texts): the call raises BadInput and every text occurs in its messages, which it returns."""

    def check(call, *texts):
        with pytest.raises(BadInput) as found:
            call()
        for message in found.value.messages:
            assert "\n" not in message
        for text in texts:
            assert text in str(found.value)
        return found.value.messages

    return check


@pytest.fixture(scope="session")
def write_images():
    """write_images(root, {relative path: array or size}): image files, of noise where only a size is given."""

    def write(root, images):
        rng = np.random.default_rng(0)
        for name, what in images.items():
            pixels = what if isinstance(what, np.ndarray) else rng.integers(0, 256, what, dtype=np.uint8)
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return Path(root)

    return write


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def bomb(tmp_path):
    """An object that makes the folder bomb.folder when unpickled: shown here to go off."""
    live = Bomb(tmp_path / "live")
    pickle.loads(pickle.dumps(live))
    assert Path(live.folder).is_dir()
    return Bomb(tmp_path / "executed")
