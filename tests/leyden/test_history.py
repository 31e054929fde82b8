"""Reading a run's folder back: rows of metrics.csv, the best epoch, directions, damaged files, folders and labels."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.errors import DataError, UsageError
from leyden.history import History, Summary, find_run, labels, read_rows, series

HEAD = "epoch,step,val/loss,val/accuracy,train/loss\n"
ROWS = HEAD + "0,4,0.9,0.5,1.5\n1,7,,,\n1,9,0.5,0.75,1.0\n2,14,0.6,0.75,0.25\n"


def make_run(path: str, metrics: str = ROWS, summary: Mapping[str, Any] | None = None) -> Path:
    run = Path(path)
    run.mkdir(parents=True)
    run.joinpath("config.yaml").write_text("model:\n  class_path: some.Task\n")
    run.joinpath("metrics.csv").write_text(metrics)
    if summary is not None:
        run.joinpath("summary.json").write_text(json.dumps(summary))
    return run


def write(text: str | bytes) -> Path:
    path = Path("metrics.csv")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- rows


def test_a_row_holds_what_was_logged_there() -> None:
    rows = read_rows(write("epoch,step,a,b\n0,4,0.5,\n1,9,,-3e-5\n\n2,14,nan,-inf\n"))
    assert rows[:2] == [{"epoch": 0, "step": 4, "a": 0.5}, {"epoch": 1, "step": 9, "b": -3e-5}]
    assert math.isnan(rows[2]["a"])
    assert rows[2]["b"] == -math.inf


values = st.floats(allow_nan=False) | st.integers(0, 10**9)


@given(st.lists(st.fixed_dictionaries({}, optional={"val/loss": values, 'a "b", c': values}), max_size=5))
def test_rows_written_with_the_csv_module_come_back(cells: list[dict[str, float]]) -> None:
    rows = [{"epoch": epoch, "step": 5 * epoch + 4, **row} for epoch, row in enumerate(cells)]
    with Path("metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "val/loss", 'a "b", c'])
        writer.writeheader()
        writer.writerows(rows)
    assert read_rows(Path("metrics.csv")) == rows


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", "line 1", "the column epoch is missing"),
        ("epoch,loss\n0,1\n", "line 1", "the column step is missing"),
        (HEAD + "0,4,0.9,0.5,1.5\n1,9,0.5,0.7\n", "line 3", "it has fewer cells than the head line"),
        (HEAD + "0,4,0.9,0.5,1.5,8\n", "line 2", "it has more cells than the head line"),
        (HEAD + "0,4,0.9,high,1.5\n", "line 2, column val/accuracy", "'high' is not a number"),
        (HEAD + "zero,4,0.9,1,1.5\n", "line 2, column epoch", "'zero' is not a number"),
        (HEAD + ",4,0.9,1,1.5\n", "line 2", "epoch is '', not a whole number"),
        (HEAD + "0,1.5,0.9,1,1.5\n", "line 2", "step is '1.5', not a whole number"),
        (HEAD + '0,4,"0.9,1,1.5\n1,9,0.5,0.7,1\n', "line 2", "unexpected end of data"),
        ('epoch,"step\n0,4\n', "line 1", "unexpected end of data"),
        (HEAD.encode() + b"0,4,1,1,1\n1,\xff,1,1,1\n", "line 3", "is not UTF-8 text"),
    ],
)
def test_a_damaged_file_is_named_with_the_line(text: str | bytes, place: str, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write(text))
    assert str(caught.value).startswith(f"metrics.csv {place}")
    assert what in str(caught.value)


def test_series_start_at_epoch_one_and_leave_out_what_was_not_logged() -> None:
    assert series(read_rows(write(ROWS)), "val/loss") == [(1.0, 0.9), (2.0, 0.5), (3.0, 0.6)]


# ---- a run


def test_the_best_epoch_is_picked_by_the_monitor_of_equals_the_first() -> None:
    history = History.read(make_run("1", summary={"monitor": "val/accuracy", "mode": "max"}))
    assert history.best == {"epoch": 1, "step": 9, "val/loss": 0.5, "val/accuracy": 0.75, "train/loss": 1.0}
    assert (history.at_best("train/loss"), history.at_last("train/loss")) == (1.0, 0.25)
    assert history.epochs == 3


def test_without_a_summary_the_smallest_validation_loss_is_best() -> None:
    history = History.read(make_run("1"))
    assert history.summary is None
    assert history.monitor == ("val/loss", "min")
    assert history.at_best("val/loss") == 0.5


def test_an_epoch_whose_monitor_is_nan_is_never_best() -> None:
    metrics = "epoch,step,val/loss\n0,4,nan\n1,9,2.0\n2,14,nan\n"
    history = History.read(make_run("1", metrics))
    assert (history.at_best("val/loss"), history.best and history.best["epoch"]) == (2.0, 1)


def test_where_the_monitor_was_never_logged_nothing_is_best() -> None:
    history = History.read(make_run("1", "epoch,step,train/loss\n0,4,1.0\n", {"monitor": "val/loss", "mode": "min"}))
    assert history.best is None
    assert history.at_best("train/loss") is None
    assert history.at_last("train/loss") == 1.0


def test_validation_within_an_epoch_is_met_with_what_was_logged_at_the_epochs_end() -> None:
    """Two validations in each epoch; the training loss comes with the second."""
    metrics = "epoch,step,val/loss,train/loss\n0,2,0.8,\n0,5,0.7,3.0\n1,8,0.1,\n1,11,0.6,2.0\n2,14,0.5,\n2,17,0.5,1.0\n"
    history = History.read(make_run("1", metrics))
    assert (history.at_best("val/loss"), history.at_best("train/loss")) == (0.1, 2.0)


def test_what_is_logged_within_an_epoch_makes_no_finished_epoch() -> None:
    metrics = "epoch,step,train/loss_step,gradient_norm/weight\n0,4,1.0,2.0\n"
    with pytest.raises(UsageError, match="no finished epoch yet"):
        History.read(make_run("1", metrics))
    Path("1/metrics.csv").write_text(
        ROWS.replace("\n", ",,\n").replace("loss,,", "loss,train/loss_step,x") + "3,17,,,,9,\n"
    )
    assert History.read(Path("1")).epochs == 3


def test_a_run_that_was_stopped_before_its_first_metric_has_no_finished_epoch() -> None:
    make_run("1").joinpath("metrics.csv").unlink()
    with pytest.raises(UsageError, match=r"^1 has no finished epoch yet"):
        History.read(Path("1"))


def test_directions_are_what_the_run_states_and_that_a_loss_is_better_when_small() -> None:
    stated = History.read(make_run("1", summary={"better": {"accuracy": "max", "loss": "min"}}))
    modes = {name: stated.mode(name) for name in ("test/accuracy", "val/loss", "train/box_loss", "val/f1", "lr")}
    assert modes == {"test/accuracy": "max", "val/loss": "min", "train/box_loss": "min", "val/f1": None, "lr": None}
    unstated = History.read(make_run("2"))
    assert (unstated.mode("val/accuracy"), unstated.mode("val/loss")) == (None, "min")


def test_the_metrics_of_a_test_are_read_and_its_checkpoint_is_none() -> None:
    make_run("1").joinpath("test").mkdir()
    Path("1/test/metrics.json").write_text('{"checkpoint": "1/checkpoints/best.ckpt", "test/loss": 1, "test/f1": NaN}')
    test = History.read(Path("1")).test
    assert list(test) == ["test/loss", "test/f1"]
    assert test["test/loss"] == 1.0
    assert math.isnan(test["test/f1"])


def test_a_summary_of_another_version_is_read_as_far_as_it_is_known() -> None:
    Path("summary.json").write_text('{"trainable_parameters": 12, "seconds": 3, "colour": "red", "epochs": null}')
    assert Summary.read(Path("summary.json")) == Summary(trainable_parameters=12, seconds=3)
    assert Summary.read(Path("nowhere.json")) is None


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("summary.json", '{"task": "a",\n"epochs": }', "summary.json line 2 is damaged"),
        ("summary.json", "[1]", "it is not a mapping but list"),
        ("summary.json", '{"seconds": "long"}', "seconds is 'long'"),
        ("summary.json", '{"epochs": 1.5}', "epochs is 1.5"),
        ("test/metrics.json", "", "metrics.json line 1 is damaged"),
        ("config.yaml", "a: [1\nb: 2\n", "config.yaml is not valid YAML at line 2"),
        ("config.yaml", "- 1\n", "it is not a mapping of options but list"),
    ],
)
def test_every_damaged_file_of_a_run_is_named(name: str, text: str, what: str) -> None:
    path = make_run("runs/a/1", summary={}) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises((DataError, UsageError), match=r"^runs/a/1/") as caught:
        History.read(Path("runs/a/1"))
    assert what in str(caught.value)


# ---- which run is meant


def test_an_experiment_stands_for_its_newest_run() -> None:
    for number in ("2", "10", "9"):
        make_run(f"runs/lenet/{number}")
    Path("runs/lenet/11").mkdir()
    assert find_run("runs/lenet") == Path("runs/lenet/10"), "11 is an empty folder"
    assert find_run("runs/lenet/2/") == Path("runs/lenet/2")
    (Path("runs/lenet/11") / "config.yaml").write_text("a: 1\n")
    assert find_run("runs/lenet") == Path("runs/lenet/10"), "11 is a start that failed"


def test_what_is_no_run_is_refused_with_a_hint() -> None:
    make_run("runs/lenet/1")
    for target, message in {
        "runs/lenett": "there is no run 'runs/lenett'. Did you mean runs/lenet?",
        "runs": "'runs' is no run: config.yaml and metrics.csv are missing, .* Did you mean runs/lenet?",
        "runs/lenet/1/metrics.csv": "is a file; name the run's folder",
    }.items():
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            find_run(target)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/lenet/1"], ["lenet/1"]),
        (["runs/lenet/1", "runs/mlp/1"], ["lenet/1", "mlp/1"]),
        (["runs/lenet/1", "runs/lenet/2"], ["lenet/1", "lenet/2"]),
        (["old/lenet/1", "new/lenet/1", "new/mlp/1"], ["old/lenet/1", "new/lenet/1", "mlp/1"]),
        (["a/runs/lenet/1", "b/runs/lenet/1"], ["a/runs/lenet/1", "b/runs/lenet/1"]),
    ],
)
def test_labels_are_as_short_as_they_can_be(paths: list[str], expected: list[str]) -> None:
    assert labels([Path(path) for path in paths]) == expected


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map("/".join), min_size=1, unique=True))
def test_labels_tell_all_runs_apart(paths: list[str]) -> None:
    found = labels([Path("/", path) for path in paths])
    assert len(set(found)) == len(paths)
    assert all(f"/{path}".endswith(label) for path, label in zip(paths, found, strict=True))
