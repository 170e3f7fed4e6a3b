"""What the tests of several rooms share: one thread, an empty working folder, a quick experiment and its settings."""

import contextlib

import pytest
import torch

with contextlib.suppress(ImportError):  # some tests do without it
    from hypothesis import settings

    settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
    settings.load_profile("no clock")

# A run on real digits that takes a tenth of a second. float32 on the CPU, whatever the machine offers.
QUICK = (
    "--dataset digits --net smallcnn --train_size 200 --batch_size 50 --epochs 2 --lr 0.05 --device cpu --amp off"
).split()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """With more, a busy machine makes small convolutions ten times slower."""
    torch.set_num_threads(1)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, which is the current one during the test: scripts write below it."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def quick():
    """quick(*flags): the flags of a run that takes a tenth of a second, and further ones."""
    return lambda *flags: [*QUICK, *map(str, flags)]
