"""The schedules against formulas written out here, by themselves, in a trainer, resumed, and on the command line."""

import csv
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import SGD, lr_scheduler

from leyden import schedules
from leyden.errors import UsageError
from leyden.main import main
from leyden.schedules import CosineWithWarmup, FactorWithWarmup, MultiFactorWithWarmup, OneCycleLR

# ---- formulas


def ramp(step: int, warmup: int) -> float:
    """Equal parts up to 1, which step `warmup` has."""
    return min(1.0, (step + 1) / (warmup + 1))


def factor_rate(step: int, factor: float, every: int, floor: float, warmup: int) -> float:
    """As the book writes it: multiply again and again, never below the floor."""
    rate = ramp(step, warmup)
    for behind in range(1, step - warmup + 1):
        if behind % every == 0:
            rate = max(floor, rate * factor)
    return rate


def multi_factor_rate(step: int, milestones: list[int], gamma: float, warmup: int) -> float:
    return ramp(step, warmup) * math.prod(gamma for milestone in milestones if step >= milestone)


def cosine_rate(step: int, warmup: int, final: float, total: int) -> float:
    """Worked out from the paper: half a period of a cosine between the end of the warm-up and the end of training."""
    if step < warmup:
        return ramp(step, warmup)
    angle = math.pi * min(1.0, (step - warmup) / (total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(angle))


def one_cycle_rate(step: int, total: int) -> float:
    """Two cosines: from 1/25 to 1 at 30% of the cycle, and down to 1/25/10^4 at its last step."""
    top = 0.3 * total - 1
    low, high, progress = (1 / 25, 1, step / top) if step <= top else (1, 1 / 25e4, (step - top) / (total - 1 - top))
    return low + (high - low) * (1 - math.cos(math.pi * progress)) / 2


def optimizer(lr: float = 0.4) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler: Any, steps: int) -> list[float]:
    """The rate at steps 0, 1, ... as the optimizer sees it."""
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


# ---- by themselves


@given(
    lr=st.floats(1e-4, 10),
    warmup=st.integers(0, 12),
    final=st.floats(0, 1),
    decay=st.integers(1, 30),
)
def test_cosine(lr: float, warmup: int, final: float, decay: int) -> None:
    total = warmup + decay
    steps = total + 5
    expected = [lr * cosine_rate(step, warmup, final, total) for step in range(steps)]
    found = rates(CosineWithWarmup(optimizer(lr), warmup, final, total), steps)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(
    lr=st.floats(1e-4, 10),
    factor=st.floats(0.05, 1),
    every=st.integers(1, 6),
    floor=st.floats(0, 1),
    warmup=st.integers(0, 6),
)
def test_factor(lr: float, factor: float, every: int, floor: float, warmup: int) -> None:
    expected = [lr * factor_rate(step, factor, every, floor, warmup) for step in range(30)]
    found = rates(FactorWithWarmup(optimizer(lr), factor, every, floor, warmup), 30)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(
    lr=st.floats(1e-4, 10),
    gaps=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    gamma=st.floats(0.01, 1),
    warmup=st.integers(0, 6),
)
def test_multi_factor(lr: float, gaps: list[int], gamma: float, warmup: int) -> None:
    milestones = [warmup + sum(gaps[: count + 1]) for count in range(len(gaps))]
    expected = [lr * multi_factor_rate(step, milestones, gamma, warmup) for step in range(40)]
    found = rates(MultiFactorWithWarmup(optimizer(lr), milestones, gamma, warmup), 40)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


HALF = math.sqrt(0.5)
SHAPES: list[tuple[Any, list[float]]] = [
    (
        functools.partial(CosineWithWarmup, warmup_steps=3, final_fraction=0.2, total_steps=7),
        [0.25, 0.5, 0.75, 1.0, 0.6 + 0.4 * HALF, 0.6, 0.6 - 0.4 * HALF, 0.2, 0.2],
    ),
    (
        functools.partial(FactorWithWarmup, factor=0.5, step_size=2, min_fraction=0.2, warmup_steps=1),
        [0.5, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2],
    ),
    (functools.partial(FactorWithWarmup, factor=0.9), [1.0, 0.9, 0.81]),
    (
        functools.partial(MultiFactorWithWarmup, milestones=[4, 6], gamma=0.5, warmup_steps=2),
        [1 / 3, 2 / 3, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25],
    ),
    (functools.partial(MultiFactorWithWarmup, milestones=[1]), [1.0, 0.1, 0.1]),
]


