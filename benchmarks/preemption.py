"""Interrupts real jobs on a Slurm cluster and under torchrun, and counts those that finish all the same.

    python benchmarks/preemption.py [--usr1 20] [--requeue 5] [--crash 5] [--kill 5] [--torchrun 5] [--no-restarts 5]

Needs root, LEYDEN_CLUSTER (the folder with slurm.sh) and Fashion-MNIST. Each trial is a job of two processes that is
interrupted once, at a random moment of its training; it has finished when it went on, ended well, in the run in which
it began, and every step was trained. A trial takes about a minute.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from leyden.runs import read_checkpoint

CONFIG = Path(__file__).parents[1] / "configs" / "classification" / "lenet.yaml"
SCRIPT = Path(os.environ.get("LEYDEN_CLUSTER", "no-cluster"), "slurm.sh").absolute()
EPOCHS, STEPS = 10, 20
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")
LIMIT = 240.0  # seconds for whatever is waited for
FIT = ["fit", "--config", str(CONFIG), "--trainer.accelerator=cpu", f"--trainer.max_epochs={EPOCHS}"]
FIT += [f"--trainer.limit_train_batches={STEPS}", "--trainer.limit_val_batches=1"]
LAUNCH = [sys.executable, "-m", "leyden.main", "launch"]


class Trial:
    """One job in a folder of its own: `seconds` is the time from the interruption until it went on, or ended."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {**environment, "LEYDEN_TRIAL": folder.name}
        self.job = ""
        self.seconds = 0.0

    def run(self, *words: str) -> str:
        """A command of the cluster; what it prints."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def log(self) -> str:
        """What the job has printed."""
        return "".join(path.read_text() for path in self.folder.glob("runs/lenet/launch/*.log"))

    def state(self) -> str:
        """As Slurm calls it."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", self.job).strip()

    def is_training(self) -> bool:
        """Whether the first epoch is done."""
        return f"epoch 1/{EPOCHS} done" in self.log()

    def is_whole(self) -> bool:
        """Whether the job went on, and one run holds every step."""
        if "going on from" not in self.log():
            return False
        last = self.folder / "runs" / "lenet" / "1" / "checkpoints" / "last.ckpt"
        if not last.is_file() or (self.folder / "runs" / "lenet" / "2").exists():
            return False
        return bool(read_checkpoint(last)["global_step"] == EPOCHS * STEPS)

    def worker(self) -> int:
        """The process of rank 1."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                is_fit = b"leyden.main" in (path.parent / "cmdline").read_bytes()
                ranked = {b"RANK=1", b"SLURM_PROCID=1"} & set(words)
                if is_fit and ranked and f"LEYDEN_TRIAL={self.folder.name}".encode() in words:
                    return int(path.parent.name)
        raise RuntimeError("no process has rank 1")


def wait(is_so: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError when it is not so in time."""
    end = time.monotonic() + LIMIT
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {LIMIT:.0f} s")
        time.sleep(0.25)


def by_slurm(trial: Trial, interrupt: Callable[[Trial], None]) -> bool:
    """A job on two nodes."""
    said = trial.run(*LAUNCH, "slurm", "--nodes", "2", *FIT)
    found = re.search(r"job (\d+) is submitted", said)
    if found is None:
        raise RuntimeError(said)
    trial.job = found[1]
    try:
        wait(trial.is_training, "first epoch")
        time.sleep(random.uniform(0, 2))
        started = time.monotonic()
        interrupt(trial)
        wait(lambda: "going on from" in trial.log() or trial.state() in OVER, "going on")
        trial.seconds = time.monotonic() - started
        wait(lambda: trial.state() in OVER, "end")
        return trial.state() == "COMPLETED" and trial.is_whole()
    finally:
        with suppress(RuntimeError):
            trial.run("scancel", trial.job)


