"""`doctor`: what this machine has, which data sets are here, what is broken."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leyden import __version__, plugins
from leyden.errors import LeydenError

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "sacrebleu", "wandb")
FOR_DEVELOPERS = ("test", "dev")
_EXTRA = re.compile(r"extra == [\"']([^\"']+)")
Line = tuple[str, str]


def run(command: str, arguments: list[str]) -> int:
    """Print the report. Exit status 1 when a plugin is broken or runs cannot be written."""
    parser = argparse.ArgumentParser(prog=command, description="Report what this machine has and what is broken.")
    parser.add_argument("--runs", default="runs", help="the folder of all experiments")
    options = parser.parse_args(arguments)
    problems: list[str] = []
    sections = {
        "software": list(_software()),
        "extras": list(_extras()),
        "hardware": list(_hardware()),
        "data sets": list(_data_sets()),
        "runs": list(_run_folder(Path(options.runs), problems)),
        "plugins": list(_plugins(problems)),
    }
    for title, lines in sections.items():
        width = max((len(name) for name, _ in lines), default=0)
        print(f"{title}:")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in lines), end="\n\n")
    print(f"{len(problems)} problems" if problems else "no problems")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


def _software() -> Iterator[Line]:
    yield "leyden", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _extras() -> Iterator[Line]:
    """The optional libraries, and what brings those that are missing."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("leyden") or []:
        needed = Requirement(text)
        extra = _EXTRA.search(str(needed.marker))
        if extra is None or extra[1] in FOR_DEVELOPERS:
            continue
        try:
            found = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield needed.name, f"not installed: pip install 'leyden[{extra[1]}]'"
            continue
        right = needed.specifier.contains(found, prereleases=True)
        yield (
            needed.name,
            found if right else f"{found}, needed is {needed.specifier}: pip install 'leyden[{extra[1]}]'",
        )


def _hardware() -> Iterator[Line]:
    if importlib.util.find_spec("torch") is None:
        yield "torch", "not installed: nothing can be trained"
        return
    import torch

    from leyden.memory import keep_freed_memory

    count = torch.cuda.device_count()
    devices = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    yield "CUDA devices", devices or "none"
    yield "Apple MPS", "available" if torch.backends.mps.is_available() else "none"
    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in torch"
    yield "precision", ", ".join(_precisions(count))
    compiler = shutil.which("c++") or shutil.which("g++")
    yield "compile", f"C++ compiler {compiler}" if compiler else "no C++ compiler: only --model.compile aot_eager works"
    kept = keep_freed_memory()
    yield "memory", "CPU training keeps freed memory (mallopt)" if kept else "mallopt is not there; nothing is changed"


def _precisions(cuda_devices: int) -> Iterator[str]:
    import torch

    yield "32-true"
    yield "64-true"
    if cuda_devices:
        yield "16-mixed"
        yield "bf16-mixed" if torch.cuda.is_bf16_supported() else "bf16-mixed (emulated)"
    else:
        fast = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
        yield "bf16-mixed" if fast else "bf16-mixed (works, but this CPU has no units for it: slower than 32-true)"


def _data_sets() -> Iterator[Line]:
    yield "LEYDEN_DATA", os.environ.get("LEYDEN_DATA") or "not set (data is looked for in ./data)"
    for plugin in plugins.installed("data"):
        try:
            cls: Any = plugin.load()
            place = cls.locate()
        except (LeydenError, AttributeError):
            continue
        yield plugin.name, str(place) if place else "not here; fetched, or asked for, when it is needed"


def _run_folder(folder: Path, problems: list[str]) -> Iterator[Line]:
    from leyden.folders import require_writable

    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        require_writable(place)
    except LeydenError as error:
        problems.append(str(error))
        yield str(folder), "cannot be written"
    else:
        yield (
            str(folder),
            f"writable, {shutil.disk_usage(place).free / 1e9:.1f} GB free",
        )


def _plugins(problems: list[str]) -> Iterator[Line]:
    for kind in plugins.GROUPS:
        found = plugins.installed(kind)
        causes = plugins.broken(kind)
        problems.extend(causes.values())
        names = ", ".join(f"{plugin.name} (broken)" if plugin in causes else plugin.name for plugin in found)
        yield kind, names or "none"
