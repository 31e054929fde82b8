"""StyleTransfer: losses and gradients by hand, stages, colours, what is left of a run, and what it refuses."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from PIL import Image
from torch import Tensor
from torch.optim import LBFGS, SGD, Adam

from leyden.batches import StyleFacts, StylePairs
from leyden.errors import UsageError
from leyden.history import read_rows
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.style_images import StyleImages
from leyden_datamodules.style_pair import StylePair
from leyden_plugins.style_transfer.features import FeatureNetwork
from leyden_plugins.style_transfer.losses import content_loss, gram_matrix, style_loss, total_variation
from leyden_plugins.style_transfer.networks.canvas import luminance, resized
from leyden_plugins.style_transfer.task import StyleTransfer, matched

LAYERS: dict[str, Any] = {"content_layers": [4], "style_layers": [0, 3]}
SMALL: dict[str, Any] = {"features": "squeezenet1_1", "weights": "random", **LAYERS}
WORDS = [f"--model.{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in SMALL.items()]


def smooth(height: int, width: int, seed: int) -> Tensor:
    """A picture (1, 3, H, W) in [0, 1]."""
    return resized(torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed)), (height, width))


def batch_of(*pairs: int, height: int = 20, width: int = 28) -> StylePairs:
    contents = torch.cat([smooth(height, width, pair) for pair in pairs])
    styles = torch.cat([smooth(24, 24, 100 + pair) for pair in pairs])
    return StylePairs(contents, styles, torch.tensor(pairs))


def make_task(pairs: int = 1, height: int = 20, width: int = 28, begun: bool = True, **options: Any) -> StyleTransfer:
    """A task as it is when training begins, without a trainer."""
    task = StyleTransfer(**SMALL, **options)
    task.facts = StyleFacts(tuple((f"content{pair}.png", "style.png", height, width) for pair in range(pairs)))
    task.configure_model()
    task._perceptual = [task.build_perceptual_loss()]
    for pair in range(pairs if begun else 0):
        content = smooth(height, width, pair)
        task.canvas.start(pair, content, content)
    return task


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Three small contents and a style."""
    return {**StylePair.fabricate(tmp_path / "data"), "image_size": [24, 36]}


