"""cifar10h_gen_path.py: it trains on the test split, records all of it, and keeps the human distributions."""

import json

import numpy as np
import pytest
import torch

import cifar10h_gen_path
import evaluate
from common.errors import BadInput
from data.datasets import digits
from data.seeds import with_weight_seed
from runs.run_folder import network_of, read_args

FLAGS = "--dataset digits --net smallcnn --batch_size 50 --epochs 2 --lr 0.05 --device cpu --amp off".split()
TEST_SIZE = 360


def human_like_probs(labels):
    probs = np.full((len(labels), 10), 0.02, np.float32)
    probs[np.arange(len(labels)), labels] = 0.82
    return probs


@pytest.fixture
def probs_file(workplace):
    path = workplace.parent / "probs.npy"
    np.save(path, human_like_probs(digits(None).test.labels))
    return path


@pytest.fixture
def run(probs_file):
    """A run under noise; with float32 paths, so that they can be compared exactly."""
    noise = ["--ny_ratio", "0.4", "--path_dtype", "float32"]
    return cifar10h_gen_path.main([*FLAGS, *noise, "--human_probs", str(probs_file)])


def path(run, name):
    return np.load(run / f"{name}.npy")


def test_all_images_of_the_test_split_are_followed_and_trained_on(run):
    assert run.name == "run_digitsh_cosine_n0.4"
    kept = np.load(run / "labels.npz")
    np.testing.assert_array_equal(kept["y"], digits(None).test.labels)
    assert 0.3 < (kept["y"] != kept["ny"]).mean() < 0.42  # the noise asked for is applied
    assert len(kept["idx"]) == TEST_SIZE and not len(kept["valid_idx"])
    assert path(run, "PATH_ALL_COARSE").shape == (TEST_SIZE, 2, 10)
    assert path(run, "PATH_ALL_FINE").shape == (TEST_SIZE, 4, 10)  # 16 updates with the short ones, every 4th


def test_step_0_is_the_untrained_network_in_eval_mode_on_clean_images(run):
    settings = read_args(run)
    model = with_weight_seed(1, lambda: network_of(run, settings)).eval()
    pixels = digits(None).test.images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(settings["resolved"][name]).view(1, 1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = model((pixels - mean) / std).softmax(1).numpy()
    for name in ("PATH_ALL_COARSE", "PATH_ALL_FINE"):
        np.testing.assert_allclose(path(run, name)[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(path(run, "PATH_ALL_COARSE")[:, 1], path(run, "PATH_ALL_FINE")[:, 2], atol=1e-6)


def test_accuracy_is_measured_on_the_training_split(run, capsys):
    evaluate.main([str(run), "--checkpoint", "epoch_1", "--device", "cpu", "--amp", "off"])
    assert "1437 " in capsys.readouterr().out
    found = json.loads((run / "evaluation_epoch_1" / "metrics.json").read_text())
    rows = np.genfromtxt(run / "metrics.csv", delimiter=",", names=True)
    assert found["acc"] == pytest.approx(rows["test_acc"][-1], abs=1e-6)


def test_images_are_not_augmented_unless_asked_for(probs_file, capsys):
    for given, expected in (([], "none"), (["--augment", "crop_flip"], "crop_flip")):
        cifar10h_gen_path.main([*FLAGS, "--human_probs", str(probs_file), *given, "--check"])
        assert f'augment: "{expected}"\n' in capsys.readouterr().out
    assert cifar10h_gen_path.make_parser().get_default("augment") == "none"  # of larger images, too


def test_the_human_distributions_are_copied_and_nothing_is_selected(run, probs_file):
    assert (run / "true_probs.npy").read_bytes() == probs_file.read_bytes()
    assert not list(run.glob("best_*"))


def test_few_fine_samples_are_named_in_the_json(probs_file):
    run = cifar10h_gen_path.main([*FLAGS, "--human_probs", str(probs_file), "--fine_samples", "7"])
    rows = json.loads((run / "PATH_ALL_FINE.json").read_text())["rows"]
    assert len(set(rows)) == 7 and path(run, "PATH_ALL_FINE").shape[0] == 7
    np.testing.assert_allclose(path(run, "PATH_ALL_FINE")[:, 0], path(run, "PATH_ALL_COARSE")[rows, 0], atol=1e-3)


def test_a_costly_fine_path_is_announced_with_a_cheaper_number(probs_file, capsys):
    cifar10h_gen_path.main([*FLAGS, "--human_probs", str(probs_file), "--fine_every", "1"])
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "PATH_ALL_FINE" in line]
    assert "360" in said and "16" in said and "2.7" in said  # samples, moments, times the rest


def test_without_human_distributions_it_names_the_download(workplace):
    with pytest.raises(BadInput, match="cifar10h-probs.npy.*data/download.py cifar10h"):
        cifar10h_gen_path.main(FLAGS)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    "probs",
    [
        human_like_probs(np.zeros(300, int)),  # too few
        human_like_probs(digits(None).test.labels)[::-1],  # in another order
        np.ones((TEST_SIZE, 10), np.float32),  # no distributions
    ],
)
def test_distributions_of_other_rows_are_refused(workplace, probs):
    path = workplace.parent / "wrong.npy"
    np.save(path, probs)
    with pytest.raises(BadInput, match="wrong.npy"):
        cifar10h_gen_path.main([*FLAGS, "--human_probs", str(path)])
    assert not list(workplace.iterdir())
