"""The networks by name: build_model makes one, load_weights fills it, check_net says first what cannot be."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from common.errors import BadInput
from models.dla import SimpleDLA
from models.efficientnet import efficientb3
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
    name: str,
    num_classes: int,
    image_size: int,
    channels: int = 3,
    *,
    width: int = 1,
    norm: str = "batch",
    pretrained: bool = False,
    fetch: bool = True,
) -> nn.Module:
    """Build the network `name`, its weights drawn from torch's global generator as the caller seeded it.

    name: one of NETS. image_size: the side of the images in pixels. width: multiplies smallcnn's channels.
    norm: "batch" or "group". pretrained: torchvision's stem at any size, its ImageNet weights and a
    fresh head; fetch=False leaves those weights out, for a checkpoint that load_weights fills in next.
    Returns a module x (B, channels, image_size, image_size) -> logits (B, num_classes), on the CPU.
    Raises BadInput as check_net does, and NeedsDownload where the ImageNet weights cannot be fetched.
    """
    check_net(name, image_size, channels=channels, width=width, norm=norm, pretrained=pretrained)
    net = NETS[name]
    cifar_stem = image_size <= CIFAR_STEM_UP_TO and not pretrained
    given = {"width": width, "norm": norm}
    model = net.build(num_classes, channels, cifar_stem, **{option: given[option] for option in net.options})
    if pretrained and fetch:
        load_imagenet(model, net.pretrained)
    return model


def check_net(
    name: str, image_size: int, *, channels=3, width=1, norm="batch", pretrained=False, flag: str = "--net"
) -> None:
    """BadInput, the first mistake, where build_model could not build this.

    flag: what the message calls the network's flag, such as --teach_net.
    """
    net = NETS[name]
    if image_size < net.smallest:
        raise BadInput(
            f"{flag} {name}: needs images of {net.smallest} pixels or more, these have {image_size}; "
            "choose another net, such as resnet18"
        )
    if width != 1 and "width" not in net.options:
        raise BadInput(f"--width {width}: {name} has one width only; leave it out, or choose smallcnn")
    if norm != "batch" and "norm" not in net.options:
        raise BadInput(f"--norm {norm}: {name} has BatchNorm only; leave it out, or choose smallcnn or a ResNet")
    if pretrained and not net.pretrained:
        raise BadInput(f"--pretrained: no weights are published for {name}; leave it out, or choose resnet18")
    if pretrained and (norm == "group" or channels not in (1, 3)):
        raise BadInput("--pretrained: the weights are for BatchNorm and for grey or colour images; leave it out")
