"""Plugins are found through metadata alone; broken, slow and twice-named ones harm nobody but who asks for them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leyden import __version__, plugins
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


HEADS = '''"""A module that mentions a class:

class Tricky:
    """Not this."""
"""


def decorator(cls):
    return cls


@decorator
class Tricky(
    dict,
    metaclass=type,
):
    """This one.

    def method(self): is an example
    """

    value = 1

    def method(self):
        """Not this."""


class OneLine: "On one line."


class TrickyToo(Tricky):
    def method(self):
        """Not this."""


class Async(Tricky):
    "Plain quotes."
    async def method(self): ...
'''.replace('"""Not this."""\n"""', 'Not this.\n"""', 1)


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("Tricky", "This one."),
        ("OneLine", "On one line."),
        ("TrickyToo", ""),
        ("Async", "Plain quotes."),
        ("Trick", ""),
    ],
)
def test_descriptions_of_classes_however_they_are_written(name: str, description: str, site: Any) -> None:
    site.add("others", {"networks": {"It": f"others_heads:{name}"}}, others_heads=HEADS)
    compile(HEADS, "others_heads.py", "exec")
    assert plugins.find("networks", "It").description() == description


def test_damaged_metadata_of_one_package_hides_no_other(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, points, metadata in (
        ("without", "[leyden.networks]\nWithout = nowhere:Net\n", None),
        ("binary", "[leyden.networks]\nBinary = nowhere:Net\n", b"\xff\xfe\x00"),
        ("nonsense", "[leyden.networks\nx\n = y\n", b"Name: nonsense\nVersion: 1\n"),
    ):
        info = site.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(points)
        if metadata is not None:
            (info / "METADATA").write_bytes(metadata)
    site.add("others", {"networks": {"Other": "others_net:Net"}}, others_net=NETWORK)
    assert main(["list", "networks"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Other", "others", "1.0", "A", "network", "of", "someone", "else."] in rows
    assert ["Without", "?", "?"] in rows
    assert "LeNet" in [row[0] for row in rows]


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


def require(site: Any, package: str, *requirements: str) -> None:
    """Add to a package's metadata what it requires."""
    [info] = site.folder.glob(f"{package}-*.dist-info")
    with (info / "METADATA").open("a") as file:
        file.writelines(f"Requires-Dist: {requirement}\n" for requirement in requirements)


