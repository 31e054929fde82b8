"""Precision "bf16-true" and "16-true": the network is half as large, and nothing else is."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning_utilities import apply_to_collection
from torch import Tensor, nn

from leyden.task import Task


def halves_the_network(precision: object, strategy: object) -> bool:
    """Whether this asks for 16 bits throughout, and not of a strategy that does it by a plugin of its own."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return precision in ("bf16-true", "16-true") and not name.lower().startswith(("fsdp", "deepspeed"))


class HalfNetwork(HalfPrecision):
    """A task's network, its gradients and the optimizer's state have 16 bits.

    Batches, losses and metrics stay in float32: Lightning's own plugin would round labels, boxes and counts too. What
    goes into the network is cast to the type of its weights, and what comes out to float32.
    """

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Lightning's hook, once the network is built."""
        assert isinstance(module, Task)
        net = module.network.to(self._desired_input_dtype)
        net.register_forward_pre_hook(self._cast_inputs, with_kwargs=True)
        net.register_forward_hook(_cast_outputs)
        return module

    def convert_input(self, data: Any) -> Any:
        """Lightning's hook: a batch stays as it is."""
        return data

    def tensor_init_context(self) -> AbstractContextManager[None]:
        """Lightning's hook: new tensors have 32 bits."""
        return nullcontext()

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Lightning's hook: new tensors have 32 bits."""
        yield

    def _cast_inputs(self, net: nn.Module, args: Any, kwargs: Any) -> Any:
        return _cast((args, kwargs), self._desired_input_dtype)


def _cast_outputs(net: nn.Module, args: Any, outputs: Any) -> Any:
    return _cast(outputs, torch.float32)


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """Nested values, in which tensors of floating point are cast."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return apply_to_collection(values, Tensor, cast)
