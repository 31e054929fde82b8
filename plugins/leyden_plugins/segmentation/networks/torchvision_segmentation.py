"""Segmentation networks of torchvision."""

import torchvision
from torch import Tensor, nn

from leyden.options import require_positive
from leyden.pretrained import (
    change_channels,
    first_conv,
    last_layer,
    load_weights,
    torchvision_state_dict,
    torchvision_weights,
    unknown_network,
)

AUXILIARY = "aux_classifier."


class TorchvisionSegmentation(nn.Module):
    """Any segmentation network of torchvision, with random or trained weights.

    Trained weights for three channels fit any number of channels: the kernels of the first convolution are
    summed for one channel, and repeated and rescaled for others. With another number of classes than the
    weights have, what makes the logits starts at random. Auxiliary classifiers are left out.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        name: the network's name in torchvision: deeplabv3_*, fcn_* or lraspp_*.
        weights: none for random weights; a name of torchvision, such as DEFAULT or COCO_WITH_VOC_LABELS_V1, which is
            downloaded once; or the path of a state dict (.pth). With weights, images are to be normalized as for their
            training.

    Shape:
        (B, in_channels, H, W), of any H and W, to logits (B, num_classes, H, W).

    Raises:
        ValueError: a size below 1, an unknown name, unknown weights, or a file that does not fit the network. In
            training, where batch normalization sees only one place: one image alone with deeplabv3, one of at most
            16 x 16 pixels with lraspp, or 8 x 8 with fcn.
        OSError: weights that cannot be downloaded.

    Source:
        torchvision.models.segmentation names the paper of each network.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        name: str = "lraspp_mobilenet_v3_large",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        if name not in (known := torchvision.models.list_models(module=torchvision.models.segmentation)):
            raise unknown_network(name, known, ", ".join(known))
        named = None if weights is None else torchvision_weights(name, weights)
        self.network: nn.Module = torchvision.models.get_model(
            name, num_classes=num_classes, weights_backbone=None, aux_loss=False
        )
        stem = first_conv(self.network)
        change_channels(self.network, stem, in_channels)
        if weights is not None:
            state = torchvision_state_dict(weights, named)
            state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
            source = f"{weights!r} for the network {name} of torchvision"
            load_weights(self.network, state, [stem], self._head(), source)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)["out"]
        return logits

    def _head(self) -> list[str]:
        """The layers that make the logits; LR-ASPP adds those of two."""
        both = [f"classifier.{name}" for name in ("low_classifier", "high_classifier")]
        names = dict(self.network.named_modules())
        return both if both[0] in names else [last_layer(self.network)]
