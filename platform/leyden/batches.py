"""What a task and its data share: typed batches, and the facts about the data that a network is built from.

A batch is a NamedTuple of tensors. Its `facts_class` names a frozen dataclass of primitives: what the task must know
before the network exists and what prediction needs later. The facts travel in every checkpoint.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self, get_args, get_origin

from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """Base of the facts of every batch type. Fields hold primitives, and tuples of them."""

    def to_primitives(self) -> dict[str, Any]:
        """A dict of primitives, which `weights_only` loading accepts."""
        return asdict(self)

    def conflicts(self, other: "Facts") -> list[str]:
        """Where other data differs so much that a network trained with these facts cannot serve it, a line each."""
        mine, theirs = self.to_primitives(), other.to_primitives()
        return [f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name]]

    @classmethod
    def from_primitives(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_primitives`, also where a file format has turned tuples into lists."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class ImageFacts(Facts):
    """Facts about labelled images.

    channels: 1 for grey, 3 for RGB. image_size: (height, width) in pixels of the images that enter the network.
    class_names: one for each label, in label order.
    """

    channels: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]

    def conflicts(self, other: Facts) -> list[str]:
        """Images of another size may do."""
        return [line for line in super().conflicts(other) if not line.startswith("image_size")]


class LabelledImages(NamedTuple):
    """Images, each with one class.

    images: (B, C, H, W); uint8 as stored, float32 once scaled and normalised.
    labels: (B,) int64 class indices, -1 where unknown; or (B, num_classes) float32 probabilities where images were
        mixed.
    """

    images: Tensor
    labels: Tensor

    @staticmethod
    def facts_class() -> type[ImageFacts]:
        """What is known about such data before the first batch."""
        return ImageFacts


def declared_batch(cls: type, base: type) -> type | None:
    """The batch type that a class declares by deriving from `base[Batch]`; None where it declares none."""
    for ancestor in cls.__mro__:
        for generic in vars(ancestor).get("__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, base):
                argument = get_args(generic)[0]
                if isinstance(argument, type):
                    return argument
    return None
