"""`crossval --folds K CONFIG [CONFIG ...]`: chooses a config by K-fold cross-validation."""

import argparse
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from leyden import cli, draw, signals
from leyden.differences import differences
from leyden.errors import LeydenError, StoppedError, UsageError, unknown
from leyden.folders import require_writable, write_csv, write_text
from leyden.folds import Fold
from leyden.history import CONFIG, History, find_run

logger = logging.getLogger("leyden")
PASSED_ON = ("--model", "--data", "--trainer", "--seed_everything")  # options of every fit
FINISHED, RECIPE = "finished", "recipe.yaml"  # in a fold's folder, beside its runs
LARGE = 1e5  # from which on decimals say nothing
UNLIMITED = 10_000  # characters in a line
NOT_COMPARED = ("experiment", "runs")


@dataclass
class Candidate:
    """One config, its folder, and what its folds gave so far."""

    name: str
    config: dict[str, Any]  # with short names resolved and all options filled in
    folder: Path
    monitor: str
    mode: str
    processes: int
    results: list[dict[str, float]]
    failure: str | None = None

    def values(self, metric: str) -> list[float]:
        """The metric in each fold."""
        return [result[metric] for result in self.results]


def run(command: str, arguments: list[str]) -> int:
    """Train every config on every fold, print the ranking, and on request train the winner on all data."""
    passed_on, own = split_options(arguments)
    options = _parser(command).parse_args(own)
    if options.folds < 2:
        raise UsageError(f"--folds is {options.folds}; there must be at least 2: one to validate on, one to train on.")
    cli.set_up_output()
    sys.path.insert(0, str(Path.cwd()))  # as for fit: a task in a file of the current folder
    folder = Path(options.runs) / (options.experiment or f"crossval_{options.folds}")
    candidates = [_candidate(config, passed_on, folder) for config in options.configs]
    _require_different_names(candidates)
    if options.refit:
        _require_refittable(candidates)
    require_writable(folder)
    for candidate in candidates:
        for number in range(1, options.folds + 1):
            if candidate.failure is None:
                _run_fold(candidate, Fold(number, options.folds), options.checkpoint)
                _require_metric(options.metric, candidate)
    finished = [candidate for candidate in candidates if candidate.failure is None]
    if not finished:
        raise LeydenError("no config could be trained on all folds.")
    metric, mode = _ranked_by(options.metric, finished)
    finished.sort(key=lambda candidate: _rank(mean(candidate.values(metric)), mode))
    if math.isnan(mean(finished[0].values(metric))):
        raise LeydenError(f"{metric} is nan in some fold of every config: it ranks nothing. Name another --metric.")
    _report(finished, candidates, metric, folder)
    if options.refit:
        _refit(finished[0], options.checkpoint)
    return 0 if len(finished) == len(candidates) else 1


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What every fit is given, and what is this command's own."""
    passed_on: list[str] = []
    own: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith(PASSED_ON):
            own.append(word)
            continue
        passed_on.append(word)
        if "=" not in word and words and not words[0].startswith("--"):
            passed_on.append(words.pop(0))
    return passed_on, own


def _parser(command: str) -> argparse.ArgumentParser:
    text = (
        f"Choose a config by K-fold cross-validation. Options that begin with {', '.join(PASSED_ON)} go to every fit."
    )
    parser = argparse.ArgumentParser(prog=command, description=text, allow_abbrev=False)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="the configs to choose from")
    parser.add_argument("--folds", type=int, required=True, metavar="K", help="how many folds: 5 or 10 are usual")
    parser.add_argument("--metric", help="ranks the configs; default: what picks the best checkpoint of their task")
    text = "each fold counts with its last epoch, or with its best, which flatters all of them a little"
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help=text)
    parser.add_argument("--refit", action="store_true", help="then train the winner on all data")
    parser.add_argument("--experiment", help="name of the folder for all of this; default: crossval_K")
    parser.add_argument("--runs", default="runs", help="the folder of all experiments")
    return parser


def _candidate(config: str, passed_on: list[str], folder: Path) -> Candidate:
    """Read a config, and check it by making what it names. Raises UsageError for what `fit` would refuse."""
    with cli.errors_for_people():
        made = cli.TrainingCLI(cli.Request.parse("fit", ["--config", config, *passed_on]))
    name = Path(config).stem
    resolved = yaml.safe_load(made.saved_config())
    monitor, mode = getattr(made.model, "monitor", "val/loss"), getattr(made.model, "mode", "min")
    if not hasattr(made.datamodule, "fold"):
        raise UsageError(f"{type(made.datamodule).__name__} is no leyden DataModule: no folds can be cut from it.")
    if resolved["data"]["init_args"].get("fold"):
        raise UsageError(f"{config} names a fold of its own; crossval chooses the folds.")
    return Candidate(name, resolved, folder / name, monitor, mode, made.trainer.world_size, [])


