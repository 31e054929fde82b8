"""Whatever is wrong with a command line, a config, a checkpoint or a folder costs the user a few lines that help."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from leyden.main import main

MODEL = ["--model", "ImageClassifier", "--model.net", "LeNet"]
LONGEST = 700  # characters: six lines of a wide terminal, of which the list of known names takes most

Refused = Callable[[Sequence[str], int], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail with this exit status, and return its message."""

    def run(arguments: Sequence[str], status: int) -> str:
        capsys.readouterr()
        found = main(list(arguments))  # an exception that comes out here would be a traceback on a terminal
        message = capsys.readouterr().err.strip()
        assert found == status, message
        assert message.startswith("error: ")
        assert "Traceback" not in message
        assert "jsonargparse" not in message
        assert "Parser key" not in message
        assert "<class" not in message
        assert "Namespace(" not in message
        assert len(message) < LONGEST
        assert len(message.splitlines()) <= 4
        return message.removeprefix("error: ")

    return run


@pytest.fixture
def no_data_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong command line is refused before data is fetched or read."""

    def touched(*_: Any) -> None:
        raise AssertionError("data was touched")

    for hook in ("prepare_data", "setup"):
        monkeypatch.setattr(f"leyden_datamodules.fashion_mnist.FashionMNIST.{hook}", touched)


def test_no_command_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def test_misspelt_command(refused: Refused) -> None:
    assert refused(["tset", "runs/lenet/1"], 2).startswith(
        "unknown command 'tset'. Did you mean test? Known command names: "
    )


# ---- misspelt names


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["--model", "ImageClasifier", "--data", "FashionMNIST"],
            ["unknown task 'ImageClasifier'. Did you mean ImageClassifier? Known task names: "],
        ),
        (
            ["--model", "ImageClassifier", "--model.net", "LeNett", "--data", "FashionMNIST"],
            ["unknown network 'LeNett'. Did you mean LeNet?", "AlexNet", "VGG"],
        ),
        ([*MODEL, "--data", "FashonMNIST"], ["unknown data 'FashonMNIST'. Did you mean FashionMNIST?", "ImageFolder"]),
        (
            [*MODEL, "--data", "FashionMNIST", "--model.optimizer", "SDG"],
            ["unknown optimizer 'SDG'. Did you mean SGD?", "AdamW"],
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--model.lr_scheduler", "CosineWithWarmUps"],
            ["unknown schedule 'CosineWithWarmUps'. Did you mean CosineWithWarmup?", "StepLR"],
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--trainer.callbacks", "EarlyStoping"],
            ["unknown callback 'EarlyStoping'. Did you mean EarlyStopping?", "EMA"],
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--trainer.callbacks+=EMMA"],
            ["unknown callback 'EMMA'. Did you mean EMA?"],
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--trainer.logger", "wandb"],
            ["unknown logger 'wandb'. Did you mean WandbLogger?", "TensorBoardLogger"],
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--model.optimizer", "torch.optim.SDG"],
            ["module torch.optim has no 'SDG'. Did you mean SGD?"],
        ),
        (
            ["--model", "my_task.MyTask", "--data", "FashionMNIST"],
            ["'my_task.MyTask': there is no module 'my_task'"],
        ),
    ],
)
def test_misspelt_names(words: list[str], parts: list[str], refused: Refused) -> None:
    message = refused(["fit", *words], 2)
    assert message.startswith(parts[0])
    assert all(part in message for part in parts)


# ---- misspelt options, on the command line and the same in a config

MISSPELT = {
    "model.net.activaton": ("relu", "LeNet has no option 'activaton'. Did you mean activation? "),
    "model.nett": ("LeNet", "ImageClassifier has no option 'nett'. Did you mean net? "),
    "data.batchsize": (3, "FashionMNIST has no option 'batchsize'. Did you mean batch_size? "),
    "trainer.max_epoch": (3, "Trainer has no option 'max_epoch'. Did you mean max_epochs?"),
    "model.optimizer.lrr": (0.1, "SGD has no option 'lrr'. Did you mean lr? "),
    "model.lr_scheduler.warmup_step": (3, "CosineWithWarmup has no option 'warmup_step'. Did you mean warmup_steps? "),
    "trainer.callbacks.deca": (0.5, "EMA has no option 'deca'. Did you mean decay? "),
    "experimnet": ("x", "there is no option 'experimnet'. Did you mean experiment? "),
    "foo": (1, "there is no option 'foo'. Known options: config, data, experiment, model, "),
    "foo.bar": (1, "there is no option 'foo"),
}
CHOSEN = {
    "model": "ImageClassifier",
    "model.net": "LeNet",
    "model.optimizer": "SGD",
    "model.lr_scheduler": "CosineWithWarmup",
    "data": "FashionMNIST",
    "trainer.callbacks": "EMA",
}


def as_config(options: dict[str, Any]) -> dict[str, Any]:
    """Nested as a config: what is below a class goes under its init_args."""
    config: dict[str, Any] = {}
    for option, value in options.items():
        *parents, last = option.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
            node = node.setdefault("init_args", {}) if "class_path" in node else node
        node[last] = {"class_path": value} if option in CHOSEN else value
    return config


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize("option", MISSPELT)
def test_misspelt_option_on_the_command_line(option: str, refused: Refused) -> None:
    value, message = MISSPELT[option]
    chosen = [f"--{name}={value}" for name, value in CHOSEN.items()]
    assert refused(["fit", *chosen, f"--{option}={value}"], 2).startswith(message)
    assert refused(["fit", *chosen, f"--{option}", str(value)], 2).startswith(message)


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize("option", MISSPELT)
def test_misspelt_option_in_a_config(option: str, refused: Refused) -> None:
    value, message = MISSPELT[option]
    Path("config.yaml").write_text(yaml.safe_dump(as_config({**CHOSEN, option: value})))
    assert refused(["fit", "--config", "config.yaml"], 2).startswith(message)


def test_an_option_that_is_there_only_for_other_commands(trained_run: Path, refused: Refused) -> None:
    message = refused(["test", str(trained_run), "--resume", "auto"], 2)
    assert message.startswith("there is no option 'resume'.")
    assert "Did you mean resume" not in message


def test_known_options_are_those_that_can_be_chosen(refused: Refused, fit_options: list[str]) -> None:
    message = refused(["fit", *fit_options, "--model.net.xyz", "1"], 2)
    assert message == "LeNet has no option 'xyz'. Known options: activation, batch_norm, pooling."
    message = refused(["fit", *fit_options, "--model.optimizer.xyz", "1"], 2)
    assert "params" not in message


# ---- wrong values

WRONG = {
    "model.net.activation": ("gelu", "one of relu, sigmoid, tanh"),
    "model.lr_interval": ("day", "one of epoch, step"),
    "model.net.batch_norm": (3, "true or false"),
    "model.optimizer.lr": ("high", "a number"),
    "model.lr_scheduler.warmup_steps": ("few", "a whole number"),
    "data.batch_size": ("many", "a whole number"),
    "data.val_size": (1.5, "a whole number"),
    "data.flip": ("maybe", "true or false"),
    "trainer.max_epochs": ("many", "a whole number"),
    "trainer.precision": ("17", "one of 64, 32, 16, "),
    "trainer.callbacks.decay": ("high", "a number"),
    "seed_everything": ("abc", "true or false or a whole number"),
}


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize("option", WRONG)
def test_wrong_value_on_the_command_line(option: str, refused: Refused) -> None:
    value, expected = WRONG[option]
    chosen = [f"--{name}={value}" for name, value in CHOSEN.items()]
    assert refused(["fit", *chosen, f"--{option}={value}"], 2).startswith(
        f"{option} is '{value}'; it must be {expected}"
    )


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize("option", WRONG)
def test_wrong_value_in_a_config(option: str, refused: Refused) -> None:
    value, expected = WRONG[option]
    Path("config.yaml").write_text(yaml.safe_dump(as_config({**CHOSEN, option: value})))
    assert refused(["fit", "-c", "config.yaml"], 2).startswith(f"{option} is '{value}'; it must be {expected}")


@pytest.mark.usefixtures("no_data_touched")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.batch_size", "0"], "batch_size is 0; it must be at least 1"),
        (["--data.batch_size", "-3"], "batch_size is -3; it must be at least 1"),
        (["--data.num_workers", "-1"], "num_workers is -1; it must be 0 or more"),
        (["--data.resize", "0"], "resize is 0; it must be at least 1 pixel"),
        (["--model.label_smoothing", "2"], "label_smoothing is 2.0; it must be at least 0 and below 1"),
        (["--trainer.callbacks", "EMA", "--trainer.callbacks.decay", "3"], "decay is 3.0; it must be at least 0"),
        (["--trainer.accelerator", "abacus"], "You selected an invalid accelerator name: `accelerator='abacus'`"),
        (["--trainer.devices", "0"], "`Trainer(devices='0')` value is not a valid input using cpu accelerator"),
        (["--model.net", "3"], "model.net is '3'; it must be the name of a class"),
        (["--model.net", "torch.optim.SGD"], "model.net is 'torch.optim.SGD'; it must be the name of a Module"),
        (["--model", "torch.nn.Linear"], "model is 'torch.nn.Linear', which is a network (nn.Module); it must be"),
        (["--model", "LeNet"], "'LeNet' is of the kind network. unknown task 'LeNet'."),
        (["--model", "my_task.py"], "model takes the name of a class, not a file: --plugins my_task.py offers"),
        (["--monitor", "val/loss"], "monitor is 'val/loss'; it must be min:NAME or max:NAME."),
        (["--model.net.num_classes", "5"], "num_classes of LeNet cannot be chosen: the data sets num_classes."),
        (["--model.net.in_channels=1"], "in_channels of LeNet cannot be chosen: the data sets in_channels."),
        (["--model.net.activation"], "--model.net.activation needs a value."),
        (["--trainer.max_epochs"], "--trainer.max_epochs needs a value."),
        (["--experiment"], "--experiment needs a value."),
        (["--model"], "--model needs a value."),
        (["stray"], "'stray' stands where an option was expected."),
    ],
)
def test_values_that_a_class_refuses(words: list[str], message: str, refused: Refused, fit_options: list[str]) -> None:
    assert refused(["fit", *fit_options, *words], 2).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.optimizer", "SGD", "--model.optimizer.lr", "-3"], "Invalid learning rate: -3.0"),
        (["--model.compile", "gcc"], "compile='gcc' cannot be: Invalid backend: 'gcc'"),
        (["--data.val_size", "1000"], "val_size is 1000, but there are only 96 training images."),
        (
            ["--trainer.val_check_interval", "100"],
            "must be less than or equal to the number of the training batches (5)",
        ),
        (
            ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/acuracy"],
            "`val/accuracy`",
        ),
    ],
)
def test_values_that_are_refused_once_the_data_is_known(
    words: list[str], message: str, refused: Refused, fit_options: list[str]
) -> None:
    assert message in refused(["fit", *fit_options, *words], 2)


def test_images_too_small_for_the_network(refused: Refused, fit_options: list[str]) -> None:
    """LeNet: 12 + 4 pixels of padding - 4 = 12, halved 6, - 4 = 2, halved 1; 11 would end with 0."""
    message = refused(["fit", *fit_options, "--data.resize", "8"], 2)
    assert message.startswith("LeNet cannot take 8x8 images: the smallest that works is 12x12.")
    assert "--data.resize 12" in message

    refused(["fit", *fit_options, "--data.resize", "11"], 2)
    assert main(["fit", *fit_options, "--data.resize", "12", "--trainer.fast_dev_run=true"]) == 0


def test_a_batch_that_is_too_small_for_batch_norm(refused: Refused, fit_options: list[str], tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n\n\nclass Flat(nn.Sequential):\n"
        "    def __init__(self, in_channels: int, num_classes: int) -> None:\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))\n"
    )
    words = ["--plugins", str(tmp_path / "flat.py"), "--model.net", "Flat", "--data.batch_size", "1"]
    message = refused(["fit", *fit_options, *words], 2)
    assert message.startswith("a training batch was too small for batch normalization")
    assert "Choose a --data.batch_size that leaves no single item over" in message


# ---- what is missing


@pytest.mark.usefixtures("no_data_touched")
def test_an_optional_library(refused: Refused, fit_options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert refused(["fit", *fit_options, "--trainer.logger", "TensorBoardLogger"], 2) == (
        "TensorBoardLogger needs the package tensorboard: pip install 'leyden[tensorboard]'"
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    message = refused(["fit", *fit_options, "--model.net", "Timm", "--trainer.logger", "CometLogger"], 1)
    assert message.startswith("something that is asked for needs a package that is not installed: ")
    assert "comet" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data and --model are missing."),
        (["--data", "FashionMNIST"], "--model is missing. Known names: "),
        (MODEL, "--data is missing. Known names: BananaDetection, "),
        (["--model", "ImageClassifier", "--data", "FashionMNIST"], "--model.net is missing. Known names: AlexNet, "),
        (
            [*MODEL, "--data", "FashionMNIST", "--trainer.callbacks", "EarlyStopping"],
            "--trainer.callbacks.monitor is missing.",
        ),
        (
            [*MODEL, "--data", "FashionMNIST", "--model.lr_scheduler", "StepLR"],
            "--model.lr_scheduler.step_size is missing.",
        ),
        (
            ["--data.batch_size", "3", *MODEL],
            "--data.batch_size cannot be read before --data NAME: name the data first. Known names: BananaDetection",
        ),
        (["--model.net.help", "LeNet"], "--model.net.help cannot be read before --model NAME: name the model first."),
        (
            ["--model.net", "LeNet", "--data", "FashionMNIST"],
            "--model.net cannot be read before --model NAME: name the model first. Known names: ",
        ),
    ],
)
def test_something_is_missing(words: list[str], message: str, refused: Refused) -> None:
    assert refused(["fit", *words], 2).startswith(message)


# ---- configs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "the config 'config.yaml' is not a mapping of options but list."),
        ("model: [", "config.yaml is not valid YAML at line 1, column 9"),
        ("model: 3", "model is '3'; it must be the name of a LightningModule"),
        ("model: {class_path: ImageClassifier, net: LeNet}", "in config.yaml: model has net beside class_path"),
        ("{model: {net: LeNet}, data: FashionMNIST}", "--model.net cannot be read before --model NAME"),
        ("{model: ImageClassifier, data: FashionMNIST, trainer: [1]}", ""),
        ("{model: ImageClassifier, data: FashionMNIST, trainer: 3}", ""),
        ("trainer: {callbacks: 3}", "trainer.callbacks is '3'; it must be"),
        ("model: {class_path: ImageClassifier, init_args: [1]}", "in config.yaml: init_args of model is not a mapping"),
    ],
)
def test_configs_that_are_none(text: str, message: str, refused: Refused) -> None:
    Path("config.yaml").write_text(text)
    assert refused(["fit", "--config", "config.yaml"], 2).startswith(message)


def test_missing_config(refused: Refused) -> None:
    assert refused(["fit", "--config", "nowhere.yaml"], 2) == (
        "the config 'nowhere.yaml' cannot be read: No such file or directory."
    )
    assert "Did you mean config?" in refused(["fit", "--confg", "nowhere.yaml"], 2)
    assert refused(["fit", "nowhere.yaml"], 2) == (
        "fit takes options only, not 'nowhere.yaml'. A config is named with --config FILE."
    )


# ---- task and data that do not fit together

TRANSLATOR = """
from typing import NamedTuple

