"""Learning-rate schedules that torch does not have in one piece.

A schedule counts optimizer steps or epochs, as the task's `lr_interval` says, and without it as its own `interval`
says. "Step" in the names of its arguments means one such count, as it does in torch's.
"""

import logging
import math
from abc import abstractmethod
from bisect import bisect_right
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler

logger = logging.getLogger("leyden")
UNPLANNED = 10**9  # steps of a cycle whose length is not known yet


class _WithWarmup(lr_scheduler.LambdaLR):
    """Linear warm-up to the optimizer's rate, then what `decay` makes of it.

    Step t (from 0) has (t + 1) / (warmup_steps + 1) of the optimizer's rate during warm-up. Source: Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017, section 2.2.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int | None = None) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps is {warmup_steps}; it must be 0 or more.")
        if total_steps is not None and total_steps <= warmup_steps:
            raise ValueError(f"total_steps is {total_steps}; it must be more than warmup_steps, {warmup_steps}.")
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        super().__init__(optimizer, self.fraction)

    @abstractmethod
    def decay(self, step: int) -> float:
        """The rate at a step behind the warm-up, as a fraction of the optimizer's."""

    @property
    def last_change(self) -> int:
        """The last step at which something begins that a shorter training would not see."""
        return self.warmup_steps

    def fraction(self, step: int) -> float:
        """The rate at a step as a fraction of the optimizer's."""
        return (step + 1) / (self.warmup_steps + 1) if step < self.warmup_steps else self.decay(step)

    def plan(self, total_steps: int | None) -> None:
        """The engine says how long training is, None without an end; a number given by the user stays.

        It does so at every start of training. The rates follow at once, also when a longer training is resumed.
        """
        self.total_steps = self.total_steps or total_steps
        for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = rate * self.fraction(self.last_epoch)
        if self.total_steps is not None and self.last_change >= self.total_steps:
            reach = f"its warm-up or milestones reach to {self.last_change}, but training ends at {self.total_steps}"
            logger.warning("%s: %s (epochs or optimizer steps, as lr_interval says)", type(self).__name__, reach)

    def state_dict(self) -> dict[str, Any]:
        """Without the length of training, which is planned anew."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}


class FactorWithWarmup(_WithWarmup):
    """Linear warm-up to the optimizer's rate, then times `factor` after every `step_size` steps, down to a floor.

    Step t behind the warm-up has max(min_fraction, factor ** floor((t - warmup_steps) / step_size)) of the optimizer's
    rate. Source: Zhang et al., "Dive into Deep Learning", section 12.11, the factor scheduler.

    Args:
        optimizer: whose rates are scheduled.
        factor: in (0, 1].
        step_size: steps from one multiplication to the next.
        min_fraction: the floor, as a fraction of the optimizer's rate, in [0, 1].
        warmup_steps: steps of linear warm-up.

    Raises:
        ValueError: for arguments that cannot be.
    """

    interval: Literal["epoch"] = "epoch"

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float,
        step_size: int = 1,
        min_fraction: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        _require_factor("factor", factor)
        _require_fraction("min_fraction", min_fraction)
        if step_size < 1:
            raise ValueError(f"step_size is {step_size}; it must be at least 1.")
        self.factor = factor
        self.step_size = step_size
        self.min_fraction = min_fraction
        super().__init__(optimizer, warmup_steps)

    def decay(self, step: int) -> float:
        """Powers of the factor, not below the floor."""
        times = (step - self.warmup_steps) // self.step_size
        return max(self.min_fraction, self.factor**times)


class MultiFactorWithWarmup(_WithWarmup):
    """Linear warm-up to the optimizer's rate, then times `gamma` at every milestone.

    Milestones count from the start of training, warm-up included. Sources: Zhang et al., "Dive into Deep Learning",
    section 12.11, the multi-factor scheduler; Goyal et al., 2017, section 5.1.

    Args:
        optimizer: whose rates are scheduled.
        milestones: steps, ascending, all behind the warm-up.
        gamma: in (0, 1].
        warmup_steps: steps of linear warm-up.

    Raises:
        ValueError: for arguments that cannot be.
    """

    interval: Literal["epoch"] = "epoch"

    def __init__(self, optimizer: Optimizer, milestones: list[int], gamma: float = 0.1, warmup_steps: int = 0) -> None:
        _require_factor("gamma", gamma)
        if not milestones or sorted(set(milestones)) != list(milestones):
            raise ValueError(f"milestones are {list(milestones)}; there must be at least one, and they must ascend.")
        if milestones[0] <= warmup_steps:
            raise ValueError(f"milestones begin at {milestones[0]}; it must be more than warmup_steps, {warmup_steps}.")
        self.milestones = list(milestones)
        self.gamma = gamma
        super().__init__(optimizer, warmup_steps)

    @property
    def last_change(self) -> int:
        """The last milestone."""
        return self.milestones[-1]

    def decay(self, step: int) -> float:
        """A power of gamma for the milestones that were passed."""
        return self.gamma ** bisect_right(self.milestones, step)


class CosineWithWarmup(_WithWarmup):
    """Linear warm-up to the optimizer's rate, then half a cosine down to a fraction of it.

    Step t behind the warm-up has final + (1 - final) * (1 + cos(pi * progress)) / 2 of the optimizer's rate, and
    progress goes from 0 to 1 at the end of training. Source: Loshchilov and Hutter, "SGDR", 2017, eq. 5 (one period).

    Args:
        optimizer: whose rates are scheduled.
        warmup_steps: steps of linear warm-up.
        final_fraction: what remains of the rate at the end, in [0, 1].
        total_steps: steps of the whole training; without it the engine fills in what the trainer will do.

    Raises:
        ValueError: for arguments that cannot be, and where nobody knows how long training is.
    """

    interval: Literal["step"] = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        final_fraction: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        _require_fraction("final_fraction", final_fraction)
        self.final_fraction = final_fraction
        super().__init__(optimizer, warmup_steps, total_steps)

    def plan(self, total_steps: int | None) -> None:
        """The engine says how long training is, None without an end; a number given by the user stays."""
        super().plan(total_steps)
        _require_total(self, self.total_steps)

    def decay(self, step: int) -> float:
        """Half a period of a cosine; the optimizer's rate as long as nobody knows how long training is."""
        if self.total_steps is None:
            return 1.0
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / decay_steps)
        return self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * progress)) / 2


