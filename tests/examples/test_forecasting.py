"""The example is a distribution of its own: installed beside leyden, it is listed, trains, and passes its own tests."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from leyden import plugins

EXAMPLE = Path(__file__).parents[2] / "examples" / "forecasting"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *alone, str(EXAMPLE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(site: Path, folder: Path, words: Sequence[str]) -> str:
    """What `python -m ...` says in a folder, with the example on the import path."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_no_part_of_this_environment() -> None:
    """Else it would be among the plugins that tests/contract runs on."""
    assert not [plugin for kind in plugins.GROUPS for plugin in plugins.installed(kind) if "forecast" in plugin.package]


def test_it_is_listed_under_its_own_package(site: Path, tmp_path: Path) -> None:
    rows = [line.split() for line in run(site, tmp_path, ["leyden.main", "list"]).splitlines()]
    listed = {row[0]: row[1] for row in rows if len(row) > 1}
    for name in ("Forecaster", "NLinear", "TemporalConv", "SeriesCSV"):
        assert listed[name] == "leyden-forecasting"
    assert listed["ImageClassifier"] == "leyden"


def test_its_recipe_trains_and_forecasts(site: Path, tmp_path: Path) -> None:
    run(site, tmp_path, ["forecasting.made_up", "loads.csv"])
    options = ["--model.net", "NLinear", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "5"]
    run(site, tmp_path, ["leyden.main", "fit", "--config", str(EXAMPLE / "loads.yaml"), *options])
    run(site, tmp_path, ["leyden.main", "predict", "runs/loads/1", "loads.csv"])
    lines = (tmp_path / "runs/loads/1/predictions/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["series"] for line in lines] == ["north", "south", "west"]


def test_it_passes_its_own_tests(site: Path) -> None:
    said = run(site, EXAMPLE, ["pytest", "-q", "-p", "no:cacheprovider"])
    assert " passed" in said
    assert "skipped" not in said