from leyden.task import Task


class SentencePairs(NamedTuple):
    sources: object


class Translator(Task[SentencePairs]):
    pass
"""


@pytest.mark.usefixtures("no_data_touched")
def test_task_and_data_of_different_batches_are_refused_before_data_is_touched(refused: Refused) -> None:
    Path("my_translation.py").write_text(TRANSLATOR)
    message = refused(["fit", "--model", "my_translation.Translator", "--data", "FashionMNIST"], 2)
    assert message == (
        "Translator reads SentencePairs, FashionMNIST gives LabelledImages. Data for Translator: none is installed."
    )


@pytest.mark.usefixtures("no_data_touched")
def test_the_data_that_would_fit_is_named(site: Any, refused: Refused) -> None:
    data = """
from leyden.data import DataModule
from others_batch import SentencePairs


class Pairs(DataModule[SentencePairs]):
    pass
"""
    site.add(
        "others",
        {
            "tasks": {"Translator": "others_batch:Translator"},
            "data": {"Pairs": "others_data:Pairs", "Broken": "others_nowhere:Data"},
        },
        others_batch=TRANSLATOR,
        others_data=data,
    )
    command = ["fit", "--model", "others/Translator", "--data", "FashionMNIST"]
    assert "Data for Translator: Pairs." in refused(command, 2)
    message = refused(["fit", *MODEL, "--data", "Pairs"], 2)
    assert message.startswith("ImageClassifier reads LabelledImages, Pairs gives SentencePairs.")
    assert message.endswith("Data for ImageClassifier: FashionMNIST, ImageFolder.")


# ---- runs and checkpoints


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test"], "test needs a trained run or checkpoint: test RUN"),
        (["validate"], "validate needs a trained run or checkpoint: validate RUN"),
        (["predict"], "predict needs a trained run or checkpoint: predict RUN INPUT ..."),
        (["test", "a", "b"], "test takes one run or checkpoint, not 2: a b"),
        (["test", *MODEL, "--data", "FashionMNIST"], "test needs a trained run or checkpoint: test RUN"),
    ],
)
def test_evaluation_needs_a_run(words: list[str], message: str, refused: Refused) -> None:
    assert refused(words, 2).startswith(message)


def test_predicting_needs_something_to_look_at(trained_run: Path, refused: Refused) -> None:
    message = refused(["predict", str(trained_run)], 2)
    assert message.startswith("predict needs something to look at: predict RUN INPUT ...")


def test_evaluating_nothing(trained_run: Path, refused: Refused) -> None:
    assert refused(["test", str(trained_run), "--trainer.limit_test_batches=0"], 2).startswith("nothing was evaluated")


def test_a_run_that_is_not_there(refused: Refused, fit_options: list[str]) -> None:
    nothing = "there is no run or checkpoint 'nowhere'. There are no runs here yet: train one with fit."
    assert refused(["test", "nowhere"], 2) == nothing
    assert refused(["fit", *fit_options, "--resume", "nowhere"], 2) == nothing


def test_runs_that_are_there_are_named(trained_run: Path, refused: Refused) -> None:
    untrained = trained_run.with_name("2")
    (untrained / "checkpoints").mkdir(parents=True)
    assert (
        refused(["test", "nowhere"], 2) == f"there is no run or checkpoint 'nowhere'. Newest runs here: {trained_run}."
    )
    assert f"Did you mean its newest run, {trained_run}?" in refused(["test", str(trained_run.parent)], 2)
    message = refused(["test", str(untrained)], 2)
    assert message.startswith(f"'{untrained}' holds no checkpoint")
    assert "stopped before the first epoch" in message


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:5000] = b"x" * 4900
    path.write_bytes(bytes(content))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("hello")


def picture(path: Path) -> None:
    Image.new("L", (9, 9)).save(path, "PNG")


def tensors_only(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def other_task(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["leyden"]["task"] = "others.Translator"
    torch.save(checkpoint, path)


def other_program(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["leyden"]
    torch.save(checkpoint, path)


def malicious(path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": Payload()}, path)


def malicious_of_old_format(path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": Payload()}, path, _use_new_zipfile_serialization=False)


DAMAGES = {
    truncated: "is damaged: ",
    half: "is damaged: ",
    overwritten: "",
    emptied: "is an empty file.",
    text: "is not a checkpoint.",
    picture: "is not a checkpoint.",
    tensors_only: "is not a training checkpoint: it has no 'state_dict'.",
    other_task: "the checkpoint was made by others.Translator, not by leyden_plugins.classification.task.Image",
    malicious: "holds Python objects",
    malicious_of_old_format: "holds Python objects",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_checkpoints_are_refused_everywhere_and_run_no_code(
    damage: Callable[[Path], None], trained_run: Path, refused: Refused, fit_options: list[str]
) -> None:
    path = trained_run / "checkpoints" / "best.ckpt"
    damage(path)
    shutil.copy(path, path.with_name("last.ckpt"))
    Image.new("L", (28, 28)).save("picture.png")
    config = (trained_run / "config.yaml").read_text()

    for words in (
        ["test", str(path)],
        ["test", str(trained_run)],
        ["predict", str(trained_run), "picture.png"],
        ["fit", *fit_options, "--resume", str(trained_run)],
    ):
        assert DAMAGES[damage] in refused(words, 1)
    assert not Path("executed").exists()
    assert (trained_run / "config.yaml").read_text() == config


def test_a_checkpoint_of_another_program(trained_run: Path, refused: Refused, data_options: list[str]) -> None:
    path = trained_run / "checkpoints" / "best.ckpt"
    other_program(path)
    message = refused(["test", str(path)], 1)
    assert message == f"{path} holds no config: it was not written by `fit`. Name --model and --data as well."
    message = refused(["test", str(path), *MODEL, *data_options], 1)
    assert message.startswith("the checkpoint was made by another program, not by leyden_plugins.")


def test_weights_that_do_not_fit_the_network(trained_run: Path, refused: Refused) -> None:
    message = refused(["test", str(trained_run), "--model.net", "MLP"], 1)
    assert message.startswith("the checkpoint's weights do not fit the network:\nMissing key(s)")


def test_data_that_does_not_fit_the_checkpoint(trained_run: Path, refused: Refused, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (28, 28)).save(tmp_path / "pets" / name / f"{number}.png")
    data = ["--data", "ImageFolder", "--data.root", "pets", "--data.image_size", "28"]
    message = refused(["test", str(trained_run), *data], 2)
    assert message.startswith("the data is not what the checkpoint was trained on:\nchannels: 1 -> 3\nclass_names: ")


def test_resuming_does_not_silently_keep_another_optimizer(
    trained_run: Path, refused: Refused, fit_options: list[str]
) -> None:
    """The checkpoint restores the optimizer's options: what the user types would have no effect."""
    same = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--resume", str(trained_run)]
    for words, key in {
        ("--model.optimizer.lr=0.5",): "model.optimizer.lr was 0.001, not 0.5",
        ("--model.optimizer=SGD",): "model.optimizer.class_path was torch.optim.Adam, not torch.optim.SGD",
        ("--model.lr_scheduler=CosineWithWarmup",): "model.lr_scheduler",
        ("--model.lr_interval=step",): "model.lr_interval was None, not step",
        ("--model.weight_decay_on=weights",): "model.weight_decay_on was all, not weights",
    }.items():
        message = refused(["fit", *fit_options, *same, *words], 2)
        assert message.startswith("a resumed run goes on with the optimizer and schedule of its checkpoint: ")
        assert key in message


