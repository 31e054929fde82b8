"""What the engine does with a task: means, intervals, divergence, optimizers, and checkpoints of primitives."""

import csv
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from leyden.data import ShardedSampler
from leyden.errors import CheckpointError, LeydenError, UsageError
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden.schedules import CosineWithWarmup
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.networks.lenet import LeNet
from leyden_plugins.classification.task import ImageClassifier


class Log(Logger):
    """Keeps what is logged."""

    name = version = ""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.entries.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def values(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.entries if name in metrics]


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05)


def plain_training(toy: Any, epochs: int, batch_size: int) -> tuple[nn.Linear, list[list[tuple[float, int]]]]:
    """The same training as a loop without any engine: the network, and (loss, items) of every batch by epoch."""
    points = toy.points(18)
    inputs, targets = points.inputs[5:], points.targets[5:]
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    optimizer = sgd(net.parameters())
    losses = []
    for epoch in range(epochs):
        sampler = ShardedSampler(len(inputs), 0, 1, True, seed=0)
        sampler.set_epoch(epoch)
        order = list(sampler)
        losses.append([])
        for chosen in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
            optimizer.zero_grad()
            loss = ((net(inputs[chosen]).squeeze(1) - targets[chosen]) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses[-1].append((loss.item(), len(chosen)))
    return net, losses


def mean(losses: list[tuple[float, int]]) -> float:
    return sum(loss * items for loss, items in losses) / sum(items for _, items in losses)


def trained(toy: Any, task: Any = None, epochs: int = 2, **trainer: Any) -> tuple[Any, Log]:
    """13 training points in batches of 4, 4, 4 and 1."""
    log = Log()
    torch.manual_seed(0)
    task = toy.Task(optimizer=sgd) if task is None else task
    data = toy.Data(toy.points(18), batch_size=4)
    toy.trainer(max_epochs=epochs, logger=log, **trainer).fit(task, data)
    return task, log


# ---- means


def test_training_is_what_a_plain_loop_does(toy: Any) -> None:
    task, log = trained(toy, epochs=3)
    net, losses = plain_training(toy, 3, 4)
    assert torch.allclose(task.network.weight, net.weight, atol=1e-6)
    assert log.values("train/loss") == pytest.approx([mean(epoch) for epoch in losses], rel=1e-5)
    assert log.values("train/mse") == pytest.approx([mean(epoch) for epoch in losses], rel=1e-5)
    assert log.values("lr") == pytest.approx([0.05] * 3)


def test_validation_loss_counts_every_item_the_same(toy: Any) -> None:
    """5 items in batches of 4 and 1: the mean of the two batches' means would be another number."""
    task, log = trained(toy)
    points = toy.points(18)
    with torch.no_grad():
        errors = (task.network(points.inputs[:5]).squeeze(1) - points.targets[:5]) ** 2
    assert log.values("val/loss")[-1] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert log.values("val/loss")[-1] != pytest.approx((errors[:4].mean() + errors[4]).item() / 2, rel=1e-2)


def test_a_family_may_weigh_batches_otherwise(toy: Any) -> None:
    class Weighing(toy.Task):  # type: ignore[misc, name-defined]
        def weight(self, batch: Any) -> int:
            return 1

    torch.manual_seed(0)
    _, log = trained(toy, Weighing(optimizer=sgd))
    _, losses = plain_training(toy, 2, 4)
    assert log.values("train/loss") == pytest.approx([sum(x for x, _ in epoch) / 4 for epoch in losses], rel=1e-5)


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_loss_of_each_interval_is_logged_throughout_training(toy: Any, interval: int, accumulated: int) -> None:
    """Intervals are counted in optimizer steps, on through the epochs; what an epoch leaves over is in its mean."""
    _, log = trained(toy, epochs=6, log_every_n_steps=interval, accumulate_grad_batches=accumulated)
    steps_in_epoch = 4 // accumulated
    ends = [step for step in range(1, 6 * steps_in_epoch + 1) if step % interval == 0]
    found = {step: metrics["train/loss_step"] for step, metrics in log.entries if "train/loss_step" in metrics}
    assert [step + 1 for step in found] == ends
    if accumulated > 1:
        return
    _, epochs = plain_training(toy, 6, 4)
    losses = [loss for epoch in epochs for loss in epoch]
    for end in ends:
        start = max(end - interval, (end - 1) // 4 * 4)
        assert found[end - 1] == pytest.approx(mean(losses[start:end]), rel=1e-5)
    assert log.values("train/loss") == pytest.approx([mean(epoch) for epoch in epochs], rel=1e-5)


def test_intervals_can_be_switched_off(toy: Any) -> None:
    _, log = trained(toy, log_every_n_steps=0)
    assert log.values("train/loss_step") == []
    assert len(log.values("train/loss")) == 2


# ---- divergence


class Poisoned:
    """Points of which one training item is bad from some epoch on."""

    def __init__(self, toy: Any, value: float, step: int, epoch: int = 0) -> None:
        self.loss_value, self.step = value, step + 4 * epoch

        outer = self

        class Diverging(toy.Task):  # type: ignore[misc, name-defined]
            batches = 0

            def loss(self, outputs: Any, batch: Any) -> Any:
                value = super().loss(outputs, batch)
                if not self.training:
                    return value
                self.batches += 1
                return value * outer.loss_value if self.batches == outer.step else value

        self.task = Diverging(optimizer=sgd)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("interval", [1, 2, 3, 50])
def test_a_loss_that_is_no_number_names_its_step(toy: Any, value: float, step: int, interval: int) -> None:
    for epoch in (0, 1):
        poisoned = Poisoned(toy, value, step, epoch)
        with pytest.raises(LeydenError) as caught:
            trained(toy, poisoned.task, log_every_n_steps=interval)
        assert str(caught.value).startswith(
            f"the loss became {value} at training step {step + 4 * epoch} (epoch {epoch + 1})."
        )
        assert caught.value.exit_status == 1


def test_no_checkpoint_holds_what_came_after(toy: Any, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    poisoned = Poisoned(toy, float("nan"), step=2, epoch=1)
    with pytest.raises(LeydenError, match="training step 6"):
        trained(toy, poisoned.task, callbacks=[keeper])
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4


DIVERGING = """
import torch
from leyden_plugins.classification.task import ImageClassifier


class NanLoss(ImageClassifier):
    def loss(self, outputs, batch):
        loss = super().loss(outputs, batch)
        return loss * float("nan") if self.training and self.global_step == 7 else loss


class NanWeight(ImageClassifier):
    '''The gradient of the last batch of the second epoch explodes: every loss of that epoch was a number.'''

    def on_after_backward(self):
        if self.global_step == 9:
            next(self.parameters()).grad.fill_(float("inf"))
"""


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("NanLoss", "error: the loss became nan at training step 8 (epoch 2). "),
        ("NanWeight", "error: a weight became nan or inf by training step 10 (epoch 2). "),
    ],
)
def test_a_run_that_diverges_ends_with_an_error_and_keeps_its_last_good_checkpoint(
    task: str, message: str, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("diverging.py").write_text(DIVERGING)
    words = ["--model", f"diverging.{task}", "--model.net", "LeNet", *fit_options[4:], "--trainer.max_epochs=3"]

    assert main(["fit", *words]) == 1

    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert "Traceback" not in shown
    for name in ("best", "last"):
        checkpoint = read_checkpoint(Path("runs/lenet/1/checkpoints", f"{name}.ckpt"))
        assert checkpoint["global_step"] == 5
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert message.strip().removeprefix("error: ") in Path("runs/lenet/1/log.txt").read_text()


# ---- optimizer and schedule


@pytest.fixture
def classifier() -> Any:
    """A task with its network, outside any trainer."""

    def make(**kwargs: Any) -> ImageClassifier:
        task = ImageClassifier(**{"net": LeNet, **kwargs})
        task.facts = FashionMNIST().describe()
        task.configure_model()
        return task

    return make


def test_the_optimizer_gets_what_is_trained(classifier: Any) -> None:
    task = classifier(optimizer=sgd)
    task.network.features.requires_grad_(False)
    optimizer = task.configure_optimizers()
    given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert [id(parameter) for parameter in given] == [id(p) for p in task.network.classifier.parameters()]


@pytest.mark.parametrize(
    ("schedule", "chosen", "interval"),
    [
        (functools.partial(StepLR, step_size=1), None, "epoch"),
        (functools.partial(StepLR, step_size=1), "step", "step"),
        (functools.partial(CosineWithWarmup, total_steps=9), None, "step"),
        (functools.partial(CosineWithWarmup, total_steps=9), "epoch", "epoch"),
    ],
)
def test_a_schedule_advances_as_it_says_unless_the_user_does(
    toy: Any, schedule: Any, chosen: Any, interval: str
) -> None:
    task, _ = trained(toy, toy.Task(optimizer=sgd, lr_scheduler=schedule, lr_interval=chosen), epochs=2)
    advanced = {"epoch": 2, "step": 8}[interval]
    reference = schedule(sgd([nn.Parameter(torch.zeros(1))]))
    for _ in range(advanced):
        reference.optimizer.step()
        reference.step()
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(reference.get_last_lr()[0])


@pytest.mark.parametrize(("mode", "monitor"), [("min", "val/loss"), ("max", "val/accuracy")])
def test_plateaus_are_looked_for_in_a_metric_of_the_same_direction(classifier: Any, mode: str, monitor: str) -> None:
    """Torch's default mode is min; watching accuracy with it would lower the rate whenever training goes well."""
    schedule = functools.partial(ReduceLROnPlateau, mode=mode)
    config = classifier(optimizer=sgd, lr_scheduler=schedule).configure_optimizers()
    assert config["lr_scheduler"]["monitor"] == monitor


def test_no_metric_is_watched_in_the_wrong_direction(toy: Any) -> None:
    schedule = functools.partial(ReduceLROnPlateau, mode="max")
    with pytest.raises(UsageError, match="ReduceLROnPlateau with mode max has nothing to watch: val/loss falls"):
        trained(toy, toy.Task(optimizer=sgd, lr_scheduler=schedule))


def test_a_schedule_that_cannot_go_on_says_so(toy: Any) -> None:
    schedule = functools.partial(OneCycleLR, max_lr=0.1, total_steps=5)
    momentum = functools.partial(SGD, lr=0.1, momentum=0.9)
    with pytest.raises(UsageError, match="OneCycleLR cannot go on: Tried to step 6 times"):
        trained(toy, toy.Task(optimizer=momentum, lr_scheduler=schedule))


def stepped_without_gradient(task: Any) -> dict[str, nn.Parameter]:
    """The network's parameters, all 2, after an optimizer step in which only the weight decay does something."""
    parameters = dict(task.network.named_parameters())
    for parameter in parameters.values():
        torch.nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.zeros_like(parameter)
    task.configure_optimizers().step()
    return parameters


@pytest.mark.parametrize("chosen", ["all", "weights"])
def test_weight_decay_is_for_all_or_for_weights_only(classifier: Any, chosen: Any) -> None:
    net = functools.partial(LeNet, batch_norm=True)
    decaying = functools.partial(SGD, lr=0.5, weight_decay=0.5)
    parameters = stepped_without_gradient(classifier(optimizer=decaying, weight_decay_on=chosen, net=net))
    assert {parameter.ndim for parameter in parameters.values()} == {1, 2, 4}
    for parameter in parameters.values():
        decayed = chosen == "all" or parameter.ndim > 1
        assert torch.equal(parameter, torch.full_like(parameter, 1.5 if decayed else 2.0))


def test_groups_hold_what_is_trained_once(classifier: Any) -> None:
    task = classifier(optimizer=functools.partial(torch.optim.AdamW, weight_decay=0.1), weight_decay_on="weights")
    task.network.features.requires_grad_(False)
    weights, others = task.configure_optimizers().param_groups
    assert (weights["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    given = {id(parameter) for group in (weights, others) for parameter in group["params"]}
    assert given == {id(parameter) for parameter in task.network.classifier.parameters()}
    assert len(weights["params"]) + len(others["params"]) == len(given)


@pytest.mark.parametrize("name", ["LBFGS", "Rprop"])
def test_an_optimizer_without_weight_decay_has_none_on_weights_only(
    name: str, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *fit_options, "--model.optimizer", name, "--model.weight_decay_on=weights"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: weight_decay_on is weights, but {name} has no weight decay. Leave it out, or ")


def test_weight_decay_on_weights_is_logged_and_resumed_as_any_training(fit_options: list[str]) -> None:
    words = ["--model.optimizer=AdamW", "--model.optimizer.weight_decay=0.3", "--model.weight_decay_on=weights"]
    words += ["--model.lr_scheduler=ExponentialLR", "--model.lr_scheduler.gamma=0.5", "--model.optimizer.lr=0.01"]
    for more in (["--trainer.max_epochs=2", "--experiment=straight"], [], ["--trainer.max_epochs=2", "--resume=auto"]):
        assert main(["fit", *fit_options, *words, *more]) == 0
    paths = [Path("runs", name, "1/checkpoints/last.ckpt") for name in ("straight", "lenet")]
    straight, resumed = (read_checkpoint(path)["state_dict"] for path in paths)
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    with Path("runs/lenet/1/metrics.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx([0.005, 0.0025])


def test_options_that_the_optimizer_refuses(classifier: Any) -> None:
    with pytest.raises(UsageError, match=r"Invalid learning rate: -1"):
        classifier(optimizer=functools.partial(SGD, lr=-1)).configure_optimizers()


# ---- the network


def test_there_is_no_network_before_the_data_is_known(toy: Any) -> None:
    with pytest.raises(LeydenError, match="Regression has no network yet"):
        _ = toy.Task().network


def test_a_network_that_cannot_be_built_is_the_users_choice(toy: Any) -> None:
    def refusing(features: int) -> nn.Module:
        raise ValueError(f"{features} features are too many")

    task = toy.Task()
    task.network_factory = refusing
    with pytest.raises(UsageError, match="Regression cannot build its network: 3 features are too many"):
        trained(toy, task)


def test_compiling_leaves_the_names_of_the_weights_and_the_numbers_alone(toy: Any) -> None:
    plain, log = trained(toy, epochs=1)
    torch.manual_seed(0)
    compiled, compiled_log = trained(toy, toy.Task(optimizer=sgd, compile="aot_eager"), epochs=1)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert torch.allclose(compiled.network.weight, plain.network.weight)
    assert compiled_log.values("val/loss") == pytest.approx(log.values("val/loss"))


def test_channels_last(classifier: Any) -> None:
    for chosen in (False, True):
        weight = classifier(channels_last=chosen).network.features[3].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is chosen


def test_batch_types_are_declared_by_the_base(toy: Any) -> None:
    assert toy.Task.batch_type() is toy.Points
    assert toy.Data.batch_type() is toy.Points
    assert type("Derived", (toy.Task,), {}).batch_type() is toy.Points


# ---- hyperparameters and checkpoints


def primitives_only(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and primitives_only(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(primitives_only, value))
    return value is None or type(value) in (bool, int, float, str)


LENET = {"class_path": "leyden_plugins.classification.networks.lenet.LeNet"}


class Local(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, sizes: tuple[int, ...] = (), inner: Any = None) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28 * in_channels, num_classes))

    def forward(self, images: Any) -> Any:
        return self.layer(images)


def make_local(in_channels: int, num_classes: int) -> nn.Module:
    return Local(in_channels, num_classes)


@pytest.mark.parametrize(
    ("net", "stored"),
    [
        (LeNet, LENET),
        (
            functools.partial(LeNet, activation="relu", batch_norm=True),
            {**LENET, "init_args": {"activation": "relu", "batch_norm": True}},
        ),
        (
            functools.partial(Local, sizes=(1, 2), inner=functools.partial(LeNet, pooling="max")),
            {
                "class_path": f"{__name__}.Local",
                "init_args": {"sizes": [1, 2], "inner": {**LENET, "init_args": {"pooling": "max"}}},
            },
        ),
        (make_local, f"{__name__}.make_local"),
    ],
)
def test_tasks_built_in_python_keep_primitives(net: Any, stored: Any) -> None:
    task = ImageClassifier(net=net, label_smoothing=0.1, optimizer=sgd)
    assert task.hparams["net"] == stored
    assert task.hparams["label_smoothing"] == 0.1
    assert task.hparams["optimizer"] == f"{__name__}.sgd"
    assert task.hparams["lr_scheduler"] is None
    assert primitives_only(dict(task.hparams))


@pytest.mark.parametrize(
    "net",
    [
        lambda channels, classes: LeNet(channels, classes),
        functools.partial(make_local),
        functools.partial(LeNet, 1),
        functools.partial(LeNet, activation=object()),
        type("Inner", (Local,), {"__qualname__": "somewhere.<locals>.Inner"}),
        LeNet(1, 10),
    ],
    ids=["lambda", "partial of a function", "positional", "object", "local class", "instance"],
)
def test_what_no_checkpoint_can_name_is_refused(net: Any) -> None:
    with pytest.raises(UsageError, match=r"(?s)^net=.* cannot be written into a checkpoint\. Give a class, "):
        ImageClassifier(net=net)


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(3))


def python_built(fashion_mnist: dict[str, Any], folder: Path, net: Any) -> tuple[ImageClassifier, Path]:
    from lightning.pytorch import Trainer

    task = ImageClassifier(net=net, optimizer=functools.partial(SGD, lr=0.1))
    keeper = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[keeper],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, FashionMNIST(**fashion_mnist))
    return task, folder / "last.ckpt"


@pytest.mark.parametrize("net", [LeNet, functools.partial(LeNet, activation="relu"), make_local])
def test_a_task_built_in_python_comes_back_from_its_checkpoint(
    fashion_mnist: dict[str, Any], tmp_path: Path, net: Any
) -> None:
    task, path = python_built(fashion_mnist, tmp_path, net)

    again = ImageClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)

    assert type(again.network) is type(task.network)
    assert again.facts == task.facts
    assert torch.equal(again.eval()(images()), task.eval()(images()))


def test_a_task_of_the_command_line_comes_back_from_its_checkpoint(trained_run: Path) -> None:
    path = trained_run / "checkpoints" / "best.ckpt"
    again = ImageClassifier.load_from_checkpoint(path, weights_only=True).eval()
    weights = torch.load(path, weights_only=True)["state_dict"]

    net = LeNet(1, 10, activation="relu", batch_norm=True).eval()
    net.load_state_dict(
        {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    )

    assert torch.equal(again(images()), net(images()))
    assert again.facts.class_names[9] == "Ankle boot"
    assert isinstance(again.optimizer_factory([nn.Parameter(torch.zeros(1))]), torch.optim.Adam)


def test_the_command_line_tests_a_checkpoint_of_python(
    fashion_mnist: dict[str, Any], data_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = python_built(fashion_mnist, tmp_path / "mine", LeNet)
    assert main(["test", str(path)]) == 1
    assert "holds no config: it was not written by `fit`. Name --model and --data as well." in capsys.readouterr().err

    assert main(["test", str(path), "--model", "ImageClassifier", "--model.net", "LeNet", *data_options]) == 0
    assert "test/accuracy" in capsys.readouterr().out


def test_every_checkpoint_holds_tensors_and_primitives_only(fit_options: list[str]) -> None:
    words = [
        "--model.net.batch_norm=true",
        "--model.lr_scheduler=CosineWithWarmup",
        "--model.lr_scheduler.warmup_steps=2",
        "--trainer.callbacks=EMA",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/loss",
        "--trainer.callbacks+=LearningRateMonitor",
    ]
    assert main(["fit", *fit_options, *words]) == 0
    for name in ("best", "last"):
        checkpoint = torch.load(Path(f"runs/lenet/1/checkpoints/{name}.ckpt"), weights_only=True)
        assert primitives_only(checkpoint["hyper_parameters"])
        assert primitives_only(checkpoint["leyden"] | {"facts": None})
        assert checkpoint["ema"]["raw"]
        assert checkpoint["lr_schedulers"]


def test_a_checkpoint_of_another_task_is_refused(toy: Any, classifier: Any) -> None:
    with pytest.raises(CheckpointError, match=r"made by leyden_plugins\..*\.ImageClassifier, not by .*\.Regression\."):
        toy.Task().adopt({"leyden": {"task": "leyden_plugins.classification.task.ImageClassifier", "facts": None}})
    with pytest.raises(CheckpointError, match=r"made by another program, not by"):
        classifier().adopt({"state_dict": {}})


def test_data_unlike_the_checkpoints_is_refused_and_data_of_its_kind_taken(toy: Any) -> None:
    task, _ = trained(toy, epochs=1)
    with pytest.raises(UsageError, match=r"not what the checkpoint was trained on:\nfeatures: 3 -> 4"):
        toy.trainer().validate(task, toy.Data(toy.points(9, features=4)), verbose=False)
    toy.trainer().validate(task, toy.Data(toy.points(9)), verbose=False)


def test_loss_and_metrics_of_a_test(toy: Any) -> None:
    task, _ = trained(toy)
    points = toy.points(18)
    [found] = toy.trainer().test(task, toy.Data(points, batch_size=7), verbose=False)
    with torch.no_grad():
        expected = F.mse_loss(task.network(points.inputs).squeeze(1), points.targets).item()
    assert found == {"test/loss": pytest.approx(expected, rel=1e-5), "test/mse": pytest.approx(expected, rel=1e-5)}
