"""PerceptualTask: what the tasks of the family share, the frozen network and the three losses that it gives."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from leyden.batches import StyleFacts, StylePairs
from leyden.errors import UsageError
from leyden.task import Stage, Task
from leyden_plugins.style_transfer.features import FeatureNetwork
from leyden_plugins.style_transfer.losses import Maps, Weights, content_loss, gram_matrix, style_loss, total_variation
from leyden_plugins.style_transfer.metrics import LossParts


class PerceptualLoss(nn.Module):
    """Content, style and total variation loss of pictures, as a frozen network sees them.

    features: the network. content_layers, style_layers: the weight of each layer. content_weight, style_weight,
    tv_weight: what the three losses are multiplied by.
    """

    def __init__(
        self,
        features: FeatureNetwork,
        content_layers: Weights,
        style_layers: Weights,
        content_weight: float,
        style_weight: float,
        tv_weight: float,
    ) -> None:
        super().__init__()
        self.features = features
        self.content_features = features.part(content_layers)
        self.content_layers = content_layers
        self.style_layers = style_layers
        self.content_weight = content_weight
        self.style_weight = style_weight
        self.tv_weight = tv_weight

    @torch.no_grad()
    def content_maps(self, contents: Tensor) -> dict[str, Tensor]:
        """Contents (B, 3, H, W) in [0, 1] to the feature maps that are compared with a picture's."""
        maps: dict[str, Tensor] = self.content_features(contents)
        return maps

    @torch.no_grad()
    def style_grams(self, styles: Tensor) -> dict[str, Tensor]:
        """Styles (B, 3, H, W) in [0, 1] to the Gram matrices (B, C, C) that are compared with a picture's."""
        maps = self.features(styles)
        return {layer: gram_matrix(maps[layer]) for layer in self.style_layers}

    def forward(self, pictures: Tensor, content_maps: Maps, style_grams: Maps) -> Tensor:
        """Pictures (B, 3, H, W), [0, 1] but not clamped, to their losses (B, 3), weighted: their sum is minimised.

        The total variation is that of the normalised picture, as in the book.
        """
        normalized = self.features.normalize(pictures)
        maps = self.features.maps(normalized)
        losses = (
            self.content_weight * content_loss(maps, content_maps, self.content_layers),
            self.style_weight * style_loss(maps, style_grams, self.style_layers),
            self.tv_weight * total_variation(normalized),
        )
        return torch.stack(losses, dim=1)


class PerceptualTask(Task[StylePairs]):
    """Base of the tasks that paint in a style.

    What is logged are the weighted losses, so that content_loss, style_loss and tv_loss add up to the loss.

    Args:
        features: the frozen network that sees content and style, one of torchvision's.
        weights: of that network: a name of torchvision, such as DEFAULT, which is downloaded once; the path of a state
            dict; or `random`. There is no default. `predict` does without them.
        content_layers: the layers in which a picture is to look like its content; as in torchvision's notation, a
            plain number n means features.n.
        style_layers: the layers in which it is to have the style's Gram matrices.
        content_weight: of the content loss.
        style_weight: of the style loss.
        tv_weight: of the total variation, which is of pixels in units of ImageNet's standard deviation.
        content_layer_weights: one for each content layer; without them all are 1.
        style_layer_weights: one for each style layer; without them all are 1.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for negative weights, for layers that the network does not have, for weights that do not fit.
    """

    monitor = "val/loss"
    mode = "min"
    facts: StyleFacts

    def __init__(
        self,
        features: str = "vgg19",
        weights: str | None = None,
        content_layers: Sequence[int | str] = (25,),
        style_layers: Sequence[int | str] = (0, 5, 10, 19, 28),
        content_weight: float = 1.0,
        style_weight: float = 1e3,
        tv_weight: float = 10.0,
        content_layer_weights: Sequence[float] | None = None,
        style_layer_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, weight in {
            "content_weight": content_weight,
            "style_weight": style_weight,
            "tv_weight": tv_weight,
        }.items():
            _require_weight(name, weight)
        self.content_layers = _weighted("content_layers", content_layers, content_layer_weights)
        self.style_layers = _weighted("style_layers", style_layers, style_layer_weights)
        self.features = features
        self.weights = weights
        self.loss_weights = (content_weight, style_weight, tv_weight)
        # in a list torch does not see it: no checkpoint, no average and no other process needs the frozen network
        self._perceptual: list[PerceptualLoss] = []

    def setup(self, stage: str) -> None:
        """Lightning's hook: the frozen network is loaded, unless there is nothing to compare with."""
        super().setup(stage)
        if stage != "predict" and not self._perceptual:
            self._perceptual = [self.build_perceptual_loss()]

    def build_perceptual_loss(self) -> PerceptualLoss:
        """The losses, with the frozen network loaded. Raises UsageError where that cannot be."""
        layers = list(dict.fromkeys([*self.content_layers, *self.style_layers]))
        try:
            features = FeatureNetwork(self.features, self.weights, layers)
        except (ValueError, OSError, ImportError) as error:
            raise UsageError(f"{type(self).__name__} cannot build its feature network: {error}") from error
        if self.channels_last:
            features.to(memory_format=torch.channels_last)
        perceptual = PerceptualLoss(features, self.content_layers, self.style_layers, *self.loss_weights)
        if self.compile_backend:
            for each in (perceptual.features, perceptual.content_features):
                each.graph.compile(backend=self.compile_backend)
        return perceptual

    def perceptual_loss(self, images: Tensor) -> PerceptualLoss:
        """The losses, where these images are. Raises UsageError for images that are too small for the network."""
        [perceptual] = self._perceptual
        height, width = images.shape[-2:]
        smallest = perceptual.features.smallest
        if min(height, width) < smallest:
            raise UsageError(
                f"pictures of {height} x {width} pixels are too small for the layers of {self.features} that are asked "
                f"for, which need {smallest} in each direction. Make them larger, or name earlier layers."
            )
        return perceptual.to(images)

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """The three losses, weighted."""
        return MetricCollection({"parts": LossParts()})

    def loss(self, outputs: Tensor, batch: StylePairs) -> Tensor:
        """The mean over the pictures; outputs are the losses (B, 3) of each."""
        return outputs.sum(dim=1).mean()

    def measure(self, outputs: Tensor, batch: StylePairs) -> tuple[Tensor]:
        """The losses of each picture."""
        return (outputs,)


def _weighted(name: str, layers: Sequence[int | str], weights: Sequence[float] | None) -> dict[str, float]:
    """The weight of each layer. Raises UsageError."""
    option = f"{name.removesuffix('s')}_weights"
    if not layers:
        raise UsageError(f"{name} is empty; name one or more.")
    if weights is not None and len(weights) != len(layers):
        raise UsageError(
            f"{option} has {len(weights)} numbers, expected {len(layers)}, one for each of {name}: "
            f"{', '.join(map(str, layers))}."
        )
    for weight in weights or ():
        _require_weight(option, weight)
    return dict(zip(map(str, layers), weights or [1.0] * len(layers), strict=True))


def _require_weight(name: str, weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise UsageError(f"{name} is {weight}; it must be 0 (off) or more.")
