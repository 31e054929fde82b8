"""What Lightning does in each step although nobody asked for it, left out: tiny networks' steps take no longer than it.

Measured by benchmarks/regression.py and benchmarks/classification.py.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.profilers import Profiler

STEP_HOOKS = [name for name in vars(Callback) if name.startswith("on_") and ("batch" in name or "before" in name)]
STEP_HOOKS.append("on_after_backward")
# of a module Lightning also asks for the signatures of the evaluation hooks, and takes what the transfer hooks return
MODULE_STEP_HOOKS = [name for name in STEP_HOOKS if name.startswith(("on_train_", "on_before_", "on_after_"))]


def skip_empty_hooks(owners: Iterable[Callback | LightningModule]) -> None:
    """Hide the hooks of each step that a callback or module only inherits: Lightning passes over what cannot be called.

    For each of the others it enters a profiler context, in each step.
    """
    for owner in owners:
        is_callback = isinstance(owner, Callback)
        base = Callback if is_callback else LightningModule
        for name in STEP_HOOKS if is_callback else MODULE_STEP_HOOKS:
            # LambdaCallback keeps its hooks in the instance
            if getattr(type(owner), name) is getattr(base, name) and name not in vars(owner):
                object.__setattr__(owner, name, None)


class NoProfiler(Profiler):
    """Lightning's profiler for those who want none, without the generator that Lightning's own makes for each hook."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        """A context that does nothing."""
        return self._nothing

    def start(self, action_name: str) -> None:
        """Nothing is measured."""

    def stop(self, action_name: str) -> None:
        """Nothing is measured."""
