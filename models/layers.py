"""The few pieces that several families share: the kind of norm, the first weights, the first convolution."""

from torch import nn


def group_norm(channels):
    """GroupNorm over 32 groups, fewer where a group would have less than four channels.

    Source: Wu and He 2018, arXiv 1803.08494 (32 groups). Four channels a group, so that a group still has
    several values to normalise where an 8-pixel image has shrunk to one.
    """
    return nn.GroupNorm(min(32, channels // 4), channels)


NORMS = {"batch": nn.BatchNorm2d, "group": group_norm}


def init_convolutions(net):
    """Draw convolutions as torchvision's networks do (He et al. 2015, arXiv 1502.01852, fan-out)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def set_input_channels(conv, channels):
    """Give a network's first convolution, in place, new weights for images of another number of channels."""
    if channels != conv.in_channels:
        shape = (conv.out_channels, channels, *conv.kernel_size)
        conv.in_channels, conv.weight = channels, nn.Parameter(conv.weight.new_empty(shape))
        init_convolutions(conv)
