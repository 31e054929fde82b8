"""Short names on the command line and in YAML become class paths; everything else passes through unchanged."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from leyden.errors import UsageError
from leyden.names import load_yaml, resolve_arguments

TASK = "leyden_plugins.classification.task.ImageClassifier"
LENET = "leyden_plugins.classification.networks.lenet.LeNet"
FASHION = "leyden_datamodules.fashion_mnist.FashionMNIST"


def read_config(file: str) -> Any:
    return yaml.safe_load(resolve_arguments(["--config", file])[1])


def config_of(text: str) -> Any:
    Path("config.yaml").write_text(text)
    return read_config("config.yaml")


@pytest.mark.parametrize(
    ("words", "resolved"),
    [
        (["--model", "ImageClassifier"], ["--model", TASK]),
        (["--model=ImageClassifier"], [f"--model={TASK}"]),
        (["--model.net", "LeNet"], ["--model.net", LENET]),
        (["--model.net", "leyden/LeNet"], ["--model.net", LENET]),
        (["--model.net=LeNet"], [f"--model.net={LENET}"]),
        (["--model.init_args.net", "LeNet"], ["--model.init_args.net", LENET]),
        (["--model.net.class_path=LeNet"], [f"--model.net.class_path={LENET}"]),
        (["--data", "FashionMNIST"], ["--data", FASHION]),
        (["--model.optimizer", "SGD"], ["--model.optimizer", "torch.optim.SGD"]),
        (["--model.lr_scheduler", "StepLR"], ["--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"]),
        (
            ["--model.lr_scheduler", "CosineWithWarmup"],
            ["--model.lr_scheduler", "leyden.schedules.CosineWithWarmup"],
        ),
        (["--trainer.callbacks", "EMA"], ["--trainer.callbacks", "leyden.callbacks.EMA"]),
        (["--trainer.callbacks+=EMA"], ["--trainer.callbacks+=leyden.callbacks.EMA"]),
        (["--trainer.callbacks+", "EMA"], ["--trainer.callbacks+", "leyden.callbacks.EMA"]),
        (["--trainer.logger", "WandbLogger"], ["--trainer.logger", "leyden.loggers.WandbLogger"]),
    ],
)
def test_short_names_on_the_command_line(words: list[str], resolved: list[str]) -> None:
    assert resolve_arguments(words) == resolved


def test_help_is_about_the_class_that_was_named() -> None:
    named = resolve_arguments(["--model", "ImageClassifier", "--model.net", "LeNet"])
    assert resolve_arguments(["--model", "ImageClassifier", "--model.net", "LeNet", "--model.net.help"]) == [
        *named,
        "--model.net.help",
        named[-1],
    ]
    with pytest.raises(UsageError, match=r"--model\.net\.help needs a name"):
        resolve_arguments(["--model.net.help"])


@pytest.mark.parametrize(
    "words",
    [
        ["--model", TASK],  # class paths are left alone
        ["--model.net", "null"],
        ["--trainer.logger=false"],
        ["--trainer.logger", "True"],
        ["--data.root", "LeNet"],  # a folder may be called like a network
        ["--data.model", "LeNet"],  # an option of a data module that happens to be called like a group
        ["--model.net.data", "FashionMNIST"],
        ["--model.net.activation=relu"],
        ["--seed_everything", "3"],
        ["--trainer.max_epochs", "-1"],
        ["stray"],
        ["--model.help"],
    ],
)
def test_everything_else_stays_as_it_is(words: list[str]) -> None:
    assert resolve_arguments(words) == words


def test_a_mapping_on_the_command_line_is_resolved_too() -> None:
    [option, value] = resolve_arguments(["--trainer.callbacks", "[{class_path: EMA, init_args: {decay: 0.5}}]"])
    assert option == "--trainer.callbacks"
    assert yaml.safe_load(value) == [{"class_path": "leyden.callbacks.EMA", "init_args": {"decay": 0.5}}]


@pytest.mark.parametrize("words", [["--model"], ["--config"], ["-c"], ["--model.net.activation", "--trainer.x=1"]])
def test_an_option_without_its_value_is_named(words: list[str]) -> None:
    with pytest.raises(UsageError, match=f"^{words[0]} needs a value"):
        resolve_arguments(words)


def test_short_names_in_every_place_of_a_config() -> None:
    config = config_of(
        """
