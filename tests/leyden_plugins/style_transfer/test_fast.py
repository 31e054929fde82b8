"""FastStyleTransfer: its losses against formulas, what it trains and saves, and pictures painted without the style."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leyden.batches import StyleFacts, StylePairs
from leyden.errors import UsageError
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.style_images import StyleImages
from leyden_plugins.style_transfer.fast import FastStyleTransfer
from leyden_plugins.style_transfer.features import FeatureNetwork

FACTS = StyleFacts((("photos", "oak.jpg", 32, 32),))
LAYERS: dict[str, Any] = {
    "features": "vgg11",
    "weights": "random",
    "content_layers": [3],
    "style_layers": [0, 3],
    "style_layer_weights": [2.0, 0.5],
}


class Tint(nn.Module):
    """Multiplies a picture by a learnt number."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


class Smaller(Tint):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., ::2, ::2]


class Overflowing(Tint):
    def forward(self, images: Tensor) -> Tensor:
        return 4 * super().forward(images) - 0.5


class Twice(Tint):
    def forward(self, images: Tensor) -> Any:
        return (super().forward(images),) * 2


def make_task(net: Any = Tint, facts: StyleFacts = FACTS, **kwargs: Any) -> FastStyleTransfer:
    task = FastStyleTransfer(net=net, **{**LAYERS, **kwargs})
    task.facts = facts
    task.configure_model()
    return task


@pytest.fixture
def batch() -> StylePairs:
    generator = torch.Generator().manual_seed(0)
    contents = torch.rand(3, 3, 32, 32, generator=generator)
    style = torch.rand(1, 3, 24, 40, generator=generator)
    return StylePairs(contents, style.expand(3, -1, -1, -1), torch.zeros(3, dtype=torch.int64))


@pytest.fixture
def ready() -> FastStyleTransfer:
    """A task that has its frozen network, as training and testing have."""
    task = make_task(content_weight=2.0, style_weight=30.0, tv_weight=0.25)
    task._perceptual = [task.build_perceptual_loss()]
    return task


def gram(maps: Tensor) -> Tensor:
    """(C, H, W) to (C, C), by loops."""
    channels = len(maps)
    found = torch.empty(channels, channels, dtype=torch.float64)
    for row in range(channels):
        for column in range(channels):
            found[row, column] = (maps[row].double() * maps[column].double()).sum() / maps.numel()
    return found


def test_the_losses_are_those_of_the_painted_picture(ready: FastStyleTransfer, batch: StylePairs) -> None:
    losses = ready.outputs(batch)
    net = FeatureNetwork("vgg11", "random", [0, 3])
    style = net(batch.styles[:1])
    for index in range(3):
        content, painted = batch.contents[index : index + 1], 0.5 * batch.contents[index : index + 1]
        found, wanted = net(painted), net(content)
        expected = [2 * (found["3"] - wanted["3"]).double().square().mean()]
        parts = [
            weight * (gram(found[layer][0]) - gram(style[layer][0])).square().mean()
            for layer, weight in {"0": 2.0, "3": 0.5}.items()
        ]
        expected.append(30 * torch.stack(parts).sum())
        normalized = net.normalize(painted).double()
        down = (normalized[:, :, 1:] - normalized[:, :, :-1]).abs().mean()
        right = (normalized[..., 1:] - normalized[..., :-1]).abs().mean()
        expected.append(0.25 * (down + right) / 2)
        torch.testing.assert_close(losses[index].double(), torch.stack(expected), rtol=1e-4, atol=1e-7)
    assert ready.loss(losses, batch).item() == pytest.approx(losses.sum().item() / 3, rel=1e-6)


