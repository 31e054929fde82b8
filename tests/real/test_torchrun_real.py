"""Two machines joined by torchrun (network namespaces of this one), and processes that are killed.

LEYDEN_CLUSTER names the folder with hosts.sh, which makes the namespaces (as root).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leyden.runs import read_checkpoint
from leyden_datamodules.fashion_mnist import FashionMNIST

SCRIPT = Path(os.environ.get("LEYDEN_CLUSTER", "no-cluster"), "hosts.sh").absolute()
CONFIG = Path(__file__).parents[2] / "configs" / "classification" / "lenet.yaml"
RUN = Path("runs", "lenet", "1")
LAUNCH = [sys.executable, "-m", "leyden.main", "launch", "torchrun"]
LONG = ["--trainer.max_epochs=10", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=1"]

pytestmark = [
    pytest.mark.skipif(FashionMNIST()._found() is None, reason="Fashion-MNIST is not here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made as root"),
    pytest.mark.skipif(not SCRIPT.is_file(), reason="LEYDEN_CLUSTER names no folder with hosts.sh"),
]


class Hosts:
    """Two hosts, h1 and h2."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [SCRIPT, *words], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str, *options: str) -> None:
        """Write the script, and start it on both hosts as NAME1 and NAME2."""
        launch = [*LAUNCH, "--nodes=2", "--rdzv-endpoint=h1:29500", *options]
        subprocess.run(launch, env=self.environment, check=True, timeout=60, stdout=subprocess.DEVNULL)
        script = str(Path("runs", "lenet", "launch", "torchrun.sh").absolute())
        for host in "12":
            self.run("spawn", host, name + host, "env", "GLOO_SOCKET_IFNAME=net0", "bash", script)

    def output(self, name: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{name}[12].out")))

    def finish(self, name: str, seconds: float) -> list[str]:
        """The exit status on both hosts, once they are there."""
        files = [self.folder / f"{name}{host}.rc" for host in "12"]
        wait(lambda: all(file.exists() and file.read_text() for file in files), seconds, lambda: self.output(name))
        return [file.read_text().strip() for file in files]


def wait(is_so: Callable[[], bool], seconds: float, report: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds} s: {report()}"
        time.sleep(0.2)


def worker(rank: int, mark: str) -> int:
    """The process of a rank, among those whose environment holds the mark."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"LEYDEN_TEST={mark}".encode() in words and f"RANK={rank}".encode() in words:
            return int(path.parent.name)
    raise AssertionError(f"no process has rank {rank}")


@pytest.fixture(scope="module")
def network() -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        settings = {"NETNS_ID": f"ly{os.getpid() % 10_000}", "NETNS_DIR": folder, "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **settings}
        try:
            up = subprocess.run(
                [SCRIPT, "up"], env=environment, capture_output=True, text=True, timeout=30, check=False
            )
            if up.returncode:
                pytest.skip(f"namespaces cannot be made: {up.stderr.strip()[-200:]}")
            yield Hosts(environment, Path(folder))
        finally:
            subprocess.run([SCRIPT, "down"], env=environment, capture_output=True, timeout=60, check=False)


@pytest.fixture
def hosts(network: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.chdir(tmp_path)
    network.environment["LEYDEN_TEST"] = tmp_path.name
    return network


def test_two_hosts_train_one_network(hosts: Hosts) -> None:
    fit = ["fit", "--config", str(CONFIG), "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    hosts.start("two", *fit, "--data.batch_size=2048", "--trainer.limit_val_batches=1")
    assert hosts.finish("two", 90) == ["0", "0"], hosts.output("two")
    alone = -(-55_000 // 2048)
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == -(-alone // 2)
    assert hosts.output("two").count("epoch 1/1 done") == 1


def test_a_killed_process_is_started_again_and_the_run_goes_on(hosts: Hosts) -> None:
    hosts.start("killed", "fit", "--config", str(CONFIG), "--trainer.accelerator=cpu", *LONG)
    wait(lambda: "epoch 2/10 done" in hosts.output("killed"), 90, lambda: hosts.output("killed"))
    os.kill(worker(1, hosts.environment["LEYDEN_TEST"]), signal.SIGKILL)
    assert hosts.finish("killed", 150) == ["0", "0"], hosts.output("killed")
    said = hosts.output("killed")
    assert "going on from runs/lenet/1" in said
    assert "epoch 10/10 done" in said
    assert not Path("runs", "lenet", "2").exists()
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] == 10 * 20


def test_without_restarts_a_killed_process_ends_the_others_and_is_named(hosts: Hosts) -> None:
    fit = ["fit", "--config", str(CONFIG), "--trainer.accelerator=cpu", *LONG]
    words = [*LAUNCH, "--devices=2", "--max-restarts=0", *fit]
    with Path("said").open("w") as output:
        process = subprocess.Popen(words, env=hosts.environment, stdout=output, stderr=output)
    try:
        wait(lambda: "epoch 1/10 done" in Path("said").read_text(), 90, Path("said").read_text)
        os.kill(worker(1, hosts.environment["LEYDEN_TEST"]), signal.SIGKILL)
        assert process.wait(30) == 1
    finally:
        process.terminate()
    said = Path("said").read_text()
    assert "error: process 0 on " in said
    assert "was the first to fail: it was killed by SIGKILL" in said
    assert "Traceback" not in said
