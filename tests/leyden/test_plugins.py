"""Plugins are found through metadata alone; broken, slow and twice-named ones harm nobody but who asks for them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leyden import plugins
from leyden.errors import UsageError
from leyden.main import main
from leyden.plugins import PluginError

NETWORK = '''"""A module."""
from torch import nn


class Net(nn.Module):
    """A network of someone else.

    With more lines.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.layers(images)
'''


@pytest.fixture
def broken(site: Any) -> dict[str, str]:
    """Plugins that are broken in every way there is, by name, with what their error must say."""
    site.add(
        "wrecks",
        {
            "networks": {
                "Raises": "wreck_raises:Net",
                "Exits": "wreck_exits:Net",
                "NoModule": "wreck_nowhere:Net",
                "Nothing": "wreck_empty:Net",
                "Function": "wreck_function:net",
                "NoClass": "wreck_function",
                "Syntax": "wreck_syntax:Net",
            }
        },
        wreck_raises="raise RuntimeError('no licence found')\n",
        wreck_exits="import sys\nsys.exit('goodbye')\n",
        wreck_empty="",
        wreck_function="def net():\n    pass\n",
        wreck_syntax="class Net(:\n",
    )
    return {
        "Raises": "RuntimeError: no licence found",
        "Exits": "SystemExit: goodbye",
        "NoModule": "No module named 'wreck_nowhere'",
        "Nothing": "has no attribute 'Net'",
        "Function": "is not a class but <function net",
        "NoClass": "is not of the form module:Class",
        "Syntax": "SyntaxError",
    }


def test_a_short_name_stands_for_the_class_that_a_package_offers(site: Any) -> None:
    site.add("others", {"networks": {"Other": "others_net:Net"}}, "2.5", others_net=NETWORK)

    plugin = plugins.find("networks", "Other")

    assert (plugin.class_path, plugin.package, plugin.version) == ("others_net.Net", "others", "2.5")
    assert plugins.find("networks", "others/Other") == plugin
    assert "others_net" not in sys.modules
    assert plugin.load().__name__ == "Net"


def test_kinds_have_names_of_their_own(site: Any) -> None:
    site.add("others", {"networks": {"Other": "others_net:Net"}})

    with pytest.raises(UsageError, match="unknown task 'Other'"):
        plugins.find("tasks", "Other")


def test_a_name_that_two_packages_offer_is_refused_with_both_choices(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("others", {"networks": {"LeNet": "others_net:Net"}}, others_net=NETWORK)

    with pytest.raises(UsageError, match=r"2 packages offer the network 'LeNet'. Write leyden/LeNet or others/LeNet\."):
        plugins.find("networks", "LeNet")
    assert plugins.find("networks", "others/LeNet").class_path == "others_net.Net"
    assert plugins.find("networks", "leyden/LeNet").class_path.endswith("lenet.LeNet")

    assert main(["list", "networks"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert "others/LeNet" in listed
    assert "leyden/LeNet" in listed
    assert "LeNet" not in listed
    assert "VGG" in listed, "names that are not shared stay short"


def test_a_package_slash_name_trains(site: Any, data_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    site.add("others", {"networks": {"LeNet": "others_net:Net"}}, others_net=NETWORK)
    model = ["--model", "ImageClassifier", "--model.net", "others/LeNet", "--model.net.width", "3"]

    assert main(["fit", *model, *data_options, "--trainer.fast_dev_run=true"]) == 0

    weights = 28 * 28 * 3 + 3 + 3 * 10 + 10
    assert f"Net, {weights:,} trainable parameters" in capsys.readouterr().out.replace("Sequential", "Net")


@pytest.mark.parametrize("name", ["Raises", "Exits", "NoModule", "Nothing", "Function", "NoClass", "Syntax"])
def test_who_asks_for_a_broken_plugin_is_told_the_cause(
    broken: dict[str, str], name: str, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--model", "ImageClassifier", "--model.net", name, *data_options]) == 2

    message = capsys.readouterr().err
    assert message.startswith(f"error: network {name!r} of package wrecks 1.0")
    assert broken[name] in message
    assert len(message.splitlines()) == 1


def test_broken_plugins_stop_nobody_else(broken: dict[str, str], fit_options: list[str]) -> None:
    assert main(["fit", *fit_options, "--trainer.fast_dev_run=true"]) == 0


def test_list_broken_names_every_cause_and_nothing_else(
    broken: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "networks", "--broken"]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(broken)
    for name, cause in broken.items():
        assert any(f"network {name!r} of package wrecks 1.0" in line and cause in line for line in lines)


def test_list_broken_is_quiet_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks", "--broken"]) == 0
    assert capsys.readouterr().out == "no broken plugins\n"


def test_list_shows_broken_and_slow_plugins_without_importing_them(
    site: Any, broken: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    slow = '"""A module."""\nimport time\n\ntime.sleep(5)\n\n\nclass Net:\n    """Worth waiting for."""\n'
    site.add("sloth", {"networks": {"Slow": "sloth__deep__net:Net".replace("__", ".")}}, sloth__deep__net=slow)
    (site.folder / "sloth" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    started = time.perf_counter()

    assert main(["list", "networks"]) == 0

    assert time.perf_counter() - started < 4
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if line.split()[0] == "Slow")
    assert row == ["Slow", "sloth", "1.0", "Worth", "waiting", "for."]
    assert {line.split()[0] for line in shown.splitlines()} >= set(broken)
    assert not [name for name in sys.modules if name.startswith(("sloth", "wreck"))]


def test_descriptions_are_the_first_line_of_the_docstring(site: Any) -> None:
    site.add(
        "others",
        {"networks": {"Net": "others_pkg.net:Net", "Bare": "others_pkg.net:Bare", "Gone": "others_gone:Net"}},
        others_pkg__net=NETWORK + "\n\nclass Bare(nn.Module):\n    pass\n",
    )
    descriptions = {name: plugins.find("networks", name).description() for name in ("Net", "Bare", "Gone")}
    assert descriptions == {"Net": "A network of someone else.", "Bare": "", "Gone": ""}


def test_every_plugin_of_ours_says_what_it_is() -> None:
    ours = [plugin for kind in plugins.GROUPS for plugin in plugins.installed(kind) if plugin.package == "leyden"]
    assert len(ours) > 10
    for plugin in ours:
        assert plugin.description() == (plugin.load().__doc__ or "").partition("\n")[0] != ""


def test_list_refuses_a_kind_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "network"]) == 2
    assert "unknown kind 'network'. Did you mean networks?" in capsys.readouterr().err


def test_loading_says_what_is_wrong(broken: dict[str, str]) -> None:
    for name, cause in broken.items():
        with pytest.raises(PluginError) as caught:
            plugins.find("networks", name).load()
        assert cause in str(caught.value)


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("no_such_package.Net", "there is no module 'no_such_package'"),
        ("leyden.no_such_module.Net", "there is no module 'leyden.no_such_module'"),
        ("leyden.errors.UsageEror", "module leyden.errors has no 'UsageEror'. Did you mean UsageError?"),
    ],
)
def test_import_class_says_which_part_does_not_exist(class_path: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plugins.import_class(class_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("words", [["list"], ["list", "data"], ["--version"], ["--help"], ["-h"], ["fitt"], []])
def test_what_needs_no_torch_imports_none(words: list[str], tmp_path: Path) -> None:
    """A fresh interpreter in which torch, lightning and the plugins cannot be imported at all."""
    traps = tmp_path / "traps"
    traps.mkdir()
    for name in ("torch", "lightning", "jsonargparse", "matplotlib", "numpy"):
        (traps / f"{name}.py").write_text("raise SystemExit(99)\n")
    program = f"import sys; sys.path.insert(0, {str(traps)!r}); from leyden.main import main; sys.exit(main({words}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))

    assert done.returncode == (2 if words in (["fitt"], []) else 0), done.stderr
    assert "Traceback" not in done.stderr
    if words == ["list"]:
        assert "ImageClassifier" in done.stdout
        assert "FashionMNIST" in done.stdout
