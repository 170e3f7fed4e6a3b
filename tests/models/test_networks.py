"""The networks: their size, the images they take, their stems and their norms."""

import pytest
import torch
from torch import nn

from models import NETS, build_model
from models.dla import Tree
from models.preact_resnet import PreActBlock

PARAMETERS = {
    "smallcnn": 94_762,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "preact_resnet18": 11_171_146,
    "mobile": 2_236_682,
    "efficientb3": 10_711_602,
    "vgg": 28_149_514,
    "dla": 15_142_970,
}
ONE_OF_A_FAMILY = sorted(NETS.keys() - {"resnet34", "resnet50"})
FITTING = [
    (name, size)
    for name in NETS
    for size in (4, 8, 32, 64, 72)
    if size >= NETS[name].smallest and (name in ONE_OF_A_FAMILY or size in (8, 72))
]
NORM_NETS = [name for name in NETS if "norm" in NETS[name].options]


def logits_of(net, channels, size):
    torch.manual_seed(1)
    with torch.no_grad():
        return net.eval()(torch.randn(2, channels, size, size))


def first_conv(net):
    return next(module for module in net.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("name", NETS)
def test_number_of_parameters_is_the_published_one(name):
    with torch.device("meta"):  # shapes alone, without the time it takes to draw the weights
        net = build_model(name, 10, 32)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "size"), FITTING)
def test_logits_have_a_column_for_each_class(name, size):
    logits = logits_of(build_model(name, 7, size), 3, size)
    assert logits.shape == (2, 7) and logits.isfinite().all()


@pytest.mark.parametrize("size", [32, 72])
@pytest.mark.parametrize("name", ONE_OF_A_FAMILY)
def test_grey_images_get_a_first_convolution_of_one_channel(name, size):
    with torch.device("meta"):
        net = build_model(name, 10, size, channels=1)
        assert first_conv(net).weight.shape[1] == 1
        assert logits_of(net, 1, size).shape == (2, 10)


@pytest.mark.parametrize("name", NETS)
def test_two_samples_give_every_parameter_a_gradient(name):
    torch.manual_seed(0)
    net = build_model(name, 10, 32)
    nn.functional.cross_entropy(net(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ONE_OF_A_FAMILY)
def test_the_seed_of_the_global_generator_decides_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return build_model(name, 10, 32).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(next(iter(first.values())), next(iter(other.values())))


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "mobile", "efficientb3", "dla"])
def test_the_stem_keeps_the_size_up_to_64_pixels_and_halves_it_above(name):
    with torch.device("meta"):
        assert first_conv(build_model(name, 10, 64)).stride == (1, 1)
        assert first_conv(build_model(name, 10, 65)).stride == (2, 2)


def test_mobile_turns_32_pixels_into_4():
    net = build_model("mobile", 10, 32).eval()
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 4, 4)


def test_simple_dla_trees_have_the_published_channels_and_sizes():
    net = build_model("dla", 10, 32).eval()
    x, shapes = net.stem(torch.zeros(1, 3, 32, 32)), []
    for tree in net.trees:
        x = tree(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_a_tree_of_level_two_joins_the_outputs_of_two_trees_of_level_one():
    torch.manual_seed(0)
    tree, joined = Tree(4, 8, level=2, stride=2).eval(), []
    tree.root.register_forward_hook(lambda root, inputs, output: joined.append(inputs[0]))
    x = torch.randn(2, 4, 8, 8)
    tree(x)
    left, right = joined[0].chunk(2, dim=1)
    assert isinstance(tree.left, Tree) and isinstance(tree.right, Tree)
    assert torch.equal(left, tree.left(x)) and torch.equal(right, tree.right(left))


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (8, 2)])
def test_a_preact_block_without_its_branch_is_its_shortcut(outputs, stride):
    torch.manual_seed(0)
    block = PreActBlock(4, outputs, stride, nn.BatchNorm2d).eval()
    nn.init.zeros_(block.conv2.weight)
    nn.init.constant_(block.bn1.bias, 0.5)
    x = torch.randn(2, 4, 8, 8)
    expected = x if stride == 1 else block.downsample(torch.relu(block.bn1(x)))
    assert torch.equal(block(x), expected)


def test_width_multiplies_the_channels_of_smallcnn():
    net = build_model("smallcnn", 10, 8, width=3)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [96, 192, 384]
    assert logits_of(net, 3, 8).shape == (2, 10)


@pytest.mark.parametrize("name", NORM_NETS)
def test_with_group_norm_a_sample_does_not_see_its_batch(name):
    torch.manual_seed(0)
    net = build_model(name, 10, 8, norm="group").train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 5, 7])
def test_every_group_of_a_group_norm_has_four_channels_or_more(width):
    norms = [
        m for m in build_model("smallcnn", 10, 8, width=width, norm="group").modules() if isinstance(m, nn.GroupNorm)
    ]
    assert len(norms) == 3
    assert all(m.num_channels // m.num_groups >= 4 for m in norms)
