"""Where weights come from: a file of ours or of the published code, or torchvision's ImageNet weights."""

import http.client
import os
import pickle

import torch
from torchvision.models import get_model_weights

from common.errors import BadInput, NeedsDownload
from common.untrusted import load_pt, printable


def load_weights(model: torch.nn.Module, path: str | os.PathLike) -> torch.nn.Module:
    """Fill the model, in place, with the state dict in a .pt file, all of it or (on an error) nothing.

    path: a bare state dict of this project, or of a ResNet of the published code; each tensor must fit.
    Returns the model, on its device and in its mode. Raises BadInput where the file cannot be read (it is
    never unpickled), holds something else, or belongs to another network.
    """
    state = load_pt(path, f"{path}: damaged, or no file of weights")
    fits = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not fits or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{path}: holds no weights; give a bare state dict, tensors by name")
    state = {_our_name(key): tensor for key, tensor in state.items()}
    shapes, ours = ({key: tensor.shape for key, tensor in d.items()} for d in (state, model.state_dict()))
    if differ := [key for key in (*ours, *shapes) if shapes.get(key) != ours.get(key)]:
        found = f"{printable(differ[0])} is {_shape(shapes, differ[0])} there and {_shape(ours, differ[0])} here"
        raise BadInput(
            f"{path}: weights of another network ({found}); give the --net (or --teach_net) and the data set that it "
            "was trained with"
        )
    model.load_state_dict(state)
    return model


def _our_name(key):
    """The published ResNets say `shortcut` and `linear`, DataParallel `module.`; no network here does."""
    key = key.removeprefix("module.").replace(".shortcut.", ".downsample.")
    return "fc." + key.removeprefix("linear.") if key.startswith("linear.") else key


def _shape(shapes, key):
    return tuple(shapes[key]) if key in shapes else "missing"


def load_imagenet(net: torch.nn.Module, torchvision_name: str) -> None:
    """Fill the network with torchvision's default ImageNet weights, except for its head, which stays fresh.

    Grey images: the first convolution gets the sum of its weights over the three colours, which is the same
    as repeating the image three times. Raises NeedsDownload where the weights are neither here nor fetched.
    """
    weights = get_model_weights(torchvision_name).DEFAULT
    place = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))
    try:
        state = weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    # Without network an OSError; a cut download or a damaged file in torch's cache the others.
    except (OSError, http.client.HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as found:
        reason = str(found).partition("\n")[0]
        raise NeedsDownload(
            f"--pretrained: cannot read {place} nor fetch {weights.url} ({reason}); "
            f"put a sound copy of it there, or leave --pretrained out"
        ) from found
    own = net.state_dict()
    # Every network here begins with a convolution and ends in a linear layer.
    first, *_, head_weight, head_bias = own
    if own[first].shape[1] == 1:
        state[first] = state[first].sum(dim=1, keepdim=True)
    net.load_state_dict({**state, head_weight: own[head_weight], head_bias: own[head_bias]})
