"""Networks of timm."""

from collections.abc import Sequence

from torch import Tensor, nn

from leyden.options import require_positive
from leyden.pretrained import (
    create_timm_network,
    first_conv,
    last_layer,
    load_weights,
    read_state_dict,
    require_timm_network,
    weights_file,
)


class Timm(nn.Module):
    """Any network of timm (PyTorch Image Models), with random or trained weights.

    Trained weights for three channels fit any number of channels: the kernels of the first convolution are
    summed for one channel, and repeated and rescaled for others. With another number of classes than the
    weights have, the last layer starts at random.

    Args:
        in_channels: channels of an image.
        num_classes: number of classes.
        name: the network's name in timm, such as resnet18 or, naming its training too, resnet18.a1_in1k.
        weights: none for random weights; pretrained for timm's own, which are downloaded once; or the path of a
            state dict (.pth, .safetensors). With weights, images are to be normalized as for their training.

    Shape:
        (B, in_channels, H, W) to logits (B, num_classes); H and W as the network demands.

    Raises:
        ImportError: timm is not installed.
        ValueError: a size below 1, an unknown name, unknown weights, or a file that does not fit the network.
        OSError: weights that cannot be downloaded.

    Source:
        Wightman, "PyTorch Image Models", 2019; timm names the paper of each network. Dive into Deep Learning,
        14.2 (fine-tuning).
    """

    def __init__(self, in_channels: int, num_classes: int, name: str = "resnet18", weights: str | None = None) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes)
        require_timm_network(name, weights)
        pretrained = weights == "pretrained"
        path = None if weights is None or pretrained else weights_file(weights, ["pretrained"])
        self.network = create_timm_network(name, pretrained, in_chans=in_channels, num_classes=num_classes)
        if path is not None:
            stem = _names(self.network, "first_conv") or [first_conv(self.network)]
            head = _names(self.network, "classifier") or [last_layer(self.network)]
            source = f"{weights!r} for the network {name} of timm"
            load_weights(self.network, read_state_dict(path), stem, head, source)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def _names(network: nn.Module, part: str) -> Sequence[str]:
    """What timm says the layers of that part are called: none, one or several."""
    config = getattr(network, "pretrained_cfg", None) or {}
    names: str | Sequence[str] | None = config.get(part)
    return [names] if isinstance(names, str) else (names or [])