def by_torchrun(restarts: int) -> Callable[[Trial, Callable[[Trial], None]], bool]:
    """Two processes on this machine. Without restarts the command is given once more."""

    def start(trial: Trial, interrupt: Callable[[Trial], None]) -> bool:
        log = trial.folder / "runs" / "lenet" / "launch" / "torchrun.log"
        log.parent.mkdir(parents=True)
        words = [*LAUNCH, "torchrun", "--devices=2", f"--max-restarts={restarts}", *FIT]
        with log.open("w") as output:
            process = subprocess.Popen(words, cwd=trial.folder, env=trial.environment, stdout=output, stderr=output)
        try:
            wait(lambda: trial.is_training() or process.poll() is not None, "first epoch")
            time.sleep(random.uniform(0, 2))
            started = time.monotonic()
            interrupt(trial)
            wait(lambda: "going on from" in trial.log() or process.poll() is not None, "going on")
            trial.seconds = time.monotonic() - started
            if not restarts:
                if process.wait(LIMIT) == 0:
                    return False
                with log.open("a") as output:
                    process = subprocess.Popen(
                        words, cwd=trial.folder, env=trial.environment, stdout=output, stderr=output
                    )
            return process.wait(LIMIT) == 0 and trial.is_whole()
        finally:
            process.terminate()
            process.wait(60)

    return start


def crash(trial: Trial) -> None:
    """The node is gone with all its processes, and comes back when Slurm has noticed."""
    trial.run(str(SCRIPT), "fail", "n2")
    wait(lambda: trial.state() != "RUNNING", "the crash to be noticed")
    trial.run(str(SCRIPT), "resume", "n2")


def kill(trial: Trial) -> None:
    """As the kernel does when memory runs out."""
    os.kill(trial.worker(), signal.SIGKILL)


def main() -> None:
    """All trials, and a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    counts = {"usr1": 20, "requeue": 5, "crash": 5, "kill": 5, "torchrun": 5, "no-restarts": 5}
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help=f"trials; default: {count}")
    options = parser.parse_args()
    kinds: list[tuple[str, int, Callable[..., bool], Callable[[Trial], None]]] = [
        ("slurm: SIGUSR1", options.usr1, by_slurm, lambda t: print(end=t.run("scancel", "--signal=USR1", t.job))),
        ("slurm: requeue", options.requeue, by_slurm, lambda t: print(end=t.run("scontrol", "requeue", t.job))),
        ("slurm: node crashes", options.crash, by_slurm, crash),
        ("slurm: process killed", options.kill, by_slurm, kill),
        ("torchrun: process killed", options.torchrun, by_torchrun(3), kill),
        ("torchrun, 0 restarts, once more by hand: process killed", options.no_restarts, by_torchrun(0), kill),
    ]
    table = Table("interruption", "jobs", "finished", "seconds until it went on or ended: median", "largest")
    with tempfile.TemporaryDirectory(prefix="pre-", dir="/tmp") as place:  # short: it holds a socket
        settings = {"SLURM_TEST_DIR": f"{place}/slurm", "SLURM_CONF": f"{place}/slurm/slurm.conf"}
        settings |= {"SLURM_TEST_PORT": str(random.randrange(20_000, 30_000, 10)), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **settings}
        subprocess.run([SCRIPT, "start"], env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL)
        try:
            for name, count, start, interrupt in kinds:
                if count:
                    table.add_row(name, str(count), *tried(name, count, start, interrupt, Path(place), environment))
        finally:
            subprocess.run([SCRIPT, "stop"], env=environment, check=False, timeout=120)
    Console().print(table)


def tried(
    name: str,
    count: int,
    start: Callable[..., bool],
    interrupt: Callable[[Trial], None],
    place: Path,
    environment: dict[str, str],
) -> tuple[str, str, str]:
    """How many trials finished, and the times."""
    finished, seconds = 0, []
    for number in range(1, count + 1):
        folder = place / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{number}"
        folder.mkdir()
        trial = Trial(folder, environment)
        try:
            is_finished = start(trial, interrupt)
        except (TimeoutError, subprocess.TimeoutExpired, RuntimeError) as error:
            is_finished = False
            print(error)
        finished += is_finished
        seconds.append(trial.seconds)
        print(
            f"{name} {number}/{count}: {'finished' if is_finished else 'not finished'} ({trial.seconds:.1f} s)",
            flush=True,
        )
        if not is_finished:
            print(trial.log()[-1500:])
    seconds.sort()
    return str(finished), f"{seconds[len(seconds) // 2]:.1f}", f"{seconds[-1]:.1f}"


if __name__ == "__main__":
    main()
