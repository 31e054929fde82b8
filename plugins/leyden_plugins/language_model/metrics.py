"""The metrics of language models: the mean loss of the tokens, said in another way."""

import math

from torch import Tensor

from leyden.metrics import MeanLoss


class BitsPerToken(MeanLoss):
    """The mean loss in bits instead of nats."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """NaN where there were no tokens."""
        return super().compute() / math.log(2)