def test_only_the_network_is_trained(ready: FastStyleTransfer, batch: StylePairs) -> None:
    frozen = {name: value.clone() for name, value in ready._perceptual[0].features.named_buffers()}
    [factor] = ready.parameters()
    optimizer = torch.optim.Adam(ready.parameters(), 0.05)
    losses = []
    for _ in range(5):
        loss = ready.loss(ready.outputs(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert factor.item() != 0.5
    assert all(torch.equal(value, frozen[name]) for name, value in ready._perceptual[0].features.named_buffers())


def test_the_style_is_looked_at_once(
    ready: FastStyleTransfer, batch: StylePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    perceptual = ready._perceptual[0]
    look = perceptual.style_grams
    monkeypatch.setattr(perceptual, "style_grams", lambda styles: seen.append(styles.shape) or look(styles))
    with torch.inference_mode():  # as the validation before training
        ready.outputs(batch)
    ready.loss(ready.outputs(batch), batch).backward()
    ready.outputs(batch)
    assert seen == [(1, 3, 24, 40)]


def test_contents_are_looked_at_no_deeper_than_needed(batch: StylePairs) -> None:
    task = make_task(content_layers=[3], style_layers=[0, 3, 8], style_layer_weights=None)
    task._perceptual = [task.build_perceptual_loss()]
    seen: list[int] = []
    for module in task._perceptual[0].modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, *_: seen.append(conv.out_channels))
    task.perceptual_loss(batch.contents).content_maps(batch.contents)
    assert seen == [64, 128], "the convolutions of VGG-11 up to features.3"


def test_pictures_are_painted_without_the_frozen_network(batch: StylePairs) -> None:
    task = make_task(weights=None)
    unknown = batch._replace(styles=batch.styles[..., :0, :0])
    records = task.predict(unknown)
    for record, content in zip(records, batch.contents, strict=True):
        assert {name: value for name, value in record.items() if name != "picture"} == {
            "style": "oak.jpg",
            "size": [32, 32],
        }
        assert torch.equal(record["picture"], (content * 0.5 * 255).round().to(torch.uint8))


def test_what_leaves_the_range_is_clamped(batch: StylePairs) -> None:
    for record, content in zip(make_task(Overflowing).predict(batch), batch.contents, strict=True):
        expected = (2 * content - 0.5).clamp(0, 1).mul(255).round()
        assert torch.equal(record["picture"].float(), expected)


def test_an_input_is_drawn_at_its_full_size_and_a_sample_beside_content_and_style(batch: StylePairs) -> None:
    task = make_task()
    large = torch.rand(1, 3, 900, 1300)
    unknown = StylePairs(large, large[..., :0, :0], torch.zeros(1, dtype=torch.int64))
    drawn = task.draw(Image.new("RGB", (1300, 900)), task.predict(unknown)[0])
    assert drawn.size == (1300, 900)
    assert drawn.getpixel((1299, 0)) == tuple((large[0, :, 0, 1299] * 0.5 * 255).round().int().tolist())

    record = task.predict(batch)[1]
    assert torch.equal(record["content_picture"], (batch.contents[1] * 255).round().to(torch.uint8))
    assert torch.equal(record["style_picture"], (batch.styles[0] * 255).round().to(torch.uint8))
    sample = task.draw(Image.new("RGB", (32, 32)), record)
    side = 160  # to which 32 pixels are enlarged
    assert sample.height == side + 24
    centres = (side // 2, sample.width - side // 2)
    shown = [torch.tensor(sample.crop((x - 70, 40, x + 70, 170)).resize((1, 1)).getpixel((0, 0))) for x in centres]
    content, painted = (colour.float().mean().item() for colour in shown)
    assert painted / content == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("net", "found"),
    [
        (Smaller, r"Smaller gives \(1, 3, 23, 36\) for a 45x71 picture, expected one of the same size"),
        (lambda channels: nn.Conv2d(4, 3, 1), "Conv2d cannot take a 45x71 picture"),
        (Twice, "Twice gives a tuple for a 45x71 picture"),
    ],
)
def test_a_network_that_does_not_serve(net: Any, found: str) -> None:
    task = FastStyleTransfer(net=Tint, **LAYERS)
    task.network_factory = net
    task.facts = FACTS
    with pytest.raises(UsageError, match=found):
        task.configure_model()


def test_one_network_has_one_style() -> None:
    facts = StyleFacts(tuple((content, style, 32, 32) for content in "ab" for style in ("oak.jpg", "sea.jpg")))
    with pytest.raises(UsageError, match=r"learns one style, but the data has 2: oak\.jpg, sea\.jpg"):
        make_task(facts=facts)
    one = StyleFacts((("a", "oak.jpg", 32, 32), ("b", "oak.jpg", 32, 32)))
    assert (
        make_task(facts=one).predict(StylePairs(torch.rand(1, 3, 8, 8), torch.empty(1, 3, 0, 0), torch.tensor([1])))[0][
            "style"
        ]
        == "oak.jpg"
    )


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`fit` on fabricated pictures."""
    monkeypatch.chdir(tmp_path)
    data = StyleImages.fabricate(tmp_path / "data")
    options = [f"--data.{name}={value}" for name, value in data.items()]
    net = ["--model.net=ImageTransformNet", "--model.net.width=4", "--model.net.num_blocks=1"]
    layers = [f"--model.{name}={value}" for name, value in LAYERS.items()]
    steps = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu"]
    return ["fit", "--model=FastStyleTransfer", *net, *layers, "--data=StyleImages", *options, *steps, "--experiment=a"]


def test_a_run_paints_pictures_of_many_sizes_without_style_and_weights(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    run = Path("runs/a/1")
    assert (run / "samples" / "epoch_001.png").is_file()
    names = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(name.startswith(("net.", "metrics.", "mean_losses.")) for name in names)
    (tmp_path / "data" / "style.png").unlink()
    (tmp_path / "photos").mkdir()
    sizes = {"a.png": (40, 30), "b.jpg": (17, 61), "c.png": (1, 1)}
    for name, size in sizes.items():
        Image.new("RGB", size, "olive").save(tmp_path / "photos" / name)
    assert main(["predict", str(run), "photos", "--model.weights=gone.pth", "--trainer.accelerator=cpu"]) == 0
    lines = (run / "predictions" / "predictions.jsonl").read_text().splitlines()
    for line, (name, (width, height)) in zip(lines, sizes.items(), strict=True):
        record = json.loads(line)
        assert (Path(record["input"]).name, record["size"], record["style"]) == (name, [height, width], "style.png")
        with Image.open(run / "predictions" / record["picture"]) as picture:
            assert picture.size == (width, height)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--model.weights=null"], "weights"),
        (["--model.style_layers=[0,77]"], "no layer 77"),
        (["--model.style_weight=-1"], "style_weight is -1"),
        (["--model.content_layers=[20]", "--data.image_size=16"], "pictures of 16 x 16 pixels are too small"),
        (["--data.image_size=0"], "image_size is 0"),
    ],
)
def test_what_cannot_be_trained_says_so(
    words: list[str], more: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more, "--trainer.fast_dev_run=true"]) == 2
    said = "".join(capsys.readouterr())
    assert found in said
    assert "Traceback" not in said
