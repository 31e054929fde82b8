"""Networks of 16 bits, and what around them keeps 32."""

from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from leyden.callbacks import EMA
from leyden.errors import UsageError
from leyden.main import main
from leyden.precision import HalfNetwork, halves_the_network

LAST = "runs/lenet/1/checkpoints/last.ckpt"


class Seeing(nn.Module):
    """Keeps what its layer got and gave."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1)
        self.seen: set[torch.dtype] = set()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        self.seen |= {inputs.dtype, outputs.dtype, self.layer.weight.dtype}
        return outputs


@pytest.mark.parametrize(("name", "dtype"), [("bf16-true", torch.bfloat16), ("16-true", torch.float16)])
def test_only_the_network_has_16_bits(toy: Any, name: str, dtype: torch.dtype) -> None:
    around: set[torch.dtype] = set()

    class Watched(toy.Task):  # type: ignore[misc]
        def loss(self, outputs: Tensor, batch: Any) -> Tensor:
            around.update({outputs.dtype, batch.inputs.dtype, batch.targets.dtype, torch.zeros(1).dtype})
            return super().loss(outputs, batch)  # type: ignore[no-any-return]

    task = Watched(Seeing)
    trainer = toy.trainer(max_epochs=2, plugins=[HalfNetwork(name)])
    trainer.fit(task, toy.Data(toy.points(17), batch_size=4))
    assert task.net.seen == {dtype}
    assert task.net.layer.weight.grad is None or task.net.layer.weight.grad.dtype == dtype
    assert around == {torch.float32}
    assert trainer.callback_metrics["val/loss"].dtype == torch.float32


def test_half_a_network_is_chosen_by_lightnings_names(fit_options: list[str]) -> None:
    assert main(["fit", *fit_options, "--trainer.precision=bf16-true"]) == 0
    state = torch.load(LAST, weights_only=True)["state_dict"]
    assert {value.dtype for name, value in state.items() if name.startswith("net.")} == {torch.bfloat16}
    assert main(["test", LAST, "--trainer.accelerator=cpu"]) == 0
    assert main(["test", LAST, "--trainer.accelerator=cpu", "--trainer.precision=32-true"]) == 0


@pytest.mark.parametrize(
    ("precision", "strategy", "halved"),
    [
        ("bf16-true", "auto", True),
        ("16-true", "ddp", True),
        ("bf16-mixed", "auto", False),
        (None, "auto", False),
        (32, "auto", False),
        ("bf16-true", "fsdp_cpu_offload", False),
        ("bf16-true", "deepspeed_stage_2", False),
        ("bf16-true", FSDPStrategy(), False),
    ],
)
def test_strategies_with_a_precision_of_their_own_keep_it(precision: Any, strategy: Any, halved: bool) -> None:
    assert halves_the_network(precision, strategy) is halved


def test_averages_of_16_bits_are_refused(fit_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *fit_options, "--trainer.precision=bf16-true", "--trainer.callbacks=EMA"]) == 2
    assert "error: EMA averages weights of 32 bits, but with precision bf16-true" in capsys.readouterr().err


def test_averages_of_divided_weights_are_refused(toy: Any) -> None:
    task = toy.Task()
    task._device_mesh = object()
    with pytest.raises(UsageError, match="cannot be divided among processes"):
        EMA().on_fit_start(toy.trainer(), task)
