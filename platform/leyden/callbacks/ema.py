"""EMA: an exponential moving average of the network's weights, evaluated and saved in their place."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from leyden.errors import UsageError
from leyden.task import Task

BYTES = 4  # of a weight
Tensors = tuple[Tensor, ...] | list[Tensor]


class EMA(Callback):
    """Averages the network after every optimizer step: average = decay * average + (1 - decay) * weights.

    Validation and checkpoints use the average (buffers, such as those of batch norm, included). The weights from before
    the first step are never part of it: the average starts as a copy of the weights after the first step, and the decay
    grows with the number of steps, min(decay, (1 + n) / (10 + n)), so that a short training is not dominated by its
    beginning. Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    Args:
        decay: how much of the average stays in one step, in [0, 1).

    Raises:
        ValueError: for another decay.
        UsageError: when training begins, where the weights have 16 bits or are divided among processes.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be at least 0 and below 1.")
        self.decay = decay
        self.average: AveragedModel | None = None
        self._steps_seen = 0
        self._swapped = False
        self._resumed: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: network and checkpoint are there, training has not begun."""
        assert isinstance(pl_module, Task)
        if pl_module.device_mesh is not None:
            raise UsageError(
                "EMA keeps a second network, which cannot be divided among processes as strategy sharded does with the "
                "first. Use --trainer.strategy ddp, or leave EMA out (--trainer.callbacks null)."
            )
        if any(each.is_floating_point() and each.itemsize < BYTES for each in pl_module.network.parameters()):
            raise UsageError(
                f"EMA averages weights of 32 bits, but with precision {trainer.precision} they have 16: an average of "
                "so few digits would hardly move. Use --trainer.precision bf16-mixed, or leave EMA out "
                "(--trainer.callbacks null)."
            )
        self.average = AveragedModel(pl_module.network, multi_avg_fn=self._blend, use_buffers=True)
        if self._resumed is not None:
            self.average.load_state_dict(self._resumed["average"])
            pl_module.network.load_state_dict(self._resumed["raw"])
            self._resumed = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: only now a resumed trainer knows how many steps it has done."""
        self._steps_seen = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Lightning's hook: with accumulated gradients only some batches end in a step."""
        assert isinstance(pl_module, Task)
        assert self.average is not None
        if trainer.global_step > self._steps_seen:
            self._steps_seen = trainer.global_step
            self.average.update_parameters(pl_module.network)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if self._started():
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if self._swapped:
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: whoever uses the task after training has the average."""
        if self._started():
            self._swap(pl_module)
        self.average, self._swapped = None, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: the average takes the place of the weights, which are kept for resuming."""
        if not self._started() or self._swapped:
            return
        assert isinstance(pl_module, Task)
        assert self.average is not None
        raw = {name: value.detach().clone() for name, value in pl_module.network.state_dict().items()}
        checkpoint["ema"] = {"raw": raw, "average": self.average.state_dict()}
        averaged = self.average.module.state_dict()
        checkpoint["state_dict"] |= {f"net.{name}": value for name, value in averaged.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._resumed = checkpoint.get("ema")

    def _started(self) -> bool:
        return self.average is not None and int(self.average.n_averaged) > 0

    def _swap(self, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Task)
        assert self.average is not None
        average, current = self.average.module.state_dict(), pl_module.network.state_dict()
        once = {value.data_ptr(): name for name, value in current.items()}  # tied weights have two names
        for name in once.values():
            value = current[name]
            kept = value.clone()
            value.copy_(average[name])
            average[name].copy_(kept)
        self._swapped = not self._swapped

    def _blend(self, averages: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        number = int(num_averaged)
        blend: Any = get_ema_multi_avg_fn(min(self.decay, (1 + number) / (10 + number)))  # type: ignore[no-untyped-call]
        blend(averages, current, num_averaged)
