"""GradientNorms: how large the gradient of each layer is."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer


class GradientNorms(Callback):
    """Logs the 2-norm of each parameter's gradient as `gradient_norm/<parameter>`, before gradients are clipped.

    It does so every `log_every_n_steps` optimizer steps; accumulated gradients count as the one that they add up to.
    curves.png shows all in one panel. The parameters of a task's network have the names that they have there.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Lightning's hook: gradients are complete, unscaled, and not clipped yet."""
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not interval or (trainer.global_step + 1) % interval:
            return
        gradients = {name: parameter.grad for name, parameter in pl_module.named_parameters()}
        norms = {name: gradient.norm() for name, gradient in gradients.items() if gradient is not None}
        pl_module.log_dict({f"gradient_norm/{name.removeprefix('net.')}": norm for name, norm in norms.items()})