def _require_different_names(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two configs are called {twice[0]!r}; the results would lie in one folder. Rename one.")


def _require_refittable(candidates: Sequence[Candidate]) -> None:
    """Raises UsageError for a schedule that only a validation metric moves: on all data there is none."""
    for candidate in candidates:
        schedule = candidate.config["model"]["init_args"].get("lr_scheduler") or {}
        watched = str((schedule.get("init_args") or {}).get("monitor") or candidate.monitor)
        if str(schedule.get("class_path")).endswith("ReduceLROnPlateau") and watched.startswith("val/"):
            raise UsageError(
                f"{candidate.name} cannot be refitted: its ReduceLROnPlateau watches {watched}, and on all data "
                "nothing validates. Choose another schedule, or leave out --refit."
            )


def _run_fold(candidate: Candidate, fold: Fold, checkpoint: str) -> None:
    """Train one fold, unless that was done before, and keep its metrics."""
    experiment = candidate.folder / f"fold_{fold.number}_of_{fold.count}"
    config = _with(candidate.config, fold=f"{fold.number}/{fold.count}")
    _require_same_config(experiment, config)
    was_done = (experiment / FINISHED).is_file()
    if not was_done:
        try:
            _fit(config, experiment, candidate.processes)
        except (StoppedError, UsageError):
            raise
        except LeydenError as error:
            candidate.failure = f"fold {fold.number}: {error}"
            print(f"{candidate.name}: failed in {candidate.failure}")
            return
        write_text(experiment / FINISHED, "")
    history = History.read(find_run(str(experiment)))
    result = _metrics(history, checkpoint)
    candidate.results.append(result)
    value = result.get(candidate.monitor)
    shown = "" if value is None else f"  {candidate.monitor} {value:.4f}"
    seconds = history.summary.seconds if history.summary else None
    took = "  done before" if was_done else "" if seconds is None else f"  {seconds:.0f} s"
    print(f"{candidate.name}: fold {fold.number}/{fold.count}{shown}{took}", flush=True)


def _with(config: dict[str, Any], fold: str) -> dict[str, Any]:
    """The config with this fold."""
    data = config["data"]
    return {**config, "data": {**data, "init_args": {**data["init_args"], "fold": fold}}}


def _require_same_config(experiment: Path, config: dict[str, Any]) -> None:
    """What lies in the folder must be of this very config. Raises UsageError that names what differs."""
    for path in sorted(experiment.glob(f"*/{CONFIG}")):
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = differences([_compared(before), _compared(config)])
        if changed:
            name, (old, new) = next(iter(changed.items()))
            raise UsageError(
                f"{path.parent} was trained with another config: {name} was {old}, not {new}. Choose another "
                f"--experiment, or delete {experiment}."
            )


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in NOT_COMPARED}


