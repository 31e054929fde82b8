"""Python files and modules of the current folder offer their classes with no package around them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from leyden import plugin_files, plugins, sources
from leyden.errors import UsageError
from leyden.main import main
from leyden.names import resolve_arguments
from leyden.plugins import PluginError

NETWORK = '''"""Networks of mine."""
from torch import nn


class {name}(nn.Module):
    """One narrow layer."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.layers(images)
'''
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports from its own folder is forgotten with it."""
    monkeypatch.delenv("LEYDEN_PLUGINS", raising=False)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(Path.cwd())):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file below the test's folder; without a source a network of the class Narrow."""

    def file(path: str, source: str = NETWORK.format(name="Narrow")) -> Path:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(source)
        return place

    return file


def fit(*words: str, net: str = "Narrow") -> int:
    return main(["fit", "--model", "ImageClassifier", "--model.net", net, *words, "--trainer.max_epochs=1"])


# ---- which classes a file offers


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("from torch import nn\nclass X(nn.Module): ...", "networks"),
        ("import torch\nclass X(torch.nn.Module): ...", "networks"),
        ("import torch.nn as n\nclass X(n.Sequential): ...", "networks"),
        ("from torch.nn import Module as M\nclass Y(M): ...\nclass X(Y): ...", "networks"),
        ("from torchvision.models import ResNet\nclass X(ResNet): ...", "networks"),
        ("from leyden_plugins.classification.networks.lenet import LeNet\nclass X(LeNet): ...", "networks"),
        ("from leyden.task import Task\nclass X(Task[int]): ...", "tasks"),
        ("import leyden.task as t\nclass X(t.Task): ...", "tasks"),
        ("from leyden_plugins.classification.task import ImageClassifier as I\nclass X(I): ...", "tasks"),
        ("import lightning.pytorch as pl\nclass X(pl.LightningModule): ...", "tasks"),
        ("import lightning as L\nclass X(L.LightningModule): ...", "tasks"),
        ("from pytorch_lightning import LightningModule\nclass X(LightningModule): ...", "tasks"),
        ("from leyden.data import DataModule\nclass X(DataModule[int]): ...", "data"),
        ("from leyden_datamodules.fashion_mnist import FashionMNIST\nclass X(FashionMNIST): ...", "data"),
        ("from lightning.pytorch import LightningDataModule\nclass X(LightningDataModule): ...", "data"),
        ("from mixin import Mixin\nfrom torch import nn\nclass X(Mixin, nn.Module): ...", "networks"),
        ("class X: ...", None),
        ("from torchmetrics import Metric\nclass X(Metric): ...", None),
        ("from lightning.pytorch import Callback\nclass X(Callback): ...", None),
        ("from torch.nn import Parameter\nclass X(Parameter): ...", None),
        ("class Task: ...\nclass X(Task): ...", None),
        ("from nowhere import Y\nclass X(Y): ...", None),
        ("class X(Y): ...\nclass Y(X): ...", None),  # a circle
        ("class X(print('no name')): ...", None),
    ],
)
def test_what_a_class_is_follows_from_its_source(
    source: str, kind: str | None, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("told_by_source.py", source)
    monkeypatch.syspath_prepend(Path.cwd())
    assert sources.kind_of("told_by_source", "X") == kind
    assert "told_by_source" not in sys.modules


def test_list_offers_the_classes_of_a_file_without_running_it(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    source = NETWORK.format(name="Listed") + "\n\nclass _Hidden(Listed): ...\n\n\nclass Helper: ...\n"
    path = write("parts/listed_parts.py", source + "\n\nraise RuntimeError('was run')\n")

    assert main(["list", "networks", "--plugins", "parts/listed_parts.py"]) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["Listed", "listed_parts.py", "One", "narrow", "layer."] in rows
    assert not {"_Hidden", "Helper"} & {row[0] for row in rows}

    assert main(["list", "--json", f"--plugins={path}"]) == 0
    found = json.loads(capsys.readouterr().out)
    [entry] = [entry for entry in found["networks"] if entry["file"]]
    assert entry == {
        "name": "Listed",
        "qualified_name": "listed_parts.py/Listed",
        "class_path": "listed_parts.Listed",
        "description": "One narrow layer.",
        "package": None,
        "version": None,
        "file": str(path),
        "requires_leyden": None,
    }


def test_a_package_in_a_folder_offers_what_its_modules_define(
    write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write("parts/my_nets/__init__.py", "")
    write("parts/my_nets/layers.py", "SIZE = 3\n")
    write("parts/my_nets/inner/net.py", "from ..layers import SIZE\n" + NETWORK.format(name="Nested"))
    write("parts/my_nets/inner/__init__.py", "")

    assert fit(*data_options, "--plugins", "parts/my_nets", "--trainer.fast_dev_run=true", net="Nested") == 0
    assert plugins.installed("networks"), "and the next command does not know it"
    assert "Nested" not in [plugin.name for plugin in plugins.installed("networks")]


# ---- a run with such a file, and what can be done with it


def test_short_names_from_a_file_and_the_run_that_remembers_it(
    write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("parts/remembered_net.py", "import beside_it\n" + NETWORK.format(name="Narrow"))
    write("parts/beside_it.py", "")
    environment, folders = dict(os.environ), sys.path[:]

    assert fit(*data_options, "--plugins", "parts/remembered_net.py", "--model.net.width=3") == 0

    assert dict(os.environ).get("LEYDEN_PLUGINS") == environment.get("LEYDEN_PLUGINS")
    assert [folder for folder in sys.path if folder not in folders and folder != str(Path.cwd())] == []
    run = Path("runs/narrow/1").resolve()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["plugins"] == [str(path)]
    assert config["model"]["init_args"]["net"]["class_path"] == "remembered_net.Narrow"

    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("remembered_net", "beside_it"):
        del sys.modules[name]
    assert main(["test", str(run)]) == 0
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    again = yaml.safe_load(Path("runs/narrow/1/config.yaml").read_text())
    assert {**again, "experiment": 0} == {**config, "experiment": 0}


def test_a_run_whose_file_was_moved(write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = write("parts/moved_net.py")
    assert fit(*data_options, "--plugins", str(path)) == 0
    (Path("new")).mkdir()
    path.rename("new/moved_net.py")
    del sys.modules["moved_net"]
    capsys.readouterr()

    assert main(["test", "runs/narrow/1"]) == 2
    assert capsys.readouterr().err == (
        "error: the run was trained with moved_net.Narrow, but there is no module moved_net here. In training it was "
        f"{path}, which is gone. Name where it is now: --plugins FILE.\n"
    )
    assert main(["fit", "--config", "runs/narrow/1/config.yaml"]) == 2
    assert f"config.yaml: plugins names {path}, which is not there." in capsys.readouterr().err

    assert main(["test", "runs/narrow/1", "--plugins", "new/moved_net.py"]) == 0
    shutil.copy("new/moved_net.py", "moved_net.py")  # into the current folder, where any module is found
    del sys.modules["moved_net"]
    assert main(["test", "runs/narrow/1"]) == 0


def test_a_module_of_the_current_folder_is_remembered_too(
    write: Write, data_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("here_net.py")
    assert fit(*data_options, net="here_net.Narrow") == 0
    run = Path("runs/narrow/1").resolve()
    (Path("elsewhere")).mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(run.parents[2])])
    del sys.modules["here_net"]
    assert main(["test", str(run)]) == 0


def test_a_run_whose_package_is_not_installed(
    site: object, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("others", {"networks": {"Narrow": "others_net:Narrow"}}, others_net=NETWORK.format(name="Narrow"))  # type: ignore[attr-defined]
    assert fit(*data_options) == 0
    shutil.rmtree(site.folder)  # type: ignore[attr-defined]
    del sys.modules["others_net"]
    assert main(["test", "runs/narrow/1"]) == 2
    assert "no module others_net here. Install the package that it comes from" in capsys.readouterr().err


def test_a_config_may_name_its_files(write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write("parts/named_net.py")
    model = {"class_path": "ImageClassifier", "init_args": {"net": "Narrow"}}
    Path("recipe.yaml").write_text(yaml.safe_dump({"model": model, "plugins": ["parts/named_net.py"]}))
    # also where the name stands before the config that makes it known
    words = ["--model.net", "Narrow", "--config", "recipe.yaml", "--trainer.fast_dev_run=true"]
    assert main(["fit", "--config", "recipe.yaml", *data_options, "--trainer.fast_dev_run=true"]) == 0
    assert main(["fit", "--model", "ImageClassifier", *words, *data_options]) == 0

    Path("recipe.yaml").write_text("plugins: parts/named_net.py")
    assert main(["fit", "--config", "recipe.yaml"]) == 2
    assert "in recipe.yaml: plugins is 'parts/named_net.py'; it must be a list" in capsys.readouterr().err


def test_a_name_that_a_package_offers_too_is_refused_with_both_choices(
    write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write("twice_net.py", NETWORK.format(name="LeNet"))
    assert fit(*data_options, "--plugins", "twice_net.py", net="LeNet") == 2
    assert "Write leyden/LeNet or twice_net.py/LeNet." in capsys.readouterr().err
    options = [*data_options, "--plugins", "twice_net.py", "--trainer.fast_dev_run=true"]
    assert fit(*options, net="twice_net.py/LeNet") == 0
    assert "Sequential" not in capsys.readouterr().out


SCRIPT = "import sys; from leyden.main import main; sys.exit(main())"


@pytest.mark.parametrize("named", ["option", "environment"])
def test_two_processes_find_the_file(named: str, write: Write, data_options: list[str]) -> None:
    write("parts/shared_net.py")
    Path("start.py").write_text(SCRIPT)
    words = ["fit", "--model", "ImageClassifier", "--model.net", "Narrow", *data_options, "--trainer.max_epochs=1"]
    words += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if named == "option":
        words += ["--plugins", "parts/shared_net.py"]
    else:
        environment["LEYDEN_PLUGINS"] = "parts/shared_net.py"
    done = subprocess.run(
        [sys.executable, "start.py", *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert Path("runs/narrow/1/checkpoints/best.ckpt").is_file()


# ---- files that are none


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("nowhere.py", None, "--plugins nowhere.py: there is no such file."),
        ("notes.txt", b"x", "--plugins notes.txt is no Python file: its name does not end in .py."),
        (
            "my-net.py",
            b"",
            "--plugins my-net.py cannot be imported under this name. Rename it, for example to my_net.py.",
        ),
        (
            "class.py",
            b"",
            "--plugins class.py cannot be imported under this name. Rename it, for example to class_.py.",
        ),
        ("wrong_syntax.py", b"x = 1\ndef f(:\n", "--plugins wrong_syntax.py cannot be read as Python: line 2: "),
        ("binary.py", b"\xff\xfe", "--plugins binary.py cannot be read as Python: it is not UTF-8 text."),
        ("nothing.py", b"\0", "--plugins nothing.py cannot be read as Python: source code string cannot contain null"),
        ("json.py", b"", "--plugins json.py: the name json is taken by another module, "),
        ("di:vided.py", b"", "--plugins di:vided.py: ':' in a path divides files in LEYDEN_PLUGINS."),
        ("folder/x.txt", b"", "--plugins folder is a folder without an __init__.py, so no package."),
    ],
)
def test_files_that_cannot_be_used(
    path: str, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = path.partition("/")[0]
    if content is not None:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(content)
    assert main(["list", "--plugins", named]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_two_files_of_one_name(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    first = write("a/same_net.py")
    write("b/same_net.py")
    assert main(["list", "--plugins", "a/same_net.py", "--plugins=b/same_net.py"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        f"error: --plugins b/same_net.py: {first} has the same name, and both would be the module"
    )
    assert main(["list", "--plugins", "a/same_net.py", "--plugins=a/../a/same_net.py"]) == 0, "one file, named twice"


def test_a_file_that_the_current_folder_would_hide(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("parts/hidden_net.py")
    mine = write("hidden_net.py")
    assert main(["list", "--plugins", "parts/hidden_net.py"]) == 2
    assert f"the name hidden_net is taken by another module, {mine}. Rename the file." in capsys.readouterr().err


def test_an_option_without_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--plugins"], ["--plugins", "--json"], ["--plugins="]):
        assert main(["list", *words]) == 2
        assert capsys.readouterr().err == "error: --plugins needs a value: a Python file.\n"


def test_the_environment_is_named_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEYDEN_PLUGINS", os.pathsep.join(["", "gone.py"]))
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "error: LEYDEN_PLUGINS gone.py: there is no such file.\n"
    assert os.environ["LEYDEN_PLUGINS"] == os.pathsep.join(["", "gone.py"])
    assert main(["--version"]) == 0


def test_a_file_that_raises_stops_only_who_asks_for_it(
    write: Write, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("raising_net.py", NETWORK.format(name="Narrow") + "\nraise RuntimeError('no licence')\n")
    options = [*data_options, "--plugins", "raising_net.py", "--trainer.fast_dev_run=true"]
    assert fit(*options, net="LeNet") == 0
    capsys.readouterr()
    assert fit(*options) == 2
    message = f"network 'Narrow' of {path} cannot be imported: RuntimeError: no licence ({path}, line 15)"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert main(["list", "networks", "--broken", "--plugins", "raising_net.py"]) == 1
    assert capsys.readouterr().out == f"{message}\n"


def test_a_file_that_changes_into_nonsense_offers_nothing(write: Write) -> None:
    path = write("changing_net.py")
    with plugin_files.in_use(["--plugins", str(path)]):
        assert [offer.name for offer in plugin_files.offers()] == ["Narrow"]
        path.write_text("class (")
        assert plugin_files.offers() == []


def test_a_class_that_is_none(write: Write) -> None:
    path = write("function_net.py", NETWORK.format(name="Narrow") + "\nNarrow = print\n")
    with (
        plugin_files.in_use(["--plugins", str(path)]),
        pytest.raises(PluginError, match=r"function_net\.py is not a class but <built-in"),
    ):
        plugins.find("networks", "Narrow").load()


def test_a_file_given_where_a_name_belongs() -> None:
    with pytest.raises(UsageError, match=r"net takes the name of a class, not a file: --plugins net\.py offers"):
        resolve_arguments(["--model", "ImageClassifier", "--model.net", "net.py"])


def test_a_file_that_offers_nothing_says_so(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("helpers.py", "class Helper:\n    pass\n")
    assert main(["list", "--plugins", str(path)]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {path} offers no task, network or data module")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["list", "--plugins", str(path)]) == 0
    assert capsys.readouterr().err == "", "one process of a run says it"
