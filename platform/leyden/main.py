"""The dispatcher: picks the command by the first word and imports only what that command needs."""

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from leyden import __version__, plugin_files, signals
from leyden.errors import LeydenError, StoppedError, UsageError, unknown

# command: (module with run(arguments) -> exit status, one line of help)
COMMANDS = {
    "fit": ("leyden.cli", "train a task on data: fit --config FILE, or fit --model TASK --data DATA ..."),
    "validate": ("leyden.cli", "evaluate a run or checkpoint on the validation data: validate RUN"),
    "test": ("leyden.cli", "evaluate a run or checkpoint on the test data: test RUN"),
    "predict": ("leyden.cli", "apply a run or checkpoint to files or folders: predict RUN INPUT ..."),
    "crossval": (
        "leyden.commands.crossval",
        "choose a config by cross-validation: crossval --folds 5 CONFIG CONFIG ...",
    ),
    "launch": ("leyden.commands.launch", "train on a cluster: launch slurm|torchrun --nodes 2 --devices 4 fit ..."),
    "list": ("leyden.commands.list", "show the tasks, networks and data modules that are installed"),
    "new": ("leyden.commands.new", "write a package with a plugin of your own: new task|data|network NAME"),
    "compare": ("leyden.commands.compare", "put runs beside each other, as table and curves: compare RUN RUN ..."),
    "doctor": ("leyden.commands.doctor", "report what this machine has, which data sets are here, what is broken"),
}

REFUSED = "LEYDEN_REFUSED"  # names a file by which a batch script learns that trying again is of no use
INTERRUPTED = StoppedError.exit_status  # 128 + SIGINT, as shells have it
USAGE = """usage: {program} COMMAND ...

A training platform on PyTorch Lightning.

commands:
{commands}

options:
  --help, -h       show this, or after a command the options of that command
  --version        show the version
  --plugins FILE   after any command, as often as needed: the tasks, networks and data modules in a Python file
                   are offered by their names, too; so are those in the files of LEYDEN_PLUGINS

A trained run is a folder (runs/lenet/1). Start with: {program} fit --config configs/classification/lenet.yaml
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except LeydenError as error:
        if os.environ.get("LEYDEN_DEBUG"):
            traceback.print_exc()
        if error.exit_status == UsageError.exit_status and (mark := os.environ.get(REFUSED)):
            with suppress(OSError):
                Path(mark).touch()
        return _report(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _report("interrupted.", INTERRUPTED)
    except SystemExit as stop:  # argparse after --help, Lightning after Ctrl-C
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _report("interrupted.", INTERRUPTED)
        return _report(stop.code, 1) if isinstance(stop.code, str) else stop.code or 0
    except BrokenPipeError:
        # whoever read our output closed it (`list | head`); the interpreter must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        print(f"leyden {__version__}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    if command == "fit" and threading.current_thread() is threading.main_thread():
        signals.listen()  # before what takes seconds to import: Slurm's signal would end the process
    with plugin_files.in_use(rest) as words:
        module = importlib.import_module(COMMANDS[command][0])
        status: int = module.run(command, words)
    return status


def usage() -> str:
    """The text of `--help`."""
    program = "python cli.py" if sys.argv[0].endswith("cli.py") else "leyden"
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return USAGE.format(program=program, commands="\n".join(lines))


def _report(message: str, status: int) -> int:
    sys.stdout.flush()
    print(message if status == INTERRUPTED else f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