model:
  class_path: ImageClassifier
  init_args:
    net: {class_path: LeNet, init_args: {activation: relu}}
    optimizer: SGD
    lr_scheduler: {class_path: CosineWithWarmup, init_args: {warmup_steps: 3}}
data: FashionMNIST
trainer:
  callbacks+: [EMA, {class_path: EarlyStopping, init_args: {monitor: val/loss}}]
  logger: CSVLogger
"""
    )
    expected = {
        "model": {
            "class_path": TASK,
            "init_args": {
                "net": {"class_path": LENET, "init_args": {"activation": "relu"}},
                "optimizer": "torch.optim.SGD",
                "lr_scheduler": {"class_path": "leyden.schedules.CosineWithWarmup", "init_args": {"warmup_steps": 3}},
            },
        },
        "data": FASHION,
        "trainer": {
            "callbacks+": [
                "leyden.callbacks.EMA",
                {
                    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
                    "init_args": {"monitor": "val/loss"},
                },
            ],
            "logger": "lightning.pytorch.loggers.CSVLogger",
        },
    }
    assert config == expected
    assert yaml.safe_load(resolve_arguments(["--config", "config.yaml"])[1]) == expected
    assert yaml.safe_load(resolve_arguments(["-c", "config.yaml"])[1]) == expected
    assert yaml.safe_load(resolve_arguments(["--config=config.yaml"])[0].partition("=")[2]) == expected


def test_groups_and_short_names_elsewhere_in_a_config_are_left_alone() -> None:
    text = """
data:
  class_path: FashionMNIST
  init_args: {root: LeNet, model: LeNet, data: FashionMNIST}
trainer:
  default_root_dir: EMA
  logger: false
"""
    assert config_of(text) == yaml.safe_load(text.replace("class_path: FashionMNIST", f"class_path: {FASHION}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("1_000.5", 1000.5),
        (".inf", float("inf")),
        ("10", 10),
        ("0x10", 16),
        ("true", True),
        ("null", None),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_numbers_are_read_as_the_parser_reads_them(text: str, value: Any) -> None:
    found = load_yaml(f"x: {text}", "here")["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_missing_config_is_named() -> None:
    with pytest.raises(UsageError, match=r"config 'nowhere\.yaml' cannot be read: No such file"):
        read_config("nowhere.yaml")


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_config(str(tmp_path))


def test_bytes_are_no_config() -> None:
    Path("config.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UsageError, match="cannot be read: it is not UTF-8 text"):
        read_config("config.yaml")


@pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "list"), ("word", "str"), ("", "NoneType")])
def test_a_config_is_a_mapping(text: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"config 'config.yaml' is not a mapping of options but {kind}"):
        config_of(text)


def test_the_place_of_a_yaml_error_is_named() -> None:
    with pytest.raises(UsageError, match=r"config.yaml is not valid YAML at line 3, column 3: "):
        config_of("model:\n  net: [LeNet\n  : x]]\ndata: FashionMNIST")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: ImageClasifier", "unknown task 'ImageClasifier'. Did you mean ImageClassifier?"),
        ("data: {class_path: FashonMNIST}", "unknown data 'FashonMNIST'. Did you mean FashionMNIST?"),
        ("trainer: {callbacks: [EMMA]}", "unknown callback 'EMMA'. Did you mean EMA?"),
        ("model: {class_path: ImageClassifier, net: LeNet}", "model has net beside class_path"),
    ],
)
def test_a_wrong_name_in_a_config_is_reported_with_the_file(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(text)
    assert str(caught.value).startswith(f"in config.yaml: {message}")


def test_only_classes_that_fit_are_offered() -> None:
    """torch.optim.lr_scheduler also holds Counter, Tensor and the like, and bases that nobody can use."""
    with pytest.raises(UsageError) as caught:
        resolve_arguments(["--model.lr_scheduler", "Tensor"])
    known = str(caught.value).partition("names: ")[2].split(", ")
    assert {"StepLR", "CosineWithWarmup", "OneCycleLR"} <= set(known)
    assert not {"Tensor", "Optimizer", "Counter", "LRScheduler", "Any", "partial"} & set(known)
