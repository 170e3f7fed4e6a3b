"""Mistakes in --net, --width, --norm and --pretrained: each has its message."""

import pytest

from common.errors import BadInput
from models import NETS, build_model, check_net

WITHOUT = {"norm": ["mobile", "efficientb3", "vgg", "dla"], "pretrained": ["smallcnn", "preact_resnet18", "dla"]}


@pytest.mark.parametrize("name", NETS)
def test_every_net_takes_images_of_32_pixels(name):
    check_net(name, 32)


@pytest.mark.parametrize(
    "name, image_size, options, flag, instead",
    [
        ("vgg", 8, {}, "--net vgg", "resnet18"),
        ("smallcnn", 3, {}, "--net smallcnn", "resnet18"),
        *((name, 32, {"width": 2}, "--width 2", "smallcnn") for name in NETS if name != "smallcnn"),
        *((name, 32, {"norm": "group"}, "--norm group", "ResNet") for name in WITHOUT["norm"]),
        *((name, 32, {"pretrained": True}, "--pretrained", "resnet18") for name in WITHOUT["pretrained"]),
        ("resnet18", 32, {"pretrained": True, "norm": "group"}, "--pretrained", "BatchNorm"),
        ("resnet18", 32, {"pretrained": True, "channels": 4}, "--pretrained", ""),
    ],
)
def test_what_cannot_be_built_names_its_flag_and_what_to_choose_instead(name, image_size, options, flag, instead):
    with pytest.raises(BadInput) as found:
        check_net(name, image_size, **options)
    (message,) = found.value.messages
    assert message.startswith(f"{flag}: ") and instead in message


def test_pretrained_weights_take_grey_images():
    check_net("resnet18", 32, channels=1, pretrained=True)


def test_build_model_checks_before_it_builds():
    with pytest.raises(BadInput, match="--net vgg"):
        build_model("vgg", 10, 8)
