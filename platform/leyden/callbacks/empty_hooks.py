"""Lightning enters a profiler context for each hook of each callback in each step; most of these hooks are empty."""

from collections.abc import Iterable

from lightning.pytorch import Callback

STEP_HOOKS = [name for name in vars(Callback) if name.startswith("on_") and ("batch" in name or "before" in name)]
STEP_HOOKS.append("on_after_backward")


def skip_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Hide the hooks that a callback only inherits: Lightning passes over what cannot be called.

    With the callbacks of every run this is what keeps `fit` as fast as a bare loop on small networks
    (benchmarks/classification.py).
    """
    for callback in callbacks:
        for name in STEP_HOOKS:
            if getattr(type(callback), name) is getattr(Callback, name):
                setattr(callback, name, None)
