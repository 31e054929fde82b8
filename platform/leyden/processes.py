"""What goes wrong between the processes of one run, told in a sentence."""

import os
import re
import socket
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator

from leyden.errors import LeydenError, UsageError

MOST_PER_CORE = 4  # processes; beyond it they take the memory and each other's time
# what gloo and NCCL say in the processes that are left, when one is gone
_PEER_IS_GONE = re.compile(
    r"gloo/transport|connectFullMesh|Connection (reset|closed) by peer|remote process exited|NCCL (error|communicator)"
)
_PORT_IS_TAKEN = re.compile(r"port: (\d+).*EADDRINUSE", re.DOTALL)
_NOT_FOUND = re.compile(r"The client socket has (?:failed to connect|timed out).*?\(([^,()]+), (\d+)\)", re.DOTALL)


class LostError(LeydenError):
    """Another process of the run is gone. Its exit status tells the batch script that starting again may help."""

    exit_status = 75  # EX_TEMPFAIL


def require_startable(trainer: Trainer) -> None:
    """Raises UsageError for processes that would never meet, or are too many for this machine; torch would wait."""
    if trainer.world_size == 1:
        return
    here, cores = trainer.num_devices, os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and here > MOST_PER_CORE * cores:
        raise UsageError(
            f"devices is {here}, which on the CPU are as many processes, but {socket.gethostname()} has {cores} cores. "
            f"Ask for at most {cores} to be faster by it, and never for more than {MOST_PER_CORE * cores}."
        )
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:
        return
    host = environment.main_address
    by_hand = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
    if trainer.num_nodes > 1 and type(environment) is LightningEnvironment and (missing := by_hand - os.environ.keys()):
        raise UsageError(
            f"num_nodes is {trainer.num_nodes}, but this is no job of a cluster, and nothing starts the other "
            "machines. Start it by `launch slurm` or `launch torchrun`; or by hand on each machine, with the variables "
            f"{', '.join(sorted(by_hand))} ({', '.join(sorted(missing))} missing here)."
        )
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UsageError(
            f"the processes are to meet at {host!r} (MASTER_ADDR), but {socket.gethostname()} knows no such host: "
            f"{error.strerror or error}."
        ) from error


def explained(error: Exception) -> LeydenError | None:
    """The error of a process that could not reach the others, for people; None for any other."""
    text = str(error)
    if found := _PORT_IS_TAKEN.search(text):
        what = f"port {found[1]} of {socket.gethostname()}, at which the processes are to meet, is in use"
        return UsageError(f"{what}. End what uses it, or name a free one: MASTER_PORT=29501.")
    if found := _NOT_FOUND.search(text):
        return LeydenError(f"the first process does not answer at {found[1]}, port {found[2]}. Does it run?")
    if _PEER_IS_GONE.search(text):
        rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or "0"
        return LostError(
            f"process {rank} on {socket.gethostname()} has lost another process of this run, whose own error is the "
            "cause (there is none where it was killed, as when memory runs out). What was saved before is untouched; "
            "go on with --resume auto."
        )
    return None
