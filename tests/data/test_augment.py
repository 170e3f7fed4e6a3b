"""data/augment.py: batched augmentation against one sample at a time, and where its randomness comes from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from data.augment import KINDS, apply, draw, resolve
from tests.pretend_device import PretendedDevice


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(num, height, width, channels, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (num, height, width, channels), dtype=np.uint8))


# ---------------------------------------------------------------------------------------- what auto means


@pytest.mark.parametrize(
    ("image_size", "channels", "meaning"),
    [
        (8, 1, "none"),
        (15, 3, "none"),
        (16, 3, "crop"),
        (27, 3, "crop"),
        (28, 3, "crop_flip"),
        (28, 1, "crop"),
        (32, 3, "crop_flip"),
        (64, 1, "crop"),
        (224, 3, "crop_flip"),
    ],
)
def test_auto_goes_by_image_size_and_colour(image_size, channels, meaning):
    assert resolve("auto", image_size, channels) == meaning


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_kind_that_is_asked_for_stays(kind):
    assert resolve(kind, 8, 1) == resolve(kind, 224, 3) == kind


# ------------------------------------------------------------------- against a reference, sample by sample


def shift_and_flip(image, down, right, flip, reach):
    """Zero-pad by `reach`, cut the window out, then mirror it: the published augmentation."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)))
    window = padded[reach + down : reach + down + height, reach + right : reach + right + width]
    return window[:, ::-1] if flip else window


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    with_flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shifts_and_flips_are_those_of_padding_and_cropping(height, width, channels, with_flip, seed):
    images, reach, generator = random_images(7, height, width, channels, seed), min(height, width) // 8, seeded(seed)
    draws = {"shift": torch.randint(-reach, reach + 1, (7, 2), generator=generator)}
    if with_flip:
        draws["flip"] = torch.rand(7, generator=generator) < 0.5
    found = apply(images, draws)
    assert found.dtype == torch.uint8
    for i, (down, right) in enumerate(draws["shift"].tolist()):
        expected = shift_and_flip(images[i].numpy(), down, right, with_flip and draws["flip"][i], reach)
        assert np.array_equal(found[i].numpy(), expected)


def resized_crop(image, top, left, height, width, flip):
    """Bilinear, pixel by pixel: output pixel (i, j) looks at the point that its centre falls on in the box."""
    size, channels = image.shape[0], image.shape[2]
    out = np.zeros((size, size, channels))
    for i in range(size):
        for j in range(size):
            across = (size - 1 - j if flip else j) + 0.5
            y = np.clip((top + height * (i + 0.5) / size) * size - 0.5, 0, size - 1)
            x = np.clip((left + width * across / size) * size - 0.5, 0, size - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, size - 1), min(x0 + 1, size - 1)
            upper = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
            lower = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
            out[i, j] = upper * (1 - y + y0) + lower * (y - y0)
    return out


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_resized_crops_are_those_of_bilinear_interpolation(kind):
    images = random_images(6, 9, 9, 3)
    draws = draw(kind, 6, 65, seeded())  # as for large images: their draws are shares of the side
    found = apply(images, draws)
    for i, box in enumerate(draws["box"].tolist()):
        flip = kind == "crop_flip" and bool(draws["flip"][i])
        assert np.allclose(found[i], resized_crop(images[i].numpy().astype(float), *box, flip), atol=0.02)


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_resized_crops_are_the_same_on_mps_which_knows_no_border(kind):
    images, draws = random_images(6, 9, 9, 3), draw(kind, 6, 65, seeded())
    draws["box"][0] = torch.tensor([0.0, 0, 1, 1])
    with PretendedDevice("mps"):
        found = apply(images.to("mps"), {name: value.to("mps") for name, value in draws.items()}).cpu()
    assert torch.allclose(found, apply(images, draws), atol=1e-3)


def test_the_whole_image_as_box_is_the_image():
    images = random_images(2, 10, 10, 3)
    whole = {"box": torch.tensor([[0.0, 0, 1, 1]] * 2), "flip": torch.tensor([False, True])}
    found = apply(images, whole)
    assert torch.allclose(found[0], images[0].float(), atol=1e-3)
    assert torch.allclose(found[1], images[1].float().flip(1), atol=1e-3)


