"""StyleTransfer: a picture is painted that has the content of one and the style of another."""

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torchvision.transforms.v2.functional import to_pil_image

from leyden import draw
from leyden.batches import StylePairs
from leyden.errors import UsageError
from leyden.folders import replacing
from leyden.task import Record
from leyden_plugins.style_transfer.losses import Maps
from leyden_plugins.style_transfer.networks.canvas import Canvas, luminance, resized, stage_size
from leyden_plugins.style_transfer.perceptual import PerceptualTask

logger = logging.getLogger("leyden")
RATE = 0.3  # of Adam, in units of ImageNet's standard deviation; "Dive into Deep Learning", section 14.12
SHOWN_STEPS = 6  # pictures of a strip, beside content and style
FRAME, LAST_FRAME = 150, 2000  # milliseconds


class Target(NamedTuple):
    """What a picture is compared with: maps (1, C, H, W) of its content, Gram matrices (1, C, C) of its style."""

    content_maps: Maps
    style_grams: Maps


class StyleTransfer(PerceptualTask):
    """Paints one picture for each pair of a content and a style: the pixels are what is trained.

    Source: Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016; losses and
    defaults as in Zhang et al., "Dive into Deep Learning", section 14.12. Without an optimizer it is Adam at a rate of
    0.3. Evaluation is of the picture as it is saved, at full size, with 8 bits, whatever stage painting is in. With an
    optimizer that looks at a picture several times in a step, as L-BFGS does, the training losses are the means of all
    that it saw.

    The run's folder holds the finished picture as picture.png (of several pairs pictures/NNN_content_style.png), and
    stages.png, a strip that shows how it came about. `predict RUN CONTENT` gives finished pictures again; for contents
    that training has not seen there is FastStyleTransfer.

    Args:
        start: what a picture begins with, its content or noise.
        stages: painting begins at 1 / 2 ** (stages - 1) of the size, which doubles after equal shares of the steps
            (Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", 2017, section 6).
        keep_colours: only the luminance is painted, for the luminance of the style, brought to mean and standard
            deviation of the content's; the colours stay the content's (the same, section 5.1).
        clamp: after each step pixels are brought back into the range of what can be shown, so that painting counts on
            nothing that is cut off in the end. The book leaves them free.
        animation: write animation.gif, a frame for each validation.
        kwargs: the arguments of every task that paints in a style (features, weights, style_weight, ...).

    Raises:
        UsageError: for a value out of its range, and for data that does not say which pictures to paint.
    """

    trainer_defaults: ClassVar[dict[str, Any]] = {"log_every_n_steps": 10}
    sample_sheet = (3, 4)
    net: Canvas | None

    def __init__(
        self,
        start: Literal["content", "noise"] = "content",
        stages: int = 1,
        keep_colours: bool = False,
        clamp: bool = True,
        animation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stages < 1:
            raise UsageError(f"stages is {stages}; it must be at least 1.")
        if kwargs.get("optimizer") is None:
            self.optimizer_factory = functools.partial(torch.optim.Adam, lr=RATE)
        self.start = start
        self.stages = stages
        self.keep_colours = keep_colours
        self.clamp = clamp
        self.animation = animation
        self._stage = 0
        self._length: int | None = None
        self._targets: dict[tuple[int, int], Target] = {}
        self._originals: dict[str, Image.Image] = {}

    @property
    def canvas(self) -> Canvas:
        """The network: the pictures themselves."""
        canvas = self.network
        assert isinstance(canvas, Canvas)
        return canvas

    def build_network(self) -> Canvas:
        """An empty canvas for each pair."""
        return Canvas([(height, width) for *_, height, width in self.facts.pairs], self.stages, self.keep_colours)

    # ---- painting

    def outputs(self, batch: StylePairs) -> Tensor:
        """The losses (B, 3) of the picture of each pair; one that is there twice is looked at once."""
        chosen, places = torch.unique(batch.pairs, return_inverse=True)
        pairs: list[int] = chosen.tolist()
        stage = self._stage if self.training else self.stages - 1
        targets = [self._target(batch, (batch.pairs == pair).nonzero()[0], pair, stage) for pair in pairs]
        pictures = self.canvas(pairs, stage) if self.training else torch.cat([self._shown(pair) for pair in pairs])
        content_maps, style_grams = (_joined(maps) for maps in zip(*targets, strict=True))
        losses: Tensor = self.perceptual_loss(pictures)(pictures, content_maps, style_grams)
        if self.training and _in_processes():  # which wait for a gradient of every parameter
            losses = losses + 0 * sum(parameter.sum() for parameter in self.canvas.parameters())
        return losses[places]

    def _shown(self, pair: int) -> Tensor:
        """What is compared of a picture as it is saved: (1, 3, H, W)."""
        finished = self.canvas.finished(pair)
        return luminance(finished).expand(-1, 3, -1, -1) if self.keep_colours else finished

    def _target(self, batch: StylePairs, place: Tensor, pair: int, stage: int) -> Target:
        """What a picture is compared with in a stage, found once."""
        key = (pair, stage)
        if key not in self._targets:
            # what is made in inference mode could not serve in training later
            with torch.inference_mode(False), torch.no_grad():
                # of one batch or another, a convolution rounds alike only where pixels lie in memory alike
                content, style = (pictures[place].contiguous() for pictures in (batch.contents, batch.styles))
                self._targets[key] = self._new_target(content, style, stage)
        return self._targets[key]

    def _new_target(self, content: Tensor, style: Tensor, stage: int) -> Target:
        if self.keep_colours:
            content, style = luminance(content), luminance(style)
            style = matched(style, content).expand(-1, 3, -1, -1)
            content = content.expand(-1, 3, -1, -1)
        content, style = (
            resized(each, stage_size((each.shape[2], each.shape[3]), stage, self.stages)) for each in (content, style)
        )
        return Target(
            self.perceptual_loss(content).content_maps(content), self.perceptual_loss(style).style_grams(style)
        )

    # ---- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Lightning's hook."""
        super().setup(stage)
        self._targets = {}

    def on_fit_start(self) -> None:
        """Lightning's hook: in every process all pictures begin alike, unless they come from a checkpoint."""
        super().on_fit_start()
        if self.device_mesh is not None:
            raise UsageError(
                "StyleTransfer paints on its weights, which cannot be divided. Use --trainer.strategy ddp."
            )
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        source, pairs = data.splits["train"], self.facts.pairs
        if data.held_out:
            raise UsageError(
                f"StyleTransfer paints the very pictures that it is given, but {type(data).__name__} holds some out to "
                "validate on. Use the data StylePair, or train FastStyleTransfer."
            )
        self._require_large_stages()
        begun = self.canvas.finest() >= 0
        noise = torch.Generator().manual_seed(torch.initial_seed())
        for index in range(len(pairs) if not begun else 1):
            content, style, [pair] = data.transform(source.__getitems__([index]), training=False)
            if not begun:
                coarsest = stage_size((content.shape[2], content.shape[3]), 0, self.stages)
                first = content if self.start == "content" else torch.rand(1, 3, *coarsest, generator=noise)
                self.canvas.start(int(pair), first.to(self.device), content.to(self.device))
            if len(pairs) == 1:
                self._originals = {"content": to_pil_image(content[0]), "style": to_pil_image(style[0])}

    def _require_large_stages(self) -> None:
        """UsageError where painting would begin smaller than the frozen network takes."""
        [perceptual] = self._perceptual
        smallest = perceptual.features.smallest
        sizes = [stage_size((height, width), 0, self.stages) for *_, height, width in self.facts.pairs]
        height, width = min(sizes, key=min)
        if self.stages > 1 and min(height, width) < smallest:
            raise UsageError(
                f"stages is {self.stages}, so painting would begin at {height} x {width} pixels, but the layers of "
                f"{self.features} that are asked for need {smallest} in each direction. Take fewer stages, or larger "
                "pictures."
            )

    def on_train_start(self) -> None:
        """Lightning's hook: it is known now how many steps there are."""
        super().on_train_start()
        self._stage = max(0, self.canvas.finest())
        if any(isinstance(optimizer, LBFGS) for optimizer in self.trainer.optimizers) and len(self.facts.pairs) > 1:
            raise UsageError(
                f"L-BFGS expects the same loss in each step, but there are {len(self.facts.pairs)} pairs. Paint them "
                "in runs of their own, or use another optimizer."
            )
        self._length = self._training_length("step")
        if self.stages > 1 and self._length is None:
            raise UsageError(
                f"stages is {self.stages}, but nobody knows how many steps they share. Set --trainer.max_epochs or "
                "--trainer.max_steps."
            )

    def on_train_batch_start(self, batch: StylePairs, batch_idx: int) -> None:
        """Lightning's hook: the next stage begins when its share of the steps does."""
        super().on_train_batch_start(batch, batch_idx)
        if self._stage == self.stages - 1 or not self._length:
            return
        due = min(self.stages - 1, self.global_step * self.stages // self._length)
        if due > self._stage:
            self._stage = due
            self.canvas.refine(due)
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()  # it is of pictures of another size

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning's hook: momentum must not move pictures that no process has painted on."""
        super().on_before_optimizer_step(optimizer)
        if _in_processes():
            for parameter in self.canvas.parameters():
                if parameter.grad is not None and not parameter.grad.any():
                    parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's hook: pixels do not stay where no picture can show them."""
        super().optimizer_step(*args, **kwargs)
        if self.clamp:
            self.canvas.clamp_(self._stage)

    # ---- results

    def predict(self, batch: StylePairs) -> list[Record]:
        """The names of `content` and `style`, and for drawing the `picture` (3, H, W) uint8."""
        return [self._record(pair) for pair in batch.pairs.tolist()]

    def _record(self, pair: int) -> Record:
        if pair < 0:
            contents = ", ".join(dict.fromkeys(content for content, *_ in self.facts.pairs))
            raise UsageError(
                f"this run of StyleTransfer holds finished pictures, of {contents}, and no others can be asked for. "
                "FastStyleTransfer paints pictures that it has not seen."
            )
        content, style, *_ = self.facts.pairs[pair]
        pixels = self.canvas.finished(pair)[0].detach().float().mul(255).round().to(torch.uint8).cpu()
        return {"content": content, "style": style, "picture": pixels}

    def draw(self, picture: Image.Image, record: Record) -> Image.Image:
        """The painted picture."""
        painted: Image.Image = to_pil_image(record["picture"])
        return painted

    def write_results(self, folder: Path, finished: bool) -> None:
        """The pictures at full size, the strip of stages and, when all is done, the animation.

        Of the folder of several pictures, which no other message names, a line of the log says where it is.
        """
        for pair, (content, style, *_) in enumerate(self.facts.pairs):
            several = f"pictures/{pair:03d}_{_stem(content)}_{_stem(style)}.png"
            name = several if len(self.facts.pairs) > 1 else "picture.png"
            draw.save(to_pil_image(self._record(pair)["picture"]), folder / name)
        samples = sorted(folder.glob("samples/epoch_*.png"), key=_epoch)
        if samples:
            draw.save(strip(self._originals, samples), folder / "stages.png")
        if samples and finished and self.animation:
            animate(samples, folder / "animation.gif")
        if finished and len(self.facts.pairs) > 1:
            logger.info("%d finished pictures: %s", len(self.facts.pairs), folder / "pictures")


def matched(style: Tensor, content: Tensor) -> Tensor:
    """A luminance with the mean and standard deviation of another, of any size: (1, 1, h, w)."""
    return (style - style.mean()) * (content.std() / style.std().clamp_min(1e-6)) + content.mean()


def strip(originals: dict[str, Image.Image], samples: Sequence[Path]) -> Image.Image:
    """The originals, and evenly spaced ones of the samples, the last among them."""
    count = min(SHOWN_STEPS, len(samples))
    chosen = [samples[(number * len(samples)) // count - 1] for number in range(1, count + 1)]
    panels = {name: draw.panel(picture) for name, picture in originals.items()}
    for path in chosen:
        with Image.open(path) as picture:
            panels[f"epoch {_epoch(path)}"] = draw.panel(picture)
    return draw.side_by_side(panels)


def animate(samples: Sequence[Path], path: Path) -> None:
    """Write the samples as an endless GIF, which rests on the last."""
    frames = []
    for sample in samples:
        with Image.open(sample) as picture:
            frames.append(picture.convert("RGB"))
    durations = [FRAME] * (len(frames) - 1) + [LAST_FRAME]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
        )


def _joined(maps: Sequence[Maps]) -> Maps:
    """The maps of several pictures behind each other."""
    if len(maps) == 1:
        return maps[0]
    return {layer: torch.cat([each[layer] for each in maps]) for layer in maps[0]}


def _in_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", Path(name).with_suffix("").as_posix())


def _epoch(sample: Path) -> int:
    return int(sample.stem.rpartition("_")[2])
