"""Processes that torchrun starts: what they agree on, and what is refused where they are not alike."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """import sys
from leyden.main import main
raise SystemExit(main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
    return port


def together(
    *commands: list[str], folders: tuple[str, ...] = (".", "."), script: str = SCRIPT
) -> list[tuple[int, str, str]]:
    """Status, output and errors of processes that torchrun could have started, each with words of its own."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(len(commands))}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = []
    for rank, (words, folder) in enumerate(zip(commands, folders, strict=True)):
        own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        call = [sys.executable, "-c", script, *words]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(call, cwd=folder, env=own, **pipes))
    found = []
    try:
        for process in processes:
            said, complained = process.communicate(timeout=100)
            found.append((process.returncode, said, complained))
    finally:
        for process in processes:
            process.kill()
    return found


AGREEING = """
import json, sys, time
import torch.distributed as dist
from leyden.agreement import Agreement, gathered

dist.init_process_group("gloo")
rank = dist.get_rank()
agree = Agreement()
said = [[0, 0], [1, 0], [0, 2], [3, 1], [0, 0]]
later = [agree.later(each[rank]) for each in said]
late = agree.now(rank)
print(json.dumps([later, late, agree.now(0), gathered({"rank": rank})]))
dist.destroy_process_group()
"""


def test_processes_agree_on_the_greatest_number_one_question_later() -> None:
    for status, said, complained in together([], [], script=AGREEING):
        assert status == 0, complained
        assert json.loads(said) == [[0, 0, 1, 2, 3], 1, 0, [{"rank": 0}, {"rank": 1}]]


TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def test_processes_with_other_options_are_refused(fit_options: list[str]) -> None:
    words = ["fit", *fit_options, *TWO]
    for status, _, complained in together(words, [*words, "--model.optimizer.lr=0.5", "--trainer.max_epochs=7"]):
        assert status == 2
        assert complained.startswith("error: process 1 (on ")
        assert "is not what process 0 (on " in complained
        assert "  model.optimizer.lr: 0.001 -> 0.5\n  trainer.max_epochs: 1 -> 7\n" in complained
        assert "Traceback" not in complained
    assert not list(Path().rglob("*.ckpt"))


def test_a_folder_that_not_all_processes_share_is_refused(fit_options: list[str]) -> None:
    Path("elsewhere").mkdir()
    words = ["fit", *fit_options, *TWO]
    quick = SCRIPT.replace("raise", "import leyden.callbacks.run_folder as f\nf.SHARED_SECONDS = 1.0\nraise")
    for status, _, complained in together(words, words, folders=(".", "elsewhere"), script=quick):
        assert status == 2
        assert "where process 0 keeps the run, is not seen on " in complained
        assert "Traceback" not in complained


SIGNALLING = """
import os, signal
from lightning.pytorch import Callback

class Signalling(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 1 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_to_one_process_stops_all_at_the_same_batch(fit_options: list[str]) -> None:
    Path("signalling.py").write_text(SIGNALLING)
    words = ["fit", *fit_options, *TWO, "--data.batch_size=4", "--trainer.callbacks=signalling.Signalling"]
    first, second = together(words, words)
    assert first[0] == second[0] == 130
    assert first[2].startswith("stopped by a signal to another process after training step 3. Everything is saved in")
    assert second[2].startswith("stopped by SIGTERM after training step 3. ")


SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.3)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.is_global_zero:
            with open("saved.txt", "a") as file:
                print(trainer.global_step, file=file)
"""


def test_a_save_that_is_due_is_done_once(fit_options: list[str]) -> None:
    Path("slow.py").write_text(SLOW)
    words = ["fit", *fit_options, *TWO, "--data.batch_size=4", "--trainer.callbacks=slow.Slow", "--save_every=1s"]
    assert [status for status, *_ in together(words, words)] == [0, 0]
    within = [int(line) for line in Path("saved.txt").read_text().split() if int(line) < 10]
    assert len(within) >= 1
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(within)), within
