"""A language model in two processes, each with its own rows: stopped in the middle of an epoch, and gone on with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leyden.runs import read_checkpoint
from leyden_datamodules.text_file import made_up_text
from leyden_plugins.language_model.task import CARRIED

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from lightning.pytorch import Callback
from leyden.main import main

class Signalling(Callback):
    '''Sends the first process a signal while it trains a batch in the middle of the second epoch.'''

    sent = False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 7 and trainer.is_global_zero and not Signalling.sent:
            Signalling.sent = True
            os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    sys.modules["script"] = sys.modules["__main__"]
    for words, status in json.loads(Path("commands.json").read_text()):
        assert main(words) == status
"""
FIT = ["fit", "--model", "LanguageModel", "--model.net", "LSTM", "--model.net.hidden_size", "16"]
FIT += ["--data", "TextFile", "--data.root", "text.txt", "--data.sampling", "sequential", "--data.num_steps", "10"]
FIT += ["--data.batch_size", "4", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "5"]
FIT += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.mark.timeout(300)
def test_each_process_goes_on_with_the_state_of_its_own_rows(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(made_up_text(3001, seed=0))
    (tmp_path / "script.py").write_text(SCRIPT)
    signalling = ["--trainer.callbacks", "script.Signalling"]
    commands = [
        ([*FIT, "--experiment", "straight"], 0),
        ([*FIT, *signalling, "--experiment", "stopped"], 130),
        ([*FIT, *signalling, "--experiment", "stopped", "--resume", "auto"], 0),
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training step 9. Everything is saved" in done.stderr
    straight, resumed = (
        read_checkpoint(tmp_path / f"runs/{name}/1/checkpoints/last.ckpt") for name in ("straight", "stopped")
    )
    assert CARRIED not in resumed
    assert resumed["global_step"] == straight["global_step"] == 10
    for name, value in straight["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
