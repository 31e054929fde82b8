"""Style transfer: speed of `fit` against a bare PyTorch loop, the memory that it takes, and one pass against steps.

python benchmarks/style_transfer.py [step|memory|pass] [--size HEIGHT WIDTH] [--steps N] [--threads N]
python benchmarks/style_transfer.py pass --features vgg16 --painted-steps 160

VGG-19 with random weights, one picture, the book's layers and weights, Adam. step (300 x 450): the bare loop runs VGG's
layers one after another up to the last that is needed, compares with targets that were computed before, and keeps no
metrics, logs and pictures. memory (512 x 512): the largest resident set of a process that does nothing else. pass
(300 x 450): ImageTransformNet paints a picture in one pass, in turn with steps of painting one by StyleTransfer, of
which `--painted-steps` are a whole picture; what the weights are makes no difference to the time.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from _side_by_side import Loop, fit_beside
from PIL import Image
from torch import Tensor, nn

from leyden.batches import StyleFacts, StylePairs
from leyden.cli import Request, TrainingCLI, prepare_process, set_up_output
from leyden_plugins.style_transfer.networks.transformer import ImageTransformNet
from leyden_plugins.style_transfer.task import StyleTransfer

STYLE_LAYERS, CONTENT_LAYER = (0, 5, 10, 19, 28), 25
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 1.0, 1e3, 10.0
RATE = 0.3
SIZES = {"step": (300, 450), "memory": (512, 512), "pass": (300, 450)}


def gram(maps: Tensor) -> Tensor:
    """(1, C, H, W) to (C, C)."""
    features = maps[0].flatten(1)
    return features @ features.T / features.numel()


def bare_loop(content: Tensor, style: Tensor, steps: int) -> Loop:
    """The shortest honest loop; content and style (1, 3, H, W), normalised."""
    layers = torchvision.models.vgg19().features[: max(STYLE_LAYERS) + 1].requires_grad_(False)
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # it would overwrite the convolutions that are compared

    def maps(images: Tensor) -> dict[int, Tensor]:
        found = {}
        for number, layer in enumerate(layers):
            images = layer(images)
            if number in STYLE_LAYERS or number == CONTENT_LAYER:
                found[number] = images
        return found

    with torch.no_grad():
        content_target = maps(content)[CONTENT_LAYER]
        of_style = maps(style)
        grams = {number: gram(of_style[number]) for number in STYLE_LAYERS}
    picture = content.clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=RATE)

    def epoch() -> None:
        for _ in range(steps):
            found = maps(picture)
            loss = CONTENT_WEIGHT * F.mse_loss(found[CONTENT_LAYER], content_target)
            for number in STYLE_LAYERS:
                loss = loss + STYLE_WEIGHT * F.mse_loss(gram(found[number]), grams[number])
            variation = picture.diff(dim=2).abs().mean() + picture.diff(dim=3).abs().mean()
            loss = loss + TV_WEIGHT * 0.5 * variation
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def fit_options(folder: str, size: tuple[int, int], epochs: int, steps: int) -> list[str]:
    """`fit` on two pictures of noise."""
    for number, name in enumerate(("content", "style")):
        pixels = torch.randint(256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.numpy()).save(Path(folder, f"{name}.png"))
    return [
        *("--model", "StyleTransfer", "--model.weights", "random", "--data", "StylePair"),
        *(f"--data.content={folder}/content.png", f"--data.style={folder}/style.png"),
        *(f"--data.image_size=[{size[0]},{size[1]}]", f"--data.steps_per_epoch={steps}"),
        *(f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false", "--runs", f"{folder}/runs"),
    ]


def normalized_pair(cli: TrainingCLI) -> tuple[Tensor, Tensor]:
    """Content and style as the network sees them."""
    data: Any = cli.datamodule
    data.setup("fit")
    batch = data.transform(data.splits["val"].__getitems__([0]), training=False)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    content, style = (torchvision.transforms.v2.functional.normalize(x, mean, std) for x in batch[:2])
    return content, style


def compare_steps(size: tuple[int, int], epochs: int, steps: int) -> None:
    """Print the ratio of `fit` to the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        options = fit_options(folder, size, epochs, steps)
        result = fit_beside(options, lambda cli: {"bare": bare_loop(*normalized_pair(cli), steps)})
    print(f"VGG-19, {size[0]} x {size[1]}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    result.report(steps)
    for name, seconds in result.seconds.items():
        print(f"{name:<12} {statistics.median(seconds[1:]) / steps:.4f} s a step")


def compare_memory(size: tuple[int, int], steps: int) -> None:
    """Print the largest resident set of either loop, each in a process of its own."""
    for kind in ("bare", "fit"):
        words = [sys.executable, __file__, "memory", "--measure", kind, "--steps", str(steps)]
        words += ["--size", *map(str, size), "--threads", str(torch.get_num_threads())]
        output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        print(f"{kind}: {float(output.split()[-1]):.2f} GiB at {size[0]} x {size[1]}")


def peak_memory(kind: str, size: tuple[int, int], steps: int) -> float:
    """GiB, after a few steps of one loop in this process."""
    with tempfile.TemporaryDirectory() as folder:
        set_up_output()
        cli: Any = TrainingCLI(Request.parse("fit", fit_options(folder, size, 1, steps)))
        prepare_process(cli.trainer)
        if kind == "bare":
            bare_loop(*normalized_pair(cli), steps)()
        else:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare_passes(size: tuple[int, int], features: str, rounds: int, painted_steps: int) -> None:
    """Print how many times as fast one pass is as all steps of a picture."""
    task = StyleTransfer(features=features, weights="random")
    task.facts = StyleFacts((("content", "style", *size),))
    task.configure_model()
    task._perceptual = [task.build_perceptual_loss()]
    content, style = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(0)).unbind()
    task.canvas.start(0, content, content)
    batch = StylePairs(content, style, torch.tensor([0]))
    optimizer = task.optimizer_factory(list(task.canvas.parameters()))
    net = ImageTransformNet(3).eval()

    def step() -> None:
        loss = task.loss(task.train().outputs(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        task.canvas.clamp_(0)

    @torch.inference_mode()
    def one_pass() -> None:
        net(content)

    seconds: dict[str, list[float]] = {"one pass": [], "one step": []}
    for _ in range(rounds + 1):  # the first warms up
        for name, run in zip(seconds, (one_pass, step), strict=True):
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    print(f"{features}, {size[0]} x {size[1]}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    for name, each in seconds.items():
        print(f"{name}: {medians[name]:.3f} s, median of {rounds} (from {min(each[1:]):.3f} to {max(each[1:]):.3f})")
    faster = painted_steps * medians["one step"] / medians["one pass"]
    print(f"one pass is {faster:.0f} times as fast as {painted_steps} steps")


def main() -> None:
    """Parse the command line and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=SIZES, default="step")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each loop; the first only warms up")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch; rounds of pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--features", default="vgg19", help="pass: the network that the steps compare pictures by")
    parser.add_argument("--painted-steps", type=int, default=500, help="pass: how many steps paint a picture")
    parser.add_argument("--measure", choices=["fit", "bare"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    size = tuple(chosen.size or SIZES[chosen.case])
    if chosen.measure:
        print(peak_memory(chosen.measure, size, chosen.steps))
    elif chosen.case == "memory":
        compare_memory(size, chosen.steps)
    elif chosen.case == "pass":
        compare_passes(size, chosen.features, chosen.steps, chosen.painted_steps)
    else:
        compare_steps(size, chosen.epochs, chosen.steps)


if __name__ == "__main__":
    main()
