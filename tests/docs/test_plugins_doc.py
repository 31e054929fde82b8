"""docs/plugins.md is followed literally: its commands run in a new environment, its Python files are written first."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\n")
INSTALLED = ("pyproject.toml", "README.md", "platform", "plugins", "datamodules")  # what a wheel is built from

pytestmark = [
    pytest.mark.timeout(3000),
    pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash"),
]


def scripts() -> list[str]:
    """The document's sections as shell scripts; a Python block that begins with a file's name becomes that file."""
    found = []
    for section in re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE):
        steps = []
        for language, text in BLOCK.findall(section):
            name = FILE_NAME.match(text)
            if language == "bash":
                steps.append(text)
            elif name is not None:
                steps.append(f"cat > {name[1]} <<'END_OF_FILE'\n{text}END_OF_FILE\n")
        if steps:
            found.append("".join(steps))
    return found


def commands(script: str) -> list[str]:
    return [line for line in script.splitlines() if line.strip() and not line.startswith("#")]


@dataclass
class Reader:
    """Who follows the document: a folder with a checkout, an environment, and what the commands write."""

    folder: Path

    @classmethod
    def start(cls, folder: Path) -> "Reader":
        """Nothing of leyden is installed; what it depends on is, since nothing is fetched in tests."""
        for name in INSTALLED:
            copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
            copy(CHECKOUT / name, _made(folder / "leyden") / name)  # type: ignore[operator]
        venv.create(folder / "environment", with_pip=True)
        [site] = (folder / "environment").glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # Python 3.11 puts an old one there, which would hide the one that torch needs
        reader = cls(folder)
        reader.follow("pip uninstall --yes setuptools", "leyden")
        return reader

    def follow(self, script: str, place: str) -> str:
        """What the commands say; the first that fails ends them."""
        programs = self.folder / "environment" / "bin"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LEYDEN", "PIP_"))},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(programs.parent),
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads a `no` option's variable as the option's opposite: no isolation
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            ["bash", "-ex"],
            input=script,
            cwd=self.folder / place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, str]:
    """A reader who has followed the first section, and what the commands said."""
    reader = Reader.start(tmp_path_factory.mktemp("reader"))
    return reader, reader.follow(scripts()[0], "leyden")


def test_a_stranger_needs_fewer_than_ten_commands() -> None:
    first = commands(scripts()[0])
    assert 5 < len(first) < 10
    for verb in ("pip install -e .", "leyden new task", "leyden list", "leyden fit", "leyden test", "leyden predict"):
        assert sum(command.startswith(verb) for command in first) >= 1
    assert "python -m pytest" in first


def test_ten_minutes(reader: tuple[Reader, str]) -> None:
    follower, said = reader
    sonar = follower.folder / "sonar"
    assert "Successfully installed leyden-" in said
    assert "Successfully installed sonar-0.1.0" in said
    assert re.search(r"^  Sonar +sonar 0.1.0 +Classifies signals", said, re.MULTILINE)
    assert json.loads((sonar / "runs/sonar/1/test/metrics.json").read_text())["test/accuracy"] > 0.9
    lines = (sonar / "runs/sonar/1/predictions/predictions.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    assert len(labels) == 75
    assert labels.count("sine") > 60
    assert {path.name for path in (sonar / "runs/sonar/1/test").glob("*.png")} == {
        "confusion_matrix.png",
        "samples.png",
    }
    assert re.search(r"^=+ \d+ passed in", said, re.MULTILINE)
    assert "warning" not in said.lower()


@pytest.mark.parametrize("number", range(1, len(scripts())))
def test_the_sections_that_follow(number: int, reader: tuple[Reader, str]) -> None:
    follower, _ = reader
    follower.follow(scripts()[number], "sonar")


def test_no_python_in_it_is_left_untried() -> None:
    """A block of Python is a file that a command uses."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for language, block in BLOCK.findall(text):
        if language == "python":
            name = FILE_NAME.match(block)
            assert name is not None, block
            module = name[1].removesuffix(".py")
            assert re.search(rf"^leyden .*\b{module}\.", text, re.MULTILINE)
