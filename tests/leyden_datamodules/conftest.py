from pathlib import Path

import pytest


@pytest.fixture
def nothing_else_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other data set is in reach."""
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
