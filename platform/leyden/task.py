"""Task: the base of every task family. A family says what its loss, metrics, predictions and pictures are."""

import functools
import inspect
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MetricCollection

from leyden import __version__
from leyden.batches import Facts, declared_batch
from leyden.errors import CheckpointError, LeydenError, UsageError
from leyden.metrics import MeanLoss
from leyden.plugins import path_of

Batch = TypeVar("Batch")
Stage = Literal["train", "val", "test"]
Record = dict[str, Any]
SECTION = "leyden"  # where a checkpoint holds what is ours


class Task(LightningModule, Generic[Batch]):
    """Base of the task families: `class ImageClassifier(Task[LabelledImages])`.

    A family implements `build_network`, `build_metrics`, `outputs`, `loss`, `update_metrics`, `predict`, and where
    there is something to see `draw` and `draw_results`; it names the metric that picks the best checkpoint. Everything
    else is done here: steps, logging, optimizer, schedule, compilation, checkpoints.

    Args:
        optimizer: any of torch.optim, by name.
        lr_scheduler: any of torch.optim.lr_scheduler or leyden.schedules, by name.
        lr_interval: the schedule advances each `epoch` or each `step`; without it as the schedule says, else by epoch.
        compile: compile the network with torch.compile; a string names the backend.
        channels_last: keep the network's weights in the memory format that convolutions are often fastest in.
    """

    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] | None = None,
        compile: bool | str = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self._keep_primitive_hyperparameters()
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval
        self.compile_backend = "inductor" if compile is True else compile
        self.channels_last = channels_last
        self.net: nn.Module | None = None
        self.facts: Facts | None = None
        self.results: dict[str, Tensor] = {}
        self._pending_losses: list[Tensor] = []
        self._pending_weights: list[int] = []

    # ---- what a family says

    @abstractmethod
    def build_network(self) -> nn.Module:
        """The network, built from `self.facts`. Raises ValueError or UsageError for options that cannot be."""

    @abstractmethod
    def build_metrics(self, stage: Stage) -> MetricCollection:
        """The metrics of a stage, by the names under which they are logged (`accuracy` becomes `val/accuracy`)."""

    @abstractmethod
    def outputs(self, batch: Batch) -> Any:
        """Run the network on a batch: what loss and metrics are computed from."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The mean loss of a batch, a scalar."""

    @abstractmethod
    def update_metrics(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        """Update the metrics of a stage with a batch; outputs carry no gradient."""

    @abstractmethod
    def predict(self, batch: Batch) -> list[Record]:
        """One dict of primitives for each item of a batch; with key `truth` where the batch knows it."""

    def draw(self, picture: Image.Image, record: Record) -> Image.Image | None:
        """A picture that shows one prediction; None where the family has nothing to draw."""
        return None

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """Figures of those metrics that are no single number (a confusion matrix), by file name without suffix."""
        return {}

    def weight(self, batch: Batch) -> int:
        """What a batch counts in the epoch's mean loss: its items, unless a family counts tokens or the like."""
        return len(batch[0])  # type: ignore[index]

    # ---- what the engine does with it

    @classmethod
    def batch_type(cls) -> type | None:
        """The type of the batches that this task reads."""
        return declared_batch(cls, Task)

    @property
    def network(self) -> nn.Module:
        """The network, once it is built."""
        if self.net is None:
            raise LeydenError(f"{type(self).__name__} has no network yet: it is built when the data is known.")
        return self.net

    def setup(self, stage: str) -> None:
        """Lightning's hook: a checkpoint's facts and the data's must agree. Raises UsageError where they do not."""
        data_facts = getattr(self.trainer.datamodule, "facts", None)  # type: ignore[attr-defined]
        if self.facts is None or data_facts is None:
            return
        if conflicts := self.facts.conflicts(data_facts):
            raise UsageError("the data is not what the checkpoint was trained on:\n" + "\n".join(conflicts))
        self.facts = data_facts

    def configure_model(self) -> None:
        """Lightning's hook: build network and metrics, once the facts about the data are known."""
        if self.facts is None:
            with suppress(RuntimeError):  # without a trainer the facts come from a checkpoint
                self.facts = getattr(self.trainer.datamodule, "facts", None)  # type: ignore[attr-defined]
        if self.net is not None or self.facts is None:
            return
        try:
            self.net = self.build_network()
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise UsageError(f"{type(self).__name__} cannot build its network: {error}") from error
        stages: tuple[Stage, ...] = ("train", "val", "test")
        # a ModuleDict has attributes named train and eval: its keys must not be
        self.metrics = nn.ModuleDict({f"{stage}_metrics": self.build_metrics(stage) for stage in stages})
        self.mean_losses = nn.ModuleDict({f"{stage}_loss": MeanLoss() for stage in stages})
        if self.channels_last:
            self.net.to(memory_format=torch.channels_last)
        if self.compile_backend:
            try:
                self.net.compile(backend=self.compile_backend)
            except RuntimeError as error:
                raise UsageError(f"compile={self.compile_backend!r} cannot be: {error}") from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Lightning's hook: optimizer and schedule, with the number of steps where the schedule asks for it."""
        try:
            optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
            scheduler = self.lr_scheduler_factory(optimizer) if self.lr_scheduler_factory else None
        except ValueError as error:
            raise UsageError(f"optimizer or schedule cannot be: {error}") from error
        if scheduler is None:
            return optimizer
        if hasattr(scheduler, "plan"):
            scheduler.plan(int(self.trainer.estimated_stepping_batches))
        interval = self.lr_interval or getattr(scheduler, "interval", "epoch")
        monitor = getattr(scheduler, "monitor", None) or self._metric_for(scheduler)
        config: Any = {"scheduler": scheduler, "interval": interval, "monitor": monitor}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _metric_for(self, scheduler: Any) -> str:
        """The metric that ReduceLROnPlateau watches: the task's own where the directions agree, else the loss."""
        return self.monitor if getattr(scheduler, "mode", None) != "min" or self.mode == "min" else "val/loss"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Lightning's hook: the loss of a batch."""
        outputs = self.outputs(batch)
        loss = self.loss(outputs, batch)
        # Logging each step would cost more than a small network's step: losses wait here until the interval is full.
        self._pending_losses.append(loss.detach())
        self._pending_weights.append(self.weight(batch))
        with torch.no_grad():
            self.update_metrics(self._metrics("train"), outputs, batch)
        if self._ends_interval(batch_idx):
            self.log("train/loss_step", self._count_losses(), on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Lightning's hook: loss and metrics of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Lightning's hook: loss and metrics of a test batch."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Record]:
        """Lightning's hook: the records of a batch."""
        return self.predict(batch)

    def on_train_epoch_end(self) -> None:
        """Lightning's hook."""
        self._count_losses()
        self._log_epoch("train")
        optimizers = self.trainer.optimizers
        self.log("lr", optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_end(self) -> None:
        """Lightning's hook."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Lightning's hook."""
        self._log_epoch("test")

    def on_validation_start(self) -> None:
        """Lightning's hook. Processes may have different numbers of batches: share buffers once, not in each one."""
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
            model.broadcast_buffers = False

    def on_validation_end(self) -> None:
        """Lightning's hook."""
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.broadcast_buffers = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: what prediction needs from the data travels along. NaN is never saved."""
        if self._pending_losses:
            self._count_losses()
        finite = torch.stack([parameter.isfinite().all() for parameter in self.parameters()])
        if self._in_any_process(~finite.all()):
            raise self._diverged(f"a weight became nan or inf by training step {self._batches_done}")
        section = checkpoint.setdefault(SECTION, {})
        section["version"] = __version__
        section["task"] = path_of(type(self))
        section["facts"] = None if self.facts is None else self.facts.to_primitives()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: facts first, then the network that they determine, then Lightning loads its weights."""
        self.adopt(checkpoint)
        self.configure_model()

    def adopt(self, checkpoint: dict[str, Any]) -> None:
        """Take the facts that a checkpoint holds. Raises CheckpointError when it was made by another task."""
        section = checkpoint.get(SECTION, {})
        made_by, mine = section.get("task"), path_of(type(self))
        if made_by != mine:
            raise CheckpointError(f"the checkpoint was made by {made_by or 'another program'}, not by {mine}.")
        batch_type: Any = self.batch_type()
        if self.facts is None and section.get("facts") is not None:
            self.facts = batch_type.facts_class().from_primitives(section["facts"])

    def _metrics(self, stage: Stage) -> MetricCollection:
        metrics = self.metrics[f"{stage}_metrics"]
        assert isinstance(metrics, MetricCollection)
        return metrics

    def _mean_loss(self, stage: Stage) -> MeanLoss:
        mean_loss = self.mean_losses[f"{stage}_loss"]
        assert isinstance(mean_loss, MeanLoss)
        return mean_loss

    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        outputs = self.outputs(batch)
        self._mean_loss(stage).update(self.loss(outputs, batch), self.weight(batch))
        self.update_metrics(self._metrics(stage), outputs, batch)

    def _count_losses(self) -> Tensor:
        """Move the waiting losses into the epoch's mean and return their own. Raises LeydenError for NaN or inf."""
        if not self._pending_losses:
            return torch.zeros((), device=self.device)
        losses = torch.stack(self._pending_losses).float()
        weights = torch.tensor(self._pending_weights, device=losses.device, dtype=torch.float32)
        self._pending_losses, self._pending_weights = [], []
        self._refuse_non_finite(losses)
        self._mean_loss("train").update(losses, weights)
        return (losses * weights).sum() / weights.sum()

    def _refuse_non_finite(self, losses: Tensor) -> None:
        finite = losses.isfinite()
        if not self._in_any_process(~finite.all()):
            return
        # the last waiting loss belongs to the batch that is being trained, or was trained last
        position = int(finite.logical_not().float().argmax())
        step = self._batches_done - len(losses) + position + 1
        raise self._diverged(f"the loss became {losses[position].item()} at training step {step}")

    @property
    def _batches_done(self) -> int:
        """How many batches were trained, the current one included."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def _ends_interval(self, batch_idx: int) -> bool:
        """Whether Lightning hands the metrics of this batch to the loggers, which it does by optimizer steps."""
        trainer: Any = self.trainer
        if not trainer.log_every_n_steps or (self.global_step + 1) % trainer.log_every_n_steps:
            return False
        return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or bool(trainer.is_last_batch)

    def _in_any_process(self, condition: Tensor) -> bool:
        """All processes must stop together."""
        if self.trainer.world_size > 1:
            condition = self.trainer.strategy.reduce(condition.float(), reduce_op="sum")
        return bool(condition)

    def _diverged(self, what: str) -> LeydenError:
        return LeydenError(
            f"{what} (epoch {self.current_epoch + 1}). Training was stopped; the checkpoints from before are kept. "
            "Try a smaller learning rate, gradient clipping (--trainer.gradient_clip_val 1), or look for bad values in "
            "the data."
        )

    def _log_epoch(self, stage: Stage) -> None:
        values = {"loss": self._mean_loss(stage).compute(), **self._metrics(stage).compute()}
        self.results = {name: value for name, value in values.items() if value.numel() != 1}
        self.log_dict({f"{stage}/{name}": value for name, value in values.items() if value.numel() == 1})
        self._mean_loss(stage).reset()
        self._metrics(stage).reset()

    def _keep_primitive_hyperparameters(self) -> None:
        """Checkpoints hold primitives only, and load the same way whether a command line or a script made the task."""
        values = {name: _to_primitive(value, name) for name, value in self.hparams.items()}
        values.setdefault("_class_path", path_of(type(self)))
        values.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self.hparams.clear()
        self.hparams.update(values)


def _made_class(factory: "functools.partial[Any]") -> Any:
    """The class that a partial makes; `load_from_checkpoint` parses, and the parser's partials name it last."""
    if factory.args and getattr(factory.func, "__module__", "").startswith("jsonargparse."):
        return factory.args[-1]
    return None if factory.args else factory.func


def _to_primitive(value: Any, name: str) -> Any:
    """A class, a functools.partial of one, or a function becomes the `class_path` form that configs use."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_to_primitive(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _to_primitive(item, name) for key, item in value.items()}
    if isinstance(value, type) and "<locals>" not in value.__qualname__:
        return {"class_path": path_of(value)}
    if isinstance(value, functools.partial) and isinstance(cls := _made_class(value), type):
        return {**_to_primitive(cls, name), "init_args": _to_primitive(value.keywords, name)}
    if inspect.isfunction(value) and value.__qualname__.isidentifier() and value.__name__ != "<lambda>":
        return f"{value.__module__}.{value.__qualname__}"
    raise UsageError(
        f"{name}={value!r} cannot be written into a checkpoint. Give a class, a functools.partial of a class with "
        "keyword arguments, or a function of a module."
    )
