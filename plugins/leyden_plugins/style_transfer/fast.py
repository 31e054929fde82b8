"""FastStyleTransfer: a network that paints any picture in one style, in one pass."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from leyden import draw
from leyden.batches import StylePairs
from leyden.errors import UsageError
from leyden.networks import dry_run
from leyden.task import Record
from leyden_plugins.style_transfer.losses import Maps
from leyden_plugins.style_transfer.perceptual import PerceptualTask

CHANNELS = 3
TRIAL_SIZE = (45, 71)  # pixels; no stride divides both, so that a network that does not pad and crop is found


class FastStyleTransfer(PerceptualTask):
    """Trains a network on many pictures to paint each in one style; then `predict` paints new ones in one pass.

    The losses are those of StyleTransfer. `predict` gives pictures of any size back at their own, and needs neither
    the style nor the frozen network.

    Source: Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", 2016,
    sections 3 and 4.1.

    Args:
        net: the network, called as net(in_channels) with 3; maps float32 RGB pictures (B, 3, H, W) in [0, 1], of any
            size, to such pictures.
        kwargs: the arguments of every task that paints in a style (features, weights, style_weight, ...).

    Raises:
        UsageError: for data of more than one style, and for a network that does not give pictures of the same size.
    """

    sample_sheet = (6, 1)

    def __init__(self, net: Callable[[int], nn.Module], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network_factory = net
        self._style_grams: Maps | None = None

    def build_network(self) -> nn.Module:
        """The network, tried on a blank picture."""
        styles = list(dict.fromkeys(style for _, style, *_ in self.facts.pairs))
        if len(styles) > 1:
            raise UsageError(
                f"FastStyleTransfer learns one style, but the data has {len(styles)}: {', '.join(styles)}. Train a run "
                "for each."
            )
        net = self.network_factory(CHANNELS)
        height, width = TRIAL_SIZE
        try:
            painted: Any = dry_run(net, torch.zeros(1, CHANNELS, height, width))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"{type(net).__name__} cannot take a {height}x{width} picture: {error}") from error
        if not isinstance(painted, Tensor) or painted.shape != (1, CHANNELS, height, width):
            found = tuple(painted.shape) if isinstance(painted, Tensor) else f"a {type(painted).__name__}"
            raise UsageError(
                f"{type(net).__name__} gives {found} for a {height}x{width} picture, expected one of the same size, "
                f"{(1, CHANNELS, height, width)}."
            )
        return net

    def setup(self, stage: str) -> None:
        """Lightning's hook: the style may be another than before."""
        super().setup(stage)
        self._style_grams = None

    def forward(self, contents: Tensor) -> Tensor:
        """Contents (B, 3, H, W) in [0, 1] to painted pictures (B, 3, H, W)."""
        pictures: Tensor = self.network(contents)
        return pictures

    def outputs(self, batch: StylePairs) -> Tensor:
        """The losses (B, 3) of the painted pictures."""
        pictures = self(batch.contents).float()
        perceptual = self.perceptual_loss(pictures)
        if self._style_grams is None:
            # what is made in inference mode could not serve in training later
            with torch.inference_mode(False):
                self._style_grams = self.perceptual_loss(batch.styles).style_grams(batch.styles[:1])
        losses: Tensor = perceptual(pictures, perceptual.content_maps(batch.contents), self._style_grams)
        return losses

    def predict(self, batch: StylePairs) -> list[Record]:
        """The name of the `style` and the `size` [height, width] in pixels of what is painted.

        For drawing the `picture` (3, H, W) uint8; where the batch has the style also `content_picture` and
        `style_picture`, which are alike.
        """
        style = self.facts.pairs[0][1]
        size = list(batch.contents.shape[2:])
        records: list[Record] = [
            {"style": style, "size": size, "picture": picture} for picture in as_bytes(self(batch.contents))
        ]
        if batch.styles.numel():
            originals = zip(as_bytes(batch.contents), as_bytes(batch.styles), strict=True)
            for record, (content, style_picture) in zip(records, originals, strict=True):
                record |= {"content_picture": content, "style_picture": style_picture}
        return records

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The painted picture at its full size; small and beside content and style where the style is known."""
        painted: Image.Image = to_pil_image(record["picture"])
        if "style_picture" not in record:
            return painted
        content, painted = draw.panel(to_pil_image(record["content_picture"])), draw.panel(painted)
        style = to_pil_image(record["style_picture"])
        style.thumbnail((2 * content.width, content.height))
        return draw.side_by_side({"content": content, "style": style, "painted": painted})


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), clamped to [0, 1], as uint8 on the CPU."""
    return pictures.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
