"""launch: the scripts it writes, with sbatch, sinfo and python replaced by scripts that record how they are called."""

import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from leyden import processes
from leyden.commands import launch
from leyden.errors import LeydenError, UsageError
from leyden.main import main

ROOT = Path(__file__).parents[2]
GLOO = "[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:51413: Connection reset by peer. GLHF!"
TAKEN = "The server socket has failed to listen. port: 29777, useIpv6: false, code: -98, name: EADDRINUSE, message: x"


@pytest.fixture(autouse=True)
def _config() -> None:
    Path("small.yaml").write_text("model: ImageClassifier\ndata: FashionMNIST\n")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a shell script on PATH, where only it and the system's own tools are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "hostname", "getent", "grep"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, text: str) -> str:
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
        return str(folder / name)

    return add


def script(capsys, *words: str) -> str:
    """What a dry run prints."""
    assert main(["launch", *words[:1], "--dry-run", *words[1:]]) == 0
    text = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    return text


def refused(capsys, *words: str) -> str:
    assert main(["launch", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


FIT = ["fit", "--config", "small.yaml"]


def test_a_batch_script_starts_and_restarts_with_one_line(capsys):
    options = ["--nodes=2", "--devices=4", "--cpus=8", "--time=8:00:00", "--partition=long", "--account=lab"]
    text = script(
        capsys, "slurm", *options, "--sbatch=--mem=64G", "--setup", "module load x", *FIT, "--runs", "my runs"
    )
    head = text[: text.index("set -euo")].splitlines()
    lines = {line.removeprefix("#SBATCH --") for line in head if line.startswith("#SBATCH")}
    assert lines == {
        "job-name=leyden-small", f"output='{Path.cwd()}/my runs/small/launch/%j.log'", "nodes=2", "ntasks-per-node=4",
        "partition=long", "time=8:00:00", "account=lab", "cpus-per-task=8", "mem=64G",
        "requeue", "open-mode=append", "signal=SIGUSR1@120",
    }  # fmt: skip
    assert text.index("\nmodule load x\n") < text.index("\nsrun --kill-on-bad-exit=1 ")
    last = " ".join(text[text.index("srun --kill") :].split())
    assert f"{sys.executable} -m leyden.main fit --config small.yaml --runs 'my runs' --experiment small" in last
    assert "--trainer.strategy ddp" in last
    assert '--resume auto --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices' in last
    assert """>> 'my runs/small/launch'/"$SLURM_JOB_ID.failures\"""" in last
    assert not Path("my runs").exists()


def test_the_batch_script_gives_srun_the_counts_of_the_allocation(capsys, tools, monkeypatch):
    tools("srun", 'echo "srun $OMP_NUM_THREADS $SRUN_CPUS_PER_TASK $*"')
    text = script(capsys, "slurm", "--nodes=2", "--devices=4", *FIT)
    assert str(Path.cwd()) in text
    for name, value in {"JOB_ID": "9", "JOB_NUM_NODES": "2", "NTASKS_PER_NODE": "4", "CPUS_PER_TASK": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=True)
    assert done.stdout.startswith("srun 3 3 --kill-on-bad-exit=1 bash -c trap")
    assert done.stdout.endswith("--resume auto --trainer.num_nodes 2 --trainer.devices 4\n")


@pytest.mark.parametrize(
    ("status", "queued"), [(0, []), (1, []), (2, []), (130, []), (75, ["requeue 9"] * 2), (137, ["requeue 9"] * 2)]
)
def test_a_job_that_lost_a_process_is_queued_again_a_few_times(capsys, tools, monkeypatch, status, queued):
    tools("srun", f"exit {status}")
    tools("scontrol", 'echo "$@" >> queued')
    tools("sleep", "")
    for name in ("date", "wc"):
        Path("bin", name).symlink_to(shutil.which(name, path="/usr/bin:/bin"))
    text = script(capsys, "slurm", "--max-restarts=2", *FIT)
    Path("runs/small/launch").mkdir(parents=True)
    for name, value in {"JOB_NUM_NODES": "1", "JOB_ID": "9"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for _ in range(4):
        assert subprocess.run(["bash"], input=text, text=True, check=False).returncode == status
    assert (Path("queued").read_text().splitlines() if queued else []) == queued


def test_a_job_whose_process_refused_an_option_is_not_queued_again(capsys, tools, monkeypatch):
    """Whichever status srun ends with: when one process fails it kills the others."""
    wrong = shlex.join([sys.executable, "-m", "leyden.main", "fit", "--config", "no-such.yaml"])
    tools("srun", f"{wrong}; exit 143")
    tools("scontrol", 'echo "$@" >> queued')
    text = script(capsys, "slurm", *FIT)
    Path("runs/small/launch").mkdir(parents=True)
    for name, value in {"JOB_NUM_NODES": "1", "JOB_ID": "9", "RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert subprocess.run(["bash"], input=text, text=True, check=False).returncode == 2
    assert not Path("queued").exists()
    assert [path.name for path in Path("runs/small/launch").glob("*")] == ["9-1.refused"]


def test_gpus_are_asked_for_by_an_option_or_by_the_accelerator(capsys):
    assert "gpus-per-node" not in script(capsys, "slurm", "--devices=2", *FIT)
    text = script(capsys, "slurm", "--devices=2", "--gpus", *FIT)
    assert "#SBATCH --gpus-per-node=2\n" in text
    assert "--trainer.accelerator gpu" in text
    assert "--gpus-per-node=1\n" in script(capsys, "slurm", *FIT, "--trainer.accelerator=cuda")
    assert "--gpus-per-node" not in script(capsys, "slurm", "--gpus", "--sbatch=--gres=gpu:a100:1", *FIT)
    Path("gpu.yaml").write_text(yaml.safe_dump({"trainer": {"accelerator": "gpu"}}))
    assert "--gpus-per-node=1\n" in script(capsys, "slurm", *FIT, "--config", "gpu.yaml")
    assert "trainer.accelerator is 'cpu'" in refused(capsys, "slurm", "--gpus", *FIT, "--trainer.accelerator", "cpu")


def test_what_the_user_chose_is_kept(capsys):
    text = script(capsys, "torchrun", "--devices=2", *FIT, "--trainer.strategy=fsdp", "--experiment", "mine")
    assert "ddp" not in text
    assert text.count("--experiment") == 1
    Path("own.yaml").write_text("trainer: {strategy: fsdp}\nexperiment: own\nruns: there\n")
    text = script(capsys, "slurm", *FIT, "--config=own.yaml")
    assert "ddp" not in text
    assert "there/own/launch" in text
    script(capsys, "slurm", "--nodes=2", *FIT, "--trainer.num_nodes=2", "--resume", "auto")
    text = script(capsys, "slurm", "fit", "--model", "ImageClassifier", "--model.net=LeNet", "--data", "FashionMNIST")
    assert "--experiment lenet" in text


def test_plugin_files_are_named_to_the_job(capsys):
    Path("mine.py").write_text("")
    assert f"--plugins {Path('mine.py').absolute()}" in script(capsys, "slurm", "--plugins", "mine.py", *FIT)


def test_a_job_is_submitted(capsys, tools):
    tools("sbatch", 'echo "$@" > called; echo "7;cluster"')
    tools("sinfo", 'echo "short* 4"; echo "long 2"')
    assert main(["launch", "slurm", "--nodes=2", "--partition=long", *FIT]) == 0
    assert Path("called").read_text() == "--parsable runs/small/launch/slurm.sbatch\n"
    assert "job 7 is submitted; its log: runs/small/launch/7.log" in capsys.readouterr().out
    assert refused(capsys, "slurm", "--partition=logn", *FIT) == (
        "error: unknown partition 'logn'. Did you mean long? Known partition names: long, short\n"
    )
    assert "--nodes is 3, but the partition long has 2" in refused(
        capsys, "slurm", "--nodes=3", "--partition=long", *FIT
    )
    assert "--nodes is 5, but the partition short has 4" in refused(capsys, "slurm", "--nodes=5", *FIT)


def test_runs_that_will_be_gone_on_with_are_told(capsys, tools):
    tools("sbatch", "echo 7")
    checkpoint = Path("runs/small/3/checkpoints/last.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert main(["launch", "slurm", *FIT]) == 0
    assert "runs/small has runs (runs/small/3): the newest is gone on with." in capsys.readouterr().out


def test_what_sbatch_says_is_shown(capsys, tools):
    assert main(["launch", "slurm", *FIT]) == 1
    assert "error: sbatch is not found" in capsys.readouterr().err
    assert not Path("runs").exists()
    tools("sbatch", 'echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1')
    assert main(["launch", "slurm", *FIT]) == 1
    assert capsys.readouterr().err == ("error: sbatch refused the job: Batch job submission failed: Invalid account\n")


def test_torchrun_is_started_at_once_on_one_machine(capfd, tools):
    python = tools("fake", 'echo "called $TORCH_DISABLE_SHARE_RDZV_TCP_STORE $*"; exit 3')
    assert main(["launch", "torchrun", "--devices=2", "--max-restarts=1", "--python", python, *FIT]) == 3
    said = capfd.readouterr().out
    assert "called 1 -m leyden.agent --nnodes=1 --nproc-per-node=2 --max-restarts=1 --rdzv-backend=c10d " in said
    assert "--rdzv-endpoint=localhost:0 --rdzv-id=leyden-small -m leyden.main fit --config small.yaml" in said
    assert said.endswith("--resume auto --trainer.num_nodes 1 --trainer.devices 2\n")


def test_torchrun_on_several_machines_is_a_script_for_each(capsys):
    assert "need a place to meet: --rdzv-endpoint HOST:PORT" in refused(capsys, "torchrun", "--nodes=2", *FIT)
    for wrong in ("node1", "node1:", "node1:port", "node1:70000", ":29500"):
        assert "it must be HOST:PORT" in refused(capsys, "torchrun", "--nodes=2", "--rdzv-endpoint", wrong, *FIT)
    assert main(["launch", "torchrun", "--nodes=2", "--rdzv-endpoint=node1:29500", *FIT]) == 0
    written = Path("runs/small/launch/torchrun.sh")
    assert f"on each of the 2 machines, from any folder: bash {written.absolute()}" in capsys.readouterr().out
    assert "NODES=2\nDEVICES=1\nMAX_RESTARTS=3\nENDPOINT=node1:29500\nJOB=leyden-small\n" in written.read_text()


def test_a_meeting_point_that_cannot_be_is_told_on_the_machine(capfd, tools):
    words = ["--python", tools("fake", "exit 0"), "--rdzv-endpoint"]
    assert main(["launch", "torchrun", *words, "no-such-host.invalid:29500", *FIT]) == 2
    assert "knows no host 'no-such-host.invalid'" in capfd.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["launch", "torchrun", *words, f"127.0.0.1:{port}", *FIT]) == 2
        assert f"127.0.0.1:{port} cannot be used: the port is in use here" in capfd.readouterr().err
    assert main(["launch", "torchrun", *words, f"127.0.0.1:{port}", *FIT]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slrum"], "unknown launcher 'slrum'. Did you mean slurm?"),
        (["slurm"], "nothing to run: launch slurm ... fit --config FILE"),
        (["slurm", "--nodes", "0", *FIT], "--nodes is 0; there must be at least 1"),
        (["torchrun", "--devices=-1", *FIT], "--devices is -1"),
        (["slurm", "--cpus=0", *FIT], "--cpus is 0"),
        (["torchrun", "--max-restarts=-1", *FIT], "--max-restarts is -1"),
        (["slurm", "--partitoin=x", *FIT], "has no option --partitoin=x. Did you mean --partition?"),
        (["slurm", "test", "runs/a/1"], "launch starts fit, not 'test'"),
        (["slurm", "fit"], "nothing to train"),
        (["slurm", "fit", "small.yaml"], "fit takes options only, not 'small.yaml'"),
        (["slurm", "fit", "--config", "none.yaml"], "the config 'none.yaml' cannot be read: No such file"),
        (["slurm", *FIT, "--model", "ImageClasifier"], "Did you mean ImageClassifier?"),
        (["slurm", *FIT, "--model.net=LeNte"], "Did you mean LeNet?"),
        (["slurm", *FIT, "--trainer.num_nodes=2"], "--trainer.num_nodes is '2', and launch sets it to 1"),
        (["slurm", *FIT, "--trainer.devices", "auto"], "--trainer.devices is 'auto', and launch sets it to 1"),
        (["slurm", *FIT, "--resume", "runs/a/1"], "--resume is 'runs/a/1', and launch sets it to auto"),
        (["slurm", "--sbatch", "mem", *FIT], "--sbatch is 'mem'; it must be an option of sbatch"),
        (["slurm", "--sbatch=--job-name=bash", *FIT], "launch sets --job-name by itself"),
    ],
)
def test_what_cannot_be_launched_is_refused(capsys, words, said):
    assert said in refused(capsys, *words)


def test_a_wrong_name_in_a_config_is_told_with_its_file(capsys):
    Path("wrong.yaml").write_text("model:\n  class_path: ImageClassifier\n  init_args: {net: LeNte}\n")
    said = refused(capsys, "slurm", "fit", "--config", "wrong.yaml")
    assert said.startswith("error: in wrong.yaml: unknown network 'LeNte'. Did you mean LeNet?")


def test_help_and_dry_run_do_without_torch():
    code = "import sys; from leyden.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for words in (["--help"], ["slurm", "--dry-run", *FIT]):
        subprocess.run([sys.executable, "-c", code, "launch", *words], check=True, capture_output=True)


@pytest.mark.parametrize(("launcher", "file"), [("slurm", "slurm.sbatch"), ("torchrun", "torchrun.sh")])
def test_the_scripts_for_use_by_hand_are_the_same(launcher, file):
    assert (ROOT / "cluster" / file).read_text() == launch.by_hand(launcher)


def test_the_script_for_use_by_hand_needs_a_config_only(tools):
    tools("python", 'echo "$@"')
    words = [str(ROOT / "cluster" / "torchrun.sh"), "--config", "a b.yaml"]
    said = subprocess.run(["bash", *words], capture_output=True, text=True, check=True).stdout
    assert "--nnodes=1 --nproc-per-node=1 --max-restarts=3" in said
    assert "-m leyden.main fit --config a b.yaml --resume auto" in said


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (GLOO, processes.LostError, "process 3 on "),
        (TAKEN, UsageError, "port 29777 of "),
        ("The client socket has timed out after 60000ms while trying to connect to (h1, 29500).", LeydenError, "h1"),
    ],
)
def test_what_processes_cannot_do_together_is_a_sentence(monkeypatch, text, kind, said):
    monkeypatch.setenv("RANK", "3")
    error = processes.explained(RuntimeError(text))
    assert type(error) is kind
    assert said in str(error)
    assert processes.explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
