"""A translator whose weights are divided between two processes trains, is saved and goes on like any other."""

import json
from pathlib import Path

import pytest
import torch

from leyden.runs import read_checkpoint
from leyden.testing.commands import Bench, history
from leyden_datamodules.english_french import EnglishFrench
from leyden_plugins.translation.task import Translator

TRANSFORMER = ["--model.net=Transformer", "--model.net.model_size=32", "--model.net.num_layers=2"]
TRANSFORMER += ["--model.net.dropout=0", "--data.min_freq=1", "--trainer.log_every_n_steps=1"]
SHARDED = ["--trainer.devices=2", "--trainer.strategy=sharded"]
LONGER = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=8"]


@pytest.mark.timeout(300)
def test_weights_in_two_processes(tmp_path: Path) -> None:
    """As one process with the whole batch; gradients are clipped to a norm of 1 on the way."""
    bench = Bench(EnglishFrench, tmp_path, Translator, TRANSFORMER)
    shared = [*bench.fit_words("sharded", *LONGER), "--data.batch_size=4", *SHARDED]
    last = bench.first_run("sharded").last
    bench.launch(
        [*shared, "--trainer.max_epochs=1"],
        [*shared, "--resume=auto"],
        ["test", str(last), "--trainer.accelerator=cpu", *SHARDED, "--out", "test_sharded"],
    )
    alone = bench.fit("alone", *LONGER, "--data.batch_size=8")
    rows = [history(bench.first_run(name)) for name in ("sharded", "alone")]
    for key, count in (("train/loss_step", 16), ("val/loss", 2), ("val/bleu", 2)):
        found, expected = ([row[key] for row in each if key in row] for each in rows)
        assert len(found) == count
        assert found == pytest.approx(expected, rel=1e-4)
    saved, expected_weights = (read_checkpoint(path)["state_dict"] for path in (last, alone.last))
    assert saved.keys() == expected_weights.keys()
    assert all(type(value) is torch.Tensor for value in saved.values())
    assert bench.evaluate("test", last) == pytest.approx(bench.metrics("test_sharded"), rel=1e-5)
    bench.run("predict", str(last), "the house", "--trainer.accelerator=cpu", "--out", "predicted")
    assert json.loads((tmp_path / "predicted/predictions.jsonl").read_text())["translation"]
    summary = json.loads((bench.first_run("sharded").path / "summary.json").read_text())
    assert summary["network"].endswith(".Transformer")
