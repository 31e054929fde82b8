"""Where predictions go: whole, in order, and without what an earlier prediction left."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from leyden.data import ShardedSampler, TrainLoader, identity
from leyden.errors import UsageError
from leyden.main import main


def pictures(*names: bytes | str) -> list[str]:
    folder = Path("pictures")
    folder.mkdir()
    paths = []
    for name in names:
        path = folder / (name if isinstance(name, str) else name.decode(errors="surrogateescape"))
        Image.new("L", (28, 28), 90).save(path)
        paths.append(str(path))
    return paths


def test_a_second_prediction_leaves_no_picture_of_the_first(trained_run: Path) -> None:
    a, b = pictures("a.png", "b.png")
    assert main(["predict", str(trained_run), a, b, "--out", "out"]) == 0
    assert main(["predict", str(trained_run), b, "--out", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["00000_b.png", "predictions.jsonl"]


def test_a_name_that_is_not_utf8(trained_run: Path) -> None:
    (path,) = pictures(b"bad\xff.png")
    assert main(["predict", str(trained_run), path, "--out", "out"]) == 0
    (line,) = Path("out/predictions.jsonl").read_bytes().splitlines()
    assert json.loads(line.decode(errors="surrogateescape"))["input"] == path


def test_one_bad_input_stops_before_anything_is_written(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good,) = pictures("a.png")
    Path("pictures/b.png").write_bytes(b"no picture")
    assert main(["predict", str(trained_run), "pictures", "--out", "out"]) == 1
    assert "1 of 2 inputs are no pictures, or of no known format: pictures/b.png" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []
    assert good


def test_an_epoch_is_not_resumed_in_its_middle_with_other_batches() -> None:
    def loader(batch_size: int, processes: int) -> TrainLoader:
        sampler = ShardedSampler(40, 0, processes, shuffle=True, seed=0)
        return TrainLoader(list(torch.arange(40)), batch_size=batch_size, sampler=sampler, collate_fn=identity)  # type: ignore[arg-type]

    first = loader(4, 1)
    batches = iter(first)
    next(batches)
    loader(4, 1).load_state_dict(first.state_dict())
    with pytest.raises(UsageError, match="batch_size 4 -> 8"):
        loader(8, 1).load_state_dict(first.state_dict())
    with pytest.raises(UsageError, match="processes 1 -> 2"):
        loader(4, 2).load_state_dict(first.state_dict())
    list(batches)
    loader(8, 2).load_state_dict(first.state_dict())  # at the end of an epoch nothing was begun
