"""FeatureNetwork: what a trained classification network sees in a picture, layer by layer."""

import copy
import gc
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from leyden.networks import dry_run, smallest_image_size
from leyden.pretrained import load_weights, torchvision_state_dict, torchvision_weights, unknown_network

RANDOM = "random"  # the weights of a network that was not trained
RANDOM_SEED = 0
LONGEST_LIST = 60  # layers in one message; of a deeper network its blocks are listed
MAP_DIMENSIONS = 4  # images, channels, height, width
TRIAL_SIZE = 224  # pixels; what every network of torchvision takes

# these rescale the pictures that their weights were trained on; their own initialisation takes minutes
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}


class FeatureNetwork(nn.Module):
    """Frozen layers of a classification network of torchvision, up to the last that is asked for.

    It is always in eval mode. Its weights are constants: nothing trains them, and no state dict holds them, since they
    come from `weights` again. No layer writes over what another gave, as the ReLUs of torchvision's networks would.

    Args:
        name: the network's name in torchvision, such as vgg19.
        weights: a name of torchvision, such as DEFAULT or IMAGENET1K_V1, which is downloaded once; the path of a state
            dict (.pth, .safetensors), which needs no other layers than those that are run; or `random` for the network
            untrained, always the same (He, Wang and Hopcroft, "A Powerful Generative Model Using Random Weights for
            the Deep Image Representation", 2016).
        layers: paths of modules in the network, such as layer2 or layer1.0.conv1, in torchvision's notation; a plain
            number n means features.n, as the layers of VGG are counted.

    Attributes:
        smallest: pixels; no side of a picture may be shorter.

    Shape:
        RGB images (B, 3, H, W), float, in [0, 1], to the feature maps (B, C, h, w) of each layer, by the name that it
        was asked for. They are normalised here, as for the network's training.

    Raises:
        ValueError: no weights, an unknown network or layer, a layer without feature maps, weights that do not fit.
        OSError: weights that cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str = "vgg19", weights: str | None = None, layers: Sequence[int | str] = (0, 5, 10, 19, 28)
    ) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise unknown_network(name, known, "torchvision.models.list_models()", "features")
        named = _named_weights(name, weights)
        network = _build(name, random=weights == RANDOM)
        self.name = name
        self.paths = _resolve(network, name, layers)
        self.graph = _cut(network, self.paths.values())
        self.smallest = _smallest_side(self.graph, name, self.paths)
        if weights is not None and weights != RANDOM:
            self.graph.to_empty(device="cpu")
            _load(self.graph, network, torchvision_state_dict(weights, named), f"{weights!r} for {name}")
        preset = (named or torchvision.models.get_model_weights(name).DEFAULT).transforms()
        self.register_buffer("mean", torch.tensor(preset.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(preset.std)[:, None, None])
        _make_constant(self)
        self.eval()
        del network
        gc.collect()  # the whole network and what traced it hold each other: half a gigabyte of VGG-19

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """It stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.maps(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to (images - mean) / std, what the network was trained on."""
        return (images - self.mean) / self.std

    def maps(self, normalized: Tensor) -> dict[str, Tensor]:
        """The feature maps of what `normalize` gave."""
        found: dict[str, Tensor] = self.graph(normalized)
        return {layer: found[path] for layer, path in self.paths.items()}

    def part(self, layers: Iterable[int | str]) -> "FeatureNetwork":
        """The same network, of which only what leads to some of its layers is run; the weights are shared."""
        part = FeatureNetwork.__new__(FeatureNetwork)
        nn.Module.__init__(part)
        part.name, part.smallest = self.name, self.smallest
        part.paths = {str(layer): self.paths[str(layer)] for layer in layers}
        graph = copy.deepcopy(self.graph.graph)
        [output] = graph.find_nodes(op="output")
        output.args = ({path: output.args[0][path] for path in part.paths.values()},)
        part.graph = fx.GraphModule(self.graph, graph)  # it asks its modules what may be left out
        part.graph.graph.eliminate_dead_code()
        part.graph.delete_all_unused_submodules()
        part.graph.recompile()
        for name in ("mean", "std"):
            part.register_buffer(name, self.get_buffer(name), persistent=False)
        return part.eval()


def _named_weights(name: str, weights: str | None) -> WeightsEnum | None:
    """Weights of torchvision; None for a file and for random ones. ValueError for none, and for what is neither."""
    if weights == RANDOM:
        return None
    if weights is None:
        known = torchvision.models.get_model_weights(name)
        raise ValueError(
            f"weights is missing: only a trained {name} sees what a style is. Set weights to DEFAULT, which is "
            f"downloaded once ({known.DEFAULT.url}), or to the path of that file, downloaded elsewhere, or of another "
            f"state dict of {name}. Known too: {', '.join(known.__members__)}, and {RANDOM}, which leaves it untrained."
        )
    return torchvision_weights(name, weights)


def _build(name: str, random: bool) -> nn.Module:
    """The whole network. Unless its weights are to be random they are not allocated: most are never needed."""
    options = OPTIONS.get(name, {})
    network: nn.Module
    if random:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            network = torchvision.models.get_model(name, **options)
    else:
        try:
            with torch.device("meta"):
                network = torchvision.models.get_model(name, **options)
        except (NotImplementedError, RuntimeError):  # some compute their sizes with tensors
            network = torchvision.models.get_model(name, **options).to("meta")
    for module in network.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  # to the type checker any attribute is a tensor or module
    return network.eval()


def _resolve(network: nn.Module, name: str, layers: Sequence[int | str]) -> dict[str, str]:
    """The path in the network of each layer. ValueError that lists those that there are."""
    paths = {str(layer): f"features.{layer}" if str(layer).isdecimal() else str(layer) for layer in layers}
    _, (_, *nodes) = get_graph_node_names(network, suppress_diff_warning=True)  # the first is the input
    missing = [layer for layer, path in paths.items() if not any(f"{node}.".startswith(f"{path}.") for node in nodes)]
    if missing or not paths:
        found = f"{name} has no layer {' and no '.join(missing)}" if missing else "no layer is named"
        raise ValueError(f"{found}. The layers of {name} are {_listing(network, nodes)}.")
    return paths


def _listing(network: nn.Module, nodes: Sequence[str]) -> str:
    """The layers that give feature maps; those of VGG by their numbers, those of deep networks by the blocks."""
    images = torch.zeros(1, 3, TRIAL_SIZE, TRIAL_SIZE, device=next(network.parameters()).device)
    outputs: Any = dry_run(_cut(network, nodes), images)
    names = [node for node in nodes if getattr(outputs[node], "ndim", 0) == MAP_DIMENSIONS]
    names = [name.removeprefix("features.") if name.removeprefix("features.").isdecimal() else name for name in names]
    if len(names) <= LONGEST_LIST:
        return ", ".join(names)
    blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    return f"{', '.join(blocks)}, and what is inside of them"


def _cut(network: nn.Module, paths: Iterable[str]) -> fx.GraphModule:
    """What of the network leads to these layers; gives their outputs in a dict."""
    extractor = create_feature_extractor(network, list(dict.fromkeys(paths)), suppress_diff_warning=True).eval()
    for node in extractor.graph.nodes:
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    return fx.GraphModule(extractor, extractor.graph)


def _smallest_side(graph: nn.Module, name: str, paths: dict[str, str]) -> int:
    """The side of the smallest picture that the layers take, found by trying. ValueError for what are no maps."""
    with next(graph.parameters()).device:
        side = smallest_image_size(lambda: graph, 3, above=0)
        if side is None:
            raise ValueError(f"features is {name!r}, which cannot be one: it takes pictures of one size only.")
        found: Any = dry_run(graph, torch.zeros(1, 3, side, side))
    if flat := [layer for layer, path in paths.items() if found[path].ndim != MAP_DIMENSIONS]:
        raise ValueError(f"the layer {flat[0]} of {name} gives no feature maps (channels, height, width).")
    return side


def _load(graph: nn.Module, network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load what the state dict of the whole network says of the layers that are run."""
    left_out = network.state_dict().keys() - graph.state_dict().keys()
    load_weights(graph, {key: value for key, value in state.items() if key not in left_out}, [], [], source)


def _make_constant(network: nn.Module) -> None:
    """Turn all parameters and buffers into buffers that are not saved."""
    for module in network.modules():
        named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for key, value in named:
            delattr(module, key)
            module.register_buffer(key, value.detach(), persistent=False)
