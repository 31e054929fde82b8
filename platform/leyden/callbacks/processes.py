"""Processes: each process of a training draws other random numbers."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Processes(Callback):
    """Gives the random numbers of training (dropout, augmentation) of each of several processes a seed of its own.

    Until then `seed_everything` has given all the same, by which weights begin alike; with it dropout would leave the
    same places out in every process. The seeds follow from that one, the process's rank and the step: another start
    draws the same. One process, and what evaluation draws before training, stay as they were.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if trainer.world_size > 1:
            seed_process(torch.initial_seed(), trainer.global_rank, trainer.global_step)


def seed_process(seed: int, rank: int, step: int) -> None:
    """Begin the random numbers of torch, numpy and Python anew, by three numbers that may be any from 0."""
    own = np.random.SeedSequence((seed % 2**64, rank, step)).generate_state(3)
    torch.manual_seed(int(own[0]) << 31 | int(own[1]))
    np.random.seed(int(own[2]))
    random.seed(int(own[2]))
