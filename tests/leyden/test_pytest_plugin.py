"""`pytest --leyden NAME`: a test for each rule, words for each broken one, and nothing for those who never ask."""

import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import leyden.testing.cases  # noqa: F401  # pytester forgets what a run of its own has imported first
from leyden.testing.commands import Bench

pytest_plugins = ["pytester"]
NUMBERS = itertools.count()

# a family in one file: which of two numbers is the larger
SIDES = '''"""A family of its own, in one file."""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from leyden.batches import Facts
from leyden.data import DataModule, InMemory
from leyden.errors import DataError
from leyden.task import Task


@dataclass(frozen=True)
class PairFacts(Facts):
    features: int


class Pairs(NamedTuple):
    inputs: Tensor
    labels: Tensor

    @staticmethod
    def facts_class() -> type[PairFacts]:
        return PairFacts


class Side(nn.Module):
    """One linear layer.

    Args:
        features: numbers in an input.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs).squeeze(1)


class SideTask(Task[Pairs]):
    """Tells which of two numbers is the larger.

    Args:
        net: called as net(features).
        kwargs: the arguments of every task.
    """

    def __init__(self, net: Callable[[int], nn.Module], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network_factory = net

    def build_network(self):
        return self.network_factory(self.facts.features)

    def build_metrics(self, stage):
        return MetricCollection({"accuracy": BinaryAccuracy()})

    def outputs(self, batch):
        return self.network(batch.inputs)

    def loss(self, outputs, batch):
        return F.binary_cross_entropy_with_logits(outputs, batch.labels.float())

    def measure(self, outputs, batch):
        return (outputs > 0).long(), batch.labels

    def predict(self, batch):
        return [{"label": int(logit > 0)} for logit in self.outputs(batch)]


class Named(InMemory):
    def __init__(self, batch, inputs=()):
        super().__init__(batch)
        self.inputs = list(inputs)


class SideData(DataModule[Pairs]):
    """Pairs of numbers in one file, pairs.json: [[x, y, label], ...].

    Args:
        kwargs: the arguments of every data module.
    """

    folder = "pairs"

    @classmethod
    def fabricate(cls, root):
        root.mkdir(parents=True)
        pairs = torch.randn(91, 2, generator=torch.Generator().manual_seed(0))
        (root / "pairs.json").write_text(json.dumps([[*pair.tolist(), int(pair[0] > pair[1])] for pair in pairs]))
        return {"root": str(root)}

    @classmethod
    def fabricate_inputs(cls, folder):
        paths = [folder / f"{i}.json" for i in range(5)]
        for i, path in enumerate(paths):
            path.write_text(json.dumps([i, 2]))
        return [str(path) for path in paths]

    def rows(self):
        path = self.path() / "pairs.json"
        try:
            rows = torch.tensor(json.loads(path.read_text()), dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error
        return rows

    def load(self, split):
        part = self.rows()[{"train": slice(49), "val": slice(49, 70), "test": slice(70, None)}[split]]
        return Named(Pairs(part[:, :2], part[:, 2].long()))

    def describe(self):
        return PairFacts(2)

    def load_inputs(self, inputs):
        rows = torch.tensor([json.loads(Path(path).read_text()) for path in inputs], dtype=torch.float32)
        return Named(Pairs(rows, torch.zeros(len(rows), dtype=torch.int64)), inputs)
'''
BROKEN = '''"""Each breaks one rule."""
from {module} import Pairs, Side, SideData, SideTask


class Undeclared(SideTask.__mro__[1]):
    """Says not what it reads."""


class SaysOther(SideData):
    """Gives tuples."""

    def load(self, split):
        source = super().load(split)
        source.select = lambda chosen: tuple(source.batch)
        return source


class Forgets(SideTask):
    """Predicts nothing for an input.

    Args:
        kwargs: the arguments of SideTask.
    """

    def __init__(self, **kwargs):
        super().__init__(net=Side, **kwargs)

    def predict(self, batch):
        return super().predict(batch)[:-1]
'''


