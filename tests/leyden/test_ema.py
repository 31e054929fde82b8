"""EMA against averages worked out from snapshots of the weights, in float64, by the formula in its docstring."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from leyden.callbacks import EMA, Pictures
from leyden.main import main

State = dict[str, Tensor]


def normalised(features: int) -> nn.Module:
    """A network with buffers."""
    return nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def linear(features: int) -> nn.Module:
    return nn.Linear(features, 1)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.5)


class Snapshots(Callback):
    """The network's state before training, and after every batch that ended in an optimizer step."""

    def __init__(self) -> None:
        self.initial: State = {}
        self.steps: list[State] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.initial = self._state(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(self._state(pl_module))

    def _state(self, pl_module: Any) -> State:
        return {name: value.clone() for name, value in pl_module.network.state_dict().items()}


def averaged(states: Sequence[State], decay: float) -> State:
    """average_1 = weights_1; average_n+1 = d average_n + (1 - d) weights_n+1, d = min(decay, (1 + n) / (10 + n))."""
    average = {name: value.double() for name, value in states[0].items()}
    for n, state in enumerate(states[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = {name: d * average[name] + (1 - d) * state[name].double() for name in average}
    return average


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-5, atol=1e-6, msg=name)


def assert_identical(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Training:
    """A training of 12 points in batches of 3 with EMA; validation after each epoch on 5 more."""

    def __init__(self, toy: Any, net: Any = normalised, decay: float = 0.999, seed: int = 0, **trainer: Any) -> None:
        torch.manual_seed(seed)
        self.snapshots = Snapshots()
        self.ema = EMA(decay)
        self.task = toy.Task(net=net, optimizer=sgd)
        self.data = toy.Data(toy.points(17), batch_size=3)
        more = trainer.pop("callbacks", [])
        self.trainer = toy.trainer(callbacks=[self.snapshots, self.ema, *more], **trainer)

    def fit(self, **kwargs: Any) -> "Training":
        self.trainer.fit(self.task, self.data, **kwargs)
        return self

    @property
    def state(self) -> State:
        return dict(self.task.network.state_dict())

    def validation_loss(self, state: State) -> float:
        self.task.network.load_state_dict(state)
        points = self.data.splits["val"].batch
        with torch.no_grad():
            outputs = self.task.network.eval()(points.inputs).squeeze(1)
        return float(F.mse_loss(outputs, points.targets))


@pytest.mark.parametrize("net", [linear, normalised])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_after_training_the_task_holds_the_average(toy: Any, net: Any, decay: float) -> None:
    training = Training(toy, net, decay, max_epochs=3).fit()
    assert len(training.snapshots.steps) == 12
    assert_same(training.state, averaged(training.snapshots.steps, decay))


def test_the_ramp_reaches_the_decay_after_as_many_steps_as_its_formula_says(toy: Any) -> None:
    """(1 + n) / (10 + n) = 0.5 at n = 8: a shorter training is averaged with less, a longer one with 0.5."""
    for epochs, reached in ((2, False), (6, True)):
        steps = (training := Training(toy, linear, 0.5, max_epochs=epochs).fit()).snapshots.steps
        assert_same(training.state, averaged(steps, 0.5))
        unlimited = averaged(steps, 1.0)["weight"]
        assert torch.allclose(training.state["weight"].double(), unlimited, atol=1e-6) is not reached


def test_the_average_does_not_disturb_training(toy: Any) -> None:
    with_ema = Training(toy, max_epochs=3).fit().snapshots
    torch.manual_seed(0)
    alone = Snapshots()
    task, data = toy.Task(net=normalised, optimizer=sgd), toy.Data(toy.points(17), batch_size=3)
    toy.trainer(max_epochs=3, callbacks=[alone]).fit(task, data)
    for one, other in zip(with_ema.steps, alone.steps, strict=True):
        assert_identical(one, other)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_few_steps_never_returns_to_the_initial_weights(toy: Any, steps: int) -> None:
    training = Training(toy, max_steps=steps, max_epochs=None).fit()
    assert_same(training.state, averaged(training.snapshots.steps, 0.999))
    assert not torch.allclose(training.state["0.weight"], training.snapshots.initial["0.weight"], atol=1e-4)
    if steps == 1:
        assert_same(training.state, training.snapshots.steps[0])


def test_without_training_nothing_is_averaged(toy: Any) -> None:
    training = Training(toy, max_epochs=1, limit_train_batches=0)
    training.fit()
    torch.manual_seed(0)
    assert_same(training.state, normalised(3).state_dict())


def test_accumulated_gradients_count_as_the_steps_that_they_are(toy: Any) -> None:
    training = Training(toy, max_epochs=3, accumulate_grad_batches=2, decay=0.4).fit()
    assert len(training.snapshots.steps) == 6
    assert_same(training.state, averaged(training.snapshots.steps, 0.4))


def test_validation_sees_the_average(toy: Any) -> None:
    training = Training(toy, max_epochs=2).fit()
    logged = training.trainer.callback_metrics["val/loss"].item()
    state = averaged(training.snapshots.steps, 0.999)
    assert logged == pytest.approx(training.validation_loss(state), rel=1e-4)
    assert logged != pytest.approx(training.validation_loss(training.snapshots.steps[-1]), rel=1e-2)


def test_the_sanity_check_before_training_sees_the_initial_weights(toy: Any) -> None:
    training = Training(toy, max_epochs=1, num_sanity_val_steps=2).fit()
    assert_same(training.state, averaged(training.snapshots.steps, 0.999))


def test_sample_pictures_are_drawn_with_the_average(toy: Any, tmp_path: Path) -> None:
    training = Training(toy, max_epochs=2, callbacks=[Pictures(test_folder=tmp_path)]).fit()
    shown = [json.loads(line)["value"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    training.task.network.load_state_dict(averaged(training.snapshots.steps, 0.999))
    with torch.no_grad():
        expected = training.task.network.eval()(training.data.splits["val"].batch.inputs).squeeze(1)
    assert shown == pytest.approx(expected.tolist(), rel=1e-4)


def saving(folder: Path, **kwargs: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **kwargs)


def test_a_checkpoint_holds_the_average_and_beside_it_the_weights(toy: Any, tmp_path: Path) -> None:
    training = Training(toy, max_epochs=2, callbacks=[saving(tmp_path)]).fit()
    checkpoint = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    weights = {name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items() if "net." in name}
    assert_same(weights, averaged(training.snapshots.steps[:4], 0.999))
    assert_same(checkpoint["ema"]["raw"], training.snapshots.steps[3])


@pytest.mark.parametrize("saved_after", [4, 8, 3, 6])  # at the end of an epoch of 4 steps, and in its middle
def test_a_resumed_training_ends_with_the_very_same_numbers(toy: Any, tmp_path: Path, saved_after: int) -> None:
    when = {} if saved_after % 4 == 0 else {"every_n_train_steps": saved_after}
    straight = Training(toy, max_epochs=3, decay=0.6, callbacks=[saving(tmp_path, **when)]).fit()

    resumed = Training(toy, max_epochs=3, decay=0.6, seed=99)
    resumed.fit(ckpt_path=tmp_path / f"step={saved_after}.ckpt", weights_only=True)

    assert resumed.trainer.global_step == 12
    assert_identical(resumed.snapshots.initial, straight.snapshots.steps[saved_after - 1])
    assert_identical(resumed.snapshots.steps[-1], straight.snapshots.steps[-1])
    assert_identical(resumed.state, straight.state)


def test_a_run_that_had_no_average_can_go_on_with_one(toy: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, data = toy.Task(net=normalised, optimizer=sgd), toy.Data(toy.points(17), batch_size=3)
    toy.trainer(max_epochs=1, callbacks=[saving(tmp_path)]).fit(task, data)

    training = Training(toy, max_epochs=2).fit(ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)

    assert_same(training.state, averaged(training.snapshots.steps[-4:], 0.999))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_that_cannot_be(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay is {decay}"):
        EMA(decay)


def test_evaluating_a_run_repeats_what_training_said(
    fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics of the last epoch come from the average; so must those of the checkpoint that was saved with it."""
    words = ["--trainer.max_epochs=3", "--model.net.batch_norm=true", "--trainer.callbacks=EMA"]
    assert main(["fit", *fit_options, *words]) == 0
    header, *_, last = Path("runs/lenet/1/metrics.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), last.split(","), strict=True))

    assert main(["validate", "runs/lenet/1/checkpoints/last.ckpt"]) == 0

    found = json.loads(Path("runs/lenet/1/validate_last/metrics.json").read_text())
    for name in ("val/loss", "val/accuracy", "val/f1"):
        assert found[name] == pytest.approx(float(logged[name]), rel=1e-5)


class Tied(torch.nn.Module):
    """Two layers with the same weights."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(features, features, bias=False)
        self.second = torch.nn.Linear(features, features, bias=False)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs)).sum(dim=1, keepdim=True)


def test_tied_weights_are_swapped_once(toy: Any) -> None:
    task = toy.Task(net=Tied)
    task.facts = toy.Facts(3)
    task.configure_model()
    ema = EMA()
    ema.on_fit_start(toy.trainer(), task)
    assert ema.average is not None
    ema.average.module.first.weight.data.fill_(7.0)
    before = task.network.first.weight.detach().clone()
    ema._swap(task)
    assert (task.network.first.weight == 7).all()
    ema._swap(task)
    assert torch.equal(task.network.first.weight, before)
