"""--pretrained, without a network: torch's cache is a temporary folder, its downloads are cut off."""

import os
import urllib.error

import pytest
import torch
from torchvision.models import get_model, get_model_weights

from common.errors import BadInput, NeedsDownload
from models import NETS, build_model, load_weights

PRETRAINED = [name for name in NETS if NETS[name].pretrained]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder where torch looks for fetched weights."""

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put_in_cache(cache, torchvision_name):
    """A stand-in for the ImageNet weights: torchvision's network with 1,000 classes as it is drawn."""
    torch.manual_seed(7)
    state = get_model(torchvision_name).state_dict()
    url = get_model_weights(torchvision_name).DEFAULT.url
    torch.save(state, cache / os.path.basename(url))
    return state


@pytest.mark.parametrize("name", ["resnet18", "mobile", "efficientb3"])
def test_all_weights_but_the_heads_are_the_fetched_ones(name, cache):
    fetched = put_in_cache(cache, NETS[name].pretrained)
    built = build_model(name, 10, 32, pretrained=True).state_dict()
    *body, head_weight, head_bias = built
    assert all(torch.equal(built[key], fetched[key]) for key in body)
    assert built[head_weight].shape[0] == built[head_bias].shape[0] == 10


def test_the_head_is_fresh_even_with_a_thousand_classes(cache):
    fetched = put_in_cache(cache, "resnet18")
    built = build_model("resnet18", 1000, 224, pretrained=True)
    assert not torch.equal(built.fc.weight, fetched["fc.weight"])


def test_grey_images_give_the_logits_of_their_threefold_repetition(cache):
    put_in_cache(cache, "resnet18")
    colour = build_model("resnet18", 10, 32, 3, pretrained=True).eval()
    grey = build_model("resnet18", 10, 32, 1, pretrained=True).eval()
    grey.fc.load_state_dict(colour.fc.state_dict())
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_stem_is_torchvisions_at_any_size_and_the_weights_can_wait(name):
    with torch.device("meta"):  # shapes and strides alone: VGG's own head is large
        ours = build_model(name, 10, 32, pretrained=True, fetch=False)
        theirs = get_model(NETS[name].pretrained, num_classes=10)
    assert str(ours) == str(theirs)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


def test_a_finished_pretrained_run_is_loaded_without_fetching_anything(cache, tmp_path):
    saved = get_model("mobilenet_v2", num_classes=10).state_dict()
    torch.save(saved, tmp_path / "best_acc.pt")
    model = build_model("mobile", 10, 32, pretrained=True, fetch=False)
    load_weights(model, tmp_path / "best_acc.pt")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_weights_that_cannot_be_fetched_need_a_download():
    with pytest.raises(NeedsDownload) as found:
        build_model("resnet18", 10, 32, pretrained=True)
    (message,) = found.value.messages
    assert message.startswith("--pretrained: ") and "https://download.pytorch.org/models/resnet18" in message


def test_damaged_weights_in_the_cache_are_named(cache):
    put_in_cache(cache, "resnet18")
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(NeedsDownload) as found:
        build_model("resnet18", 10, 32, pretrained=True)
    assert str(path) in str(found.value)


def test_a_mistake_never_starts_a_download(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", pytest.fail)
    with pytest.raises(BadInput) as found:
        build_model("vgg", 10, 8, pretrained=True)
    assert not isinstance(found.value, NeedsDownload)
