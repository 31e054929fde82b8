"""fit, test, validate and predict through the command line, on tiny data in Fashion-MNIST's own format."""

import csv
import json
import os
import signal
import subprocess
import sys
import typing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from leyden.cli import Request, TrainingCLI
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.networks.lenet import LeNet
from leyden_plugins.classification.task import ImageClassifier

LAST = Path("runs/lenet/1/checkpoints/last.ckpt")
Fit = Callable[..., int]


@pytest.fixture
def fit(fit_options: list[str]) -> Fit:
    """Train LeNet with these further options."""

    def run(*options: str, status: int = 0) -> int:
        found = main(["fit", *fit_options, *options])
        assert found == status
        return found

    return run


def assert_same_training(one: Path, other: Path) -> None:
    """Weights, optimizer and schedule are equal to the last bit."""
    first, second = read_checkpoint(one), read_checkpoint(other)
    for key in ("epoch", "global_step", "lr_schedulers"):
        assert first[key] == second[key]
    assert_equal(first["state_dict"], second["state_dict"])
    assert_equal(first["optimizer_states"], second["optimizer_states"])


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


def metrics_of(run: str) -> list[dict[str, str]]:
    with Path(run, "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the run folder


def test_the_run_folder_holds_all_there_is_to_know(trained_run: Path) -> None:
    found = {str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file()}
    assert found == {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "curves.png",
        "log.txt",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        *(f"samples/epoch_{epoch:03d}.png" for epoch in (1, 2, 3)),
    }
    for path in trained_run.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    with Image.open(trained_run / "samples" / "epoch_001.png") as sheet:
        across, down = 6, 4  # 21 validation pictures in rows of six
        assert sheet.width == pytest.approx(across * 168, abs=across * 8)
        assert sheet.height > down * 168


def test_metrics_have_a_row_for_each_epoch(trained_run: Path) -> None:
    rows = metrics_of(str(trained_run))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "4"), ("1", "9"), ("2", "14")]
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/f1", "lr", "train/samples_per_second"}
    assert names == set(rows[0]) - {"epoch", "step"}
    for row in rows:
        assert all(float(row[name]) >= 0 for name in names)
    assert float(rows[2]["train/loss"]) < float(rows[0]["train/loss"])


def test_the_log_says_what_happened(trained_run: Path) -> None:
    text = (trained_run / "log.txt").read_text()
    assert "LeNet, 61,932 trainable parameters, on cpu" in text
    for epoch in (1, 2, 3):
        assert f"epoch {epoch}/3 done" in text


def test_last_is_the_end_of_training_and_best_the_best_epoch(fit: Fit) -> None:
    """With a rate of 0 the first epoch stays the best: last.ckpt must be written all the same."""
    fit("--model.optimizer=SGD", "--model.optimizer.lr=0", "--trainer.max_epochs=3")
    assert read_checkpoint(LAST)["global_step"] == 15
    assert read_checkpoint(LAST.with_name("best.ckpt"))["global_step"] == 5


@pytest.mark.parametrize(
    ("options", "names", "steps"),
    [
        (["--trainer.limit_val_batches=0"], {"last.ckpt"}, 10),
        (["--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3"], {"best.ckpt", "last.ckpt"}, 15),
        (["--trainer.limit_train_batches=3"], {"best.ckpt", "last.ckpt"}, 6),
        (["--trainer.max_steps=7"], {"best.ckpt", "last.ckpt"}, 7),
        (["--trainer.val_check_interval=0.4"], {"best.ckpt", "last.ckpt"}, 10),
    ],
)
def test_the_end_of_training_is_saved_however_it_is_measured(
    fit: Fit, options: list[str], names: set[str], steps: int
) -> None:
    fit("--trainer.max_epochs=2", *options)
    assert {path.name for path in LAST.parent.iterdir()} == names
    assert read_checkpoint(LAST)["global_step"] == steps


