"""SimpleDLA: deep layer aggregation (Yu et al. 2018, arXiv 1707.06484) in its plain form for CIFAR."""

from functools import partial

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

from models.layers import init_convolutions


def _block(inputs, outputs, stride):
    """torchvision's basic residual block, with a 1x1 shortcut where the shape changes."""
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = Conv2dNormActivation(inputs, outputs, 1, stride, activation_layer=None)
    return BasicBlock(inputs, outputs, stride, downsample)


class Tree(nn.Module):
    """Two halves, one after the other, and a root that joins the outputs of both.

    The halves are residual blocks at level 1, trees of one level less above it.
    x (B, inputs, H, W) -> (B, outputs, H/stride, W/stride).
    """

    def __init__(self, inputs, outputs, level, stride):
        super().__init__()
        half = _block if level == 1 else partial(Tree, level=level - 1)
        self.left = half(inputs, outputs, stride=stride)
        self.right = half(outputs, outputs, stride=1)
        self.root = Conv2dNormActivation(2 * outputs, outputs, 1)

    def forward(self, x):
        left = self.left(x)
        return self.root(torch.cat([left, self.right(left)], dim=1))


class SimpleDLA(nn.Module):
    """Three convolutions, then four trees. x (B, channels, H, W) -> logits (B, num_classes)."""

    def __init__(self, num_classes, channels=3, cifar_stem=True):
        super().__init__()
        if cifar_stem:
            first = [Conv2dNormActivation(channels, 16)]
        else:
            first = [Conv2dNormActivation(channels, 16, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)]
        self.stem = nn.Sequential(*first, Conv2dNormActivation(16, 16), Conv2dNormActivation(16, 32))
        self.trees = nn.Sequential(
            Tree(32, 64, level=1, stride=1),
            Tree(64, 128, level=2, stride=2),
            Tree(128, 256, level=2, stride=2),
            Tree(256, 512, level=1, stride=2),
        )
        self.fc = nn.Linear(512, num_classes)
        init_convolutions(self)

    def forward(self, x):
        return self.fc(self.trees(self.stem(x)).mean((2, 3)))
