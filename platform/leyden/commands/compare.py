"""`compare RUN RUN ...`: what came out of runs beside each other, and in what they differ. Without torch."""

import argparse
import csv
import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from leyden.differences import differences
from leyden.errors import LeydenError, UsageError, unknown
from leyden.folders import require_writable, write_text
from leyden.history import SUMMARY, History, Summary, base_name, find_run, labels, series

NOT_OPTIONS = ("experiment", "runs")  # where a run lies, which its label says
UNLIMITED = 10_000  # characters that a table is given so that nothing in it is cut
LINE_OF_FILE = 160  # characters in a line where there is no terminal
WIDEST_VALUE = 40  # characters of an option's value in a line
ABSENT = "-"


@dataclass(frozen=True)
class Column:
    """What is said of each run under one head.

    texts: for people. values: the same for programs, one or several columns by their names, each with a value for each
    run; None where there is nothing to say.
    """

    head: str
    texts: list[Text]
    values: dict[str, list[Any]]
    right: bool = False


def run(command: str, arguments: list[str]) -> int:
    """Print the table; write comparison.csv and comparison.png."""
    options = _parse(command, arguments)
    try:
        return _compare(options.runs, options.metric, Path(options.out))
    except BrokenPipeError:
        raise  # whoever read the table had enough of it
    except OSError as error:
        raise LeydenError(f"{error.filename or options.out}: {error.strerror or error}.") from error


