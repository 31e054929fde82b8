"""CosineWithWarmup against its closed form, planned by a trainer, and resumed."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from torch import nn
from torch.optim import SGD

from leyden.schedules import CosineWithWarmup


def rates(scheduler: CosineWithWarmup, steps: int) -> list[float]:
    """The rate at steps 0, 1, ... as the optimizer sees it."""
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def optimizer(lr: float = 0.4) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def closed_form(step: int, lr: float, warmup: int, final: float, total: int) -> float:
    """Worked out from the paper: a ramp that would reach 1 at step `warmup`, then half a period of a cosine."""
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    angle = math.pi * min(1.0, (step - warmup) / max(1, total - warmup))
    return lr * (final + (1 - final) * 0.5 * (1 + math.cos(angle)))


@given(
    lr=st.floats(1e-4, 10),
    warmup=st.integers(0, 12),
    final=st.floats(0, 1),
    total=st.integers(1, 40),
)
def test_the_rate_of_every_step_is_the_closed_form(lr: float, warmup: int, final: float, total: int) -> None:
    scheduler = CosineWithWarmup(optimizer(lr), warmup, final, total)
    steps = total + 5
    assert rates(scheduler, steps) == pytest.approx(
        [closed_form(step, lr, warmup, final, total) for step in range(steps)], rel=1e-9, abs=1e-12
    )


def test_the_shape_in_numbers() -> None:
    found = rates(CosineWithWarmup(optimizer(1.0), warmup_steps=3, final_fraction=0.2, total_steps=7), 9)
    half = math.sqrt(0.5)
    expected = [0.25, 0.5, 0.75, 1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2, 0.2]
    assert found == pytest.approx(expected)


def test_each_group_is_scheduled_from_its_own_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    scheduler = CosineWithWarmup(SGD(groups), warmup_steps=1, total_steps=3)
    assert scheduler.get_last_lr() == pytest.approx([0.5, 0.05])


def test_a_plan_fills_in_what_the_user_left_open_and_no_more() -> None:
    open_, chosen = CosineWithWarmup(optimizer()), CosineWithWarmup(optimizer(), total_steps=8)
    for scheduler in (open_, chosen):
        scheduler.plan(4)
    assert rates(open_, 5)[4] == pytest.approx(0.0)
    assert rates(chosen, 5)[4] == pytest.approx(0.2)


def test_without_a_plan_the_rate_stays() -> None:
    assert rates(CosineWithWarmup(optimizer(), warmup_steps=1), 50) == pytest.approx([0.2, *[0.4] * 49])


def test_a_resumed_schedule_goes_on_where_it_was() -> None:
    straight = CosineWithWarmup(optimizer(), 2, 0.1)
    straight.plan(10)
    expected = rates(straight, 10)

    first = CosineWithWarmup(optimizer(), 2, 0.1)
    first.plan(10)
    assert rates(first, 4) == expected[:4]
    resumed = CosineWithWarmup(optimizer(), 2, 0.1)
    resumed.plan(10)
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    assert rates(resumed, 6) == expected[4:]


def test_training_that_is_made_longer_is_planned_anew() -> None:
    """With the plan of the first start, a run resumed for more epochs would train at a rate of 0."""
    first = CosineWithWarmup(optimizer())
    first.plan(4)
    rates(first, 4)
    longer = CosineWithWarmup(optimizer())
    longer.plan(8)
    longer.optimizer.load_state_dict(first.optimizer.state_dict())
    longer.load_state_dict(first.state_dict())
    assert rates(longer, 4)[1:] == pytest.approx([closed_form(step, 0.4, 0, 0.0, 8) for step in (5, 6, 7)])


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.01)


class Rates(Callback):
    """Keeps the rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_plans_optimizer_steps(toy: Any, accumulated: int) -> None:
    """12 training points in batches of 3, 2 epochs: 8 batches, 8 or 4 optimizer steps."""
    seen = Rates()
    task = toy.Task(optimizer=sgd, lr_scheduler=CosineWithWarmup)
    data = toy.Data(toy.points(17), batch_size=3)
    toy.trainer(max_epochs=2, callbacks=[seen], accumulate_grad_batches=accumulated).fit(task, data)

    steps = 8 // accumulated
    assert seen.rates == pytest.approx([closed_form(step, 0.01, 0, 0.0, steps) for step in range(steps)])
