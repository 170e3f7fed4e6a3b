"""Several networks of one kind as one, so that the seeds of a small network can be trained at once."""

import copy

import torch
from torch import nn

STACKED_NETS = ("smallcnn",)  # whose forward() keeps channels in their order, so that each member's stay together


class Stacked(nn.Module):
    """Networks alike but for their weights, as one of grouped convolutions: no member sees another's channels.

    members: S networks of a kind in STACKED_NETS. Input: a list of S tensors (B, C, H, W); output: logits (S, B, K).
    Its weights are copies; each is the members' along its first dimension.
    """

    def __init__(self, members):
        super().__init__()
        self.size, self.wide = len(members), copy.deepcopy(members[0])
        for name, module in list(self.wide.named_modules()):
            if not list(module.children()):
                parent, _, child = name.rpartition(".")
                setattr(self.wide.get_submodule(parent), child, _side_by_side(module, self.size))
        self.to(next(members[0].parameters()))
        self.wide.load_state_dict(side_by_side([member.state_dict() for member in members]))

    def forward(self, xs):
        return self.wide(torch.cat(xs, 1))

    def write_back(self, members):
        """Give the members the weights, and what else is in their state dicts, that it has now."""
        states = apart(self.wide.state_dict(), self.size)
        for member, state in zip(members, states, strict=True):
            member.load_state_dict(state)


class LinearOfEach(nn.Module):
    """S linear layers: (B, S * inputs) -> (S, B, outputs)."""

    def __init__(self, size, layer):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(size * layer.out_features, layer.in_features))
        self.bias = nn.Parameter(torch.empty(size * layer.out_features))

    def forward(self, x):
        x = x.unflatten(1, (self.size, -1)).transpose(0, 1)
        weight, bias = self.weight.unflatten(0, (self.size, -1)), self.bias.unflatten(0, (self.size, 1, -1))
        return torch.baddbmm(bias, x, weight.transpose(1, 2))


def side_by_side(states):
    """{name: tensor} of all from those of each, along the first dimension; what has none, such as a count, is equal."""
    return {name: torch.cat([s[name] for s in states]) if value.ndim else value for name, value in states[0].items()}


def apart(state, size):
    """[{name: tensor}] of each, the other way round."""
    parts = {name: value.chunk(size) if value.ndim else [value] * size for name, value in state.items()}
    return [{name: values[i] for name, values in parts.items()} for i in range(size)]


def _side_by_side(layer, size):
    match layer:
        case nn.Conv2d():
            groups, channels = size * layer.groups, (size * layer.in_channels, size * layer.out_channels)
            settings = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
            return nn.Conv2d(*channels, layer.kernel_size, **settings, groups=groups, bias=layer.bias is not None)
        case nn.BatchNorm2d():
            return nn.BatchNorm2d(size * layer.num_features, layer.eps, layer.momentum)
        case nn.GroupNorm():
            return nn.GroupNorm(size * layer.num_groups, size * layer.num_channels, layer.eps)
        case nn.Linear():
            return LinearOfEach(size, layer)
        case nn.ReLU() | nn.MaxPool2d():
            return layer
    raise TypeError(f"networks with a {type(layer).__name__} cannot be stacked")
