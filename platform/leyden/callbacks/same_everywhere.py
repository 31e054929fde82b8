"""SameEverywhere: refuses processes that do not run the same thing."""

import hashlib
import importlib
import platform
import socket
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from leyden import __version__
from leyden.agreement import gathered
from leyden.differences import differences
from leyden.errors import UsageError

SHOWN = 5  # differences, of however many


class SameEverywhere(Callback):
    """Compares versions, code, config and checkpoint of all processes before they train together.

    Args:
        config: the config as YAML.
        checkpoint: the checkpoint that this process goes on with, and its step; "" for none.
    """

    def __init__(self, config: str, checkpoint: str = "") -> None:
        self.config = config
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook. Raises UsageError, in all processes, that says which one differs in what."""
        if trainer.world_size == 1:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        own = {
            "host": socket.gethostname(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "leyden": __version__},
            "code": _code({type(pl_module), type(data)}),
            "config": yaml.safe_load(self.config),
            "checkpoint": self.checkpoint,
        }
        first, *others = gathered(own)
        for rank, other in enumerate(others, start=1):
            if found := _differing(first, other):
                lines = "\n".join(f"  {line}" for line in found[:SHOWN])
                more = f"\n  ... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                raise UsageError(
                    f"process {rank} (on {other['host']}) is not what process 0 (on {first['host']}) is:\n"
                    f"{lines}{more}\n"
                    "All must run the same command with the same code, in one shared folder."
                )


def _differing(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    versions = differences([first["versions"], other["versions"]])
    found = [f"{name} {one} -> {two}" for name, (one, two) in versions.items()]
    found += [f"{key}: {one} -> {two}" for key, (one, two) in differences([first["config"], other["config"]]).items()]
    if first["checkpoint"] != other["checkpoint"]:
        found.append(f"going on from {first['checkpoint'] or 'nothing'} -> {other['checkpoint'] or 'nothing'}")
    names = sorted(first["code"].keys() | other["code"].keys())
    return found + [f"other code: {name}" for name in names if first["code"].get(name) != other["code"].get(name)]


def _code(classes: set[type]) -> dict[str, str]:
    """A short digest of each source file of the engine and of the packages that these classes are from."""
    found: dict[str, str] = {}
    for name in {"leyden", *(each.__module__.partition(".")[0] for each in classes)}:
        file = getattr(importlib.import_module(name), "__file__", None)
        if file is None:
            continue
        path = Path(file)
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        root = path.parent.parent if path.name == "__init__.py" else path.parent
        for each in files:
            found[str(each.relative_to(root))] = hashlib.sha256(each.read_bytes()).hexdigest()[:16]
    return found
