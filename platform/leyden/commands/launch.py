"""`launch slurm|torchrun ... fit ...`: writes the script that trains on a cluster, and starts it. Without torch."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from leyden import names, plugin_files, signals
from leyden.errors import LeydenError, UsageError, guess, unknown
from leyden.folders import require_writable, write_text

LAUNCHERS = ("slurm", "torchrun")
FOLDER = "launch"  # beside the experiment's runs
WARNING = "SIGUSR1@120"  # seconds before the time limit; Slurm may be a minute early
ON_GPU = ("gpu", "cuda")
HERE = "localhost:0"  # the meeting point of a single machine: any free port
HIGHEST_PORT = 65535
ENDPOINT = re.compile(r"^\[?([\w.:-]+?)\]?:([1-9]\d*)$")
SET_BY_US = ("nodes", "ntasks", "job-name", "requeue", "no-requeue", "open-mode", "signal", "output", "chdir", "wrap")

SLURM = """\
#!/bin/bash
{head}
{directives}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal={warning}
set -euo pipefail
{setup}
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}" PYTHONUNBUFFERED=1
# Since Slurm 22.05 srun does not take the number of CPUs from the batch job.
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
# A process that was told something wrong makes this file: to start again is then of no use.
export LEYDEN_REFUSED={marks}"$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}.refused"
# Until Python has set its handlers SIGUSR1 would kill it, so it starts with the signal ignored.
# When one process fails, srun ends the others. A requeued job runs this same line and goes on where it was.
status=0
srun --kill-on-bad-exit=1 bash -c 'trap "" USR1; exec "$@"' - \\
    {python} -m leyden.main fit {arguments} \\
    --resume auto --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "${{SLURM_NTASKS_PER_NODE:-1}}" \\
    || status=$?
# Processes that were killed or lost one another (75) are tried again; what was stopped (130) or refused (1, 2) is not.
if [ -e "$LEYDEN_REFUSED" ]; then status=2; fi
if [ "$status" -gt 2 ] && [ "$status" -ne 130 ]; then
    echo "$(date): status $status" >> {marks}"$SLURM_JOB_ID.failures"
    if [ "$(wc -l < {marks}"$SLURM_JOB_ID.failures")" -le {restarts} ]; then
        echo "a process was lost; the job is queued again"
        scontrol requeue "$SLURM_JOB_ID" && sleep 60 # in which Slurm ends this script
    fi