def test_a_refused_resume_leaves_the_run_as_it_was(trained_run: Path, refused: Refused, fit_options: list[str]) -> None:
    before = {path: path.read_bytes() for path in trained_run.rglob("*") if path.is_file() and path.name != "log.txt"}
    words = ["--model.net", "MLP", "--trainer.max_epochs=9", "--resume", str(trained_run)]
    assert "weights do not fit" in refused(["fit", *fit_options, *words], 1)
    after = {path: path.read_bytes() for path in trained_run.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert after == before


# ---- folders and files


def test_a_run_folder_that_cannot_be_written(refused: Refused, fit_options: list[str], trained_run: Path) -> None:
    Path("file").write_text("not a folder")
    message = refused(["fit", *fit_options, "--runs", "file"], 1)
    assert message.startswith("the folder file/lenet cannot be written: Not a directory.")
    assert "--runs FOLDER" in message
    message = refused(["test", str(trained_run), "--out", "file"], 1)
    assert message.startswith("the folder file cannot be written: ")
    assert "--out FOLDER" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_folder_without_permission(refused: Refused, fit_options: list[str], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written: Permission denied." in refused(["fit", *fit_options, "--runs", "locked"], 1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere.png"], "nowhere.png: no such file or folder."),
        (
            ["text.png"],
            "1 of 1 inputs are no pictures, or of no known format: text.png. Nothing was predicted",
        ),
        (["empty"], "empty: no pictures in this folder"),
        (["good.png", "nowhere.png"], "nowhere.png: no such file or folder."),
    ],
)
def test_inputs_that_cannot_be_predicted(inputs: list[str], message: str, trained_run: Path, refused: Refused) -> None:
    Path("text.png").write_text("hello")
    Path("empty").mkdir()
    Image.new("L", (28, 28)).save("good.png")
    assert refused(["predict", str(trained_run), *inputs], 1).startswith(message)
    assert not Path(trained_run, "predictions", "predictions.jsonl").exists()


def test_missing_data_says_where_to_put_it(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", *MODEL, "--data", "FashionMNIST", "--data.root", "nowhere", "--data.verify", "false"]
    assert main(words) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: cannot get Fashion-MNIST. Tried:")
    assert "nowhere/train-images-idx3-ubyte.gz" in message
    assert "Traceback" not in message


# ---- the process


def test_ctrl_c_while_evaluating(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leyden_plugins.classification.task.ImageClassifier.test_step", interrupted)
    assert main(["test", str(trained_run)]) == 130
    assert capsys.readouterr().err == "interrupted.\n"


def test_debugging_shows_the_traceback_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYDEN_DEBUG", "1")
    assert main(["fit"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("Traceback")
    assert message.endswith("error: --data and --model are missing.\n")


def test_the_process_ends_with_the_status_and_the_message_on_stderr() -> None:
    words = ["fit", "--model", "ImageClasifier", "--data", "FashionMNIST"]
    program = "import sys; from leyden.main import main; raise SystemExit(main())"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown task 'ImageClasifier'. Did you mean ImageClassifier?")
    assert len(done.stderr.splitlines()) == 1
