"""Batched augmentation: every sample its own shift and flip, in one gather.

Randomness is drawn for a whole epoch at once (draw), so that an epoch can be entered at any batch and on any
device with the same result; apply() is a pure function of images and draws.
"""

import functools
import math

import torch
import torch.nn.functional as F

KINDS = ("auto", "none", "crop", "crop_flip", "resized_crop")


def resolve(kind: str, image_size: int, channels: int) -> str:
    """What `auto` means: none below 16 px, crop below 28 px and for grey images, crop_flip otherwise."""
    if kind != "auto":
        return kind
    if image_size < 16:
        return "none"
    return "crop" if image_size < 28 or channels == 1 else "crop_flip"


def draw(
    kind: str, num_samples: int, image_size: int | tuple[int, int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """An epoch's random numbers, by position: a dict of (num_samples, ...) tensors on the CPU.

    Up to 64 px a crop is a shift within a zero border of an eighth of the side (4 pixels at 32, as
    published); above, a random resized crop (area .08 to 1, aspect 3/4 to 4/3, Szegedy et al. 2015).
    image_size: the side in pixels, or (height, width), of which the shorter one counts.
    """
    if kind == "none":
        return {}
    if kind == "resized_crop":  # of the files' own pixels, whose numbers are not known here
        return {"seed": torch.randint(2**62, (num_samples,), generator=generator)}
    draws = {}
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) <= 64:
        reach = _reach(min(height, width))
        draws["shift"] = torch.randint(-reach, reach + 1, (num_samples, 2), generator=generator)
    else:
        draws["box"] = _boxes(num_samples, height, width, generator)
    if kind == "crop_flip":
        draws["flip"] = torch.rand(num_samples, generator=generator) < 0.5
    return draws


def _boxes(num_samples, height, width, generator, attempts=10):
    """(n, 4): top, left, height, width as shares of the sides, drawn in pixels as torchvision's RandomResizedCrop does.

    A box that does not fit is drawn again; after ten attempts it is the largest permitted one, in the middle.
    """
    low, high, sides = 3 / 4, 4 / 3, torch.tensor([height, width])
    largest = torch.tensor([min(height, round(width * high)), min(width, round(height * high))])
    boxes = torch.cat([(sides - largest) // 2, largest]).repeat(num_samples, 1)
    left = torch.arange(num_samples)  # that have none yet
    for _ in range(attempts):
        area = torch.empty(len(left)).uniform_(0.08, 1, generator=generator) * height * width
        ratio = torch.empty(len(left)).uniform_(math.log(low), math.log(high), generator=generator).exp()
        size = torch.stack([area / ratio, area * ratio], 1).sqrt().round().long()
        corner = (torch.rand(len(left), 2, generator=generator) * (sides - size + 1)).long()
        fits = (size <= sides).all(1)
        boxes[left[fits]] = torch.cat([corner, size], 1)[fits]
        left = left[~fits]
    return boxes / sides.repeat(2)


def apply(images: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """images: (B, H, W, C) uint8. draws: as of draw(), B rows, on the images' device. Returns (B, H, W, C).

    Crops within a border stay uint8; resized crops come back as float32, still in 0 .. 255.
    """
    flip = draws.get("flip")
    if "box" in draws:
        return _resized_crop(images, draws["box"], flip)
    if "shift" in draws:
        return _shifted(images, draws["shift"], flip)
    return images


def _reach(image_size):
    """Pixels of zero border, and so the farthest shift."""
    return image_size // 8


def _shifted(images, shift, flip):
    height, width = images.shape[1:3]
    reach = _reach(min(height, width))
    first, window, mirrored = _pixels(len(images), height, width, reach, images.device)
    # A zero border, then one index_select of pixels for crop and flip: indexing by three tensors takes twice as long.
    bordered = F.pad(images, (0, 0, reach, reach, reach, reach))
    corner = torch.add(first + shift[:, 1], shift[:, 0], alpha=bordered.shape[2])[:, None, None]
    pixel = corner + (window if flip is None else torch.where(flip[:, None, None], mirrored, window))
    return bordered.flatten(0, 2).index_select(0, pixel.flatten()).view_as(images)


@functools.lru_cache(8)
def _pixels(batch_size, height, width, reach, device):
    """Numbers of pixels in a batch of images with a border: of each image's own first one (B,); counted from it, of
    all of them, and of all with each row mirrored (height, width). The same for every batch of a size."""
    high, wide = height + 2 * reach, width + 2 * reach
    first = high * wide * torch.arange(batch_size, device=device) + wide * reach + reach
    window = wide * torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)
    return first, window, window.flip(1)


def _resized_crop(images, box, flip):
    top, left, height, width = box.unbind(1)
    sign = 1.0 if flip is None else 1 - 2 * flip.float()
    zero = torch.zeros_like(top)
    # grid_sample's coordinates run from -1 to 1 over the image
    theta = torch.stack(
        [
            torch.stack([width * sign, zero, 2 * left + width - 1], 1),
            torch.stack([zero, height, 2 * top + height - 1], 1),
        ],
        1,
    )
    pixels = images.permute(0, 3, 1, 2).float()
    grid, padding = F.affine_grid(theta, pixels.shape, align_corners=False), "border"
    if pixels.device.type == "mps":  # which pads by no border before torch 2.13: the same, by coordinates kept inside
        edge = 1 - 1 / torch.tensor(images.shape[2:0:-1], dtype=torch.float32, device=pixels.device)
        grid, padding = grid.clamp(-edge, edge), "zeros"
    return F.grid_sample(pixels, grid, padding_mode=padding, align_corners=False).permute(0, 2, 3, 1)