def _fit(config: dict[str, Any], experiment: Path, processes: int) -> None:
    """`fit` with a config, going on where it was interrupted. Its lines go into the run's log only."""
    experiment.mkdir(parents=True, exist_ok=True)
    written = experiment / RECIPE
    write_text(written, yaml.safe_dump(_compared(config), sort_keys=False))
    place = ["--runs", str(experiment.parent), "--experiment", experiment.name, "--resume", "auto"]
    words = ["--config", str(written), *place]
    if processes == 1:
        try:
            with _quiet(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                cli.run("fit", words)
        except StoppedError as stopped:
            raise _stopped(experiment) from stopped
        return
    # with several processes Lightning starts this program again, as often: that must be `fit` alone
    status = signals.finish([sys.executable, "-m", "leyden.main", "fit", *words], stdout=subprocess.DEVNULL)
    if status == StoppedError.exit_status:
        raise _stopped(experiment)
    if status:
        error = UsageError if status == UsageError.exit_status else LeydenError
        raise error(f"`fit` in {experiment} ended with status {status}.")


def _stopped(experiment: Path) -> StoppedError:
    return StoppedError(f"stopped while {experiment} was trained. The same command goes on from there.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves the log of this process as it was."""
    handlers = logger.handlers[:]
    try:
        yield
    finally:
        logger.handlers = handlers


def _metrics(history: History, checkpoint: str) -> dict[str, float]:
    """Every validation metric of a run at its last or best epoch."""
    read = history.at_best if checkpoint == "best" else history.at_last
    values = {name: read(name) for name in history.metrics if name.startswith("val/")}
    found = {name: value for name, value in values.items() if value is not None}
    epoch = history.best if checkpoint == "best" else history.rows[-1]
    return {**found, "epochs": history.epochs if epoch is None else epoch["epoch"] + 1}


def _require_metric(asked: str | None, candidate: Candidate) -> None:
    """Raises UsageError for a metric that the folds do not have, before further ones are trained."""
    if asked is not None and candidate.results and asked not in candidate.results[0]:
        raise unknown("metric", asked, set(candidate.results[0]) - {"epochs"})


def _ranked_by(asked: str | None, candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The metric that ranks the candidates, and `min` or `max`. Raises UsageError where none is shared."""
    shared = set.intersection(*(set(result) for candidate in candidates for result in candidate.results)) - {"epochs"}
    if asked is None:
        monitors = {candidate.monitor for candidate in candidates}
        if len(monitors) > 1 or not monitors <= shared:
            raise UsageError(f"the configs have no one monitor ({', '.join(sorted(monitors))}): name a --metric.")
        return candidates[0].monitor, candidates[0].mode
    if asked not in shared:
        raise unknown("metric", asked, shared)
    if asked == candidates[0].monitor:
        return asked, candidates[0].mode
    fold = next(candidates[0].folder.glob(f"*/{FINISHED}")).parent
    mode = History.read(find_run(str(fold))).mode(asked)
    if mode is None:
        raise UsageError(f"whether {asked} is better when small or large is not known. Choose another --metric.")
    return asked, mode


def _report(finished: Sequence[Candidate], candidates: Sequence[Candidate], metric: str, folder: Path) -> None:
    """The ranking as a table, crossval.csv with every fold, and crossval.png."""
    names = [name for name in finished[0].results[0] if all(name in r for c in finished for r in c.results)]
    names.sort(key=lambda name: name != metric)
    folds = len(finished[0].results)
    table = Table(title=f"{folds} folds, ranked by {metric}: mean ± standard deviation", title_justify="left")
    for heading in ("config", *names):
        table.add_column(heading, no_wrap=True)
    for candidate in finished:
        table.add_row(candidate.name, *(_spread(candidate.values(name)) for name in names))
    _print(table)
    for candidate in candidates:
        if candidate.failure is not None:
            print(f"{candidate.name} is not ranked: it failed in {candidate.failure}")
    rows = [
        [candidate.name, number, *(result[name] for name in names)]
        for candidate in finished
        for number, result in enumerate(candidate.results, start=1)
    ]
    write_csv(folder / "crossval.csv", [["config", "fold", *names], *rows])
    panels = {name: {each.name: each.values(name) for each in finished} for name in names if name != "epochs"}
    draw.save(draw.spreads(panels), folder / "crossval.png")
    print(
        f"best: {finished[0].name}. Every fold is in {folder / 'crossval.csv'}, the picture in crossval.png beside it."
    )


def _rank(value: float, mode: str) -> tuple[bool, float]:
    """What is sorted by: the best first, nan last."""
    return math.isnan(value), -value if mode == "max" else value


def _spread(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return f"{mean(values)}"  # of which there is no standard deviation
    if len(set(values)) == 1:
        return f"{values[0]:.6g}"
    form = ".4f" if mean(values) < LARGE else ".4g"
    return f"{mean(values):{form}} ± {stdev(values):{form}}"


def _print(table: Table) -> None:
    """As wide as it must be: a name that is cut off says nothing."""
    Console(width=Console(width=UNLIMITED).measure(table).maximum).print(table)


def _refit(winner: Candidate, checkpoint: str) -> None:
    """Train on all data, as long as the folds were trained in the middle; there is nothing to stop early by."""
    experiment = winner.folder / "refit"
    config = _with(winner.config, fold="all")
    trainer = dict(config["trainer"])
    callbacks = [each for each in trainer.get("callbacks") or [] if not _stops_early(each)]
    trainer["callbacks"] = callbacks or None
    if len(callbacks) < len(winner.config["trainer"].get("callbacks") or []) or checkpoint == "best":
        trainer["max_epochs"] = round(median(winner.values("epochs")))
    config = {**config, "trainer": trainer}
    _require_same_config(experiment, config)
    if not (experiment / FINISHED).is_file():
        _fit(config, experiment, winner.processes)
        write_text(experiment / FINISHED, "")
    print(f"{winner.name} on all data: {find_run(str(experiment))}. Next: predict or test it.")


def _stops_early(callback: Any) -> bool:
    return str(callback.get("class_path", "") if isinstance(callback, dict) else callback).endswith("EarlyStopping")
