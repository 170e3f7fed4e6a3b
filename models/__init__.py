"""The networks by name: build_model makes one, load_weights fills it, check_net says first what cannot be."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from common.errors import BadInput
from models.dla import SimpleDLA
from models.efficientnet import efficientb3
from models.layers import NORMS
from models.mobilenet import mobile
from models.preact_resnet import PreActResNet18
from models.resnet import resnet18, resnet34, resnet50
from models.smallcnn import smallcnn
from models.vgg import vgg
from models.weights import load_imagenet, load_weights

__all__ = ["NETS", "Net", "build_model", "check_net", "load_weights"]

CIFAR_STEM_UP_TO = 64  # pixels; above, the ImageNet stem, which shrinks the image to a quarter at once


class Net(NamedTuple):
    """What a name needs: build(num_classes, channels, cifar_stem, **options) -> logits network."""

    build: Callable
    options: tuple = ()  # which of width and norm build() takes
    pretrained: str | None = None  # torchvision's name, where it has ImageNet weights
    smallest: int = 1  # pixels that an image's side must have


# A new network is a file and a line here.
NETS = {
    "smallcnn": Net(smallcnn, options=("width", "norm"), smallest=4),
    "resnet18": Net(resnet18, options=("norm",), pretrained="resnet18"),
    "resnet34": Net(resnet34, options=("norm",), pretrained="resnet34"),
    "resnet50": Net(resnet50, options=("norm",), pretrained="resnet50"),
    "preact_resnet18": Net(PreActResNet18, options=("norm",)),
    "mobile": Net(mobile, pretrained="mobilenet_v2"),
    "efficientb3": Net(efficientb3, pretrained="efficientnet_b3"),
    "vgg": Net(vgg, pretrained="vgg11_bn", smallest=32),
    "dla": Net(SimpleDLA),
}


def build_model(
    name,
    num_classes,
    image_size,
    channels=3,
    *,
    width=1,
    norm="batch",
    init="torchvision",
    pretrained=False,
    fetch=True,
):
    """Build the network `name`, its weights drawn from torch's global generator as the caller seeded it.

    name: one of NETS. image_size: the side of the images in pixels. width: multiplies smallcnn's channels.
    norm: "batch" or "group". init: "torchvision" (convolutions drawn by fan-out) or "published" (torch's
    defaults, as in the published code). pretrained: torchvision's stem at any size, its ImageNet weights and a fresh
    head; fetch=False leaves those weights out, for a checkpoint that load_weights fills in next.
    Returns a module x (B, channels, image_size, image_size) -> logits (B, num_classes), on the CPU.
    Raises BadInput as check_net does, and NeedsDownload where the ImageNet weights cannot be fetched.
    """
    check_net(name, image_size, channels=channels, width=width, norm=norm, pretrained=pretrained)
    net = NETS[name]
    cifar_stem = image_size <= CIFAR_STEM_UP_TO and not pretrained
    given = {"width": width, "norm": norm}
    model = net.build(num_classes, channels, cifar_stem, **{option: given[option] for option in net.options})
    if init == "published":
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    if pretrained and fetch:
        load_imagenet(model, net.pretrained)
    return model


def check_net(name, image_size, *, channels=3, width=1, norm="batch", pretrained=False, flag="--net"):
    """Raise BadInput, one message a mistake, where build_model could not build this.

    flag: what the messages call the network's flag, such as --teach_net.
    """
    if name not in NETS:
        raise BadInput(f"{flag} {name}: unknown network; choose one of {', '.join(NETS)}")
    net, problems = NETS[name], []

    def those(fit):  # the networks to choose instead
        return ", ".join(other for other in NETS if fit(NETS[other]))

    if image_size < net.smallest:
        other = next(other for other in NETS if NETS[other].smallest <= image_size)
        problems.append(
            f"{flag} {name}: needs images of {net.smallest} pixels or more, these have {image_size}; "
            f"choose another net, such as {other}"
        )
    if width < 1 or width != int(width):
        problems.append(f"--width {width}: give a whole number, 1 or more")
    elif width != 1 and "width" not in net.options:
        able = those(lambda other: "width" in other.options)
        problems.append(f"--width {width}: {name} has one width only; leave it out, or choose {able}")
    if norm not in NORMS:
        problems.append(f"--norm {norm}: unknown; choose {' or '.join(NORMS)}")
    elif norm != "batch" and "norm" not in net.options:
        able = those(lambda other: "norm" in other.options)
        problems.append(f"--norm {norm}: {name} has BatchNorm only; leave it out, or choose one of {able}")
    if pretrained and not net.pretrained:
        able = those(lambda other: other.pretrained)
        problems.append(f"--pretrained: no weights are published for {name}; choose one of {able}")
    elif pretrained and norm == "group":
        problems.append("--pretrained: the published weights are for BatchNorm, not --norm group; drop one")
    if pretrained and channels not in (1, 3):
        problems.append(f"--pretrained: takes grey or colour images, these have {channels} channels; drop it")
    if problems:
        raise BadInput(*problems)
