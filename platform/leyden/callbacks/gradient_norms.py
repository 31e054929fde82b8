"""GradientNorms: how large the gradient of each layer is."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from leyden.sharding import whole


class GradientNorms(Callback):
    """Logs the 2-norm of each parameter's gradient as `gradient_norm/<parameter>`, before gradients are clipped.

    It does so every `log_every_n_steps` optimizer steps, and in the last step of an epoch that had none; accumulated
    gradients count as the one that they add up to. curves.png shows all in one panel. The parameters of a task's
    network have the names that they have there.
    """

    def __init__(self) -> None:
        self._epoch = -1  # the last that had norms logged

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Lightning's hook: gradients are complete, unscaled, and not clipped yet."""
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = interval > 0 and (trainer.global_step + 1) % interval == 0
        if not due and (not interval or self._epoch == trainer.current_epoch or not trainer.is_last_batch):
            return
        self._epoch = trainer.current_epoch
        gradients = {name: parameter.grad for name, parameter in pl_module.named_parameters()}
        norms = {name: whole(gradient.norm()) for name, gradient in gradients.items() if gradient is not None}
        named = {f"gradient_norm/{name.removeprefix('net.')}": norm for name, norm in norms.items()}
        if due:
            pl_module.log_dict(named)
        else:  # Lightning hands on what a step logs at its interval only
            for tracker in trainer.loggers:
                tracker.log_metrics(
                    {name: norm.item() for name, norm in named.items()} | {"epoch": trainer.current_epoch},
                    trainer.global_step,
                )
