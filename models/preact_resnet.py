"""PreActResNet-18, whose blocks normalise before they convolve (He et al. 2016, arXiv 1603.05027)."""

from torch import nn
from torch.nn.functional import relu

from models.layers import NORMS, init_convolutions


class PreActBlock(nn.Module):
    """Twice norm, ReLU and a 3x3 convolution, beside a shortcut.

    x (B, inputs, H, W) -> (B, outputs, H/stride, W/stride).
    """

    def __init__(self, inputs, outputs, stride, norm_layer):
        super().__init__()
        self.bn1 = norm_layer(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = norm_layer(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        active = relu(self.bn1(x))
        # Where the shape changes, the shortcut too starts from the normalised input.
        shortcut = x if self.downsample is None else self.downsample(active)
        return self.conv2(relu(self.bn2(self.conv1(active)))) + shortcut


class PreActResNet18(nn.Module):
    """Four stages of two blocks; no norm after the last, as in the CIFAR networks that people compare with.

    x (B, channels, H, W) -> logits (B, num_classes).
    """

    def __init__(self, num_classes, channels=3, cifar_stem=True, norm="batch"):
        super().__init__()
        if cifar_stem:
            self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks = []
        for inputs, outputs, stride in [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]:
            blocks.append(PreActBlock(inputs, outputs, stride, NORMS[norm]))
            blocks.append(PreActBlock(outputs, outputs, 1, NORMS[norm]))
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, num_classes)
        init_convolutions(self)

    def forward(self, x):
        x = self.blocks(self.maxpool(self.conv1(x)))
        return self.fc(x.mean((2, 3)))
