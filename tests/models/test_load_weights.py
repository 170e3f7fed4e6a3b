"""State dicts from files: ours, the published ResNets', and those that do not fit."""

import pickle

import pytest
import torch
from torch import nn

from common.errors import BadInput
from models import NETS, build_model, load_weights


class PublishedBlock(nn.Module):
    """A basic residual block under the published names, written apart from the code under test."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PublishedResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(PublishedBlock(64, 64, 1), PublishedBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PublishedBlock(64, 128, 2), PublishedBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PublishedBlock(128, 256, 2), PublishedBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PublishedBlock(256, 512, 2), PublishedBlock(512, 512, 1))
        self.linear = nn.Linear(512, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(nn.functional.avg_pool2d(x, 4).flatten(1))


def with_lived_in_norms(net):
    """The network after two training passes, so that its running statistics are not the initial ones."""
    with torch.no_grad():
        for _ in range(2):
            net.train()(torch.randn(2, 3, 32, 32) * 2 + 1)
    return net.eval()


def complaint(model, path):
    with pytest.raises(BadInput) as found:
        load_weights(model, path)
    (message,) = found.value.messages
    assert str(path) in message and message.count("\n") < 2
    return message


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", sorted(NETS.keys() - {"resnet34", "resnet50"}))  # one of a family
def test_our_own_state_dict_comes_back_unchanged(name, tmp_path):
    saved = build_model(name, 10, 32).state_dict()
    torch.save(saved, tmp_path / "net.pt")
    model = build_model(name, 10, 32)
    assert load_weights(model, tmp_path / "net.pt") is model
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "prefix"), [("resnet18", ""), ("resnet18", "module."), ("resnet34", ""), ("resnet50", "")]
)
def test_published_key_names_give_the_same_logits(name, prefix, tmp_path, images):
    ours = with_lived_in_norms(build_model(name, 10, 32))
    published = {
        prefix + key.replace("downsample", "shortcut").replace("fc.", "linear."): value
        for key, value in ours.state_dict().items()
    }
    torch.save(published, tmp_path / "published.pt")
    loaded = load_weights(build_model(name, 10, 32), tmp_path / "published.pt").eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), ours(images))


def test_a_resnet18_in_the_published_form_computes_the_same_logits(tmp_path, images):
    published = with_lived_in_norms(PublishedResNet18())
    torch.save(published.state_dict(), tmp_path / "published.pt")
    ours = load_weights(build_model("resnet18", 10, 32), tmp_path / "published.pt").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images), published(images))


def test_weights_of_another_net_are_bad_input_and_change_nothing(tmp_path):
    torch.save(build_model("smallcnn", 10, 8).state_dict(), tmp_path / "net.pt")
    model = build_model("resnet18", 10, 8)
    before = model.conv1.weight.clone()
    message = complaint(model, tmp_path / "net.pt")
    assert "conv1.weight" in message and "--net" in message and "--teach_net" in message
    assert torch.equal(model.conv1.weight, before)


def test_weights_for_other_classes_are_bad_input_that_names_both_shapes(tmp_path):
    torch.save(build_model("smallcnn", 100, 8).state_dict(), tmp_path / "net.pt")
    message = complaint(build_model("smallcnn", 10, 8), tmp_path / "net.pt")
    assert all(word in message for word in ("fc.weight", "(100, 128)", "(10, 128)"))


def test_a_tensor_too_many_is_bad_input(tmp_path):
    model = build_model("smallcnn", 10, 8)
    torch.save({**model.state_dict(), "extra": torch.zeros(1)}, tmp_path / "net.pt")
    assert "extra" in complaint(model, tmp_path / "net.pt")


@pytest.mark.parametrize(
    "content", [{}, torch.zeros(3), [torch.zeros(3)], {"state_dict": {"fc.weight": torch.zeros(3)}}, {1: 2}]
)
def test_what_is_no_dict_of_tensors_is_bad_input(content, tmp_path):
    torch.save(content, tmp_path / "net.pt")
    complaint(build_model("smallcnn", 10, 8), tmp_path / "net.pt")


def test_a_key_is_named_so_that_no_terminal_acts_on_it(tmp_path):
    model = build_model("smallcnn", 10, 8)
    torch.save({**model.state_dict(), "a\x1b[2J\n\n": torch.zeros(1)}, tmp_path / "net.pt")
    assert complaint(model, tmp_path / "net.pt").isprintable()


class Mischief:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))])
def test_a_file_that_would_run_code_is_refused_unopened(save, tmp_path):
    save({"fc.weight": Mischief(tmp_path / "ran")}, tmp_path / "net.pt")
    complaint(build_model("smallcnn", 10, 8), tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()
