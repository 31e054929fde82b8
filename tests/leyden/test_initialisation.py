"""Initialisation by name: the distributions against their formulas, and what stays as it was."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leyden.errors import UsageError
from leyden.initialisation import Initialisation, filler, initialise
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_plugins.classification.networks.lenet import LeNet

NAMES: tuple[Initialisation, ...] = ("normal", "constant", "xavier", "kaiming")


class Sample(nn.Module):
    """Large layers of every kind: 2 to 5 dimensions, norms, an embedding, gates."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(300, 200)
        self.convolution = nn.Conv2d(20, 50, 3)
        self.transposed = nn.ConvTranspose2d(30, 40, 5)
        self.volume = nn.Conv3d(10, 20, 3)
        self.gates = nn.LSTM(100, 60)
        self.attention = nn.MultiheadAttention(64, 4)
        self.batch_norm = nn.BatchNorm2d(50)
        self.layer_norm = nn.LayerNorm((50, 40))
        self.group_norm = nn.GroupNorm(2, 50)
        self.embedding = nn.Embedding(500, 60, padding_idx=3)
        self.activation = nn.PReLU()


NORMS = ("batch_norm", "layer_norm", "group_norm", "activation")
Parameters = dict[str, Tensor]


def initialised(name: Initialisation | None, value: float | None = None, net: nn.Module | None = None) -> Parameters:
    torch.manual_seed(0)
    net = net or Sample()
    initialise(net, filler(name, value))
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def weights(parameters: Parameters) -> Parameters:
    return {name: each for name, each in parameters.items() if each.ndim >= 2 and not name.startswith(NORMS)}


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): inputs and outputs of a weight (out, in, *kernel), each times the kernel's size."""
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def assert_moments(weight: Tensor, deviation: float) -> None:
    """Mean and variance within five standard errors."""
    count = weight.numel()
    assert weight.mean().item() == pytest.approx(0, abs=5 * deviation / math.sqrt(count))
    assert weight.var().item() == pytest.approx(deviation**2, rel=5 * math.sqrt(2 / count))


@pytest.mark.parametrize(("value", "deviation"), [(None, 0.01), (0.5, 0.5)])
def test_normal(value: float | None, deviation: float) -> None:
    for name, weight in weights(initialised("normal", value)).items():
        assert_moments(weight[torch.arange(len(weight)) != 3] if name.startswith("embedding") else weight, deviation)
        assert weight.abs().max() > 3 * deviation


def test_a_deviation_of_nought() -> None:
    assert all((weight == 0).all() for weight in weights(initialised("normal", 0.0)).values())


@pytest.mark.parametrize(("value", "expected"), [(None, 1.0), (-2.5, -2.5)])
def test_constant(value: float | None, expected: float) -> None:
    for name, weight in weights(initialised("constant", value)).items():
        rows = torch.arange(len(weight)) != 3 if name.startswith("embedding") else slice(None)
        assert (weight[rows] == expected).all()


def test_xavier_is_uniform_with_the_variance_of_glorot_and_bengio() -> None:
    for weight in weights(initialised("xavier")).values():
        deviation = math.sqrt(2 / sum(fans(weight)))
        assert weight.abs().max() <= math.sqrt(3) * deviation
        assert weight.abs().max() > 0.99 * math.sqrt(3) * deviation
        if len(weight) != 500:
            assert_moments(weight, deviation)


def test_kaiming_is_normal_with_the_variance_of_he() -> None:
    for weight in weights(initialised("kaiming")).values():
        deviation = math.sqrt(2 / fans(weight)[0])
        assert weight.abs().max() > 3 * deviation
        if len(weight) != 500:
            assert_moments(weight, deviation)


