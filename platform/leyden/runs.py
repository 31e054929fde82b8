"""A run on disk: runs/<experiment>/<n>/ with its config, checkpoints, metrics and pictures."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from leyden.errors import CheckpointError, UsageError
from leyden.folders import not_writable, replacing
from leyden.task import SECTION

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where best.ckpt, last.ckpt and previous.ckpt are."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / LAST

    @property
    def previous(self) -> Path:
        """The one before the newest, as long as the run is not at its end."""
        return self.checkpoints / PREVIOUS

    @property
    def best(self) -> Path:
        """The checkpoint with the best monitored metric."""
        return self.checkpoints / BEST

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "Run | None":
        """The run that a checkpoint lies in; None for a bare checkpoint."""
        run = cls(checkpoint.parent.parent)
        ours = checkpoint.name in (BEST, LAST, PREVIOUS) and checkpoint.parent == run.checkpoints
        return run if ours and all((run.path / name).is_file() for name in ("config.yaml", "log.txt")) else None

    @classmethod
    def create(cls, experiment: Path) -> "Run":
        """Make the next numbered folder of an experiment, also when several processes ask at once."""
        number = max((int(path.name) for path in _numbered(experiment)), default=0) + 1
        while True:
            path = experiment / str(number)
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise not_writable(experiment, error) from error


def _numbered(experiment: Path) -> Iterator[Path]:
    if experiment.is_dir():
        yield from (path for path in experiment.iterdir() if path.name.isdecimal())


def find_checkpoint(target: str) -> Path:
    """The checkpoint that the user means: a checkpoint file, or a run folder (its best, else its last checkpoint).

    Raises UsageError when there is none.
    """
    path = Path(target)
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"there is no run or checkpoint {target!r}. {_known_runs()}")
    for candidate in (Run(path).best, Run(path).last):
        if candidate.is_file():
            return candidate
    trained = [run for run in _numbered(path) if any(Run(run).checkpoints.glob("*.ckpt"))]
    newest = max(trained, key=lambda run: int(run.name), default=None)
    hint = f"Did you mean its newest run, {newest}?" if newest else "Was its training stopped before the first epoch?"
    raise UsageError(f"{target!r} holds no checkpoint ({Run(path).best} and {LAST} are missing). {hint}")


def _known_runs() -> str:
    files = sorted(Path("runs").glob("*/*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    runs = list(dict.fromkeys(str(path.parent.parent) for path in files))
    listing = ", ".join(runs[:5])
    return f"Newest runs here: {listing}." if listing else "There are no runs here yet: train one with fit."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU; only tensors and primitives are accepted, so that no code in it can run.

    Raises CheckpointError that says whether it is damaged or holds more than data.
    """
    _require_checkpoint_format(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} holds Python objects, not only tensors and plain values, and was not loaded: such a file can run "
            "code of its maker's choice. Checkpoints written by leyden never hold any."
        ) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a training checkpoint: it has no 'state_dict'.")
    return checkpoint


def _require_checkpoint_format(path: Path) -> None:
    """Torch writes zip archives; files of its earlier versions are pickles."""
    try:
        with path.open("rb") as file:
            beginning = file.read(2)
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error.strerror or error}.") from error
    if beginning not in (b"PK", b"\x80\x02"):
        raise CheckpointError(f"{path} is {'not a checkpoint' if beginning else 'an empty file'}.")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    cause = str(error).partition("\n")[0].partition(". ")[0]
    return CheckpointError(
        f"{path} ({path.stat().st_size:,} bytes) is damaged: {cause}. Use another checkpoint of the run."
    )


def stored_config(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The config that a checkpoint was trained with. Raises CheckpointError when it holds none."""
    text = checkpoint.get(SECTION, {}).get("config")
    if text is None:
        raise CheckpointError(f"{path} holds no config: it was not written by `fit`. Name --model and --data as well.")
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def newest_valid_checkpoint(experiment: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of an experiment's runs that can be loaded, and what was wrong with newer ones."""
    files = [*experiment.glob("*/checkpoints/*.ckpt")]
    problems: list[str] = []
    # best and last are often written within one clock tick: last, which is at least as far, goes first
    for path in sorted(files, key=lambda file: (file.stat().st_mtime, file.name == LAST), reverse=True):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def _keep(path: Path, name: Path) -> None:
    """Give a file, if there is one, a second name, in place of what had it."""
    if not path.is_file():
        return
    with replacing(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:  # not every file system has links
            path.replace(temporary)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and renames it: a reader sees the old one or the whole new one.

    The last.ckpt before becomes previous.ckpt: a machine that fails may leave a file that is not whole for all that.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Raises CheckpointError, and leaves the earlier checkpoint as it was, when the disk takes no more."""
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
                if target.name == LAST:
                    _keep(target, target.with_name(PREVIOUS))
        except (OSError, RuntimeError) as error:
            refusal = error if isinstance(error, OSError) else error.__context__  # torch hides what the disk said
            cause = getattr(refusal, "strerror", None) or str(error).partition("\n")[0]
            raise CheckpointError(
                f"the checkpoint {target} cannot be written: {cause}. The checkpoint before it is untouched; make room "
                "and go on with --resume auto."
            ) from error
