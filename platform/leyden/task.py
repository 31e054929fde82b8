"""Task: the base of every task family. A family says what its loss, metrics, predictions and pictures are."""

import functools
import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from torchmetrics import MetricCollection

from leyden import __version__, initialisation, sharding
from leyden.batches import Facts, declared_batch
from leyden.errors import CheckpointError, LeydenError, UsageError
from leyden.initialisation import Initialisation
from leyden.metrics import MeanLoss
from leyden.plugins import path_of
from leyden.rules import unusable, without_facts, wrong_loss

Batch = TypeVar("Batch")
Stage = Literal["train", "val", "test"]
Record = dict[str, Any]
LARGEST_WAITING = 2**16  # numbers that wait to be counted into the training metrics
STEPWISE = (CyclicLR, OneCycleLR)  # torch means these to advance with every batch
SECTION = "leyden"  # where a checkpoint holds what is ours


class Task(LightningModule, Generic[Batch]):
    """Base of the task families: `class ImageClassifier(Task[LabelledImages])`.

    A family implements `build_network`, `build_metrics`, `outputs`, `loss`, `measure`, `predict`, and where
    there is something to see `draw` and `draw_results`; it names the metric that picks the best checkpoint. Everything
    else is done here: steps, logging, optimizer, schedule, compilation, checkpoints.

    Args:
        optimizer: any of torch.optim, by name; without it Adam with torch's defaults.
        lr_scheduler: any of torch.optim.lr_scheduler or leyden.schedules, by name.
        lr_interval: the schedule advances each `epoch` or each `step`; without it as the schedule says, else by epoch.
        weight_decay_on: the optimizer's weight_decay is for `all` parameters, or for `weights` only: not for those of
            fewer than two dimensions, which are biases and norms.
        init: how weights begin (leyden.initialisation); without it as the network sets them.
        init_value: the standard deviation of init `normal` (default 0.01), or the value of `constant` (default 1).
        compile: compile the network with torch.compile; a string names the backend.
        channels_last: keep the network's weights in the memory format that convolutions are often fastest in; without
            effect where they are divided among processes.
    """

    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    trainer_defaults: ClassVar[dict[str, Any]] = {}  # options of the trainer that this family wants otherwise
    sample_sheet: ClassVar[tuple[int, int]] = (4, 6)  # rows and columns of the samples that are drawn after each epoch

    def __init__(
        self,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] | None = None,
        weight_decay_on: Literal["all", "weights"] = "all",
        init: Initialisation | None = None,
        init_value: float | None = None,
        compile: bool | str = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self._keep_primitive_hyperparameters()
        # as a default of the signature the parser would carry Adam's rate, eps and decay over to any other optimizer
        self.optimizer_factory: OptimizerCallable = optimizer or torch.optim.Adam
        self.lr_scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval
        self.weight_decay_on = weight_decay_on
        self.fill_weights = initialisation.filler(init, init_value)
        self.compile_backend = "inductor" if compile is True else compile
        self.channels_last = channels_last
        self.net: nn.Module | None = None
        self.facts: Facts | None = None
        self.results: dict[str, Tensor] = {}
        self._pending_losses: list[Tensor] = []
        self._pending_weights: list[int] = []
        self._pending_measured: list[tuple[Any, ...]] = []

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
        """The mean loss of a batch, a scalar: the mean over what `weight` counts."""

    @abstractmethod
    def measure(self, outputs: Any, batch: Batch) -> tuple[Any, ...]:
        """What the metrics are updated with: predictions and targets, items first, small enough to wait for others."""

    @abstractmethod
    def predict(self, batch: Batch) -> list[Record]:
        """One dict of primitives for each item of a batch; with key `truth` where the batch knows it.

        A dict may also hold tensors on the CPU, for `draw` and `draw_files`: predictions.jsonl leaves them out.
        """

    def update_metrics(self, metrics: MetricCollection, *measured: Any) -> None:
        """Update the metrics of a stage with what was measured, of one batch or of several behind each other."""
        metrics.update(*measured)

    def draw(self, picture: Image.Image, record: Record) -> Image.Image | None:
        """A picture that shows one prediction; None where the family has nothing to draw."""
        return None

    def draw_files(self, picture: Image.Image, record: Record) -> dict[str, Image.Image]:
        """Further pictures of one prediction: `mask` is kept as 00000_name_mask.png, which the record then names."""
        return {}

    def draw_alone(self, record: Record) -> dict[str, Figure]:
        """Figures of a prediction on what is no picture: `attention` is kept as 00000_attention.png, which it names."""
        return {}

    def write_predictions(self, records: Sequence[Record], folder: Path) -> None:
        """Further files of `predict` beside predictions.jsonl; each record also has its `index` and `input`."""
        return

    def draw_results(self, results: dict[str, Tensor]) -> dict[str, Figure]:
        """Figures of those metrics that are no single number (a confusion matrix), by file name without suffix."""
        return {}

    def write_results(self, folder: Path, finished: bool) -> None:
        """Further files of a run, or of an evaluation: after each validation, and once more when training has ended.

        The run's samples are in its folder already. `finished` says that no more validation follows.
        """
        return

    def weight(self, batch: Batch) -> int:
        """How many things the loss of a batch is the mean of: its items, unless a family counts tokens or the like.

        By it a batch counts in the epoch's mean, and in a step the batch of each process.
        """
        return len(batch[0])  # type: ignore[index]

    # ---- what the engine does with it

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning names the running hook in an attribute, thirty times a step; nn.Module is slow to take it."""
        if (value is None or type(value) is str) and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
                data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
                self.facts = getattr(data, "facts", None)
                if self.facts is None and self.trainer.state.fn is TrainerFn.FITTING:
                    raise without_facts(self.batch_type(), data).error(type(self))
        if self.net is not None or self.facts is None:
            return
        try:
            self.net = self.build_network()
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise UsageError(f"{type(self).__name__} cannot build its network: {error}") from error
        initialisation.initialise(self.net, self.fill_weights)
        stages: tuple[Stage, ...] = ("train", "val", "test")
        # a ModuleDict has attributes named train and eval: its keys must not be
        self.metrics = nn.ModuleDict({f"{stage}_metrics": self.build_metrics(stage) for stage in stages})
        self.mean_losses = nn.ModuleDict({f"{stage}_loss": MeanLoss() for stage in stages})
        if self.channels_last and self.device_mesh is None:  # torch divides contiguous weights only
            self.net.to(memory_format=torch.channels_last)
        if self.compile_backend:
            try:
                self.net.compile(backend=self.compile_backend)
            except RuntimeError as error:
                raise UsageError(f"compile={self.compile_backend!r} cannot be: {error}") from error
        if self.device_mesh is not None:
            sharding.shard(self.net, self.device_mesh)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Lightning's hook: optimizer and schedule."""
        try:
            optimizer = self._make_optimizer()
            scheduler = self.lr_scheduler_factory(optimizer) if self.lr_scheduler_factory else None
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"optimizer or schedule cannot be: {error}") from error
        if scheduler is None:
            return optimizer
        own_interval = getattr(scheduler, "interval", "step" if isinstance(scheduler, STEPWISE) else "epoch")
        interval = self.lr_interval or own_interval
        config: Any = {"scheduler": scheduler, "interval": interval, "monitor": self._metric_for(scheduler)}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_train_start(self) -> None:
        """Lightning's hook: a schedule that asks for it is told how long training is.

        Not earlier: to find out before the checkpoint is restored makes Lightning forget where in an epoch it was.
        """
        for config in self.trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "plan"):
                try:
                    config.scheduler.plan(self._training_length(config.interval))
                except ValueError as error:
                    raise UsageError(f"the schedule cannot be: {error}") from error

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's hook: a schedule may find out only now that it cannot go on with its options."""
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ValueError, ArithmeticError) as error:
            raise UsageError(f"{type(scheduler).__name__} cannot go on: {error}") from error

    def _make_optimizer(self) -> Optimizer:
        """One group of parameters, or those with weight decay and those without."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.weight_decay_on == "all":
            return self.optimizer_factory(trained)
        weights = [parameter for parameter in trained if parameter.ndim >= 2]
        others = [parameter for parameter in trained if parameter.ndim < 2]
        optimizer = self.optimizer_factory(weights)
        if "weight_decay" not in optimizer.defaults:
            raise UsageError(
                f"weight_decay_on is weights, but {type(optimizer).__name__} has no weight decay. Leave it out, or "
                "choose another optimizer."
            )
        return self.optimizer_factory([{"params": weights}, {"params": others, "weight_decay": 0.0}])

    def _training_length(self, interval: str) -> int | None:
        """How many optimizer steps or epochs the trainer will do; None where it knows no end."""
        trainer: Any = self.trainer
        length = float(trainer.estimated_stepping_batches)
        if interval == "epoch":
            length /= max(1, -(-trainer.num_training_batches // trainer.accumulate_grad_batches))
        return math.ceil(length) if 0 <= length < math.inf else None

    def _metric_for(self, scheduler: Any) -> str:
        """The metric that ReduceLROnPlateau watches: the task's own where the directions agree, else the loss."""
        if getattr(scheduler, "monitor", None):
            return str(scheduler.monitor)
        mode = getattr(scheduler, "mode", None)
        if mode == "max" and self.mode == "min":
            raise UsageError(f"{type(scheduler).__name__} with mode max has nothing to watch: {self.monitor} falls.")
        return "val/loss" if mode == "min" and self.mode == "max" else self.monitor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Lightning's hook: the loss of a batch; with several processes, what makes their mean that of all batches."""
        outputs, loss = self._outputs_and_loss(batch)
        if batch_idx == 0 and (breach := wrong_loss(loss)):
            raise breach.error(type(self))
        # Logging each step would cost more than a small network's step: all waits here until the interval is full.
        self._pending_losses.append(loss.detach())
        counts = self.trainer.world_size == 1 or not getattr(self.trainer.train_dataloader, "repeats", False)
        weight = self.weight(batch) if counts else 0
        self._pending_weights.append(weight)
        if counts:
            with torch.no_grad():
                self._measure_later(self.measure(outputs, batch))
        if self._ends_interval(batch_idx):
            self.log("train/loss_step", self._count_losses(), on_step=True, on_epoch=False)
        return loss if self.trainer.world_size == 1 else loss * self._share(weight)

    def _share(self, weight: int) -> Tensor:
        """What this process's loss is multiplied by: gradients are averaged as if all batches were equally large.

        The sum over the processes of weight x loss, divided by the weight of all, is the loss of one process that has
        the whole batch.
        """
        own = torch.tensor(float(weight), device=self.device)
        return own / self._sum_of_all(own).clamp(min=1) * self.trainer.world_size

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
        self._count_measured()
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
        sharding.gather(self.network)
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.broadcast_buffers = False

    def on_validation_end(self) -> None:
        """Lightning's hook."""
        sharding.divide(self.network)
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.broadcast_buffers = True

    def on_test_start(self) -> None:
        """Lightning's hook."""
        sharding.gather(self.network)

    def on_predict_start(self) -> None:
        """Lightning's hook."""
        sharding.gather(self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: what prediction needs from the data travels along. NaN is never saved."""
        if self._pending_losses:
            self._count_losses()
        self._count_measured()
        finite = torch.stack([sharding.own_part(parameter).isfinite().all() for parameter in self.parameters()])
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
        outputs, loss = self._outputs_and_loss(batch)
        self._mean_loss(stage).update(loss, self.weight(batch))
        self.update_metrics(self._metrics(stage), *self.measure(outputs, batch))

    def _outputs_and_loss(self, batch: Batch) -> tuple[Any, Tensor]:
        try:
            outputs = self.outputs(batch)
            return outputs, self.loss(outputs, batch)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._unusable(batch, error) from error

    def _unusable(self, batch: Any, error: Exception) -> Exception:
        """What ends training where a batch cannot be used: most often the network is not as its numbers say."""
        if isinstance(error, torch.OutOfMemoryError):
            return error
        if "Expected more than 1 value per channel" in str(error):  # torch's batch norm
            return UsageError(
                f"a training batch was too small for batch normalization, which needs several values of each channel "
                f"({error}). Choose a --data.batch_size that leaves no single item over, or larger images."
            )
        return unusable(type(self), type(self.network), batch, self.facts, error).error(type(self))

    def _measure_later(self, measured: tuple[Any, ...]) -> None:
        """Training metrics are updated with several small batches at once, which takes no longer than with one."""
        tensors = all(isinstance(part, Tensor) for part in measured)
        self._pending_measured.append(tuple(part.detach() for part in measured) if tensors else measured)
        if not tensors or sum(part.numel() for part in measured) * len(self._pending_measured) > LARGEST_WAITING:
            self._count_measured()

    def _count_measured(self) -> None:
        pending, self._pending_measured = self._pending_measured, []
        if len(pending) > 1:
            pending = [tuple(torch.cat(parts) for parts in zip(*pending, strict=True))]
        for measured in pending:
            self.update_metrics(self._metrics("train"), *measured)

    def _count_losses(self) -> Tensor:
        """Move the waiting losses into the epoch's mean and return their own mean, over all processes.

        Raises LeydenError for NaN or inf.
        """
        if not self._pending_losses:
            return torch.zeros((), device=self.device)
        losses = torch.stack(self._pending_losses).float()
        weights = torch.tensor(self._pending_weights, device=losses.device, dtype=torch.float32)
        self._pending_losses, self._pending_weights = [], []
        finite = losses.isfinite()
        sums = self._sum_of_all(torch.stack(((losses * weights).sum(), weights.sum(), (~finite).sum())))
        if sums[2]:
            if finite.all():
                raise self._diverged(f"the loss became nan or inf in another process by step {self._batches_done}")
            # the last waiting loss belongs to the batch that is being trained, or was trained last
            position = int(finite.logical_not().float().argmax())
            step = self._batches_done - len(losses) + position + 1
            raise self._diverged(f"the loss became {losses[position].item()} at training step {step}")
        self._mean_loss("train").update(losses, weights)
        return sums[0] / sums[1]

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
        return bool(self._sum_of_all(condition.float()))

    def _sum_of_all(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.trainer.world_size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)  # Lightning's reduce would wait at a barrier, too
        return total

    def _diverged(self, what: str) -> LeydenError:
        return LeydenError(
            f"{what} (epoch {self.current_epoch + 1}). Training was stopped; the checkpoints from before are kept. "
            "Try a smaller learning rate, gradient clipping (--trainer.gradient_clip_val 1), or look for bad values in "
            "the data."
        )

    def _log_epoch(self, stage: Stage) -> None:
        values = {"loss": self._mean_loss(stage).compute(), **self._metrics(stage).compute()}
        if stage != "train":
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


# Lightning asks for it in each step, and to work it out anew takes as long as a tiny network's forward pass.
Task.training_step.__signature__ = inspect.signature(Task.training_step)  # type: ignore[attr-defined]


def without_tensors(record: Record) -> Record:
    """What of a record can be written as text."""
    return {key: value for key, value in record.items() if not isinstance(value, Tensor)}


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