def _parse(command: str, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=command, description="Compare trained runs.", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run's folder, or an experiment's for its newest run")
    text = "only these metrics: val/loss, or loss for every stage; default: all that two runs share"
    parser.add_argument("--metric", nargs="+", action="extend", metavar="NAME", default=[], help=text)
    parser.add_argument("--out", default="comparison", help="folder for comparison.png and comparison.csv")
    options = parser.parse_args(arguments)
    if not options.runs:
        for name in options.metric:
            _refuse_run_as_metric(name)
        raise UsageError(f"{command} needs runs: {command} RUN RUN ... (runs/lenet/1, or runs/lenet for the newest)")
    return options


def _compare(targets: Sequence[str], wanted: Sequence[str], out: Path) -> int:
    paths = [find_run(target) for target in targets]
    _refuse_repeated(targets, paths)
    histories = dict(zip(labels(paths), map(History.read, paths), strict=True))
    chosen = _choose(histories, wanted)
    require_writable(out)
    columns = [*_results(histories, chosen), *_facts(histories), *_options(histories)]
    _print_table(list(histories), columns)
    print("\n".join(_notes(histories)))
    write_text(out / "comparison.csv", _csv(histories, columns))
    drawn = _draw(histories, chosen, out / "comparison.png")
    print(f"results: {out} ({'comparison.png, ' if drawn else ''}comparison.csv)")
    return 0


def _refuse_repeated(targets: Sequence[str], paths: Sequence[Path]) -> None:
    named: dict[Path, str] = {}
    for target, path in zip(targets, paths, strict=True):
        if path.resolve() in named:
            raise UsageError(f"{named[path.resolve()]} and {target} are the same run, {path}; name each run once.")
        named[path.resolve()] = target


# ---- which metrics


def _choose(histories: dict[str, History], wanted: Sequence[str]) -> list[str]:
    """The metrics to show: those asked for, else all that two runs share. Raises UsageError where there are none."""
    counts = Counter(name for history in histories.values() for name in (*history.metrics, *history.test))
    if wanted:
        for name in wanted:
            if not any(name in (each, base_name(each)) for each in counts):
                _refuse_run_as_metric(name)
                raise unknown("metric", name, {*counts, *map(base_name, counts)})
        return _ordered(each for each in counts if {each, base_name(each)} & set(wanted))
    needed = min(2, len(histories))
    shared = [name for name, count in counts.items() if count >= needed and base_name(name) != "samples_per_second"]
    if not set(shared) - {"lr"}:
        owned = "\n".join(f"{label} has {', '.join(history.metrics)}" for label, history in histories.items())
        raise UsageError(f"the runs share no metric; name those to show with --metric NAME.\n{owned}")
    tested = [name for name in counts if name.startswith("test/") and name not in shared]
    return _ordered([*shared, *tested])


def _ordered(metrics: Iterable[str]) -> list[str]:
    """What counts comes first: validation, test, then training."""
    stages = ("val", "test", "", "train")
    ranks = {name: name.rpartition("/")[0] for name in metrics}
    return sorted(ranks, key=lambda name: stages.index(ranks[name]) if ranks[name] in stages else len(stages))


def _refuse_run_as_metric(name: str) -> None:
    if Path(name).is_dir():
        raise UsageError(f"{name} is a folder, not a metric: name the runs before --metric.")


# ---- the columns


def _results(histories: dict[str, History], chosen: Iterable[str]) -> Iterable[Column]:
    runs = list(histories.values())
    for metric in chosen:
        mode = _mode(metric, runs)
        if metric not in _curves(histories, [metric]):
            yield _numbers(metric, mode, {"": [history.test.get(metric) for history in runs]})
        elif metric != "lr":
            best, last = ([at(history, metric) for history in runs] for at in (History.at_best, History.at_last))
            yield _numbers(metric, mode, {"best": best, "last": last})


def _curves(histories: dict[str, History], chosen: Iterable[str]) -> list[str]:
    """Those of the metrics that were logged in training; of a test's there is but one value."""
    return [name for name in chosen if any(name in history.metrics for history in histories.values())]


def _mode(metric: str, runs: Iterable[History]) -> str | None:
    """The direction in which a metric is better, where the runs know it and agree."""
    known = {mode for history in runs if (mode := history.mode(metric))}
    return known.pop() if len(known) == 1 else None


def _numbers(metric: str, mode: str | None, values: dict[str, list[float | None]]) -> Column:
    """Values of a metric side by side, the best of each marked."""
    marked = [_marked(numbers, mode) for numbers in values.values()]
    widths = [max(map(len, texts)) for texts in marked]
    titles = [f"{when:>{width - 1}} " for when, width in zip(values, widths, strict=True)]
    texts = [Text(" ").join(row) for row in zip(*marked, strict=True)]
    names = {f"{metric} {when}".strip(): numbers for when, numbers in values.items()}
    return Column("\n".join((metric, " ".join(titles))).rstrip(), texts, names)


def _marked(values: Sequence[float | None], mode: str | None) -> list[Text]:
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    best = None
    if mode is not None and len(numbers) > 1:
        best = max(numbers) if mode == "max" else min(numbers)
    texts = [_decimal(value) for value in values]
    width = max(4, *map(len, texts))  # of "best" at least
    pairs = [(text.rjust(width), best is not None and value == best) for text, value in zip(texts, values, strict=True)]
    return [Text(f"{text}*", style="bold") if is_best else Text(f"{text} ") for text, is_best in pairs]


def _facts(histories: dict[str, History]) -> Iterable[Column]:
    runs = list(histories.values())
    summaries = [history.summary or Summary() for history in runs]
    rows = [history.best for history in runs]
    yield _fact("best epoch", [None if row is None else int(row["epoch"]) + 1 for row in rows], _count)
    yield _fact("epochs", [history.epochs for history in runs], _count)
    yield _fact("seconds", [summary.seconds for summary in summaries], _duration, "time")
    yield _fact("parameters", [summary.trainable_parameters for summary in summaries], _count)
    for name in ("device", "processes"):
        values = [getattr(summary, name) for summary in summaries]
        if len(set(values) - {None}) > 1:
            yield _fact(name, values, _option)


def _fact(name: str, values: list[Any], show: Callable[[Any], str], head: str = "") -> Column:
    texts = [Text(ABSENT if value is None else show(value)) for value in values]
    return Column((head or name).replace(" ", "\n"), texts, {name: values}, right=True)


def _options(histories: dict[str, History]) -> Iterable[Column]:
    """The options that differ; a class stands under the option's own name, as on the command line."""
    found = differences([history.config for history in histories.values()])
    for name in dict.fromkeys(name.removesuffix(".class_path") for name in found if name not in NOT_OPTIONS):
        classes = found.get(f"{name}.class_path", [None] * len(histories))
        plain = found.get(name, [None] * len(histories))
        values = [value if cls is None else cls for cls, value in zip(classes, plain, strict=True)]
        texts = [_option(value) for value in values]
        if any(classes):
            texts = _without_modules(texts)
        numbers = all(isinstance(value, int | float | None) for value in values)
        yield Column(name.replace(".", ".\n"), [Text(text) for text in texts], {name: values}, right=numbers)


def _decimal(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value) else f"{value:.3e}"


def _count(value: int) -> str:
    return f"{value:,}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _option(value: Any) -> str:
    """An option as people write it; a class with its options as a call."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_option, value))
    if not isinstance(value, dict):
        return str(value)
    if "class_path" in value:
        return f"{value['class_path'].rpartition('.')[2]}({_option(value.get('init_args') or {})})"
    return ", ".join(f"{key}={_option(item)}" for key, item in value.items())


def _without_modules(class_paths: Sequence[str]) -> list[str]:
    """The classes' own names, unless two of them have the same."""
    names = [path.rpartition(".")[2] for path in class_paths]
    return names if len(set(names)) == len(set(class_paths)) else list(class_paths)


# ---- what is printed and written


def _print_table(names: Sequence[str], columns: Iterable[Column]) -> None:
    """One table; where a line is too short for it, several, each with the runs' names."""
    width = shutil.get_terminal_size((LINE_OF_FILE, 0)).columns
    console = Console(width=UNLIMITED, highlight=False)
    block: list[Column] = []
    for column in columns:
        if block and Measurement.get(console, console.options, _table(names, [*block, column])).maximum > width:
            console.print(_table(names, block))
            console.print()
            block = []
        block.append(column)
    console.print(_table(names, block))


def _table(names: Sequence[str], columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", vertical="bottom", no_wrap=True)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(Text(column.head), justify=justify, vertical="bottom", max_width=WIDEST_VALUE, overflow="fold")
    for name, *cells in zip(names, *(column.texts for column in columns), strict=True):
        table.add_row(Text(name), *cells)
    return table


def _notes(histories: dict[str, History]) -> Iterable[str]:
    """What the reader of the table must know."""
    yield ""
    monitors: dict[tuple[str, str], list[str]] = {}
    for label, history in histories.items():
        monitors.setdefault(history.monitor, []).append(label)
    for (metric, mode), names in monitors.items():
        whose = "" if len(monitors) == 1 else f" of {', '.join(names)}"
        yield f"best: the epoch{whose} with the {'largest' if mode == 'max' else 'smallest'} {metric}"
    if len(histories) > 1:
        yield "*: the best of these runs, where it is known whether small or large is better"
    unknown_monitor = [label for label, history in histories.items() if history.summary is None]
    if unknown_monitor:
        yield f"{', '.join(unknown_monitor)}: without {SUMMARY}, as from an earlier version; the best epoch is a guess"
    if len(histories) == 1:
        yield "one run: there is nothing to compare it with"


def _csv(histories: dict[str, History], columns: Sequence[Column]) -> str:
    """One row for each run, with all digits and whole class paths."""
    named = {name: values for column in columns for name, values in column.values.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "path", *named])
    for label, history, *cells in zip(histories, histories.values(), *named.values(), strict=True):
        plain = [json.dumps(cell, default=str) if isinstance(cell, list | dict | bool) else cell for cell in cells]
        writer.writerow([label, history.path, *plain])
    return text.getvalue()


def _draw(histories: dict[str, History], chosen: Iterable[str], path: Path) -> bool:
    """Draw the curves of the chosen metrics; False where none has curves, such as those of a test."""
    from leyden import draw  # matplotlib takes longer than all before it

    curves = sorted(_curves(histories, chosen), key=lambda name: name == "lr")
    if not curves:
        path.unlink(missing_ok=True)  # what an earlier comparison drew there
        return False
    lines = {
        label: {name: series(history.rows, name) for name in curves if name in history.metrics}
        for label, history in histories.items()
    }
    best = {
        label: (history.monitor[0], row["epoch"] + 1, row[history.monitor[0]])
        for label, history in histories.items()
        if (row := history.best) is not None and history.monitor[0] in curves
    }
    linear = [name for name in curves if _mode(name, histories.values()) == "max"]
    draw.save(draw.overlay(lines, best, linear), path)
    return True