@pytest.mark.parametrize(("schedule", "expected"), SHAPES)
def test_the_shapes_in_numbers(schedule: Any, expected: list[float]) -> None:
    assert rates(schedule(optimizer(1.0)), len(expected)) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [shape[0] for shape in SHAPES])
def test_each_group_is_scheduled_from_its_own_rate(schedule: Any) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    scheduler = schedule(SGD(groups))
    for _ in range(3):
        first, second = scheduler.get_last_lr()
        assert first == pytest.approx(10 * second)
        scheduler.optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (FactorWithWarmup, {"factor": 0.0}, "factor is 0.0; it must be above 0 and at most 1"),
        (FactorWithWarmup, {"factor": 1.1}, "factor is 1.1; "),
        (FactorWithWarmup, {"factor": math.nan}, "factor is nan; "),
        (FactorWithWarmup, {"factor": 0.9, "step_size": 0}, "step_size is 0; it must be at least 1"),
        (FactorWithWarmup, {"factor": 0.9, "min_fraction": 2.0}, "min_fraction is 2.0; it must be between 0 and 1"),
        (FactorWithWarmup, {"factor": 0.9, "warmup_steps": -1}, "warmup_steps is -1; it must be 0 or more"),
        (MultiFactorWithWarmup, {"milestones": []}, r"milestones are \[\]; there must be at least one"),
        (MultiFactorWithWarmup, {"milestones": [5, 3]}, r"milestones are \[5, 3\]; .* must ascend"),
        (MultiFactorWithWarmup, {"milestones": [3, 3]}, r"milestones are \[3, 3\]; .* must ascend"),
        (MultiFactorWithWarmup, {"milestones": [0, 3]}, "milestones begin at 0; it must be more than warmup_steps, 0"),
        (MultiFactorWithWarmup, {"milestones": [3], "warmup_steps": 3}, "begin at 3; .* warmup_steps, 3"),
        (MultiFactorWithWarmup, {"milestones": [3], "gamma": -0.1}, "gamma is -0.1; "),
        (CosineWithWarmup, {"final_fraction": -0.1}, "final_fraction is -0.1; "),
        (CosineWithWarmup, {"total_steps": 0}, "total_steps is 0; it must be more than warmup_steps, 0"),
        (CosineWithWarmup, {"total_steps": 5, "warmup_steps": 5}, "total_steps is 5; .* warmup_steps, 5"),
        (OneCycleLR, {"max_lr": 1.0, "epochs": 3, "steps_per_epoch": 2}, "takes total_steps, or plans it itself"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(schedule: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9), **options)


# ---- plans


def test_a_plan_fills_in_what_the_user_left_open_and_no_more() -> None:
    open_, chosen = CosineWithWarmup(optimizer()), CosineWithWarmup(optimizer(), total_steps=8)
    for scheduler in (open_, chosen):
        scheduler.plan(4)
    assert rates(open_, 5)[4] == pytest.approx(0.0)
    assert rates(chosen, 5)[4] == pytest.approx(0.2)


def test_without_a_plan_the_rate_stays() -> None:
    assert rates(CosineWithWarmup(optimizer(), warmup_steps=1), 50) == pytest.approx([0.2, *[0.4] * 49])


@pytest.mark.parametrize("total", [10, 25])
def test_one_cycle_is_torchs_over_the_planned_length(total: int) -> None:
    chosen = {"max_lr": 0.5, "pct_start": 0.2, "div_factor": 10.0, "base_momentum": 0.8}
    planned = OneCycleLR(SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9), **chosen)
    planned.plan(total)
    reference = lr_scheduler.OneCycleLR(SGD([nn.Parameter(torch.zeros(1))], momentum=0.9), total_steps=total, **chosen)
    for _ in range(total):
        for key in ("lr", "momentum"):
            assert planned.optimizer.param_groups[0][key] == reference.optimizer.param_groups[0][key]
        for scheduler in (planned, reference):
            scheduler.optimizer.step()
            scheduler.step()


def test_one_cycle_may_be_longer_than_training_but_not_shorter() -> None:
    sgd = SGD([nn.Parameter(torch.zeros(1))], momentum=0.9)
    OneCycleLR(sgd, 0.5, total_steps=20).plan(10)
    with pytest.raises(ValueError, match="total_steps is 9; training has 10, and one cycle cannot be shorter"):
        OneCycleLR(sgd, 0.5, total_steps=9).plan(10)


