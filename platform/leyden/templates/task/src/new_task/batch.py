"""What task and data share: the batch, and the facts about the data that the network is built from."""

from dataclasses import dataclass
from typing import NamedTuple

from leyden.batches import Facts
from torch import Tensor


@dataclass(frozen=True)
class SignalFacts(Facts):
    """Facts about labelled signals. They travel in every checkpoint; data that has others is refused.

    class_names: one for each label, in label order.
    sample_rate: samples in a second (Hz).
    length: samples in a signal.
    """

    class_names: tuple[str, ...]
    sample_rate: int
    length: int


class Signals(NamedTuple):
    """Signals, each with one class.

    samples: (B, L); int16 as stored, float32 in [-1, 1) once scaled.
    labels: (B,) int64 class indices, -1 where unknown.
    """

    samples: Tensor
    labels: Tensor

    @staticmethod
    def facts_class() -> type[SignalFacts]:
        """What is known about such data before the first batch."""
        return SignalFacts