@pytest.mark.parametrize(
    ("requirements", "asked"),
    [
        ([], None),
        (["leyden"], None),
        (["leyden>=0.0", "torch>=99"], None),
        (["torch", "leyden>=9"], "leyden>=9"),
        (["Leyden[timm] (<0.1,>=0.0.1)"], "leyden<0.1,>=0.0.1"),
        (["leyden>=9; python_version<'3'", "leyden>=9; extra == 'all'"], None),
        (["= not a requirement =", "leyden==7.*"], "leyden==7.*"),
    ],
)
def test_a_plugin_made_for_another_leyden(
    requirements: list[str], asked: str | None, site: Any, data_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is listed, stops nobody, and says what it needs when it is asked for."""
    plugins.required.cache_clear()
    site.add("future", {"networks": {"Later": "future_net:Net"}}, "2.0", future_net=NETWORK)
    require(site, "future", *requirements)
    fit = ["fit", "--model", "ImageClassifier", *data_options, "--trainer.fast_dev_run=true", "--model.net"]

    assert main(["list", "networks"]) == 0
    assert "Later" in capsys.readouterr().out
    assert "future_net" not in sys.modules
    if asked is None:
        assert main([*fit, "Later"]) == 0
        return
    assert main([*fit, "LeNet"]) == 0
    assert main([*fit, "Later"]) == 2
    message = (
        f"network 'Later' of package future 2.0 (future_net:Net) is made for {asked}; this is leyden {__version__}. "
        f"Install {asked}, or a release of future for leyden {__version__}."
    )
    assert capsys.readouterr().err == f"error: {message}\n"
    assert main(["list", "networks", "--broken"]) == 1
    assert capsys.readouterr().out == f"{message}\n"
    plugins.required.cache_clear()


def test_list_for_programs(site: Any, broken: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    site.add("others", {"networks": {"LeNet": "others_net:Net"}}, "2.5", others_net=NETWORK)
    require(site, "others", "leyden>=0.1,<1")
    plugins.required.cache_clear()

    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"leyden", "tasks", "networks", "data"}
    assert {"ImageClassifier", "Regressor"} <= {entry["name"] for entry in found["tasks"]}
    ours, theirs = (entry for entry in found["networks"] if entry["name"] == "LeNet")
    assert ours["class_path"] == "leyden_plugins.classification.networks.lenet.LeNet"
    assert theirs == {
        "name": "LeNet",
        "qualified_name": "others/LeNet",
        "class_path": "others_net.Net",
        "description": "A network of someone else.",
        "package": "others",
        "version": "2.5",
        "file": None,
        "requires_leyden": "leyden<1,>=0.1",
    }

    assert main(["list", "networks", "--broken", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"leyden", "networks"}
    assert {entry["name"]: broken[entry["name"]] in entry["cause"] for entry in found["networks"]} == dict.fromkeys(
        broken, True
    )


MARK = "open({place!r}, 'a').write(__name__ + ' ')\n"


def test_hostile_plugins_are_noticed_by_nobody_who_does_not_ask(
    site: Any, data_options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One raises, one takes 5 s, one names nothing, one is of the future, two have one name."""
    mark = MARK.format(place=str(tmp_path / "imported"))
    twins = {"networks": {"Twin": "PACKAGE_net:Net"}}
    site.add("raising", {"networks": {"Raising": "raising_net:Net"}}, raising_net=f"{mark}raise OSError('licence')\n")
    site.add("slow", {"tasks": {"Slow": "slow_net:Net"}}, slow_net=f"{mark}import time\ntime.sleep(5)\n{NETWORK}")
    site.add("nothing", {"data": {"Nothing": "nothing_data:Data"}}, nothing_data=mark)
    site.add("future", {"networks": {"Future": "future_net:Net"}}, future_net=mark + NETWORK)
    require(site, "future", "leyden>=9")
    for package in ("one", "two"):
        point = twins["networks"]["Twin"].replace("PACKAGE", package)
        site.add(package, {"networks": {"Twin": point}}, **{f"{package}_net": mark + NETWORK})
    fit = ["fit", "--model", "ImageClassifier", "--model.net", "LeNet", *data_options, "--trainer.fast_dev_run=true"]

    def run(words: list[str], path: str) -> tuple[str, float]:
        program = "import sys; from leyden.main import main; sys.exit(main(sys.argv[1:]))"
        started = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, time.perf_counter() - started

    plain = min(run(["list"], "")[1] for _ in range(3))
    listed, _ = run(["list"], str(site.folder))
    assert min(run(["list"], str(site.folder))[1] for _ in range(3)) < plain + 0.5
    run(fit, str(site.folder))

    assert not (tmp_path / "imported").exists()
    shown = {line.split()[0] for line in listed.splitlines() if line}
    assert shown >= {"Raising", "Slow", "Nothing", "Future", "one/Twin", "two/Twin"}
    asked = {"Raising": "OSError: licence", "Future": "is made for leyden>=9", "Twin": "Write one/Twin or two/Twin."}
    plugins.required.cache_clear()
    for name, cause in asked.items():
        assert main([*fit, "--model.net", name]) == 2
        assert cause in capsys.readouterr().err
    plugins.required.cache_clear()


@pytest.mark.parametrize(
    "words", [["list"], ["list", "--json"], ["list", "data"], ["--version"], ["--help"], ["-h"], ["fitt"], []]
)
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
