"""torchvision's EfficientNet-B3 (Tan and Le 2019, arXiv 1905.11946), with a gentler stem for small images."""

from torchvision.models import efficientnet_b3

from models.layers import set_input_channels


def efficientb3(num_classes, channels, cifar_stem):
    """EfficientNet-B3; cifar_stem: the first convolution keeps the image's size, with the same weights."""
    net = efficientnet_b3(num_classes=num_classes)
    set_input_channels(net.features[0][0], channels)
    if cifar_stem:
        net.features[0][0].stride = (1, 1)
    return net