def test_no_checkpoints_when_none_are_wanted(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--trainer.enable_checkpointing=false")
    assert not LAST.parent.exists()
    assert "Next: test" not in capsys.readouterr().out


def test_fast_dev_run_leaves_no_run(fit: Fit) -> None:
    fit("--trainer.fast_dev_run=true")
    assert not list(Path().rglob("*.ckpt"))
    assert not Path("runs/lenet/1").exists()


def test_experiments_are_named_by_the_user_the_config_or_the_network(fit: Fit, fit_options: list[str]) -> None:
    fit("--experiment=mine", "--trainer.fast_dev_run=false")
    fit("--runs=elsewhere")
    config = yaml.safe_load(Path("runs/mine/1/config.yaml").read_text())
    del config["experiment"]
    Path("recipe.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "recipe.yaml"]) == 0
    assert main(["fit", "--config=recipe.yaml", "--model.net", "MLP"]) == 0
    found = sorted(str(path.parent) for path in Path().rglob("log.txt"))
    assert found == ["elsewhere/lenet/1", "runs/mine/1", "runs/recipe/1", "runs/recipe/2"]


def test_a_configs_callbacks_do_not_replace_the_runs_own(fit: Fit) -> None:
    fit("--trainer.callbacks=LearningRateMonitor")
    assert LAST.is_file()
    assert Path("runs/lenet/1/curves.png").is_file()
    assert "lr-Adam" in metrics_of("runs/lenet/1")[0]


# ---- the config


def test_the_config_loads_back_unchanged(fit: Fit) -> None:
    fit(
        "--model.net.activation=tanh",
        "--model.optimizer=AdamW",
        "--model.optimizer.lr=1e-3",
        "--model.optimizer.eps=1e-9",
        "--model.lr_scheduler=CosineWithWarmup",
        "--model.lr_scheduler.warmup_steps=2",
        "--trainer.callbacks=EMA",
        "--trainer.callbacks.decay=0.99",
        "--trainer.gradient_clip_val=1e-1",
    )
    assert main(["fit", "--config", "runs/lenet/1/config.yaml"]) == 0

    first, second = (Path(f"runs/lenet/{number}/config.yaml").read_text() for number in (1, 2))
    assert first == second
    assert_same_training(LAST, Path("runs/lenet/2/checkpoints/last.ckpt"))
    init_args = yaml.safe_load(first)["model"]["init_args"]
    assert init_args["net"]["init_args"]["activation"] == "tanh"
    assert float(init_args["optimizer"]["init_args"]["eps"]) == 1e-9


def test_a_config_and_the_same_words_train_the_same(fit: Fit, fashion_mnist: dict[str, Any]) -> None:
    recipe = f"""
model:
  class_path: ImageClassifier
  init_args:
    net: LeNet
    optimizer: {{class_path: SGD, init_args: {{lr: 1e-1}}}}
data: {{class_path: FashionMNIST, init_args: {json.dumps(fashion_mnist)}}}
trainer: {{max_epochs: 1, accelerator: cpu}}
experiment: recipe
"""
    Path("recipe.yaml").write_text(recipe)
    assert main(["fit", "--config", "recipe.yaml"]) == 0
    fit("--model.optimizer=SGD", "--model.optimizer.lr=0.1")
    assert_same_training(LAST, Path("runs/recipe/1/checkpoints/last.ckpt"))


def test_later_configs_and_words_win(fit: Fit) -> None:
    fit()
    Path("longer.yaml").write_text("trainer: {max_epochs: 2}\nmodel: {init_args: {net: {class_path: LeNet}}}")
    words = ["--config", "runs/lenet/1/config.yaml", "--config", "longer.yaml"]
    assert main(["fit", *words, "--experiment=a"]) == 0
    assert read_checkpoint(Path("runs/a/1/checkpoints/last.ckpt"))["global_step"] == 10
    assert main(["fit", *words, "--experiment=b", "--trainer.max_epochs=3"]) == 0
    assert read_checkpoint(Path("runs/b/1/checkpoints/last.ckpt"))["global_step"] == 15


LIMITS = [f"limit_{stage}_batches" for stage in ("train", "val", "test", "predict")]
AMOUNTS = [*LIMITS, "val_check_interval", "overfit_batches"]


@pytest.fixture
def float_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of Trainer's options as after `import rich.progress, torchmetrics` before Lightning."""
    for clear in typing._cleanups:  # type: ignore[attr-defined]
        clear()
    hints: dict[str, Any] = dict.fromkeys(LIMITS, float | int | None)
    hints |= {
        "val_check_interval": float | int | str | timedelta | dict[str, int] | None,
        "overfit_batches": float | int,
    }
    for name, hint in hints.items():
        monkeypatch.setitem(Trainer.__init__.__annotations__, name, hint)


def amounts(cli: TrainingCLI) -> dict[str, set[str]]:
    """Each option as it is written in the trainer's config and in the saved one."""
    saved = yaml.safe_load(cli.saved_config())["trainer"]
    return {name: {repr(cli.config.trainer[name]), repr(saved[name])} for name in AMOUNTS}


@pytest.mark.usefixtures("float_first")
@pytest.mark.parametrize("text", ["1", "1.0", "3", "0.5"])
def test_one_batch_and_all_batches_are_kept_apart(text: str, fit_options: list[str], trained_run: Path) -> None:
    words = [f"--trainer.{name}={text}" for name in AMOUNTS]
    expected = {name: {text} for name in AMOUNTS}
    fitted = TrainingCLI(Request.parse("fit", [*fit_options, *words]))
    assert amounts(fitted) == expected
    assert repr(fitted.trainer.limit_test_batches) == text
    Path("saved.yaml").write_text(fitted.saved_config())
    assert amounts(TrainingCLI(Request.parse("fit", ["--config", "saved.yaml"]))) == expected
    assert amounts(TrainingCLI(Request.parse("test", [str(trained_run), *words]))) == expected
    assert amounts(TrainingCLI(Request.parse("predict", [str(trained_run), "a.png", *words]))) == expected


@pytest.mark.usefixtures("float_first")
def test_a_size_of_a_data_module_is_a_count_or_a_fraction() -> None:
    """As a float, a count of 100 would be a fraction."""

    class Data:
        def __init__(self, size: float | int | None = None) -> None: ...

    jsonargparse.ArgumentParser().add_class_arguments(Data)  # from here on typing's cache has float first
    words = ["--model=LanguageModel", "--model.net=RNN", "--data=TextFile", "--data.root=texts"]
    cli = TrainingCLI(Request.parse("fit", [*words, "--data.train_size=100", "--model.optimizer=Adam"]))
    assert repr(cli.config.data.init_args.train_size) == "100"


# ---- seeds, resuming, stopping


def test_one_seed_gives_one_result_and_another_seed_another(fit: Fit) -> None:
    augmented = ("--data.flip=true", "--data.crop_padding=2", "--data.erase=0.5", "--trainer.max_epochs=2")
    for _ in range(2):
        fit("--model.net.activation=relu", *augmented)
    fit("--model.net.activation=relu", *augmented, "--seed_everything=1")
    first, second, third = (Path(f"runs/lenet/{number}/checkpoints/last.ckpt") for number in (1, 2, 3))
    assert_same_training(first, second)
    weights = [read_checkpoint(path)["state_dict"]["net.classifier.5.weight"] for path in (first, third)]
    assert not torch.equal(*weights)


RECIPES = {
    "plain": [],
    "momentum, batch norm, EMA": [
        "--model.net.batch_norm=true",
        "--model.optimizer=SGD",
        "--model.optimizer.momentum=0.9",
        "--trainer.callbacks=EMA",
    ],
    "schedule": ["--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=1", "--model.lr_scheduler.gamma=0.5"],
    "short epochs": ["--trainer.limit_train_batches=3"],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_epoch_and_then_another_equals_two_epochs(fit: Fit, recipe: str) -> None:
    options = RECIPES[recipe]
    fit(*options, "--trainer.max_epochs=2", "--experiment=straight")
    fit(*options)
    fit(*options, "--trainer.max_epochs=2", "--resume=auto")

    assert_same_training(LAST, Path("runs/straight/1/checkpoints/last.ckpt"))
    assert [path.name for path in Path("runs/lenet").iterdir()] == ["1"], "it goes on in the folder where it began"
    for one, other in zip(metrics_of("runs/lenet/1"), metrics_of("runs/straight/1"), strict=True):
        assert {**one, "train/samples_per_second": ""} == {**other, "train/samples_per_second": ""}


def test_a_run_or_a_checkpoint_can_be_resumed_by_name(fit: Fit) -> None:
    fit("--trainer.max_epochs=2", "--experiment=straight")
    fit("--experiment=a")
    fit("--experiment=a", "--trainer.max_epochs=2", "--resume=runs/a/1")
    assert_same_training(Path("runs/a/1/checkpoints/last.ckpt"), Path("runs/straight/1/checkpoints/last.ckpt"))

    fit("--experiment=b")
    Path("runs/b/1/checkpoints/last.ckpt").rename("bare.ckpt")
    fit("--experiment=c", "--trainer.max_epochs=2", "--resume=bare.ckpt")
    assert_same_training(Path("runs/c/1/checkpoints/last.ckpt"), Path("runs/straight/1/checkpoints/last.ckpt"))


def test_resuming_a_moved_run_keeps_its_best_epoch(fit: Fit) -> None:
    fit("--model.optimizer=SGD", "--model.optimizer.lr=0", "--trainer.max_epochs=2")
    Path("runs").rename("moved")
    best = Path("moved/lenet/1/checkpoints/best.ckpt")
    content = best.read_bytes()
    fit(
        "--model.optimizer=SGD",
        "--model.optimizer.lr=0",
        "--trainer.max_epochs=3",
        f"--runs={Path('moved').resolve()}",
        "--resume=auto",
    )
    assert read_checkpoint(best.with_name("last.ckpt"))["global_step"] == 15
    assert best.read_bytes() == content, "the third epoch was not better than the first"


def test_resuming_a_finished_run_says_so(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    content = LAST.read_bytes()
    fit("--resume=auto")
    assert "nothing was left to train; --trainer.max_epochs says how long training is" in capsys.readouterr().out
    assert LAST.read_bytes() == content


def test_differences_to_the_resumed_run_are_printed(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    capsys.readouterr()
    fit("--resume=auto", "--trainer.max_epochs=2", "--data.batch_size=8")
    assert "differs from training: data.batch_size 16 -> 8" in capsys.readouterr().out
    assert yaml.safe_load(Path("runs/lenet/1/config.yaml").read_text())["data"]["init_args"]["batch_size"] == 8


SIGNALLING = """
import os
import signal

from lightning.pytorch import Callback


class Signalling(Callback):
    '''Sends this process a signal while it trains batch `step`, counted from 0 over the whole training.'''

    def __init__(self, step: int, name: str = "SIGINT") -> None:
        self.step = step
        self.name = name

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), getattr(signal, self.name))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [1, 6, 9])  # in the middle of the first and the second epoch, and at its last batch
def test_a_signal_stops_behind_the_batch_and_the_resumed_run_ends_as_if_nothing_had_been(
    fit: Fit, name: str, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("signalling.py").write_text(SIGNALLING)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    options = ["--trainer.max_epochs=3", "--trainer.callbacks=signalling.Signalling"]
    options += [f"--trainer.callbacks.step={step}", f"--trainer.callbacks.name={name}"]
    fit("--trainer.max_epochs=3", "--experiment=straight")
    capsys.readouterr()

    fit(*options, status=130)

    message = capsys.readouterr().err
    assert message == (
        f"stopped by {name} after training step {step + 1}. Everything is saved in {LAST}; go on with the same command "
        "and --resume auto.\n"
    )
    assert read_checkpoint(LAST)["global_step"] == step + 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    fit(*options, "--resume=auto")

    assert_same_training(LAST, Path("runs/straight/1/checkpoints/last.ckpt"))
    for one, other in zip(metrics_of("runs/lenet/1"), metrics_of("runs/straight/1"), strict=True):
        names = set(other) - {"train/samples_per_second", "train/loss", "train/accuracy"}  # these begin anew
        assert {name: one[name] for name in names} == {name: other[name] for name in names}
    best, straight = (Path(f"runs/{name}/1/checkpoints/best.ckpt") for name in ("lenet", "straight"))
    assert_same_training(best, straight)


def test_a_signal_waits_for_accumulated_gradients_to_be_used(fit: Fit) -> None:
    """Stopped in between, a resumed run would leave out the batches whose gradients were lost."""
    Path("signalling.py").write_text(SIGNALLING)
    options = ["--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=2", "--data.batch_size=10"]
    signalling = ["--trainer.callbacks=signalling.Signalling", "--trainer.callbacks.step=1"]
    fit(*options, "--experiment=straight")
    fit(*options, *signalling, status=130)
    fit(*options, *signalling, "--resume=auto")
    assert_same_training(LAST, Path("runs/straight/1/checkpoints/last.ckpt"))


def test_a_second_signal_stops_at_once(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = "os.kill(os.getpid(), getattr(signal, self.name))", "signal.raise_signal(2), signal.raise_signal(2)"
    Path("twice.py").write_text(SIGNALLING.replace(once, twice))
    fit("--trainer.callbacks=twice.Signalling", "--trainer.callbacks.step=2", status=130)
    assert capsys.readouterr().err == "interrupted.\n"
    assert not LAST.exists()


def test_a_users_own_checkpoints_do_not_move_the_runs(fit: Fit) -> None:
    Path("signalling.py").write_text(SIGNALLING)
    options = ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=mine"]
    options += ["--trainer.callbacks+=signalling.Signalling", "--trainer.callbacks.step=7"]
    fit(*options, "--trainer.max_epochs=2", status=130)
    assert read_checkpoint(LAST)["global_step"] == 8
    assert not Path("mine/last.ckpt").exists()


def test_a_process_that_gets_ctrl_c_ends_with_130(fit_options: list[str]) -> None:
    words = ["fit", *fit_options, "--trainer.max_epochs=100000"]
    program = "from leyden.main import main; raise SystemExit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-uc", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 2/" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by SIGINT after training step " in errors
    assert "Traceback" not in errors
    assert read_checkpoint(LAST)["global_step"] > 5


# ---- test, validate, predict


def test_a_run_is_all_that_testing_needs(
    trained_run: Path, fashion_mnist: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["test", str(trained_run)]) == 0

    shown = capsys.readouterr().out
    found = json.loads((trained_run / "test" / "metrics.json").read_text())
    data = FashionMNIST(**fashion_mnist)
    data.setup("test")
    batch = data.transform(data.splits["test"].__getitems__(range(27)), training=False)
    net = network_of(trained_run / "checkpoints" / "best.ckpt")
    with torch.no_grad():
        logits = net(batch.images)
    loss = torch.nn.functional.cross_entropy(logits, batch.labels).item()
    accuracy = (logits.argmax(1) == batch.labels).float().mean().item()
    assert found["test/loss"] == pytest.approx(loss, rel=1e-4)
    assert found["test/accuracy"] == pytest.approx(accuracy)
    assert found["checkpoint"] == str(trained_run / "checkpoints" / "best.ckpt")
    assert f"test/accuracy  {accuracy:.4f}" in shown
    assert "differs from training" not in shown
    assert {path.name for path in (trained_run / "test").iterdir()} == {
        "metrics.json",
        "confusion_matrix.png",
        "samples.png",
    }


def network_of(path: Path) -> LeNet:
    """The network of the trained run, loaded by hand."""
    net = LeNet(1, 10, activation="relu", batch_norm=True).eval()
    weights = read_checkpoint(path)["state_dict"]
    net.load_state_dict(
        {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    )
    return net


def test_validating_repeats_what_training_said(trained_run: Path) -> None:
    for name, folder in {"last": "validate_last", "best": "validate"}.items():
        path = trained_run / "checkpoints" / f"{name}.ckpt"
        assert main(["validate", str(path)]) == 0
        found = json.loads((trained_run / folder / "metrics.json").read_text())
        [row] = [row for row in metrics_of(str(trained_run)) if int(row["epoch"]) == read_checkpoint(path)["epoch"]]
        for metric in ("val/loss", "val/accuracy", "val/f1"):
            assert found[metric] == pytest.approx(float(row[metric]), rel=1e-5)


def test_what_the_user_adds_wins_and_is_printed(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["test", str(trained_run), "--data.normalize=true", "--data.batch_size=5", "--out=here"]) == 0
    differences = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs from training: ")]
    assert [line.removeprefix("differs from training: ") for line in differences] == [
        "data.batch_size 16 -> 5",
        "data.normalize False -> True",
    ]
    normalised = json.loads(Path("here/metrics.json").read_text())
    assert main(["test", str(trained_run)]) == 0
    assert json.loads((trained_run / "test" / "metrics.json").read_text())["test/loss"] != normalised["test/loss"]


def test_another_class_is_one_difference_not_ten(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["test", str(trained_run), "--model.net", "MLP"]) == 1
    assert capsys.readouterr().out.count("differs from training") == 1


def test_a_bare_checkpoint_is_a_run_too(trained_run: Path) -> None:
    Path("elsewhere").mkdir()
    (trained_run / "checkpoints" / "best.ckpt").rename("elsewhere/model.ckpt")
    assert main(["test", "elsewhere/model.ckpt"]) == 0
    assert Path("test/metrics.json").is_file()


@pytest.fixture
def pictures(fashion_mnist: dict[str, Any]) -> list[str]:
    """Seven test pictures as files, some in a folder, in an order that no sorting would give."""
    data = FashionMNIST(**fashion_mnist)
    data.setup("test")
    Path("folder").mkdir()
    names = ["z.png", "folder/b.png", "folder/a.png", "m.png", "c d.png", "é.png", "a.png"]
    for index, name in enumerate(names):
        picture: Image.Image = data.splits["test"].picture(index)  # type: ignore[attr-defined]
        picture.save(name)
    return names


def test_predictions_come_in_the_order_of_the_input_each_once(
    trained_run: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["z.png", "folder", "m.png", "c d.png", "é.png", "a.png"]
    expected = ["z.png", "folder/a.png", "folder/b.png", "m.png", "c d.png", "é.png", "a.png"]
    capsys.readouterr()

    assert main(["predict", str(trained_run), *given, "--data.batch_size=2"]) == 0

    shown = capsys.readouterr().out.splitlines()
    folder = trained_run / "predictions"
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [record["input"] for record in records] == expected
    assert [record["index"] for record in records] == list(range(7))
    assert {path.name for path in folder.iterdir()} == {
        "predictions.jsonl",
        *(f"{index:05d}_{Path(name).stem}.png" for index, name in enumerate(expected)),
    }
    images = torch.stack([pil_to_tensor(Image.open(name)) for name in expected]) / 255
    with torch.no_grad():
        scores = network_of(trained_run / "checkpoints" / "best.ckpt")(images).softmax(1)
    names = FashionMNIST().describe().class_names
    for record, row in zip(records, scores, strict=True):
        assert record["label"] == names[int(row.argmax())]
        assert record["score"] == pytest.approx(row.max().item(), rel=1e-4)
        assert record["top"][names[int(row.argmin())]] if len(names) <= 5 else len(record["top"]) == 5
    assert shown[-8:-1] == [f"{r['input']}: {r['label']} {r['score']:.3f}" for r in records]


def test_predicting_needs_no_data_set(trained_run: Path, pictures: list[str]) -> None:
    words = ["--data.root=nowhere", "--out=here"]
    assert main(["predict", str(trained_run), "a.png", *words]) == 0
    assert len(Path("here/predictions.jsonl").read_text().splitlines()) == 1


def test_predicting_again_replaces_the_results(trained_run: Path, pictures: list[str]) -> None:
    for given in (pictures, ["a.png"]):
        assert main(["predict", str(trained_run), *given, "--out=here"]) == 0
        assert len(Path("here/predictions.jsonl").read_text().splitlines()) == len(given)
    assert not Path("here/.shares").exists()


def test_a_task_in_a_file_of_the_current_folder(fit_options: list[str]) -> None:
    Path("my_task.py").write_text(
        "from leyden_plugins.classification.task import ImageClassifier\n\n\nclass MyTask(ImageClassifier):\n    pass\n"
    )
    words = ["--model", "my_task.MyTask", "--model.net", "LeNet", *fit_options[4:]]
    assert main(["fit", *words]) == 0
    assert main(["test", "runs/lenet/1"]) == 0
    assert issubclass(sys.modules["my_task"].MyTask, ImageClassifier)


def test_one_batch_can_be_overfitted(fit_options: list[str]) -> None:
    assert main(["fit", *fit_options, "--trainer.overfit_batches", "1", "--experiment", "one"]) == 0
    assert Path("runs/one/1/checkpoints/last.ckpt").is_file()


def test_an_optimizer_has_its_own_defaults_and_not_those_of_another(fit_options: list[str]) -> None:
    assert main(["fit", *fit_options, "--model.optimizer", "Adadelta", "--experiment", "own"]) == 0
    options = yaml.safe_load(Path("runs/own/1/config.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"]
    assert (options["lr"], options["eps"]) == (1.0, 1e-6)


def test_a_rate_without_an_optimizer_says_what_to_name(
    data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--model", "ImageClassifier", "--model.net", "LeNet", *data_options]
    assert main([*words, "--model.optimizer.lr", "0.1"]) == 2
    assert "--model.optimizer.lr cannot be read before --model.optimizer NAME" in capsys.readouterr().err
