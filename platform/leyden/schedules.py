"""Learning-rate schedules that torch does not have in one piece. They count optimizer steps."""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class CosineWithWarmup(LambdaLR):
    """Linear warm-up to the optimizer's rate, then half a cosine down to a fraction of it.

    Step t (from 0) has the rate (t + 1) / (warmup_steps + 1) during warm-up, and then
    final + (1 - final) * (1 + cos(pi * progress)) / 2, both times the optimizer's rate. Source: Loshchilov and Hutter,
    "SGDR", 2017, eq. 5 (one period); warm-up as in Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2.

    Args:
        optimizer: whose rates are scheduled.
        warmup_steps: optimizer steps of linear warm-up.
        final_fraction: what remains of the rate at the end.
        total_steps: optimizer steps of the whole training; without it the engine fills in what the trainer will do.
    """

    interval: Literal["step"] = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        final_fraction: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.final_fraction = final_fraction
        self.total_steps = total_steps
        super().__init__(optimizer, self.fraction)

    def plan(self, total_steps: int) -> None:
        """The engine says how many optimizer steps there will be; a number given by the user stays."""
        self.total_steps = self.total_steps or total_steps

    def state_dict(self) -> dict[str, Any]:
        """Without the number of steps, which is planned anew when training is resumed, perhaps for longer."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def fraction(self, step: int) -> float:
        """The rate at a step as a fraction of the optimizer's."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.total_steps is None:
            return 1.0
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / decay_steps)
        return self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
