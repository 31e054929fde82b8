"""What survival costs, and whether it works: processes are killed, and training is timed.

python benchmarks/survival.py kills [--kills N] [--seed N]
python benchmarks/survival.py cost [--steps N] [--processes 1|2]
python benchmarks/survival.py speed-up [--epochs N]

kills: every family trains on small data of its own, saved every three steps, and is killed (SIGKILL) at random moments,
started again with `--resume auto`, and so on until it ends by itself; its weights must then be those of a training that
nobody has harmed. cost: the share of the time of `fit` (the Transformer of the translation recipes, batches of 128
sentences) that goes into the survival machinery at each step, and into a checkpoint every 500 steps (it
saves every 50). speed-up: images
a second of two processes of one thread over one process of one thread (a ResNet of
Fashion-MNIST at 96 pixels, 128 in a step).
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from leyden import plugins
from leyden.callbacks import GracefulStop
from leyden.cli import Request, TrainingCLI, prepare_process, set_up_output
from leyden.runs import LAST, Run, newest_valid_checkpoint, read_checkpoint
from leyden.testing.commands import history

PERCEPTION = ["--model.features=squeezenet1_1", "--model.weights=random"]
PERCEPTION += ["--model.style_layers=[0,3]", "--model.content_layers=[4]"]
FAMILIES = {
    "Regressor": ("TabularCSV", ["--model.net=MLP", "--model.net.dropout=0.2"]),
    "ImageClassifier": ("FashionMNIST", ["--model.net=LeNet", "--model.net.batch_norm=true"]),
    "LanguageModel": ("TextFile", ["--model.net=LSTM", "--data.sampling=sequential", "--data.batch_size=2"]),
    "Translator": ("EnglishFrench", ["--model.net=Seq2Seq", "--model.net.attention=dot", "--model.net.hidden_size=24"]),
    "Detector": ("VOCDetection", ["--model.net=TinySSD", "--model.net.channels=16"]),
    "Segmenter": ("VOCSegmentation", ["--model.net=UNet", "--model.net.channels=[4,8]"]),
    "FastStyleTransfer": (
        "StyleImages",
        [*PERCEPTION, "--model.net=ImageTransformNet", "--model.net.width=4", "--model.net.num_blocks=1"],
    ),
    "StyleTransfer": ("StylePair", [*PERCEPTION, "--model.optimizer=Adam", "--model.optimizer.lr=0.1"]),
}
CLI = Path(__file__).parents[1] / "cli.py"
EVERY = 3  # steps between two checkpoints
LIMIT = 300.0  # seconds that a process may take


class Position(Callback):
    """Writes into a file how many steps are done: what a killed process can no longer say."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        os.pwrite(self.file, f"{trainer.global_step:12d}".encode(), 0)


def fit_words(task: str, folder: Path) -> list[str]:
    """A training of a few hundred steps on fabricated data."""
    data, options = FAMILIES[task]
    arguments = plugins.find("data", data).load().fabricate(folder / "data")
    words = ["fit", f"--model={task}", f"--data={data}", *options, "--trainer.accelerator=cpu"]
    words += [
        f"--data.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()
    ]
    if "--data.batch_size=2" not in words:
        words.append("--data.batch_size=2")
    return [*words, "--trainer.max_epochs=30", "--trainer.limit_train_batches=10", "--runs", str(folder / "runs")]


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """`python cli.py` with these words."""
    with log.open("ab") as file:
        here = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        return subprocess.Popen([sys.executable, str(CLI), *words], stdout=file, stderr=file, env=here)


