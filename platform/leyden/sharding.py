"""Sharding: the weights of a network, their gradients and the optimizer's state are divided among the processes."""

import warnings

from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from leyden.errors import UsageError

NAME = "sharded"


class Sharded(ModelParallelStrategy):
    """`--trainer.strategy sharded`: each process holds its share of the weights (torch's FSDP2), else as in ddp.

    A layer's weights are together only while the layer computes. In evaluation each process holds the whole network.
    Checkpoints are those of other trainings, in one file: they can be evaluated and gone on with in any number of
    processes, with ddp or alone.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Lightning's hook: how many processes there are was not known before."""
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's "auto" means the nodes
        super().setup_environment()


StrategyRegistry.register(NAME, Sharded, description="weights, gradients and optimizer state are divided")


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a network's weights: the members of each ModuleList by themselves, and together what is left.

    Whatever is done with the network's outputs must not change them in place: torch's hooks for the backward pass are
    on them. Of that it warns whenever they are a view, which those of a linear layer are; here nothing changes them.

    Raises UsageError for a mesh that divides layers, too.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    if mesh["tensor_parallel"].size() > 1:
        raise UsageError(
            f"tensor_parallel_size is {mesh['tensor_parallel'].size()}, but networks do not divide single layers. Use "
            f"--trainer.strategy {NAME}."
        )
    of_data = mesh["data_parallel"]
    for parent in reversed([*net.modules()]):  # what is inside comes first
        for layer in parent if isinstance(parent, nn.ModuleList) else ():
            if not isinstance(layer, nn.ModuleList | FSDPModule) and any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=of_data)
    fully_shard(net, mesh=of_data)


def gather(net: nn.Module) -> None:
    """Until `divide` each process holds all weights: it may then evaluate, decode and draw by itself."""
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def divide(net: nn.Module) -> None:
    """Weights are divided again."""
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(module is not net, recurse=False)
            module.reshard()


def class_of(module: nn.Module) -> type:
    """The class that a module was made from; torch gives one that is divided a class of its own."""
    return type(module).__mro__[2] if isinstance(module, FSDPModule) else type(module)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be divided, in one piece. All processes must ask for it."""
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found
