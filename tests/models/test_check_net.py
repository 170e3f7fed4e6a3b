"""Mistakes in --net, --width, --norm and --pretrained: each has its message, and all come at once."""

import pytest

from common.errors import BadInput
from models import NETS, build_model, check_net


def messages(*args, **kwargs):
    with pytest.raises(BadInput) as found:
        check_net(*args, **kwargs)
    return found.value.messages


@pytest.mark.parametrize("name", NETS)
def test_every_net_takes_images_of_32_pixels(name):
    check_net(name, 32)


def test_an_unknown_net_is_answered_with_the_known_ones():
    (message,) = messages("resnet19", 32)
    assert message.startswith("--net resnet19: ")
    assert all(name in message for name in NETS)


def test_vgg_below_32_pixels_is_bad_input():
    assert messages("vgg", 8) == [
        "--net vgg: needs images of 32 pixels or more, these have 8; choose another net, such as smallcnn"
    ]


def test_smallcnn_below_4_pixels_is_bad_input():
    (message,) = messages("smallcnn", 3)
    assert "4 pixels or more" in message and "resnet18" in message


@pytest.mark.parametrize("name", sorted(NETS.keys() - {"smallcnn"}))
def test_only_smallcnn_has_a_width(name):
    (message,) = messages(name, 32, width=2)
    assert message.startswith("--width 2: ") and "smallcnn" in message


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_a_width_is_a_whole_number_from_one(width):
    (message,) = messages("smallcnn", 32, width=width)
    assert message.startswith(f"--width {width}: ")


@pytest.mark.parametrize("name", ["mobile", "efficientb3", "vgg", "dla"])
def test_group_norm_is_bad_input_where_it_is_not_built(name):
    (message,) = messages(name, 32, norm="group")
    assert message.startswith("--norm group: ") and "resnet18" in message


def test_an_unknown_norm_is_bad_input():
    (message,) = messages("resnet18", 32, norm="layer")
    assert "batch or group" in message


@pytest.mark.parametrize("name", ["smallcnn", "preact_resnet18", "dla"])
def test_pretrained_is_bad_input_where_torchvision_has_no_weights(name):
    (message,) = messages(name, 32, pretrained=True)
    assert message.startswith("--pretrained: ") and "resnet18" in message


def test_pretrained_weights_are_of_batch_norm():
    (message,) = messages("resnet18", 32, norm="group", pretrained=True)
    assert "--pretrained" in message and "--norm group" in message


def test_pretrained_weights_take_grey_or_colour_images():
    check_net("resnet18", 32, channels=1, pretrained=True)
    (message,) = messages("resnet18", 32, channels=4, pretrained=True)
    assert "4 channels" in message


def test_all_mistakes_are_named_at_once():
    found = messages("vgg", 8, width=2, norm="group", pretrained=False)
    assert [message.split()[0] for message in found] == ["--net", "--width", "--norm"]


def test_the_flag_of_a_teachers_net_can_be_named():
    (message,) = messages("nonet", 32, flag="--teach_net")
    assert message.startswith("--teach_net nonet: ")


def test_build_model_checks_before_it_builds():
    with pytest.raises(BadInput, match="32 pixels or more"):
        build_model("vgg", 10, 8)
