"""Finding, verifying and fetching the house prices, on a fabricated table with their names."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from leyden.batches import TableFacts
from leyden.download import NoSourceError
from leyden.errors import DataError
from leyden_datamodules import house_prices
from leyden_datamodules.house_prices import SHA1, TRAIN, UNLABELLED, HousePrices


@pytest.fixture(autouse=True)
def nothing_else_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other copy of the data set is in reach, and no network."""
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(house_prices, "MIRROR", "http://127.0.0.1:1/")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return HousePrices.fabricate(tmp_path / "house-prices")


@pytest.fixture
def tiny_is_real(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fabricated file has the right checksum."""
    path = Path(arguments["root"]) / TRAIN
    monkeypatch.setitem(SHA1, TRAIN, hashlib.sha1(path.read_bytes()).hexdigest())
    return path


def facts_of(data: HousePrices) -> TableFacts:
    data.setup("fit")
    assert isinstance(data.facts, TableFacts)
    return data.facts


def test_names_and_codes(arguments: dict[str, Any]) -> None:
    facts = facts_of(HousePrices(**arguments))
    assert (facts.target_name, facts.id_name, facts.log_target) == ("SalePrice", "Id", True)
    assert "MSSubClass=120" in facts.feature_names
    assert "Id" not in facts.feature_names
    assert "MasVnrType=None" in facts.feature_names, "None is the name of a category"
    assert "Alley is missing" in facts.feature_names
    assert not facts_of(HousePrices(**arguments, log_target=False)).log_target


def test_found_under_leyden_data_or_here(tiny_is_real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_DATA", str(tiny_is_real.parents[1]))
    data = HousePrices()
    data.prepare_data()
    assert facts_of(data).target_name == "SalePrice"
    assert HousePrices.locate() == tiny_is_real.parent
    monkeypatch.delenv("LEYDEN_DATA")
    shutil.copytree(tiny_is_real.parent, "data/house-prices")
    assert facts_of(HousePrices()).target_name == "SalePrice"


def test_another_file_is_refused_unless_asked_for(arguments: dict[str, Any]) -> None:
    data = HousePrices(**{**arguments, "verify": True})
    data.prepare_data()
    with pytest.raises(DataError, match=rf"{TRAIN}: is not the house prices file: wrong sha1 .*{SHA1[TRAIN]}.*verify"):
        data.setup("fit")


def test_missing_and_offline(tmp_path: Path) -> None:
    with pytest.raises(NoSourceError) as caught:
        HousePrices(root=str(tmp_path / "nowhere")).prepare_data()
    assert f"http://127.0.0.1:1/{TRAIN}" in str(caught.value)
    assert str(tmp_path / "nowhere" / TRAIN) in str(caught.value)
    with pytest.raises(NoSourceError, match="does not hold the file") as caught:
        HousePrices(root=str(tmp_path / "nowhere"), verify=False).prepare_data()
    assert "127.0.0.1" not in str(caught.value)


def test_both_files_are_fetched(tiny_is_real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(download: Any, folder: Path) -> None:
        fetched.append((download.name, download.urls, download.checksum))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_is_real, folder / download.name)

    monkeypatch.setattr(house_prices, "fetch", fetch)
    data = HousePrices(root=str(tmp_path / "new"))
    data.prepare_data()
    data.prepare_data()
    expected = [(name, (f"http://127.0.0.1:1/{name}",), f"sha1:{SHA1[name]}") for name in (TRAIN, UNLABELLED)]
    assert fetched == expected
    assert facts_of(data).target_name == "SalePrice"
