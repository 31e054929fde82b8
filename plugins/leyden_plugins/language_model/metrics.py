"""The metrics of language models: the mean loss of the tokens, said in two other ways."""

import math

from torch import Tensor

from leyden.metrics import MeanLoss

# torchmetrics.text.Perplexity takes the logits of every token, (B, T, V), and normalises them once more: training would
# do twice what takes most of a small network's step. The losses say as much.


class Perplexity(MeanLoss):
    """exp of the mean loss: among how many equally likely symbols the network wavers."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """NaN where there were no tokens."""
        return super().compute().exp()


class BitsPerToken(MeanLoss):
    """The mean loss in bits instead of nats."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """NaN where there were no tokens."""
        return super().compute() / math.log(2)
