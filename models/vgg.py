"""torchvision's VGG11 with BatchNorm (Simonyan and Zisserman 2015, arXiv 1409.1556)."""

import torch
from torch import nn
from torchvision.models import VGG
from torchvision.models.vgg import cfgs, make_layers

from models.layers import init_convolutions, set_input_channels


def vgg(num_classes, channels, cifar_stem):
    """VGG11-BN for images of 32 pixels or more; cifar_stem: the head reads one 512-vector, not a 7x7 map."""
    features = make_layers(cfgs["A"], batch_norm=True)
    set_input_channels(features[0], channels)
    if not cifar_stem:
        return VGG(features, num_classes)
    # The 7x7 head would be 100 million weights, drawn to be thrown away: on the meta device it costs nothing.
    with torch.device("meta"):
        net = VGG(features, num_classes, init_weights=False)
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Sequential(
        nn.Linear(512, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )
    init_convolutions(net)
    return net
