"""The platform's conformance kit on the data module, and what is true of it alone."""

import json
from pathlib import Path

import pytest
import torch
from leyden.errors import DataError
from leyden.main import main
from leyden.testing import check_data
from PIL import Image

from new_data.data import NewData

CONFIG = Path(__file__).parents[1] / "new_data.yaml"


def test_data(tmp_path: Path) -> None:
    check_data(NewData, tmp_path)


def test_the_config_learns_to_tell_the_toy_pictures_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(CONFIG), "--experiment", "toy"]) == 0
    assert main(["test", "runs/toy/1"]) == 0
    assert json.loads(Path("runs/toy/1/test/metrics.json").read_text())["test/accuracy"] > 0.9


def write_table(root: Path, lines: list[str]) -> NewData:
    Image.new("RGB", (4, 4), "red").save(root / "red.png")
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    return NewData(root=str(root))


def test_pictures_and_labels_are_those_of_the_table(tmp_path: Path) -> None:
    data = write_table(tmp_path, ["red.png,warm"] * 9)
    data.setup("fit")
    images, labels = data.transform(data.splits["train"].__getitems__([0, 1]), training=False)
    assert torch.equal(images[1], torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 32, 32))
    assert labels.tolist() == [0, 0]
    assert data.facts.class_names == ("warm",)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("red.png", "line 3: found 'red.png', expected a file and its label"),
        ("blue.png,cold", "line 3: there is no .*blue.png"),
    ],
)
def test_a_bad_line_is_named(line: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=found):
        write_table(tmp_path, ["red.png,warm", line]).setup("fit")