fi
exit "$status"
"""

TORCHRUN = """\
#!/bin/bash
{head}
set -euo pipefail
{settings}
{setup}
# torchrun would try for minutes: say at once what is wrong with the place where the machines meet
host=${{ENDPOINT%:*}} port=${{ENDPOINT##*:}}
host=${{host#[}} host=${{host%]}}
if ! addresses=$(getent ahosts "$host"); then
    echo "error: the meeting point $ENDPOINT cannot be used: $(hostname) knows no host '$host'." >&2
    exit 2
fi
for own in 127.0.0.1 ::1 $(hostname -I); do
    if [ "$port" != 0 ] && grep -q "^$own " <<< "$addresses" && (: < "/dev/tcp/$own/$port") 2> /dev/null; then
        echo "error: the meeting point $ENDPOINT cannot be used: the port is in use here. Choose another." >&2
        exit 2
    fi
done
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}" PYTHONUNBUFFERED=1
# Without it gloo cannot connect again after a process was replaced.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# When a process fails, all are ended and started again by this same line, which goes on where the run was.
exec {python} -m leyden.agent --nnodes="$NODES" --nproc-per-node="$DEVICES" --max-restarts="$MAX_RESTARTS" \\
    --rdzv-backend=c10d --rdzv-endpoint="$ENDPOINT" --rdzv-id="$JOB" \\
    -m leyden.main fit {arguments} \\
    --resume auto --trainer.num_nodes "$NODES" --trainer.devices "$DEVICES"
"""

SLURM_BY_HAND = """\
# Trains on a Slurm cluster, and goes on by itself after a requeue. How many machines, and processes on each:
#   sbatch --nodes=2 --ntasks-per-node=4 [--cpus-per-task=8 --gpus-per-node=4 --time=8:00:00 ...] \\
#       cluster/slurm.sbatch --config configs/classification/lenet.yaml [any option of fit]
# The same in one line, with checks before it is submitted: python cli.py launch slurm --help"""

TORCHRUN_BY_HAND = """\
# Trains on machines that torchrun joins, and goes on by itself after a process died. On every machine:
#   NODES=2 DEVICES=4 ENDPOINT=FIRST-MACHINE:29500 JOB=lenet \\
#       cluster/torchrun.sh --config configs/classification/lenet.yaml [any option of fit]
# On one machine DEVICES is enough. The same with checks: python cli.py launch torchrun --help"""


@dataclass
class Job:
    """What is to be trained: the words behind `fit`, where its runs are, and whether it asks for GPUs."""

    words: list[str]
    experiment: Path
    on_gpu: bool

    @property
    def name(self) -> str:
        """Never `bash` or `interactive`, by which Lightning takes a job for a shell."""
        return f"leyden-{self.experiment.name}"

    @property
    def folder(self) -> Path:
        """Where scripts and logs of jobs lie."""
        return self.experiment / FOLDER


def run(command: str, arguments: list[str]) -> int:
    """Write the script and start it, or with --dry-run print it."""
    launcher, *rest = arguments or ["--help"]
    if launcher in ("--help", "-h"):
        print(_overview(command), end="")
        return 0 if arguments else 2
    if launcher not in LAUNCHERS:
        raise unknown("launcher", launcher, LAUNCHERS)
    parser = _parser(command, launcher)
    options, strangers = parser.parse_known_args(rest)
    if strangers:
        hint = guess(strangers[0].partition("=")[0], re.findall(r"--[a-z-]+", parser.format_help()))
        raise UsageError(f"launch {launcher} has no option {strangers[0]}.{hint} Those of fit come after the word fit.")
    for name in ("nodes", "devices", "cpus"):
        if getattr(options, name, None) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} is {getattr(options, name)}; there must be at least 1.")
    if options.max_restarts < 0:
        raise UsageError(f"--max-restarts is {options.max_restarts}; it must be 0 or more.")
    job = _job(launcher, options)
    if launcher == "slurm":
        return _slurm(job, options)
    return _torchrun(job, options)


def by_hand(launcher: str) -> str:
    """The script that takes its counts from outside: cluster/slurm.sbatch and cluster/torchrun.sh."""
    parts = {"setup": "# module load ..., conda activate ...: what a shell needs before python", "python": "python"}
    if launcher == "slurm":
        directives = "#SBATCH --job-name=leyden\n#SBATCH --output=leyden-%j.log"
        return SLURM.format(
            head=SLURM_BY_HAND,
            directives=directives,
            warning=WARNING,
            arguments='"$@"',
            restarts="3",
            marks="leyden-",
            **parts,
        )
    defaults = {"NODES": "1", "DEVICES": "1", "MAX_RESTARTS": "3", "ENDPOINT": HERE, "JOB": "leyden"}
    settings = "\n".join(f"{name}=${{{name}:-{value}}}" for name, value in defaults.items())
    return TORCHRUN.format(head=TORCHRUN_BY_HAND, settings=settings, arguments='"$@"', **parts)


def _overview(command: str) -> str:
    return (
        f"usage: {command} slurm|torchrun [options of the launcher] fit --config FILE [any options of fit]\n\n"
        "Train on a cluster. The run goes on from its newest checkpoint whenever it is started again.\n\n"
        "launchers:\n"
        "  slurm     write a batch script and submit it with sbatch\n"
        "  torchrun  write the script that is started on every machine; with one machine it is started at once\n\n"
        f"{command} slurm --help and {command} torchrun --help show the options.\n"
    )


def _parser(command: str, launcher: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{command} {launcher}",
        description="Train on a cluster. The run goes on from its newest checkpoint whenever it is started again.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many machines; default: 1")
    parser.add_argument("--devices", type=int, default=1, metavar="D", help="processes on each machine; default: 1")
    text = "how often all is started again after a process died; default: 3"
    parser.add_argument("--max-restarts", type=int, default=3, metavar="R", help=text)
    parser.add_argument("--gpus", action="store_true", help="one GPU for each process: --trainer.accelerator gpu")
    text = "a line of shell before python starts, such as 'module load cuda'; may be repeated"
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help=text)
    text = "the interpreter on the machines; default: this one"
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help=text)
    if launcher == "slurm":
        parser.add_argument("--partition", metavar="NAME", help="default: the cluster's own")
        parser.add_argument("--time", metavar="LIMIT", help="time limit, as sbatch takes it: 30, 8:00:00, 2-12")
        parser.add_argument("--cpus", type=int, metavar="C", help="CPUs for each process")
        parser.add_argument("--account", metavar="NAME", help="whom the time is charged to")
        text = "any other option of sbatch, such as --sbatch=--mem=64G; may be repeated"
        parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help=text)
    else:
        text = "a free port of the first machine, where the machines meet; needed for more than one"
        parser.add_argument("--rdzv-endpoint", metavar="HOST:PORT", help=text)
        parser.add_argument("--rdzv-id", metavar="ID", help="the same on all machines; default: the experiment's name")
    parser.add_argument("--dry-run", action="store_true", help="print the script; write and start nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="fit ...", help="what to run, as without launch")
    return parser


def _job(launcher: str, options: argparse.Namespace) -> Job:
    """Check the command behind the launcher's options. Raises UsageError for what could not run on the cluster."""
    if not options.command:
        raise UsageError(f"nothing to run: launch {launcher} ... fit --config FILE")
    what, *words = options.command
    if what != "fit":
        raise UsageError(f"launch starts fit, not {what!r}. Other commands run in one place: python cli.py {what} ...")
    if words and not words[0].startswith("-"):
        raise UsageError(f"fit takes options only, not {words[0]!r}. A config is named with --config FILE.")
    read = names.require_known(words)
    if not read and _given(words, "model") is None:
        raise UsageError("nothing to train: fit --config FILE, or fit --model TASK --data DATA ...")
    trainer: dict[str, Any] = {}
    for config in read:
        trainer |= config.get("trainer") or {}
    _refuse(words, "resume", "auto", "so that the job can be started again")
    _refuse(words, "trainer.num_nodes", str(options.nodes), f"as --nodes is {options.nodes}")
    _refuse(words, "trainer.devices", str(options.devices), f"as --devices is {options.devices}")
    accelerator = _given(words, "trainer.accelerator") or trainer.get("accelerator")
    if options.gpus and accelerator not in (None, "auto", *ON_GPU):
        raise UsageError(f"--gpus asks for GPUs, but trainer.accelerator is {accelerator!r}. Leave out one of them.")
    added: list[str] = []
    experiment = _experiment(words, read)
    if _given(words, "experiment") is None:
        added += ["--experiment", experiment]
    if (_given(words, "trainer.strategy") or trainer.get("strategy")) in (None, "auto"):
        added += ["--trainer.strategy", "ddp"]
    if options.gpus and accelerator not in ON_GPU:
        added += ["--trainer.accelerator", "gpu"]
    for file in plugin_files.files():  # the dispatcher has taken the option away
        added += [plugin_files.OPTION, str(file)]
    runs = _given(words, "runs") or _last(read, "runs") or "runs"
    return Job([*words, *added], Path(runs) / experiment, options.gpus or accelerator in ON_GPU)


def _given(words: Sequence[str], option: str) -> str | None:
    """The last value of an option in a command line, written as `--option value` or `--option=value`."""
    found = None
    for word, following in pairwise([*words, ""]):
        if word == f"--{option}":
            found = following
        elif word.startswith(f"--{option}="):
            found = word.partition("=")[2]
    return found


def _refuse(words: Sequence[str], option: str, expected: str, why: str) -> None:
    """Raises UsageError for an option that launch sets and the user sets otherwise."""
    given = _given(words, option)
    if given not in (None, expected):
        raise UsageError(f"--{option} is {given!r}, and launch sets it to {expected}, {why}. Leave it out.")


def _last(read: Sequence[dict[str, Any]], key: str) -> str | None:
    return next((str(config[key]) for config in reversed(read) if config.get(key)), None)


def _experiment(words: Sequence[str], read: Sequence[dict[str, Any]]) -> str:
    """The experiment's name, as `fit` finds it."""
    if name := _given(words, "experiment") or _last(read, "experiment"):
        return name
    if files := names.configs(list(words)):
        return Path(files[-1]).stem
    return str(_given(words, "model.net") or _given(words, "model")).rpartition(".")[2].lower()


def _parts(job: Job, options: argparse.Namespace) -> dict[str, str]:
    """What the two scripts have in common."""
    return {
        "setup": "\n".join([f"cd {shlex.quote(str(Path.cwd()))}", *options.setup]),
        "python": shlex.quote(options.python),
        "arguments": shlex.join(job.words),
    }


def _write(job: Job, name: str, script: str) -> Path:
    """Write the script, and say with what the job will go on."""
    require_writable(job.folder)
    path = job.folder / name
    write_text(path, script)
    print(f"wrote {path}")
    if trained := sorted(str(path.parent.parent) for path in job.experiment.glob("*/checkpoints/last.ckpt")):
        print(f"{job.experiment} has runs ({', '.join(trained)}): the newest is gone on with. To start afresh, name")
        print("another --experiment behind fit.")
    return path


# Slurm


def _slurm(job: Job, options: argparse.Namespace) -> int:
    script = slurm_script(job, options)
    if options.dry_run:
        print(script, end="")
        return 0
    if shutil.which("sbatch") is None:
        raise LeydenError("sbatch is not found: launch slurm works on a machine of a Slurm cluster. --dry-run prints.")
    _require_partition(options.partition, options.nodes)
    path = _write(job, "slurm.sbatch", script)
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(line.removeprefix("sbatch: error: ") for line in done.stderr.strip().splitlines())
        raise LeydenError(f"sbatch refused the job: {said or f'exit status {done.returncode}'}")
    number = done.stdout.strip().partition(";")[0]
    print(f"job {number} is submitted; its log: {job.folder / f'{number}.log'}")
    print(f"look: squeue -j {number}. Save and start again: scancel --signal=USR1 {number}. End it: scancel {number}")
    return 0


def slurm_script(job: Job, options: argparse.Namespace) -> str:
    """The batch script. The steps of the first start and of every later one are the same."""
    lines = [
        f"--job-name={shlex.quote(job.name)}",
        f"--output={shlex.quote(str(Path.cwd() / job.folder / '%j.log'))}",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={options.devices}",
    ]
    chosen = {"partition": options.partition, "time": options.time, "account": options.account}
    lines += [f"--{name}={shlex.quote(value)}" for name, value in chosen.items() if value is not None]
    if options.cpus is not None:
        lines.append(f"--cpus-per-task={options.cpus}")
    if job.on_gpu and not any("--gpus" in each or "--gres" in each for each in options.sbatch):
        lines.append(f"--gpus-per-node={options.devices}")
    for each in options.sbatch:
        name = each.partition("=")[0]
        if not name.startswith("-"):
            raise UsageError(f"--sbatch is {each!r}; it must be an option of sbatch, such as --sbatch=--mem=64G.")
        if name.removeprefix("--") in SET_BY_US or name.startswith("--ntasks"):
            raise UsageError(f"--sbatch={each}: launch sets {name} by itself.")
        lines.append(each)
    head = f"# Written by leyden launch. Starts or goes on with {job.experiment}: sbatch {job.folder / 'slurm.sbatch'}"
    directives = "\n".join(f"#SBATCH {line}" for line in lines)
    counts = {"marks": f"{shlex.quote(str(job.folder))}/", "restarts": options.max_restarts}
    return SLURM.format(head=head, directives=directives, warning=WARNING, **counts, **_parts(job, options))


def _require_partition(asked: str | None, nodes: int) -> None:
    """Raises UsageError for a partition that is not there or too small: jobs that ask for it may wait for ever.

    What sinfo cannot say, sbatch will.
    """
    if shutil.which("sinfo") is None:
        return
    done = subprocess.run(["sinfo", "--noheader", "--format=%P %D"], capture_output=True, text=True, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    sizes = {row[0].rstrip("*"): int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
    default = next((row[0].rstrip("*") for row in rows if row and row[0].endswith("*")), None)
    if not sizes or (asked is None and default is None):
        return
    chosen = asked.split(",") if asked is not None else [str(default)]
    for name in chosen:
        if name not in sizes:
            raise unknown("partition", name, sizes)
    largest = max(sizes[name] for name in chosen)
    if nodes > largest:
        raise UsageError(f"--nodes is {nodes}, but the partition {', '.join(chosen)} has {largest}.")


# torchrun


def _torchrun(job: Job, options: argparse.Namespace) -> int:
    _require_endpoint(options)
    script = torchrun_script(job, options)
    if options.dry_run:
        print(script, end="")
        return 0
    path = _write(job, "torchrun.sh", script)
    if options.nodes > 1:
        print(f"start it on each of the {options.nodes} machines, from any folder: bash {path.absolute()}")
        return 0
    return signals.finish(["bash", str(path)])


def _require_endpoint(options: argparse.Namespace) -> None:
    """Raises UsageError for several machines without a place to meet, and for one that cannot be."""
    endpoint = options.rdzv_endpoint
    if endpoint is None:
        if options.nodes > 1:
            what = f"{options.nodes} machines need a place to meet: --rdzv-endpoint HOST:PORT"
            raise UsageError(f"{what}, the first machine's name and a free port, such as node1:29500.")
        options.rdzv_endpoint = HERE
        return
    match = ENDPOINT.match(endpoint)
    if match is None or int(match[2]) > HIGHEST_PORT:
        raise UsageError(f"--rdzv-endpoint is {endpoint!r}; it must be HOST:PORT, such as node1:29500.")


def torchrun_script(job: Job, options: argparse.Namespace) -> str:
    """The script that is started on every machine."""
    head = f"# Written by leyden launch. Starts or goes on with {job.experiment}; to be run on every machine."
    settings = {
        "NODES": options.nodes,
        "DEVICES": options.devices,
        "MAX_RESTARTS": options.max_restarts,
        "ENDPOINT": options.rdzv_endpoint,
        "JOB": options.rdzv_id or job.name,
    }
    lines = "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
    return TORCHRUN.format(head=head, settings=lines, **_parts(job, options))