class OneCycleLR(lr_scheduler.OneCycleLR):
    """Torch's one-cycle policy, whose cycle is as long as training unless `total_steps` makes it longer.

    Source: Smith and Topin, "Super-Convergence", 2019.

    Args:
        optimizer: whose rates (and momenta) are scheduled.
        max_lr: the rate at the top of the cycle.
        total_steps: steps of the cycle, not fewer than training has; without it, as many.
        kwargs: the other arguments of torch's class.

    Raises:
        ValueError: for arguments that cannot be, and where nobody knows how long training is.
    """

    interval: Literal["step"] = "step"

    def __init__(self, optimizer: Optimizer, max_lr: float, total_steps: int | None = None, **kwargs: Any) -> None:
        if kwargs.get("epochs") or kwargs.get("steps_per_epoch"):
            raise ValueError("instead of epochs and steps_per_epoch OneCycleLR takes total_steps, or plans it itself.")
        self._chosen_steps = total_steps
        self._begin = partial(super().__init__, optimizer, max_lr, **kwargs)
        super().__init__(optimizer, max_lr, total_steps=total_steps or UNPLANNED, **kwargs)

    def plan(self, total_steps: int | None) -> None:
        """The engine says how long training is, None without an end; a number given by the user stays."""
        cycle = _require_total(self, self._chosen_steps or total_steps)
        if total_steps is None or cycle < total_steps:
            end = total_steps or "no end"
            raise ValueError(f"total_steps is {cycle}; training has {end}, and one cycle cannot be shorter than that.")
        try:
            self._begin(total_steps=cycle, last_epoch=self.last_epoch - 1)  # torch takes the step to where it is
        except ZeroDivisionError as error:
            raise ValueError(f"the rise of one cycle must not be one step of {cycle}: change pct_start.") from error

    def state_dict(self) -> dict[str, Any]:
        """How far it is; all else follows from the arguments and the plan."""
        return {"last_epoch": self.last_epoch}


def _require_total(schedule: Any, total_steps: int | None) -> int:
    if total_steps is None:
        raise ValueError(
            f"{type(schedule).__name__} must know how long training is: set its total_steps, or "
            "--trainer.max_epochs or --trainer.max_steps."
        )
    return total_steps


def _require_factor(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} is {value}; it must be above 0 and at most 1.")


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1.")
