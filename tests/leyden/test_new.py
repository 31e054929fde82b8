"""`new`: packages that work as they are written, names that cannot be, and nothing half-written."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from leyden import __version__
from leyden.commands import new
from leyden.main import main

NAMES = {"task": "WhaleSongs", "data": "Gauges", "network": "Ripple"}
MODULES = {"task": "whale_songs", "data": "gauges", "network": "ripple"}


def python(words: Sequence[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `new` has written one package of each kind."""
    folder = tmp_path_factory.mktemp("written")
    for kind, name in NAMES.items():
        assert main(["new", kind, name, "--into", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder into which pip has installed the three packages."""
    target = str(tmp_path_factory.mktemp("installed"))
    words = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target", target]
    done = python([*words, *(f"./{module}" for module in MODULES.values())], written)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("kind", NAMES)
def test_nothing_is_left_of_the_template_s_names(kind: str, written: Path) -> None:
    files = [path for path in (written / MODULES[kind]).rglob("*") if path.is_file()]
    assert len(files) >= 7
    for path in files:
        assert not re.search(r"new[-_ ]?(task|data|network)", f"{path.relative_to(written)} {path.read_text()}", re.I)
        if path.suffix == ".py":
            assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("kind", NAMES)
def test_the_template_is_written_file_by_file(kind: str, written: Path) -> None:
    template = {path.relative_to(new.TEMPLATES / kind) for path in (new.TEMPLATES / kind).rglob("*.*")}
    template = {path for path in template if not re.search(r"__pycache__|_cache", str(path))}
    files = {path.relative_to(written / MODULES[kind]) for path in (written / MODULES[kind]).rglob("*.*")}
    assert {str(path).replace(f"new_{kind}", MODULES[kind]) for path in template} == set(map(str, files))


def test_it_says_what_was_written_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "task", "Sonar"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("wrote sonar, a package that offers task Sonar, network SonarNet, data SonarData:\n")
    for path in Path("sonar").rglob("*.*"):
        assert f"  {path.relative_to('sonar')}\n" in said
    assert said.endswith("next:\n  cd sonar\n" + said.partition("cd sonar\n")[2])
    for command in ('pip install -e ".[test]"', "python -m pytest", "leyden fit --config sonar.yaml"):
        assert f"  {command}\n" in said


@pytest.mark.parametrize(
    ("name", "class_name", "module"),
    [
        ("Sonar", "Sonar", "sonar"),
        ("sonar", "Sonar", "sonar"),
        ("my_sonar", "MySonar", "my_sonar"),
        ("MySonar2", "MySonar2", "my_sonar2"),
        ("FMSignals", "FMSignals", "fm_signals"),
        ("CNN1D", "CNN1D", "cnn1d"),
    ],
)
def test_names_are_written_as_python_writes_them(name: str, class_name: str, module: str) -> None:
    assert main(["new", "network", name]) == 0
    pyproject = tomllib.loads(Path(module, "pyproject.toml").read_text())["project"]
    assert pyproject["name"] == module.replace("_", "-")
    assert pyproject["entry-points"]["leyden.networks"] == {class_name: f"{module}.network:{class_name}"}
    [network] = (
        node
        for node in ast.parse(Path(module, "src", module, "network.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert network.name == class_name


def test_the_package_asks_for_a_leyden_that_is_here(written: Path) -> None:
    for module in MODULES.values():
        [dependency] = tomllib.loads((written / module / "pyproject.toml").read_text())["project"]["dependencies"]
        requirement = Requirement(dependency)
        assert requirement.name == "leyden"
        assert requirement.specifier.contains(__version__)
        assert not requirement.specifier.contains("0.0.9")


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not here")
@pytest.mark.parametrize("name", ["Ox", "A" + "b" * (new.LONGEST_NAME - 1)])
@pytest.mark.parametrize("kind", NAMES)
def test_the_code_is_lint_free_with_short_and_long_names(kind: str, name: str, tmp_path: Path) -> None:
    assert main(["new", kind, name]) == 0
    ruff = str(Path(sys.executable).with_name("ruff"))
    for words in (["check"], ["format", "--diff"]):
        done = subprocess.run([ruff, *words, "--no-cache", name.lower()], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_list_shows_what_was_installed(installed: str, tmp_path: Path) -> None:
    done = python(["-m", "leyden.main", "list"], tmp_path, PYTHONPATH=installed)
    rows = {words[0]: words[1:] for words in map(str.split, done.stdout.splitlines()) if words}
    for name, package in [
        ("WhaleSongs", "whale-songs"),
        ("WhaleSongsNet", "whale-songs"),
        ("WhaleSongsData", "whale-songs"),
        ("Gauges", "gauges"),
        ("Ripple", "ripple"),
    ]:
        assert rows[name][:2] == [package, "0.1.0"]
        assert len(rows[name]) > 4, "it says what it is"


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        # two processes and compiling take long; tests/docs runs them on the same template
        ("task", "not processes and not compiled"),
        ("data", ""),
        ("network", ""),
    ],
)
def test_it_passes_its_own_tests(kind: str, chosen: str, written: Path, installed: str) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen]
    done = python(words, written / MODULES[kind], PYTHONPATH=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_network_trains_through_the_command_line(
    installed: str, written: Path, data_options: list[str], tmp_path: Path
) -> None:
    words = ["fit", "--config", str(written / "ripple" / "ripple.yaml"), *data_options, "--trainer.max_epochs", "1"]
    done = python(["-m", "leyden.main", *words], tmp_path, PYTHONPATH=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ripple, 24,058 trainable parameters" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["taks", "Sonar"], "unknown kind 'taks'. Did you mean task?"),
        (["task", "1st"], "'1st' cannot be the name of a class: expected a letter, then letters, digits"),
        (["task", "my-task"], "'my-task' cannot be the name of a class"),
        (["task", "Größe"], "'Größe' cannot be the name of a class"),
        (["task", ""], "'' cannot be the name of a class"),
        (["task", "../up"], "'../up' cannot be the name of a class"),
        (["network", "class"], "'class' is a word of the language Python"),
        (["network", "Class"], "'Class' is a word of the language Python"),
        (["data", "None"], "'None' is a word of the language Python"),
        (["task", "A" * 31], "has 31 characters, expected at most 30"),
        (["task", "Tensor"], "the code that would be written means something else by Tensor"),
        (["task", "Signals"], "the code that would be written means something else by Signals"),
        (["task", "imageclassifier"], "offers a task ImageClassifier already"),
        (["network", "LeNet"], "offers a network LeNet already"),
        (["data", "FASHIONMnist"], "offers a data FashionMNIST already"),
        (["network", "Json"], "the package would be called json, and so is a module that is installed"),
        (["network", "Torch"], "the package would be called torch, and torch is installed already"),
        (["network", "Yaml"], "the package would be called yaml, and so is a module that is installed"),
        (["task", "Sonar", "--into", "nowhere"], "nowhere does not exist; --into names the folder"),
        (["task", "Sonar", "--into", "file"], "file is not a folder; --into names the folder"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert main(["new", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        ({"tasks": {"SONAR": "others:SONAR"}}, "others 1.0 offers a task SONAR already"),
        ({"networks": {"SonarNet": "others:SonarNet"}}, "others 1.0 offers a network SonarNet already"),
        ({"data": {"SonarData": "others:SonarData"}}, "others 1.0 offers a data SonarData already"),
        ({"tasks": {"Echo": "Sonar.task:Echo"}}, "would be called sonar, and so is a module that is installed"),
    ],
)
def test_a_name_that_another_package_has_is_refused(
    offered: dict[str, Any], message: str, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("others", offered)
    assert main(["new", "task", "Sonar"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("sonar").exists()


def test_a_package_of_that_name_is_refused(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add("My.Sonar", {})
    assert main(["new", "task", "MySonar"]) == 2
    assert "would be called my_sonar, and My.Sonar is installed already" in capsys.readouterr().err


def test_a_name_that_only_another_kind_has_is_free(site: Any) -> None:
    site.add("others", {"tasks": {"Sonar": "others:Sonar"}})
    assert main(["new", "network", "Sonar"]) == 0


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_overwritten(there: str, capsys: pytest.CaptureFixture[str]) -> None:
    if there == "folder":
        Path("sonar").mkdir()
    elif there == "file":
        Path("sonar").write_text("mine")
    else:
        Path("sonar").symlink_to("nowhere")
    assert main(["new", "task", "Sonar"]) == 2
    assert "sonar is there already, and nothing is overwritten" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["sonar"]
    assert there != "folder" or not any(Path("sonar").iterdir())


@pytest.mark.parametrize("stumble", ["write_text", "rename"])
def test_a_package_is_written_whole_or_not_at_all(
    stumble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def full(self: Path, *_: Any, **__: Any) -> None:
        calls.append(self)
        if len(calls) == (5 if stumble == "write_text" else 1):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, stumble, full)
    assert main(["new", "task", "Sonar"]) == 1
    assert "error: sonar cannot be written: No space left on device." in capsys.readouterr().err
    assert calls
    assert not list(Path().iterdir())


def test_a_folder_that_refuses_files_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "task", "Sonar", "--into", "/proc"]) == 1
    assert "error: /proc/sonar cannot be written: " in capsys.readouterr().err


def test_new_imports_no_torch(tmp_path: Path) -> None:
    traps = tmp_path / "traps"
    traps.mkdir()
    for name in ("torch", "lightning", "jsonargparse", "matplotlib", "numpy"):
        (traps / f"{name}.py").write_text("raise SystemExit(99)\n")
    program = (
        f"import sys; sys.path.insert(0, {str(traps)!r}); from leyden.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = python(["-c", program, "new", "task", "Sonar"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sonar" / "pyproject.toml").is_file()