@pytest.fixture
def family(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module's name: one for each test, since classes of an earlier one stay with whoever holds them."""
    name = f"sides{next(NUMBERS)}"
    pytester.makepyfile(**{name: SIDES, f"broken_{name}": BROKEN.format(module=name)})
    monkeypatch.chdir(pytester.path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    yield name
    for module in (name, f"broken_{name}"):
        sys.modules.pop(module, None)


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """What became of each test, by what stands behind `leyden::`."""
    lines = [line.split() for line in result.outlines if line.startswith("leyden::")]
    return {line[0].removeprefix("leyden::"): line[1] for line in lines}


def run(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider", *words)


def test_each_rule_of_a_task_is_a_test(pytester: pytest.Pytester, family: str) -> None:
    """Its data and its network are those of its own module."""
    result = run(pytester, "--leyden", f"{family}.SideTask", "-k", "not processes and not compiled")
    rules = ["documented", "declares_its_batches", "trains_and_logs", "saved_as_plain_values", "repeated_and_resumed"]
    rules += ["schedule", "bfloat16", "half_precision", "predicts_from_the_checkpoint"]
    assert outcomes(result) == {f"{family}.SideTask::{rule}": "PASSED" for rule in rules}
    result.assert_outcomes(passed=9, deselected=2)
    assert not list(pytester.path.glob("runs")), "nothing is left in the current folder"


def test_other_processes_import_it_from_where_this_one_does(family: str, tmp_path: Path) -> None:
    """Though it is installed nowhere, and they work in another folder."""
    sys.path.insert(0, str(Path.cwd()))
    sides = importlib.import_module(family)
    bench = Bench(sides.SideData, tmp_path / "bench", sides.SideTask, ["--model.net", f"{family}.Side"])
    bench.folder.mkdir()
    bench.launch(bench.fit_words("x", "--trainer.fast_dev_run=true"))


def test_data_and_networks(pytester: pytest.Pytester, family: str) -> None:
    result = run(pytester, "--leyden", f"{family}.SideData", "--leyden", f"{family}.Side")
    found = outcomes(result)
    assert found.pop(f"{family}.Side::learns") == "SKIPPED"
    assert set(found.values()) == {"PASSED"}
    data_rules = {name.partition("::")[2] for name in found if "SideData" in name}
    assert data_rules >= {"facts", "batches", "splits", "shared_by_processes", "damaged_files", "missing_files"}
    result.assert_outcomes(passed=11, skipped=1)


def test_a_registered_network_with_its_options(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--leyden", "leyden/VGG --width_factor 0.125 --hidden_size=64", "-k", "uses_its_numbers")
    assert outcomes(result) == {"leyden/VGG::uses_its_numbers": "PASSED"}


def test_a_file_of_plugins(pytester: pytest.Pytester, family: str) -> None:
    Path("elsewhere").mkdir()
    moved = Path(f"{family}.py").rename(f"elsewhere/{family}.py")
    result = run(pytester, "--leyden", f"SideData --plugins {moved}", "-k", "facts or documented")
    result.assert_outcomes(passed=2, deselected=8)


@pytest.mark.parametrize(
    ("name", "rule", "found", "why"),
    [
        ("SaysOther", "batches", "SaysOther: the train split gives a tuple, declared is Pairs", "The task reads the"),
        ("Forgets", "trains_and_logs", "gives status 2", "predict() gives 15 records for a batch of 16 items"),
        ("Forgets", "bfloat16", "gives status 2", "Each input gets one line of predictions.jsonl"),
    ],
)
def test_a_broken_rule_is_told_in_words(
    name: str, rule: str, found: str, why: str, pytester: pytest.Pytester, family: str
) -> None:
    words = f"broken_{family}.{name}" + (f" --data {family}.SideData --data.batch_size=16" if name == "Forgets" else "")
    result = run(pytester, "--leyden", words, "-k", f"{rule} and not declares")
    result.assert_outcomes(failed=1, deselected=10 if name == "Forgets" else 9)
    text = result.stdout.str()
    assert f"broken_{family}.{name} breaks the rule {rule}" in text
    assert found in text.partition("found: ")[2].partition("why it matters: ")[0]
    assert why in text.partition("why it matters: ")[2]
    assert "Traceback" not in text


def test_rules_that_need_the_run_that_failed_do_not_try_again(pytester: pytest.Pytester, family: str) -> None:
    words = f"broken_{family}.Forgets --data {family}.SideData"
    result = run(pytester, "--leyden", words, "-k", "trains_and_logs or saved_as or bfloat16")
    result.assert_outcomes(failed=3, deselected=8)
    assert result.stdout.str().count("there is no trained run to look at") >= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("SideTsk", "unknown plugin 'SideTsk'."),
        ("nowhere.SideTask", "'nowhere.SideTask': there is no module 'nowhere'."),
        ("{family}.PairFacts", "{family}.PairFacts is no task, no network and no data module."),
        ("{family}.SideData --x 1", "{family}.SideData is a data module and takes no options here, not '--x'."),
        ("lightning.pytorch.LightningModule", "is no leyden Task and no leyden DataModule: it has no rules to keep."),
        (
            "ImageClassifier",
            "which data is ImageClassifier to be tried on? Its own package offers FashionMNIST, ImageFolder.",
        ),
        ("{family}.SideTask --data LeNet", "LeNet is no leyden DataModule: the kit needs data"),
        ("--data LeNet", "does not begin with the name"),
    ],
)
def test_what_cannot_be_checked_is_one_line(words: str, message: str, pytester: pytest.Pytester, family: str) -> None:
    result = run(pytester, f"--leyden={words.format(family=family)}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in result.errlines if line.startswith("ERROR")]
    assert len(errors) == 1
    assert message.format(family=family) in errors[0]


def test_the_configuration_names_plugins_once_and_for_all(pytester: pytest.Pytester, family: str) -> None:
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\nleyden = ['{family}.Side', '{family}.SideData']\n")
    own = pytester.makepyfile("def test_own(): pass")
    run(pytester, "-k", "documented or own").assert_outcomes(passed=3, deselected=10)
    run(pytester, str(own)).assert_outcomes(passed=1)  # whoever names a file wants that file


def test_the_fixture_tries_every_rule_and_names_all_that_broke(pytester: pytest.Pytester, family: str) -> None:
    pytester.makepyfile(
        f"""
        from {family} import SideData
        import broken_{family} as broken

        def test_good(leyden_check):
            leyden_check(SideData)

        def test_by_name(leyden_check):
            leyden_check("{family}.Side")

        def test_bad(leyden_check):
            leyden_check(broken.SaysOther)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=1)
    text = result.stdout.str()
    assert "SaysOther breaks the rule batches" in text
    assert "SaysOther breaks the rule transform" in text


def test_who_does_not_ask_pays_nothing(tmp_path: Path) -> None:
    """In an interpreter where torch cannot be imported: pytest with the plugin runs other tests, and shows its help."""
    traps = tmp_path / "traps"
    traps.mkdir()
    for name in ("torch", "lightning", "numpy", "yaml"):
        (traps / f"{name}.py").write_text("raise SystemExit(99)\n")
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    program = f"import sys, pytest; sys.path.insert(0, {str(traps)!r}); sys.exit(pytest.main(sys.argv[1:]))"
    for words in (["-q", "test_other.py"], ["--help"]):
        command = [sys.executable, "-c", program, "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "--leyden='NAME [OPTION ...]'" in done.stdout


def test_the_plugin_is_one_of_the_installed_ones(request: pytest.FixtureRequest) -> None:
    found: Any = request.config.pluginmanager.get_plugin("leyden")
    assert found is not None
    assert isinstance(found.leyden_check, Callable)  # type: ignore[arg-type]