def test_without_augmentation_the_images_stay_as_they_are():
    images = random_images(2, 8, 8, 1)
    assert apply(images, draw("none", 2, 8, None)) is images


# ------------------------------------------------------------------------------------------- the draws


@pytest.mark.parametrize(("image_size", "reach"), [(7, 0), (8, 1), (28, 3), (32, 4), (64, 8)])
def test_shifts_reach_an_eighth_of_the_side_all_equally_often(image_size, reach):
    shift = draw("crop", 9000, image_size, seeded())["shift"]
    counts = torch.bincount((shift + reach).flatten(), minlength=2 * reach + 1)
    expected = 18_000 / (2 * reach + 1)
    assert len(counts) == 2 * reach + 1 and (counts - expected).abs().max() <= 5 * math.sqrt(expected)
    assert reach == 0 or (shift[:, 0] != shift[:, 1]).any()


def test_half_of_the_images_are_flipped_by_crop_flip_and_none_by_crop():
    assert draw("crop_flip", 10_000, 32, seeded())["flip"].float().mean() == pytest.approx(0.5, abs=0.025)
    assert "flip" not in draw("crop", 10, 32, seeded()) and "flip" not in draw("crop", 10, 224, seeded())


@pytest.mark.parametrize(("height", "width"), [(224, 224), (224, 448), (300, 200), (1000, 100)])
def test_boxes_of_large_images_are_those_of_torchvision(height, width):
    """Mean area and log aspect over 10,000 draws of each; of 1000 x 100 nearly every box is the central fallback."""
    boxes = draw("crop", 10_000, (height, width), seeded())["box"]
    top, left, high, wide = boxes.double().unbind(1)
    assert min(top.min(), left.min()) >= 0 and (top + high).max() <= 1 + 1e-6 and (left + wide).max() <= 1 + 1e-6
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(1, height, width)
        theirs = [RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(10_000)]
    theirs = torch.tensor(theirs, dtype=torch.float64) / torch.tensor([height, width, height, width])
    pairs = (
        (high * wide, theirs[:, 2] * theirs[:, 3]),
        ((wide / high).log(), (theirs[:, 3] / theirs[:, 2]).log()),
        (top, theirs[:, 0]),
        (left, theirs[:, 1]),
    )
    for ours, expected in pairs:
        tolerance = 5 * (expected.var() / 5000).sqrt() + 1e-6  # standard errors of the difference of two means
        assert (ours.mean() - expected.mean()).abs() < tolerance
        assert (ours.std() - expected.std()).abs() < tolerance


def test_a_box_that_does_not_fit_is_drawn_again_and_not_cut():
    boxes = draw("crop", 200_000, 224, seeded())["box"]
    assert (boxes[:, 2] * boxes[:, 3]).mean() == pytest.approx(0.48, abs=0.003)  # cut: .534
    pixels = 224 * boxes
    assert (pixels - pixels.round()).abs().max() < 1e-3 and (boxes[:, 2:] == 1).all(1).sum() < 100


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("image_size", [32, 224])
def test_draws_depend_on_the_generator_alone(kind, image_size):
    torch.manual_seed(1)
    first = draw(kind, 50, image_size, seeded(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = draw(kind, 50, image_size, seeded(3))
    assert torch.equal(before, torch.get_rng_state())
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    if kind != "none":
        other = draw(kind, 50, image_size, seeded(4))
        assert not any(torch.equal(first[key], other[key]) for key in first)


def test_every_sample_has_its_own_draws_every_epoch():
    generator = seeded()
    epochs = [draw("crop_flip", 200, 32, generator) for _ in range(2)]
    assert len(torch.unique(epochs[0]["shift"], dim=0)) > 50
    assert not torch.equal(epochs[0]["shift"], epochs[1]["shift"])


def test_the_draws_are_made_without_the_images():
    # so that a batch's augmentation is the same on any device, and whichever samples came before it
    draws = draw("crop_flip", 10, 32, seeded())
    images = random_images(10, 32, 32, 3)
    whole = apply(images, draws)
    part = torch.tensor([7, 2])
    assert torch.equal(apply(images[part], {key: value[part] for key, value in draws.items()}), whole[part])
