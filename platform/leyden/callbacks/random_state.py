"""RandomState: a resumed training draws the random numbers that it would have drawn."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from leyden.agreement import gathered
from leyden.data import TrainLoader

KEY = "leyden_random"  # in checkpoints


class RandomState(Callback):
    """Keeps the state of all generators of all processes in the checkpoints: Python's, NumPy's, torch's, the GPU's.

    With another number of processes than before nothing is put back: their numbers were others anyway.
    """

    def __init__(self) -> None:
        self._saved: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook, called by all processes."""
        checkpoint[KEY] = gathered(_state(pl_module.device))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook."""
        self._saved = checkpoint.get(KEY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: from here on random numbers belong to training."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        if len(saved) != trainer.world_size:
            rank_zero_info(f"the checkpoint is of {len(saved)} processes: random numbers go on differently")
            return
        own, device = saved[trainer.global_rank], pl_module.device
        loader = trainer.train_dataloader
        if isinstance(loader, TrainLoader) and loader.batches_given:
            loader.on_resumed = lambda: _restore(own, device)  # an epoch that begins draws numbers, too
        else:
            _restore(own, device)


def _state(device: torch.device) -> dict[str, Any]:
    """As tensors and plain values, which is all that a checkpoint may hold."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    found: dict[str, Any] = {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def _restore(state: dict[str, Any], device: torch.device) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