def compare_kills(kills: int, seed: int) -> None:
    """Print how often each family was killed, what was lost, and whether it ended as if nothing had been."""
    draw = random.Random(seed)
    total, harmed = 0, []
    for task in FAMILIES:
        share = -(-(kills - total) // (len(FAMILIES) - list(FAMILIES).index(task)))
        with tempfile.TemporaryDirectory() as name:
            done, lost, same = harass(task, Path(name), share, draw)
        total += done
        print(
            f"{task:<18} killed {done:2d} times, at most {lost} steps lost at a time; same weights: {same}", flush=True
        )
        harmed += [] if same else [task]
    print(f"{total} kills; other weights than unharmed: {', '.join(harmed) or 'none'}")


def harass(task: str, folder: Path, kills: int, draw: random.Random) -> tuple[int, int, bool]:
    """Kills of one family, most steps lost by one, and whether its weights are those of an unharmed training."""
    words, log = fit_words(task, folder), folder / "log.txt"
    began = time.monotonic()
    if start([*words, "--experiment=whole"], log).wait(LIMIT):
        raise SystemExit(log.read_text(encoding="utf-8"))
    whole_seconds = time.monotonic() - began
    position, experiment = folder / "position", folder / "runs" / "killed"
    position.write_text("0")
    own = ["--trainer.callbacks=survival.Position", f"--trainer.callbacks.path={position}"]
    killed = [*words, *own, "--experiment=killed", f"--save_every={EVERY}", "--resume=auto"]
    done = most = 0
    while True:
        process = start(killed, log)
        if done >= kills:
            if process.wait(LIMIT):
                raise SystemExit(log.read_text(encoding="utf-8"))
            break
        # most in training, some while the process starts
        before = int(position.read_text())
        if draw.random() < 0.8:
            wait_for_training(process, position, before)
        else:
            time.sleep(draw.uniform(0, 0.5 * whole_seconds))
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(log.read_text(encoding="utf-8"))
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
        path, problems = newest_valid_checkpoint(experiment)
        if problems:
            print(f"{task}: {problems}")
        saved = 0 if path is None else int(read_checkpoint(path)["global_step"])
        most = max(most, int(position.read_text()) - saved)
    two = (read_checkpoint(folder / "runs" / each / "1" / "checkpoints" / LAST) for each in ("whole", "killed"))
    one, other = (checkpoint["state_dict"] for checkpoint in two)
    shutil.copy(log, Path(tempfile.gettempdir(), f"killed-{task}.txt"))
    return done, most, all(torch.equal(value, other[name]) for name, value in one.items())


def wait_for_training(process: "subprocess.Popen[bytes]", position: Path, step: int) -> None:
    """Until it is beyond this step, or has ended."""
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and int(position.read_text()) <= step and time.monotonic() < deadline:
        time.sleep(0.005)


class Timed(Callback):
    """Times the survival machinery at each step, and each checkpoint."""

    def __init__(self) -> None:
        self.machinery: list[float] = []
        self.saving: list[float] = []
        self.began = self.ended = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop = next(each for each in trainer.callbacks if isinstance(each, GracefulStop))  # type: ignore[attr-defined]
        stop.on_train_batch_end = self._timed(stop.on_train_batch_end, self.machinery)  # type: ignore[method-assign]
        trainer.save_checkpoint = self._timed(trainer.save_checkpoint, self.saving)  # type: ignore[method-assign]
        self.began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()

    def _timed(self, call: Any, seconds: list[float]) -> Any:
        def timed(*arguments: Any, **options: Any) -> None:
            started = time.perf_counter()
            call(*arguments, **options)
            seconds.append(time.perf_counter() - started)

        return timed


def time_cost(steps: int, processes: int) -> None:
    """Print the shares of the time of a training."""
    set_up_output()
    with tempfile.TemporaryDirectory() as own:
        folder = os.environ.setdefault("LEYDEN_COST_FOLDER", own)  # the second process has that of the first
        words = ["--config=configs/translation/en_fr_transformer.yaml", f"--trainer.max_steps={steps}"]
        words += ["--trainer.limit_val_batches=0", "--trainer.precision=32-true", "--save_every=50", "--runs", folder]
        words += [f"--trainer.devices={processes}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        cli: Any = TrainingCLI(Request.parse("fit", words))
        prepare_process(cli.trainer)
        timed = Timed()
        cli.trainer.callbacks.insert(0, timed)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    if cli.trainer.global_rank:
        return
    whole = timed.ended - timed.began
    saving = statistics.median(timed.saving)
    quiet = sorted(timed.machinery)[: -len(timed.saving) or None]  # without those in which a checkpoint was written
    print(f"{steps} steps in {whole:.1f} s: {1000 * whole / steps:.1f} ms a step")
    print(f"survival machinery: {1e6 * statistics.mean(quiet):.0f} us a step, {sum(quiet) / whole:.3%}")
    share = saving * steps / 500 / whole
    print(f"a checkpoint: {saving:.2f} s (median of {len(timed.saving)}); every 500 steps {share:.2%}")


def time_speed_up(epochs: int) -> None:
    """Print images a second of one and of two processes, in turn."""
    ratios = []
    for _ in range(epochs):
        rates = []
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                words = [
                    "fit",
                    "--model=ImageClassifier",
                    "--model.net=ResNet",
                    "--data=FashionMNIST",
                    "--data.resize=96",
                ]
                words += [
                    f"--data.batch_size={128 // processes}",
                    "--trainer.max_epochs=1",
                    "--trainer.limit_train_batches=8",
                ]
                words += ["--trainer.limit_val_batches=0", "--trainer.accelerator=cpu", "--runs", folder]
                words += [f"--trainer.devices={processes}", "--trainer.log_every_n_steps=10", "--experiment=speed"]
                log = Path(folder, "log.txt")
                if start(words, log).wait(LIMIT):
                    raise SystemExit(log.read_text(encoding="utf-8"))
                rates.append(history(Run(Path(folder, "speed/1")))[-1]["train/samples_per_second"])
        ratios.append(rates[1] / rates[0])
        print(f"one process {rates[0]:.1f}, two {rates[1]:.1f} images/s: {ratios[-1]:.2f} times", flush=True)
    print(f"median {statistics.median(ratios):.2f} times")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("kills", "cost", "speed-up"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which processes are killed")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument("--epochs", type=int, default=3, help="how often speeds are compared")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if chosen.case == "kills":
        compare_kills(chosen.kills, chosen.seed)
    elif chosen.case == "cost":
        time_cost(chosen.steps, chosen.processes)
    else:
        time_speed_up(chosen.epochs)


if __name__ == "__main__":
    main()