@pytest.mark.parametrize("name", NAMES)
def test_biases_are_nought_and_norms_untouched(name: Initialisation) -> None:
    net = Sample()
    for norm in (net.batch_norm, net.layer_norm, net.group_norm):
        nn.init.constant_(norm.weight, 0.7)
        nn.init.constant_(norm.bias, 0.3)
    for parameter_name, parameter in initialised(name, net=net).items():
        if parameter_name.startswith("activation"):
            assert parameter.item() == 0.25
        elif parameter_name.startswith(NORMS):
            assert (parameter == torch.tensor(0.7 if "weight" in parameter_name else 0.3)).all()
        elif "bias" in parameter_name:
            assert (parameter == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_stays_nought(name: Initialisation) -> None:
    embedding = initialised(name)["embedding.weight"]
    assert (embedding[3] == 0).all()
    assert (embedding[[2, 4]] != 0).all()


def test_what_is_not_trained_stays() -> None:
    net = Sample()
    net.convolution.requires_grad_(False)
    before = {name: value.clone() for name, value in net.convolution.state_dict().items()}
    initialised("constant", net=net)
    for name, value in net.convolution.state_dict().items():
        assert torch.equal(value, before[name])


def test_without_a_name_nothing_is_touched_or_drawn() -> None:
    torch.manual_seed(0)
    expected = {name: parameter.detach() for name, parameter in Sample().named_parameters()}
    following = torch.rand(1)
    found = initialised(None)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert torch.equal(torch.rand(1), following)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (None, 0.1, "init_value is 0.1, but init is not set; only init normal and constant take a value"),
        ("xavier", 0.1, "init_value is 0.1, but init is xavier; "),
        ("kaiming", 1.0, "init_value is 1.0, but init is kaiming; "),
        ("normal", -0.1, "init_value is -0.1; as the standard deviation of init normal it must be 0 or more"),
        ("normal", math.inf, "init_value is inf; it must be a finite number"),
        ("constant", math.nan, "init_value is nan; it must be a finite number"),
    ],
)
def test_values_that_cannot_be(toy: Any, name: Initialisation | None, value: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        toy.Task(init=name, init_value=value)


# ---- as an option of every task


def network_of(checkpoint: Path) -> Parameters:
    state = read_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}


FROZEN = ["--model.optimizer=SGD", "--model.optimizer.lr=0"]
LAST = Path("runs/lenet/1/checkpoints/last.ckpt")


def test_the_option_sets_the_first_weights_of_a_run(fit_options: list[str]) -> None:
    options = [*FROZEN, "--model.init=constant", "--model.init_value=0.25", "--model.net.batch_norm=true"]
    assert main(["fit", *fit_options, *options]) == 0
    for name, value in network_of(LAST).items():
        if value.ndim >= 2:
            assert (value == 0.25).all(), name
    names = {name for name, module in LeNet(1, 10, batch_norm=True).named_modules() if "Norm" in type(module).__name__}
    assert names
    for name in names:
        assert (network_of(LAST)[f"{name}.weight"] == 1).all()


def test_every_seed_draws_its_own_weights(fit_options: list[str]) -> None:
    for seed in (1, 1, 2):
        assert main(["fit", *fit_options, *FROZEN, "--model.init=kaiming", f"--seed_everything={seed}"]) == 0
    first, again, other = (
        network_of(Path(f"runs/lenet/{number}/checkpoints/last.ckpt"))["classifier.1.weight"] for number in (1, 2, 3)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_checkpoint_wins_over_the_initialisation(fit_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Resumed and tested, a trained network is not begun anew."""
    options = [*fit_options, "--model.init=xavier", "--model.net.activation=relu"]
    assert main(["fit", *options, "--trainer.max_epochs=2", "--experiment=straight"]) == 0
    assert main(["fit", *options]) == 0
    assert main(["fit", *options, "--trainer.max_epochs=2", "--resume=auto"]) == 0
    straight = network_of(Path("runs/straight/1/checkpoints/last.ckpt"))
    assert all(torch.equal(value, straight[name]) for name, value in network_of(LAST).items())
    results = []
    for run in ("runs/lenet/1", "runs/straight/1"):
        capsys.readouterr()
        assert main(["test", run]) == 0
        results.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("test/")])
    assert results[0] == results[1] != []