def test_a_rise_of_one_step_is_refused() -> None:
    """Torch divides by its length less one."""
    sgd = SGD([nn.Parameter(torch.zeros(1))], momentum=0.9)
    with pytest.raises(ValueError, match="the rise of one cycle must not be one step of 10: change pct_start"):
        OneCycleLR(sgd, 0.5, pct_start=0.1).plan(10)


@pytest.mark.parametrize(
    "schedule",
    [
        functools.partial(CosineWithWarmup, warmup_steps=4),
        functools.partial(FactorWithWarmup, factor=0.5, warmup_steps=5),
        functools.partial(MultiFactorWithWarmup, milestones=[2, 4]),
    ],
)
def test_what_training_is_too_short_for_is_said(schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that was mistaken, epochs for steps, shows in this way only; a short trial must not fail for it."""
    messages: list[str] = []
    monkeypatch.setattr(schedules.logger, "warning", lambda text, *values: messages.append(text % values))
    schedule(optimizer()).plan(6)
    assert messages == []
    schedule(optimizer()).plan(4)
    [message] = messages
    assert "but training ends at 4" in message


# ---- resuming


SCHEDULES: dict[str, tuple[Any, Callable[[int, int], float]]] = {
    "cosine": (
        functools.partial(CosineWithWarmup, warmup_steps=1, final_fraction=0.1),
        lambda step, total: cosine_rate(step, 1, 0.1, total),
    ),
    "factor": (
        functools.partial(FactorWithWarmup, factor=0.5, step_size=2, min_fraction=0.2, warmup_steps=1),
        lambda step, total: factor_rate(step, 0.5, 2, 0.2, 1),
    ),
    "multi-factor": (
        functools.partial(MultiFactorWithWarmup, milestones=[2, 3], gamma=0.3, warmup_steps=1),
        lambda step, total: multi_factor_rate(step, [2, 3], 0.3, 1),
    ),
    "one cycle": (functools.partial(OneCycleLR, max_lr=1.0, cycle_momentum=False), one_cycle_rate),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_goes_on_where_it_was(name: str) -> None:
    schedule, rate = SCHEDULES[name]
    expected = [rate(step, 10) for step in range(10)]
    first, resumed = schedule(optimizer(1.0)), schedule(optimizer(1.0))
    first.plan(10)
    assert rates(first, 4) == pytest.approx(expected[:4])
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    resumed.plan(10)
    assert resumed.state_dict() == first.state_dict()
    assert resumed.get_last_lr() == first.get_last_lr()
    assert rates(resumed, 6) == pytest.approx(expected[4:])


@pytest.mark.parametrize("name", ["cosine", "one cycle"])
def test_training_that_is_made_longer_is_planned_anew(name: str) -> None:
    """With the plan of the first start, a run resumed for more epochs would train at next to no rate."""
    schedule, rate = SCHEDULES[name]
    first, longer = schedule(optimizer(1.0)), schedule(optimizer(1.0))
    first.plan(4)
    rates(first, 4)
    longer.optimizer.load_state_dict(first.optimizer.state_dict())
    longer.load_state_dict(first.state_dict())
    longer.plan(9)
    assert rates(longer, 5) == pytest.approx([rate(step, 9) for step in range(4, 9)])


# ---- in a trainer


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.01)


class Rates(Callback):
    """Keeps the rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def train(toy: Any, schedule: Any, interval: Any, ckpt_path: Any = None, **trainer: Any) -> list[float]:
    """The rates of all optimizer steps: 12 training points in batches of 3, so 4 batches in an epoch."""
    seen = Rates()
    task = toy.Task(optimizer=sgd, lr_scheduler=schedule, lr_interval=interval)
    callbacks = [seen, *trainer.pop("callbacks", [])]
    toy.trainer(callbacks=callbacks, **trainer).fit(
        task, toy.Data(toy.points(17), batch_size=3), ckpt_path=ckpt_path, weights_only=True
    )
    return seen.rates


def expected_rates(name: str, interval: str, accumulated: int, steps: int, total_steps: int) -> list[float]:
    """total_steps: of the whole training. An epoch that is begun counts as one."""
    in_epoch = 4 // accumulated
    counts = [step if interval == "step" else step // in_epoch for step in range(steps)]
    total = total_steps if interval == "step" else -(-total_steps // in_epoch)
    top = 1.0 if name == "one cycle" else 0.01
    return [top * SCHEDULES[name][1](count, total) for count in counts]


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_optimizer_step_has_its_rate(toy: Any, name: str, interval: str, accumulated: int) -> None:
    found = train(toy, SCHEDULES[name][0], interval, max_epochs=5, accumulate_grad_batches=accumulated)
    steps = 20 // accumulated
    assert found == pytest.approx(expected_rates(name, interval, accumulated, steps, steps))


@pytest.mark.parametrize(
    "limits",
    [{"max_epochs": -1, "max_steps": 14}, {"max_epochs": 9, "max_steps": 14}, {"max_epochs": None, "max_steps": 14}],
)
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_that_is_limited_in_steps(toy: Any, interval: str, accumulated: int, limits: dict[str, Any]) -> None:
    found = train(toy, SCHEDULES["cosine"][0], interval, accumulate_grad_batches=accumulated, **limits)
    assert found == pytest.approx(expected_rates("cosine", interval, accumulated, 14, 14))


@pytest.mark.parametrize(
    ("name", "own"), [("cosine", "step"), ("factor", "epoch"), ("multi-factor", "epoch"), ("one cycle", "step")]
)
def test_without_an_interval_the_schedules_own_counts(toy: Any, name: str, own: str) -> None:
    assert train(toy, SCHEDULES[name][0], None, max_epochs=4) == pytest.approx(expected_rates(name, own, 1, 16, 16))


@pytest.mark.parametrize("stopped_after", [6, 8])  # in the middle of the second epoch, and at its end
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_training_goes_on_with_the_rates_of_its_whole_length(
    toy: Any, name: str, interval: str, stopped_after: int, tmp_path: Path
) -> None:
    keeper = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=stopped_after)
    first = train(toy, SCHEDULES[name][0], interval, max_epochs=4, max_steps=stopped_after, callbacks=[keeper])
    second = train(toy, SCHEDULES[name][0], interval, tmp_path / "last.ckpt", max_epochs=4)
    assert first == pytest.approx(expected_rates(name, interval, 1, stopped_after, stopped_after))
    assert second == pytest.approx(expected_rates(name, interval, 1, 16, 16)[stopped_after:])


@pytest.mark.parametrize("name", ["cosine", "one cycle"])
def test_training_without_an_end_has_no_plan(toy: Any, name: str) -> None:
    with pytest.raises(UsageError, match=r"the schedule cannot be: \w+ must know how long training is: set "):
        train(toy, SCHEDULES[name][0], None, max_epochs=-1)


class Tenth(Callback):
    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == 10


def test_factors_need_no_end(toy: Any) -> None:
    found = train(toy, SCHEDULES["factor"][0], "step", max_epochs=-1, callbacks=[Tenth()])
    assert found == pytest.approx(expected_rates("factor", "step", 1, 10, 10))


# ---- on the command line


UNVALIDATED = "--trainer.limit_val_batches=0"  # faster, and no pictures are drawn


def logged_rates() -> list[float]:
    with Path("runs/lenet/1/metrics.csv").open(newline="") as file:
        return [float(row["lr"]) for row in csv.DictReader(file) if row.get("lr")]


CHOSEN: dict[str, tuple[list[str], Callable[[int], float]]] = {
    "FactorWithWarmup": (
        ["factor=0.5", "step_size=2", "min_fraction=0.3", "warmup_steps=1"],
        lambda epoch: factor_rate(epoch, 0.5, 2, 0.3, 1),
    ),
    "MultiFactorWithWarmup": (
        ["milestones=[2,3]", "gamma=0.5", "warmup_steps=1"],
        lambda epoch: multi_factor_rate(epoch, [2, 3], 0.5, 1),
    ),
    "CosineWithWarmup": (["warmup_steps=3"], lambda epoch: cosine_rate(5 * epoch, 3, 0, 20)),
    "OneCycleLR": (["max_lr=0.1"], lambda epoch: one_cycle_rate(min(5 * epoch, 20), 20)),
    "StepLR": (["step_size=2", "gamma=0.5"], lambda epoch: 0.5 ** (epoch // 2)),
    "MultiStepLR": (["milestones=[1,3]", "gamma=0.5"], lambda epoch: 0.5 ** ((epoch >= 1) + (epoch >= 3))),
    "ExponentialLR": (["gamma=0.5"], lambda epoch: 0.5**epoch),
    "CosineAnnealingLR": (["T_max=4"], lambda epoch: (1 + math.cos(math.pi * epoch / 4)) / 2),
    "CosineAnnealingWarmRestarts": (["T_0=2"], lambda epoch: (1 + math.cos(math.pi * (epoch % 2) / 2)) / 2),
    "LinearLR": (["start_factor=0.5", "total_iters=4"], lambda epoch: 0.5 + epoch / 8),
    "ConstantLR": (["factor=0.5", "total_iters=3"], lambda epoch: 0.5 if epoch < 3 else 1.0),
    "PolynomialLR": (["total_iters=4", "power=2"], lambda epoch: (1 - epoch / 4) ** 2),
    # by step, of which an epoch has 5
    "CyclicLR": (
        ["base_lr=0.02", "max_lr=0.1", "step_size_up=10"],
        lambda epoch: 0.2 + 0.8 * (1 - abs(5 * epoch / 10 - 1)),
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_schedules_by_their_short_names(name: str, fit_options: list[str]) -> None:
    """What is logged with an epoch is the rate at its end, with which the next one begins."""
    options, rate = CHOSEN[name]
    words = [f"--model.lr_scheduler.{option}" for option in options]
    sgd_words = ["--model.optimizer=SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9"]
    words = [*sgd_words, "--model.lr_scheduler", name, *words, "--trainer.max_epochs=4", UNVALIDATED]
    assert main(["fit", *fit_options, *words]) == 0
    found = logged_rates()
    if name == "OneCycleLR":  # torch's last step has the last rate; behind it, where this is logged, it goes up again
        assert found.pop() < 0.002
    expected = [0.1 * rate(epoch) for epoch in range(1, len(found) + 1)]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)
    torch.load("runs/lenet/1/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_lowers_the_rate(mode: str, fit_options: list[str]) -> None:
    """With a rate of next to nothing neither the loss nor the accuracy gets better than the threshold asks."""
    words = ["--model.optimizer=SGD", "--model.optimizer.lr=1e-9", "--model.lr_scheduler=ReduceLROnPlateau"]
    words += ["--model.lr_scheduler.patience=0", "--model.lr_scheduler.factor=0.5", f"--model.lr_scheduler.mode={mode}"]
    assert main(["fit", *fit_options, *words, "--trainer.max_epochs=4", "--model.lr_scheduler.eps=0"]) == 0
    first, *_, last = logged_rates()
    assert first == pytest.approx(1e-9)
    assert last == pytest.approx(0.25e-9)


@pytest.mark.parametrize("name", ["CosineWithWarmup", "OneCycleLR", "FactorWithWarmup", "CyclicLR"])
def test_one_epoch_and_then_another_equals_two_epochs_of_the_same_plan(name: str, fit_options: list[str]) -> None:
    words = ["--model.optimizer=SGD", "--model.optimizer.momentum=0.9", "--model.lr_scheduler", name, UNVALIDATED]
    words += {
        "CosineWithWarmup": ["--model.lr_scheduler.total_steps=10"],
        "OneCycleLR": ["--model.lr_scheduler.max_lr=0.1", "--model.lr_scheduler.total_steps=10"],
        "FactorWithWarmup": ["--model.lr_scheduler.factor=0.5", "--model.lr_interval=step"],
        "CyclicLR": ["--model.lr_scheduler.base_lr=0.01", "--model.lr_scheduler.max_lr=0.1"],
    }[name]
    for more in (["--trainer.max_epochs=2", "--experiment=straight"], [], ["--trainer.max_epochs=2", "--resume=auto"]):
        assert main(["fit", *fit_options, *words, *more]) == 0
    runs = [Path("runs", name, "1/checkpoints/last.ckpt") for name in ("straight", "lenet")]
    straight, resumed = (torch.load(path, weights_only=True) for path in runs)
    assert straight["lr_schedulers"] == resumed["lr_schedulers"]
    for key, value in straight["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MultiFactorWithWarmup", "milestones=[3,2]"], "milestones are [3, 2]; there must be at least one"),
        (["CosineWithWarmup", "total_steps=3", "warmup_steps=3"], "total_steps is 3; it must be more than warmup_"),
        (["OneCycleLR", "max_lr=1", "total_steps=4"], "total_steps is 4; training has 5, and one cycle cannot"),
        (["FactorWithWarmup"], "--model.lr_scheduler.factor is missing."),
        (["StepLR", "step_size=0"], "StepLR cannot go on: integer modulo by zero"),
        (["CosineAnnealingLR", "T_max=0"], "cannot"),
        (["CyclicLR", "base_lr=1", "max_lr=2", "step_size_up=0", "step_size_down=0"], "cannot"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], message: str, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = words
    chosen = ["--model.lr_scheduler", name, *(f"--model.lr_scheduler.{option}" for option in options)]
    assert main(["fit", *fit_options, *chosen]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert shown.count("\n") == 1
