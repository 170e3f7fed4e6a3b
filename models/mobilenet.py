"""torchvision's MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), with a gentler stem for small images."""

from torchvision.models import mobilenet_v2

from models.layers import set_input_channels


def mobile(num_classes, channels, cifar_stem):
    """MobileNetV2; cifar_stem: 32 pixels end as 4x4 instead of 1x1, with the same weights."""
    net = mobilenet_v2(num_classes=num_classes)
    set_input_channels(net.features[0][0], channels)
    if cifar_stem:
        net.features[0][0].stride = (1, 1)
        net.features[2].conv[1][0].stride = (1, 1)  # depthwise, in the first block of 24 channels
    return net
