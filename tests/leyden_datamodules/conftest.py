from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_seed_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that trained before leaves its seed in the environment, which the order of training data follows."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is read from the user's cache, and nothing written to it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LEYDEN_CACHE", str(folder))
    return folder


@pytest.fixture
def nothing_else_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other data set is in reach."""
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
