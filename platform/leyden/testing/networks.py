"""The rules for networks: built from what the data knows, trainable, saved whole, the same in every process."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leyden.networks import dry_run, smallest_image_size
from leyden.rules import wrong_output
from leyden.testing.rules import BrokenRule, check_documented, equal, require, require_kept

SMALLEST_SIDE = 28  # pixels of the smallest images that are tried
STEPS, RATES = 60, (3e-4, 3e-3, 3e-4)  # a network must learn one batch in so many steps of Adam, in one of three tries


def check_network(network: type[nn.Module], **options: Any) -> None:
    """A network for images, which the task builds as `network(in_channels, num_classes, **options)`.

    Args:
        network: the class. It is tried with the smallest images that it takes, from 28 pixels on.
        options: what makes it small, where it offers that; without them it is as large as the user gets it.
    """
    case = ImageNetwork(network, options)
    for check in RULES.values():
        check(case)


@dataclass(frozen=True)
class ImageNetwork:
    """A network for images, and what makes it small."""

    network: type[nn.Module]
    options: dict[str, Any]

    @cached_property
    def size(self) -> int:
        """The side of the smallest square images that it takes, in pixels."""
        return smallest_image_size(self.build, 3, above=SMALLEST_SIDE - 1) or 224

    def build(self) -> nn.Module:
        """The network for three channels and three classes."""
        return self.network(3, 3, **self.options)


def _check_numbers(case: ImageNetwork) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for channels, classes in ((1, 5), (3, 3)):
            images, _ = easy_images(channels, classes, case.size)
            _require_logits(case.network, case.options, images, classes)


def _check_image_learning(case: ImageNetwork) -> None:
    images, labels = easy_images(3, 3, case.size)
    below = 0.7 * math.log(3)  # whoever does not look at the images has log(3) at best
    _check_learning(case.build, [images], lambda out: F.cross_entropy(out, labels), below)


RULES: dict[str, Callable[[ImageNetwork], None]] = {
    "documented": lambda case: check_documented(case.network),
    "uses_its_numbers": _check_numbers,
    "learns": _check_image_learning,
    "saved_whole": lambda case: _check_saving(case.build, [easy_images(3, 3, case.size)[0]]),
}


def _require_logits(network: type[nn.Module], options: dict[str, Any], images: Tensor, classes: int) -> None:
    call = f"{network.__name__}({images.shape[1]}, {classes})"
    try:
        net = network(images.shape[1], classes, **options)
        logits = dry_run(net, images)
    except Exception as error:
        raise BrokenRule(
            f"{call} cannot be built and run on images {tuple(images.shape)}: {error}",
            "Its first two arguments must be in_channels and num_classes, by position: only the data knows them.",
        ) from error
    given, expected = f"{len(images)} images", (len(images), classes)
    require_kept(call, wrong_output(logits, given, expected, f"num_classes {classes}"))
    alone = torch.allclose(dry_run(net, images[:1]), logits[:1], rtol=1e-3, atol=1e-4)
    why = "What is predicted would depend on the batch size and on the neighbours."
    require(alone, f"in eval mode {call} gives an image other logits alone than in a batch", why)


def check_trainable(
    build: Callable[[], nn.Module], inputs: Sequence[Tensor], loss: Callable[[Any], Tensor], below: float
) -> None:
    """Any network: its gradients, learning one batch by heart, evaluation, its weights in a file.

    Args:
        build: makes the network.
        inputs: the arguments of one forward call.
        loss: the loss of what that call gives, a scalar.
        below: the loss must come below this in 60 steps. Choose what no constant answer reaches.
    """
    _check_learning(build, inputs, loss, below)
    _check_saving(build, inputs)


def _check_learning(
    build: Callable[[], nn.Module], inputs: Sequence[Tensor], loss: Callable[[Any], Tensor], below: float
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _tried(build, inputs)
        _check_gradients(net, loss(net(*inputs)))
        reached = math.inf
        for seed, rate in enumerate(RATES):
            if reached >= below:
                torch.manual_seed(seed)
                reached = _overfit(_tried(build, inputs), inputs, loss, rate, below)
    found = f"after {STEPS} steps on one batch the loss of {type(net).__name__} is {reached:.3f}, not below {below:.3f}"
    require(reached < below, found, "A network that cannot learn one batch by heart learns no data set.")


def _check_saving(build: Callable[[], nn.Module], inputs: Sequence[Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _tried(build, inputs)
        with torch.no_grad():
            net(*inputs)  # running statistics are no longer those of a new network
        _check_weights(net, _tried(build, inputs), inputs)


def _tried(build: Callable[[], nn.Module], inputs: Sequence[Tensor]) -> nn.Module:
    """A network as tasks build it: run once, so that lazy layers have their sizes."""
    net = build()
    dry_run(net, *inputs)
    return net


def _check_gradients(net: nn.Module, loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in net.named_parameters():
        what = f"parameter {name} of {type(net).__name__}"
        if parameter.requires_grad:
            why = "It is never trained, and with several processes the second step stops with an error."
            require(parameter.grad is not None, f"{what} gets no gradient", why)
            finite = parameter.grad is not None and bool(parameter.grad.isfinite().all())
            require(finite, f"{what} gets a gradient of NaN or inf", "The first step would destroy the network.")


def _overfit(
    net: nn.Module, inputs: Sequence[Tensor], loss: Callable[[Any], Tensor], rate: float, below: float
) -> float:
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for _ in range(STEPS):
        current = loss(net(*inputs))
        if current.item() < below:
            break
        optimizer.zero_grad()
        current.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return current.item()


def _check_weights(net: nn.Module, fresh: nn.Module, inputs: Sequence[Tensor]) -> None:
    name = type(net).__name__
    expected = dry_run(net, *inputs)
    repeated = equal(dry_run(net, *inputs), expected)
    require(repeated, f"{name} in eval mode answers twice differently", "No test and no prediction could be repeated.")
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    try:
        fresh.load_state_dict(torch.load(file, weights_only=True))
    except Exception as error:
        raise BrokenRule(
            f"the saved weights of {name} do not load into a new {name}: {error}",
            "A run could not be tested or resumed.",
        ) from error
    same = equal(dry_run(fresh, *inputs), expected)
    why = "Something that matters is neither a parameter nor a buffer and would be lost with the process."
    require(same, f"a new {name} with the saved weights answers differently", why)


def easy_images(channels: int, classes: int, size: int) -> tuple[Tensor, Tensor]:
    """Eight images (8, channels, size, size) whose large blots tell the class, and their labels (8,)."""
    generator = torch.Generator().manual_seed(0)
    blots = F.interpolate(torch.randn(classes, channels, 4, 4, generator=generator), size=(size, size), mode="bilinear")
    labels = torch.arange(8) % classes
    return 2 * blots[labels] + 0.1 * torch.randn(8, channels, size, size, generator=generator), labels
