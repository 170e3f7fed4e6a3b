"""smallcnn: three convolutions, for small images and quick experiments (about 95,000 parameters)."""

from torch import nn
from torchvision.ops import Conv2dNormActivation

from models.layers import NORMS, init_convolutions


class SmallCNN(nn.Module):
    """Three 3x3 blocks of 32, 64 and 128 channels, times width; the side halves after the first two.

    x (B, channels, H, W) with H and W at least 4 -> logits (B, num_classes).
    """

    def __init__(self, num_classes, channels=3, width=1, norm="batch"):
        super().__init__()

        def block(inputs, outputs):  # convolution without bias (the norm has one), norm, ReLU
            return Conv2dNormActivation(inputs, outputs, norm_layer=NORMS[norm])

        self.block1 = block(channels, 32 * width)
        self.block2 = block(32 * width, 64 * width)
        self.block3 = block(64 * width, 128 * width)
        self.halve = nn.MaxPool2d(2)
        self.fc = nn.Linear(128 * width, num_classes)
        init_convolutions(self)

    def forward(self, x):
        x = self.halve(self.block1(x))
        x = self.halve(self.block2(x))
        return self.fc(self.block3(x).mean((2, 3)))


def smallcnn(num_classes, channels, cifar_stem, width=1, norm="batch"):
    """SmallCNN; it has one stem for all image sizes, so that cifar_stem changes nothing."""
    return SmallCNN(num_classes, channels, width, norm)
