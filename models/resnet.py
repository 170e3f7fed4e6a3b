"""torchvision's ResNets (He et al. 2016, arXiv 1512.03385), with a 3x3 stem for small images."""

from functools import partial

from torch import nn
from torchvision.models import get_model

from models.layers import NORMS, init_convolutions, set_input_channels


def _resnet(name, num_classes, channels, cifar_stem, norm="batch"):
    """torchvision's ResNet `name`; cifar_stem: 3x3 stride 1 without pooling, not 7x7 stride 2 with it."""
    net = get_model(name, num_classes=num_classes, norm_layer=NORMS[norm])
    if cifar_stem:
        net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        init_convolutions(net.conv1)
    set_input_channels(net.conv1, channels)
    return net


resnet18 = partial(_resnet, "resnet18")
resnet34 = partial(_resnet, "resnet34")
resnet50 = partial(_resnet, "resnet50")
