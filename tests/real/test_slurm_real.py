"""A job on a real Slurm cluster of two nodes on this machine: it finishes, and goes on after a requeue.

LEYDEN_CLUSTER names the folder with slurm.sh, which installs Slurm where it is not there (Debian, as root).
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from leyden.runs import read_checkpoint
from leyden_datamodules.fashion_mnist import FashionMNIST

SCRIPT = Path(os.environ.get("LEYDEN_CLUSTER", "no-cluster"), "slurm.sh").absolute()
CONFIG = Path(__file__).parents[2] / "configs" / "classification" / "lenet.yaml"
RUN = Path("runs", "lenet", "1")
IS_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
LONG = ["--trainer.max_epochs=10", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=1"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
    pytest.mark.skipif(not SCRIPT.is_file(), reason="LEYDEN_CLUSTER names no folder with slurm.sh"),
    pytest.mark.skipif(FashionMNIST()._found() is None, reason="Fashion-MNIST is not here"),
]


class Slurm:
    """The cluster, for one test after the other."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def run(self, *words: str, check: bool = True) -> str:
        """A command of Slurm; what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def launch(self, *options: str) -> str:
        """Submit `fit` on two nodes; the number of the job."""
        fit = ["fit", "--config", str(CONFIG), "--trainer.accelerator=cpu", *options]
        said = self.run(sys.executable, "-m", "leyden.main", "launch", "slurm", "--nodes", "2", *fit)
        found = re.search(r"job (\d+) is submitted", said)
        assert found, said
        return found[1]

    def state(self, job: str) -> str:
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job).strip()

    def finish(self, job: str, seconds: float) -> str:
        """Wait until the job is over; its state then."""
        wait(lambda: self.state(job) in IS_OVER, seconds, lambda: f"{self.state(job)}\n{log(job)}")
        return self.state(job)


def log(job: str) -> str:
    path = Path("runs", "lenet", "launch", f"{job}.log")
    return path.read_text() if path.is_file() else ""


def wait(is_so: Callable[[], bool], seconds: float, report: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds} s: {report()}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")  # short: it holds a socket
    # Not random's own generator: after a test's seed_everything it gives every worker the same port.
    port = random.SystemRandom().randrange(20_000, 30_000, 10)
    settings = {"SLURM_TEST_DIR": folder, "SLURM_TEST_PORT": str(port)}
    environment = {**os.environ, **settings, "SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_CURRENT_TEST", None)
    with FileLock("/tmp/leyden-slurm-install.lock"):
        installed = subprocess.run([SCRIPT, "install"], capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        pytest.skip(f"Slurm cannot be installed: {installed.stderr.strip()[-200:]}")
    try:
        started = subprocess.run(
            [SCRIPT, "start"], env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert started.returncode == 0, started.stderr + "".join(
            f"\n{each}:\n{each.read_text()[-2000:]}" for each in sorted(Path(folder, "log").iterdir())
        )
        yield Slurm(environment)
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, capture_output=True, timeout=90, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.chdir(tmp_path)
    return cluster


def test_two_nodes_train_one_network(slurm: Slurm) -> None:
    job = slurm.launch("--trainer.max_epochs=1", "--data.batch_size=2048", "--trainer.limit_val_batches=1")
    assert slurm.finish(job, 90) == "COMPLETED", log(job)
    alone = -(-55_000 // 2048)
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == -(-alone // 2), log(job)
    assert log(job).count("epoch 1/1 done") == 1


def test_a_requeued_job_goes_on_with_the_same_run(slurm: Slurm) -> None:
    job = slurm.launch(*LONG)
    wait(lambda: "epoch 1/10 done" in log(job), 90, lambda: log(job))
    slurm.run("scontrol", "requeue", job)
    wait(lambda: "going on from runs/lenet/1" in log(job), 90, lambda: slurm.state(job) + log(job))
    assert slurm.finish(job, 120) == "COMPLETED", log(job)
    require_whole_run(job)


def test_a_job_that_is_told_of_its_end_saves_and_starts_again(slurm: Slurm) -> None:
    job = slurm.launch(*LONG)
    wait(lambda: "epoch 1/10 done" in log(job), 90, lambda: log(job))
    slurm.run("scancel", "--signal=USR1", job)
    wait(lambda: "going on from runs/lenet/1" in log(job), 90, lambda: slurm.state(job) + log(job))
    assert slurm.finish(job, 120) == "COMPLETED", log(job)
    require_whole_run(job)


def require_whole_run(job: str) -> None:
    """All epochs are trained, in one run."""
    assert not Path("runs", "lenet", "2").exists(), log(job)
    assert "epoch 10/10 done" in log(job)
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == 10 * 20


def test_what_the_cluster_does_not_have_is_refused(slurm: Slurm) -> None:
    fit = ["fit", "--config", str(CONFIG)]
    launch = [sys.executable, "-m", "leyden.main", "launch", "slurm"]
    said = slurm.run(*launch, "--partition", "tset", *fit, check=False)
    assert said == "error: unknown partition 'tset'. Did you mean test? Known partition names: test\n"
    said = slurm.run(*launch, "--nodes", "3", *fit, check=False)
    assert said == "error: --nodes is 3, but the partition test has 2.\n"
    said = slurm.run(*launch, "--time", "soon", *fit, check=False)
    assert said.endswith("error: sbatch refused the job: Invalid --time specification\n")
