"""Every shipped recipe trains, on a tiny data set in the real format."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from leyden import plugins
from leyden.main import main

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))
# what a family's recipes leave to the user, or would download
OPTIONS = {"style_transfer": ["--model.weights=random"]}


@pytest.fixture(scope="module")
def fabricated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each data module that a recipe names: the options that read a tiny data set."""
    names = {yaml.safe_load(path.read_text())["data"]["class_path"] for path in RECIPES}
    options: dict[str, list[str]] = {}
    for name in names:
        arguments = plugins.find("data", name).load().fabricate(tmp_path_factory.mktemp(name))  # type: ignore[attr-defined]
        arguments["batch_size"] = 2
        options[name] = [f"--data.{key}={_word(value)}" for key, value in arguments.items()]
    return options


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS).with_suffix("")))
def test_a_step_of_training_and_validation(
    recipe: Path, fabricated: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = yaml.safe_load(recipe.read_text())["data"]["class_path"]
    options = [*fabricated[data], *OPTIONS.get(recipe.parent.name, [])]
    assert main(["fit", "--config", str(recipe), *options, "--trainer.fast_dev_run", "true"]) == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS).with_suffix("")))
def test_a_recipe_says_what_it_is(recipe: Path) -> None:
    assert recipe.read_text().startswith("# ")
