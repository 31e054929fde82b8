"""Hooks that do nothing are not called at every step; those that do something are."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.demos.boring_classes import BoringModel

from leyden.overhead import STEP_HOOKS, skip_empty_hooks


class Counter(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.calls.append("on_train_batch_end")

    def on_before_zero_grad(self, *args: Any) -> None:
        self.calls.append("on_before_zero_grad")

    def on_train_epoch_end(self, *args: Any) -> None:
        self.calls.append("on_train_epoch_end")


def test_only_empty_hooks_of_steps_are_hidden() -> None:
    counter = Counter()
    skip_empty_hooks([counter])
    hidden = {name for name in STEP_HOOKS if getattr(counter, name) is None}
    assert hidden == set(STEP_HOOKS) - {"on_train_batch_end", "on_before_zero_grad"}
    assert {"on_train_batch_start", "on_after_backward", "on_before_optimizer_step"} <= hidden
    assert callable(counter.on_fit_start)


def test_training_calls_what_is_left() -> None:
    counter = Counter()
    skip_empty_hooks([counter])
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=1, callbacks=[counter], **options)
    trainer.fit(BoringModel())
    assert sorted(counter.calls) == sorted(["on_train_batch_end", "on_before_zero_grad"] * 3 + ["on_train_epoch_end"])


def test_hooks_that_an_instance_was_given_are_called() -> None:
    calls: list[int] = []
    given = LambdaCallback(on_train_batch_end=lambda trainer, module, outputs, batch, number: calls.append(number))
    skip_empty_hooks([given])
    assert callable(given.on_train_batch_end)
    assert given.on_train_batch_start is None
