"""Networks of torchvision and timm: their names, their weights, fitting these to other channels and classes."""

import difflib
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

SHOWN = 3


def unknown_network(name: str, known: Iterable[str], listing: str, option: str = "name") -> ValueError:
    """The error for a name that is not known, with the nearest that are.

    Args:
        name: the name.
        known: all names.
        listing: the call that lists them, or the names themselves.
        option: what the user calls the name.
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return ValueError(f"{option} is {name!r}, expected one of {listing}.{guess}")


# ---- torchvision


def torchvision_weights(name: str, weights: str) -> WeightsEnum | None:
    """Weights of torchvision for the network `name`, spelt DEFAULT or ResNet18_Weights.DEFAULT; None for a file's path.

    Raises:
        ValueError: neither weights of this network nor a file.
    """
    known = torchvision.models.get_model_weights(name)
    found: WeightsEnum | None = known.__members__.get(weights.removeprefix(f"{known.__name__}."))
    if found is None:
        weights_file(weights, list(known.__members__))
    return found


def torchvision_state_dict(weights: str, named: WeightsEnum | None) -> dict[str, Tensor]:
    """The state dict of the weights that `torchvision_weights` found, or of the file.

    Raises:
        OSError: weights that cannot be downloaded.
        ValueError: a file that holds no state dict.
    """
    if named is None:
        return read_state_dict(weights_file(weights, ()))
    try:
        state: dict[str, Tensor] = named.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"could not get {named!r} from {named.url} ({error}); "
            f"without network access, download the file elsewhere and give its path as weights."
        ) from error
    return state


# ---- timm


def import_timm() -> ModuleType:
    """The package timm. Raises ImportError that says how to install it."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("a network of timm needs the package timm: pip install 'leyden[timm]'") from error
    return timm


def require_timm_network(name: str, weights: str | None, option: str = "name") -> None:
    """ValueError unless timm has a network of that name, and trained weights for it where they are asked for.

    Args:
        name: the network's name in timm, with or without a tag.
        weights: `pretrained` for those of timm.
        option: what the user calls the name.
    """
    timm = import_timm()
    known = timm.list_models()
    tagged = timm.list_models(f"{name.partition('.')[0]}.*", include_tags=True)
    if name not in tagged and not ("." not in name and timm.is_model(name)):
        raise unknown_network(name, tagged or known, "timm.list_models()", option)
    if weights == "pretrained" and not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no trained weights for {name}, expected none or the path of a file.")


def create_timm_network(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    """timm's network with these options of its `create_model`. Raises OSError for weights that cannot be downloaded."""
    try:
        network: nn.Module = import_timm().create_model(name, pretrained=pretrained, **options)
    except OSError as error:
        raise OSError(
            f"could not get the weights of {name} for timm ({error}); "
            f"without network access, download the file elsewhere and give its path as weights."
        ) from error
    return network


# ---- state dicts


def weights_file(weights: str, names: Sequence[str]) -> Path:
    """The file that `weights` names. ValueError if there is none; `names` are what else it could be."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(
            f"weights is {weights!r}, which is not a file, expected {', '.join(names)} or the path of a file."
        )
    return path


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a torch or safetensors file, also where it is the `state_dict` or `model` of a checkpoint."""
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict, expected names with a tensor each.")
    return found


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be loaded ({type(error).__name__}), expected the file of a state dict, "
            f"as torch.save makes it, with nothing but tensors in it."
        ) from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: pip install 'leyden[timm]'") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be loaded, expected a safetensors file: {error}.") from error


def first_conv(network: nn.Module) -> str:
    """Name of the first convolution, the one that reads the image."""
    return _layer_names(network, nn.Conv2d)[0]


def last_layer(network: nn.Module) -> str:
    """Name of the last linear layer or convolution, the one that makes the logits."""
    return _layer_names(network, nn.Linear, nn.Conv2d)[-1]


def _layer_names(network: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, kinds)]


def adapt_kernels(kernels: Tensor, in_channels: int) -> Tensor:
    """Kernels for other image channels than theirs: for one channel their sum, else repeated and rescaled.

    A grey image then gives what it would give as three equal channels.
    """
    old = kernels.shape[1]
    if in_channels == 1:
        return kernels.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // old)
    return kernels.repeat(1, repeats, 1, 1)[:, :in_channels] * (old / in_channels)


def change_channels(network: nn.Module, stem: str, in_channels: int) -> None:
    """Let the convolution `stem`, which reads the image, take `in_channels` channels; its kernels are adapted."""
    conv = network.get_submodule(stem)
    assert isinstance(conv, nn.Conv2d)
    if conv.in_channels != in_channels:
        # The sum of random kernels keeps the variance of the output, as the network's own start does.
        conv.weight = nn.Parameter(adapt_kernels(conv.weight.detach(), in_channels))
        conv.in_channels = in_channels


def load_weights(
    network: nn.Module, state: dict[str, Tensor], stem: Sequence[str], head: Sequence[str], source: str
) -> None:
    """Load a state dict into a network whose image channels or classes may be others.

    Args:
        network: what to load into.
        state: the weights; it is changed.
        stem: names of the convolutions that read the image; their kernels are adapted.
        head: names of the layers that make the logits; with another number of classes they stay as they are.
        source: what to call the weights in an error.

    Raises:
        ValueError: an entry is missing, unexpected or of another shape; nothing is loaded then.
    """
    expected = network.state_dict()
    for name in stem:
        _adapt_entry(state, expected, f"{name}.weight")
    for name in head:
        if _differ_in_classes(state.get(f"{name}.weight"), expected.get(f"{name}.weight")):
            for key in (f"{name}.weight", f"{name}.bias"):
                state.pop(key, None)
                expected.pop(key, None)
    _require_fit(_shapes(expected), _shapes(state), source)
    network.load_state_dict(state, strict=False)


def _adapt_entry(state: dict[str, Tensor], expected: dict[str, Tensor], key: str) -> None:
    found, wanted = state.get(key), expected.get(key)
    if found is None or wanted is None or found.dim() != 4 or found.shape == wanted.shape:
        return
    if found.shape[1] == 3 and found.shape[2:] == wanted.shape[2:]:
        state[key] = adapt_kernels(found, wanted.shape[1])


def _differ_in_classes(found: Tensor | None, wanted: Tensor | None) -> bool:
    if found is None or wanted is None:
        return False
    return found.shape[0] != wanted.shape[0] and found.shape[1:] == wanted.shape[1:]


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    # Files from before torch 0.4 do not count batches, and nothing here reads the count.
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _require_fit(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], source: str) -> None:
    missing = [f"{key} {shape}" for key, shape in expected.items() if found.get(key) != shape]
    unexpected = [f"{key} {shape}" for key, shape in found.items() if expected.get(key) != shape]
    if missing or unexpected:
        raise ValueError(
            f"{source} lacks {len(missing)} of {len(expected)} entries: {_shortened(missing)};\n"
            f"it has {len(unexpected)} that the network has not: {_shortened(unexpected)}."
        )


def _shortened(entries: list[str]) -> str:
    more = [f"and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return ", ".join(entries[:SHOWN] + more) or "none"