def train(task: StyleTransfer, arguments: dict[str, Any], *callbacks: Callback, epochs: int = 2, **options: Any) -> Any:
    """The trainer, after it has trained."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    keeps = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    trainer: Any = Trainer(
        max_epochs=epochs, accelerator="cpu", enable_checkpointing=keeps, callbacks=list(callbacks), **quiet
    )
    trainer.fit(task, StylePair(**arguments), **options)
    return trainer


def one_pair(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "content": f"{arguments['root']}/content/disc_0.png"}


# ---- losses


def test_the_losses_are_those_of_the_normalised_picture() -> None:
    weights = {"content_weight": 2.0, "style_weight": 50.0, "tv_weight": 3.0}
    layer_weights = {"style_layer_weights": [0.5, 4.0], "content_layer_weights": [7.0]}
    task = make_task(pairs=2, **weights, **layer_weights)
    with torch.no_grad():
        for parameter in task.canvas.parameters():
            parameter.add_(torch.rand(parameter.shape))
    batch = batch_of(1, 0)
    found = task.train().outputs(batch)

    net = FeatureNetwork("squeezenet1_1", "random", [0, 3, 4])
    for place, pair in enumerate((1, 0)):
        picture = next(iter(task.canvas.layers[pair])).detach()  # type: ignore[call-overload]
        seen, of_content = net.maps(picture), net(batch.contents[place : place + 1])
        of_style = net(batch.styles[place : place + 1])
        grams = {layer: gram_matrix(of_style[layer]) for layer in ("0", "3")}
        expected = [
            2 * content_loss(seen, of_content, {"4": 7.0}).item(),
            50 * style_loss(seen, grams, {"0": 0.5, "3": 4.0}).item(),
            3 * total_variation(picture).item(),
        ]
        assert found[place].tolist() == pytest.approx(expected, rel=1e-4)
    assert task.loss(found, batch).item() == pytest.approx(found.sum().item() / 2)
    assert torch.equal(task.measure(found, batch)[0], found)


def test_a_picture_equal_to_its_content_has_no_content_loss() -> None:
    task = make_task()
    content, style, roughness = task.train().outputs(batch_of(0))[0].tolist()
    assert content == pytest.approx(0, abs=1e-9)
    assert min(style, roughness) > 0


@pytest.mark.parametrize("keep_colours", [False, True])
def test_evaluation_is_of_the_picture_as_it_is_saved(keep_colours: bool) -> None:
    task = make_task(keep_colours=keep_colours)
    with torch.no_grad():
        for parameter in task.canvas.parameters():
            parameter.add_(2 * torch.randn(parameter.shape))
    [record] = task.predict(batch_of(0))
    shown = record["picture"][None].float() / 255
    if keep_colours:
        shown = luminance(shown).expand(-1, 3, -1, -1)
    target = task._target(batch_of(0), torch.tensor([0]), 0, 0)
    expected = task.perceptual_loss(shown)(shown, *target)
    torch.testing.assert_close(task.eval().outputs(batch_of(0)), expected)
    assert not torch.allclose(task.train().outputs(batch_of(0)), expected, rtol=0.1), "free pixels tell another story"


@pytest.mark.parametrize("options", [{}, {"keep_colours": True}, {"stages": 2}])
def test_the_gradient_of_the_picture_is_that_of_finite_differences(options: dict[str, Any]) -> None:
    task = make_task(**options).double().train()
    with torch.no_grad():  # away from where losses have a kink
        for parameter in task.canvas.parameters():
            parameter.add_(0.3 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = StylePairs(*(part.double() if part.is_floating_point() else part for part in batch_of(0)))

    def loss() -> Tensor:
        return task.loss(task.outputs(batch), batch)

    loss().backward()
    painted: Any = next(task.canvas.parameters())
    random = np.random.default_rng(0)
    for place in [tuple(random.integers(0, painted.shape)) for _ in range(12)]:
        around = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                painted[place] += step
                around.append(loss().item())
                painted[place] -= step
        numeric = (around[0] - around[1]) / 2e-6
        assert painted.grad[place].item() == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_a_pair_that_comes_twice_in_a_batch_is_looked_at_once() -> None:
    task = make_task(pairs=2).train()
    seen: list[int] = []
    task._perceptual[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    losses = task.outputs(batch_of(1, 0, 1))
    assert losses.shape == (3, 3)
    assert torch.equal(losses[0], losses[2])
    assert not torch.equal(losses[0], losses[1])
    assert seen == [2]


def test_what_is_constant_is_computed_once() -> None:
    task = make_task(pairs=2)
    calls: list[tuple[int, ...]] = []
    for network in (task._perceptual[0].features, task._perceptual[0].content_features):
        network.register_forward_hook(lambda _, inputs, __: calls.append(tuple(inputs[0].shape)))
    for _ in range(3):
        task.train().outputs(batch_of(0, 1))
        with torch.inference_mode():
            task.eval().outputs(batch_of(1))
    assert calls == [(1, 3, 20, 28), (1, 3, 24, 24)] * 2, "content and style of each pair"
    assert task._perceptual[0].content_features.paths.keys() == {"4"}


def test_targets_from_validation_serve_in_training() -> None:
    """The sanity check comes first, in inference mode."""
    task = make_task()
    with torch.inference_mode():
        task.eval().outputs(batch_of(0))
    task.train()
    task.loss(task.outputs(batch_of(0)), batch_of(0)).backward()


def test_the_style_is_matched_to_the_luminance_of_the_content() -> None:
    style, content = smooth(20, 20, 1)[:, :1], 0.2 * smooth(30, 10, 2)[:, :1] + 0.5
    found = matched(style, content)
    assert found.mean().item() == pytest.approx(content.mean().item(), rel=1e-5)
    assert found.std().item() == pytest.approx(content.std().item(), rel=1e-5)
    assert torch.corrcoef(torch.stack((found.flatten(), style.flatten())))[0, 1].item() == pytest.approx(1)
    assert matched(torch.full_like(style, 0.5), content).isfinite().all()


# ---- training


def test_the_style_comes_nearer_and_the_frozen_network_stays(arguments: dict[str, Any]) -> None:
    seed_everything(0)
    task = StyleTransfer(**SMALL, optimizer=partial(Adam, lr=0.1), tv_weight=1.0)
    fresh = dict(FeatureNetwork("squeezenet1_1", "random", [4, 0, 3]).named_buffers())
    first: list[Tensor] = []

    class Start(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            data = trainer.datamodule
            batch = data.transform(data.splits["val"].__getitems__(range(3)), training=False)
            first.append(pl_module.eval().outputs(batch).detach().clone())
            pl_module.train()

    trainer = train(task, {**arguments, "steps_per_epoch": 20}, Start())
    for pair, losses in enumerate(first[0].tolist()):
        assert losses[0] == pytest.approx(0, abs=1e-6), "it begins with the content"
        batch = trainer.datamodule.transform(trainer.datamodule.splits["val"].__getitems__([pair]), training=False)
        with torch.no_grad():
            assert task.eval().outputs(batch)[0, 1] < 0.2 * losses[1]
    now = dict(task._perceptual[0].features.named_buffers())
    assert now.keys() == fresh.keys()
    assert all(torch.equal(value, fresh[name]) for name, value in now.items())
    assert all(name.startswith("net.layers.") for name in task.state_dict())


def test_without_an_optimizer_it_is_adam_at_the_books_rate() -> None:
    for options, rate in (({}, 0.3), ({"optimizer": Adam}, 0.001)):
        optimizer: Any = make_task(**options).configure_optimizers()
        assert isinstance(optimizer, Adam)
        assert optimizer.defaults["lr"] == rate


def test_only_pictures_in_the_batch_move() -> None:
    task = make_task(pairs=3).train()
    optimizer: Any = task.configure_optimizers()
    before = [layers.clone() for layers in task.canvas.parameters()]
    task.loss(task.outputs(batch_of(0, 2)), batch_of(0, 2)).backward()
    optimizer.step()
    moved = [not torch.equal(layer, old) for layer, old in zip(task.canvas.parameters(), before, strict=True)]
    assert moved == [True, False, True]


def test_with_several_processes_each_parameter_has_a_gradient_and_only_painted_pictures_move(monkeypatch: Any) -> None:
    monkeypatch.setattr("leyden_plugins.style_transfer.task._in_processes", lambda: True)
    task = make_task(pairs=2, stages=2).train()
    optimizer: Any = task.configure_optimizers()
    before: list[Tensor] = []
    for batch in (batch_of(0, 1), batch_of(0)):
        before = [layer.clone() for layer in task.canvas.parameters()]
        optimizer.zero_grad()
        task.loss(task.outputs(batch), batch).backward()
        assert all(layer.grad is not None for layer in task.canvas.parameters()), "other processes would wait"
        task.on_before_optimizer_step(optimizer)
        optimizer.step()
    moved = [not torch.equal(layer, old) for layer, old in zip(task.canvas.parameters(), before, strict=True)]
    assert moved == [True, False, False, False], "the first stage of the first picture"


@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_same_seed_paints_the_same_picture(arguments: dict[str, Any], start: Any) -> None:
    pictures = []
    for seed in (3, 3, 4):
        seed_everything(seed)
        task = StyleTransfer(**SMALL, start=start)
        train(task, {**one_pair(arguments), "steps_per_epoch": 3}, epochs=1)
        pictures.append(task.canvas.picture(0).detach())
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2]) == (start == "content"), "only noise depends on the seed"


def test_noise_begins_far_from_the_content(arguments: dict[str, Any]) -> None:
    task = StyleTransfer(**SMALL, start="noise", optimizer=partial(SGD, lr=0.0))
    train(task, {**one_pair(arguments), "steps_per_epoch": 1}, epochs=1)
    pixels = task.canvas.picture(0)
    assert 0 <= pixels.min() < 0.05
    assert 0.95 < pixels.max() <= 1
    assert pixels.std().item() == pytest.approx(12**-0.5, rel=0.05), "uniform"


def test_stages_share_the_steps(arguments: dict[str, Any]) -> None:
    seen: list[tuple[int, ...]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            painted = [layer for layer in pl_module.canvas.parameters() if layer.grad is not None]
            seen.append(tuple(painted[-1].shape[2:]))
            assert pl_module.canvas.picture(0).shape == (1, 3, 24, 36)

    task = StyleTransfer(**SMALL, stages=2)
    train(task, {**one_pair(arguments), "steps_per_epoch": 5}, Watch())
    assert seen == [(12, 18)] * 5 + [(24, 36)] * 5
    coarse, fine = task.canvas.parameters()
    assert not coarse.any()
    assert fine.any()


@pytest.mark.parametrize("options", [{"stages": 2}, {"keep_colours": True}, {"optimizer": partial(LBFGS, max_iter=3)}])
def test_a_run_that_is_resumed_paints_the_same(
    arguments: dict[str, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    arguments = {**one_pair(arguments), "steps_per_epoch": 3}
    keep = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
    whole = StyleTransfer(**SMALL, **options)
    train(whole, arguments, keep, epochs=4)
    for epoch in (0, 1, 2):
        resumed = StyleTransfer(**SMALL, **options)
        path = tmp_path / "kept" / f"epoch={epoch}.ckpt"
        train(resumed, arguments, epochs=4, ckpt_path=path, weights_only=True)
        state = resumed.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items()), epoch


@pytest.mark.parametrize(
    ("options", "free"),
    [
        ({}, False),
        ({"stages": 2}, False),
        ({"keep_colours": True}, False),
        ({"optimizer": partial(LBFGS, max_iter=3)}, False),
        ({"clamp": False}, True),
    ],
)
def test_after_each_step_the_picture_can_be_shown(
    arguments: dict[str, Any], options: dict[str, Any], free: bool
) -> None:
    beyond: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            picture = pl_module.canvas.picture(0)
            if pl_module.keep_colours:
                picture = picture + pl_module.canvas.get_buffer("colours_0")
            beyond.append((picture - picture.clamp(0, 1)).abs().max().item())

    task = StyleTransfer(**SMALL, style_weight=1e4, **options)
    train(task, {**one_pair(arguments), "steps_per_epoch": 4}, Watch())
    assert len(beyond) == 8
    assert (max(beyond) > 0.1) if free else (max(beyond) < 1e-5)


def test_l_bfgs_with_a_line_search_only_gets_better(arguments: dict[str, Any]) -> None:
    losses: list[float] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            losses.append(trainer.callback_metrics["val/loss"].item())

    task = StyleTransfer(**SMALL, optimizer=partial(LBFGS, max_iter=4, line_search_fn="strong_wolfe"))
    trainer = train(task, {**one_pair(arguments), "steps_per_epoch": 1}, Watch(), epochs=5)
    assert trainer.global_step == 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


# ---- what is left of a run


def fit(arguments: dict[str, Any], *words: str) -> int:
    options = [f"--data.{name}={json.dumps(value).strip(chr(34))}" for name, value in arguments.items()]
    small = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"]
    return main(["fit", "--model", "StyleTransfer", *WORDS, "--data", "StylePair", *options, *small, *words])


def test_the_folder_of_a_run(arguments: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit(one_pair(arguments), "--model.animation=true", "--trainer.log_every_n_steps=1") == 0
    said = capsys.readouterr().out
    for name in ("content_loss", "style_loss", "tv_loss"):
        assert f"val/{name}" in said
    assert "picture.png" in said
    run = Path("runs/styletransfer/1")
    state = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    assert {name: tuple(value.shape) for name, value in state.items()} == {"net.layers.0.0": (1, 3, 24, 36)}
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (state["net.layers.0.0"][0] * std + mean).clamp(0, 1).mul(255).round().permute(1, 2, 0).byte()
    with Image.open(run / "picture.png") as picture:
        assert np.array_equal(np.asarray(picture), expected.numpy())
    assert {path.name for path in run.glob("samples/*")} == {"epoch_001.png", "epoch_002.png"}
    with Image.open(run / "stages.png") as strip, Image.open(run / "animation.gif") as film:
        assert strip.width > 4 * 36, "content, style and two stages"
        assert film.n_frames == 2  # type: ignore[attr-defined]
    rows = read_rows(run / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items()}
    for stage in ("train", "val"):
        parts = [last[f"{stage}/{part}_loss"] for part in ("content", "style", "tv")]
        assert sum(parts) == pytest.approx(last[f"{stage}/loss"], rel=1e-5)


def test_contents_of_many_sizes(tmp_path: Path, arguments: dict[str, Any], monkeypatch: Any, capsys: Any) -> None:
    """No batch can hold them together, of samples neither."""
    monkeypatch.chdir(tmp_path)
    sizes = {"a.png": (40, 24), "b.png": (24, 24), "c.png": (24, 30)}
    for name, size in sizes.items():
        Path("contents").mkdir(exist_ok=True)
        Image.new("RGB", size, "orange").save(Path("contents", name))
    assert fit({**arguments, "content": "contents", "image_size": 30, "steps_per_epoch": 1}) == 0
    run = Path("runs/styletransfer/1")
    found = []
    for path in sorted((run / "pictures").iterdir()):
        with Image.open(path) as picture:
            found.append(picture.size)
    assert found == [(30, 18), (30, 30), (24, 30)]
    said = capsys.readouterr()
    assert f"3 finished pictures: {run / 'pictures'}" in said.out + said.err
    assert (run / "samples/epoch_002.png").is_file()
    assert (run / "stages.png").is_file()


def test_predict_gives_the_finished_pictures_again(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit(arguments, "--model.keep_colours=true") == 0
    run = Path("runs/styletransfer/1")
    finished = sorted(path.name for path in (run / "pictures").iterdir())
    assert finished == [f"{pair:03d}_disc_{pair}_stripes.png" for pair in range(3)]
    content = tmp_path / "disc_1.png"
    shutil.move(f"{arguments['root']}/content/disc_1.png", content)
    shutil.rmtree(arguments["root"])
    last = str(run / "checkpoints/last.ckpt")
    assert main(["predict", last, str(content), "--out", "again"]) == 0
    [line] = Path("again/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert (record["content"], record["style"]) == ("disc_1.png", "stripes.jpg")
    with Image.open(run / "pictures" / finished[1]) as before, Image.open(Path("again", record["picture"])) as again:
        assert np.array_equal(np.asarray(before), np.asarray(again))
    capsys.readouterr()
    shutil.copy(content, "other.png")
    assert main(["predict", last, "other.png", "--out", "more"]) == 2
    said = capsys.readouterr().err
    assert "holds finished pictures, of disc_0.png, disc_1.png, disc_2.png, and no others" in said
    assert "FastStyleTransfer" in said


# ---- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_weight": -1.0}, r"style_weight is -1\.0; it must be 0 \(off\) or more"),
        ({"content_weight": float("nan")}, "content_weight is nan"),
        ({"tv_weight": float("inf")}, "tv_weight is inf"),
        ({"style_layer_weights": [1.0]}, "style_layer_weights has 1 numbers, expected 2, one for each of style_layers"),
        ({"content_layer_weights": [-2.0]}, r"content_layer_weights is -2\.0"),
        ({"style_layers": []}, "style_layers is empty; name one or more"),
        ({"stages": 0}, "stages is 0; it must be at least 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StyleTransfer(**{**SMALL, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": None}, "StyleTransfer cannot build its feature network: weights is missing: .*DEFAULT.*path"),
        ({"style_layers": [0, 99]}, "no layer 99. The layers of squeezenet1_1 are 0, 1, 2"),
        ({"features": "vgg61"}, "features is 'vgg61', expected .*Did you mean .*vgg16"),
        ({"weights": "nowhere.pth"}, "weights is 'nowhere.pth', which is not a file"),
        (
            {"stages": 5},
            "stages is 5, so painting would begin at 2 x 2 pixels, but the layers of squeezenet1_1 .* need",
        ),
    ],
)
def test_options_that_fail_when_training_begins(
    arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(StyleTransfer(**{**SMALL, **options}), one_pair(arguments))


def test_l_bfgs_paints_one_picture(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="L-BFGS expects the same loss in each step, but there are 3 pairs"):
        train(StyleTransfer(**SMALL, optimizer=LBFGS), arguments)


def test_stages_need_an_end(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="stages is 2, but nobody knows how many steps they share"):
        train(StyleTransfer(**SMALL, stages=2), one_pair(arguments), epochs=-1)


def test_data_that_holds_pictures_out(tmp_path: Path) -> None:
    data = StyleImages(**StyleImages.fabricate(tmp_path))
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError, match="StyleImages holds some out to validate on"):
        trainer.fit(StyleTransfer(**SMALL), data)
