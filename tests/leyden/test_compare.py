"""`compare`: the table, comparison.csv, the picture, and what is refused; on runs written by hand as `fit` does."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from leyden import draw
from leyden.main import main

MAX = {"monitor": "val/accuracy", "mode": "max", "better": {"accuracy": "max", "loss": "min"}}
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.0}}
Metrics = Mapping[str, Sequence[float | None]]


def make_run(
    path: str,
    metrics: Metrics,
    summary: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    test: Mapping[str, Any] | None = None,
) -> None:
    """A run of epochs of five steps; `metrics` holds one value for each epoch."""
    run = Path(path)
    run.mkdir(parents=True)
    experiment = {"experiment": run.parent.name, "runs": str(run.parents[1])}
    run.joinpath("config.yaml").write_text(yaml.safe_dump({**(config or {}), **experiment}))
    rows = [(epoch, 5 * epoch + 4, *values) for epoch, values in enumerate(zip(*metrics.values(), strict=True))]
    with run.joinpath("metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "step", *metrics), *rows])
    if summary is not None:
        run.joinpath("summary.json").write_text(json.dumps(summary))
    if test is not None:
        run.joinpath("test").mkdir()
        run.joinpath("test", "metrics.json").write_text(json.dumps({"checkpoint": "best.ckpt", **test}))


@pytest.fixture
def two_runs() -> None:
    """mlp is best in its second of three epochs, lenet in its last; only lenet was tested, and only it has f1."""
    make_run(
        "runs/mlp/1",
        {"val/loss": [0.9, 0.7, 0.5], "val/accuracy": [0.5, 0.75, 0.625], "train/samples_per_second": [1, 2, 3]},
        {**MAX, "seconds": 3725.0, "trainable_parameters": 203530, "device": "cpu", "processes": 1},
        {"model": {"init_args": {"optimizer": SGD, "compile": False, "seed": 1}}},
    )
    make_run(
        "runs/lenet/1",
        {
            "val/loss": [0.9, 0.6],
            "val/accuracy": [0.25, 0.875],
            "val/f1": [1.0, 2.0],
            "train/samples_per_second": [1, 2],
        },
        {**MAX, "seconds": 64.6, "trainable_parameters": 61706, "device": "cpu", "processes": 2},
        {"model": {"init_args": {"optimizer": SGD | {"init_args": {"lr": 0.01}}, "compile": True, "seed": 1}}},
        {"test/accuracy": 0.8125, "test/note": "text"},
    )


Compared = Callable[..., str]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compared:
    """Run `compare` with an exit status, and return what it printed."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        found = main(["compare", *words])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return printed.err if status else printed.out

    return run


def rows(printed: str) -> dict[str, str]:
    """The first table's rows by the run's label, with one space between cells."""
    _, _, body = printed.partition("─\n")
    lines = body.partition("\n\n")[0].splitlines()
    return {label: " ".join(cells) for label, *cells in map(str.split, lines)}


def read_csv(path: str = "comparison/comparison.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the table


@pytest.mark.usefixtures("two_runs")
def test_a_row_for_each_run_with_what_came_out_and_what_differs(compare: Compared) -> None:
    printed = compare("runs/mlp/1", "runs/lenet/1")
    assert rows(printed) == {
        # val/loss best last, val/accuracy best last, test/accuracy, best epoch, epochs, time, parameters, processes,
        # model.compile, model.optimizer.lr
        "mlp/1": "0.7000 0.5000* 0.7500 0.6250 - 2 3 1 h 02 min 203,530 1 false 0.1",
        "lenet/1": "0.6000* 0.6000 0.8750* 0.8750* 0.8125 2 2 1 min 05 s 61,706 2 true 0.01",
    }
    head = printed.partition("─")[0]
    for word in (
        "val/loss",
        "val/accuracy",
        "test/accuracy",
        "best",
        "last",
        "epochs",
        "time",
        "parameters",
        "compile",
    ):
        assert word in head
    for word in ("f1", "samples_per_second", "device", "seed", "experiment", "momentum"):
        assert word not in head, "not shared, not a result, equal in both, or off in the one that lacks it"
    assert "best: the epoch with the largest val/accuracy" in printed


@pytest.mark.usefixtures("two_runs")
def test_programs_get_all_digits_in_a_csv(compare: Compared) -> None:
    compare("runs/mlp/1", "runs/lenet/1", "--out", "some/folder")
    mlp, lenet = read_csv("some/folder/comparison.csv")
    assert mlp == {
        "run": "mlp/1",
        "path": "runs/mlp/1",
        "val/loss best": "0.7",
        "val/loss last": "0.5",
        "val/accuracy best": "0.75",
        "val/accuracy last": "0.625",
        "test/accuracy": "",
        "best epoch": "2",
        "epochs": "3",
        "seconds": "3725.0",
        "parameters": "203530",
        "processes": "1",
        "model.compile": "false",
        "model.optimizer.lr": "0.1",
    }
    assert (lenet["test/accuracy"], lenet["seconds"], lenet["model.optimizer.lr"]) == ("0.8125", "64.6", "0.01")


def test_only_directions_that_are_known_and_agreed_on_are_marked(compare: Compared) -> None:
    metrics = {"val/accuracy": [0.5], "val/error": [0.5], "val/score": [1.0], "val/hinge_loss": [3.0]}
    larger = {name: [2 * values[0]] for name, values in metrics.items()}
    make_run("runs/a/1", metrics, {"better": {"accuracy": "max", "score": "max"}})
    make_run("runs/b/1", larger, {"better": {"accuracy": "max", "score": "min"}})
    assert rows(compare("runs/a", "runs/b", "--metric", "val/accuracy"))["b/1"].startswith("- 1.0000* ")
    assert rows(compare("runs/a", "runs/b", "--metric", "val/hinge_loss"))["a/1"].startswith("- 3.0000* ")
    for name in ("val/error", "val/score"):
        assert "*" not in "".join(rows(compare("runs/a", "runs/b", "--metric", name)).values())


def test_values_that_are_not_numbers_are_never_the_best(compare: Compared) -> None:
    for name, value in (("a", float("nan")), ("b", float("inf")), ("c", 0.5), ("d", 0.25)):
        make_run(f"runs/{name}/1", {"val/loss": [value]}, {"monitor": "val/loss", "mode": "min"})
    found = rows(compare(*(f"runs/{name}" for name in "abcd")))
    assert [found[f"{name}/1"].split()[1] for name in "abcd"] == ["nan", "inf", "0.5000", "0.2500*"]


def test_runs_without_a_summary_are_compared_too(compare: Compared) -> None:
    make_run("runs/old/1", {"val/loss": [2.0, 3.0], "val/accuracy": [0.5, 0.75]})
    make_run("runs/new/1", {"val/loss": [2.5, 4.0], "val/accuracy": [0.5, 0.75]}, {**MAX, "seconds": 1.25})
    printed = compare("runs/old/1", "runs/new/1")
    assert rows(printed)["old/1"] == "2.0000* 3.0000* 0.5000 0.7500* 1 2 - -"
    assert rows(printed)["new/1"] == "4.0000 4.0000 0.7500* 0.7500* 2 2 1.2 s -"
    assert "best: the epoch of old/1 with the smallest val/loss" in printed
    assert "best: the epoch of new/1 with the largest val/accuracy" in printed
    assert "old/1: without summary.json" in printed


def test_runs_of_other_families_meet_in_what_they_share(compare: Compared) -> None:
    make_run("runs/classifier/1", {"val/loss": [2.0], "val/accuracy": [0.5], "train/loss": [1.0]})
    make_run("runs/translator/1", {"val/loss": [4.0], "val/bleu": [20.0], "lr": [0.1]})
    make_run("runs/detector/1", {"val/map": [0.25], "train/loss": [3.0]})
    found = read_csv_after(compare, "runs/classifier", "runs/translator", "runs/detector")
    assert [name for name in found[0] if "/" in name] == [
        "val/loss best",
        "val/loss last",
        "train/loss best",
        "train/loss last",
    ]
    assert [row["val/loss last"] for row in found] == ["2.0", "4.0", ""]
    assert [row["train/loss last"] for row in found] == ["1.0", "", "3.0"]


def read_csv_after(compare: Compared, *words: str) -> list[dict[str, str]]:
    compare(*words)
    return read_csv()


@pytest.mark.usefixtures("two_runs")
def test_metrics_can_be_named_whole_or_for_all_stages(compare: Compared) -> None:
    both = ["runs/mlp/1", "runs/lenet/1", "--metric"]
    named = read_csv_after(compare, *both, "accuracy", "train/samples_per_second")[0]
    assert [name for name in named if "/" in name] == [
        "val/accuracy best",
        "val/accuracy last",
        "test/accuracy",
        "train/samples_per_second best",
        "train/samples_per_second last",
    ]
    assert [row["val/f1 last"] for row in read_csv_after(compare, *both, "f1")] == ["", "2.0"], (
        "asked for, so not left out"
    )


@pytest.mark.usefixtures("two_runs")
def test_classes_and_lists_are_written_as_people_write_them(compare: Compared) -> None:
    ema = {"class_path": "leyden.callbacks.EMA", "init_args": {"decay": 0.998}}
    for name, net, sizes, callbacks in (("a", "x.LeNet", [64, 32], None), ("b", "y.ResNet", [64], [ema])):
        nested = {"net": {"class_path": f"package.{net}", "init_args": {"sizes": sizes}}}
        make_run(f"runs/{name}/1", {"val/loss": [1.0]}, None, {"model": nested, "trainer": {"callbacks": callbacks}})
    printed = compare("runs/a", "runs/b")
    assert re.search(r"^a/1 .* LeNet +64, 32 +- *$", printed, re.MULTILINE)
    assert re.search(r"^b/1 .* ResNet +64 +EMA\(decay=0\.998\) *$", printed, re.MULTILINE)
    a, b = read_csv()
    assert (a["model.net"], b["model.net"]) == ("package.x.LeNet", "package.y.ResNet")
    assert (json.loads(a["model.net.sizes"]), a["trainer.callbacks"], json.loads(b["trainer.callbacks"])) == (
        [64, 32],
        "",
        [ema],
    )

    other = yaml.safe_load(Path("runs/b/1/config.yaml").read_text())
    other["model"]["net"]["class_path"] = "other.LeNet"
    Path("runs/b/1/config.yaml").write_text(yaml.safe_dump(other))
    assert "package.x.LeNet" in compare("runs/a", "runs/b"), "two classes of one name"


def test_a_class_in_one_run_and_a_plain_value_in_another_share_a_column(compare: Compared) -> None:
    for name, net in (("a", "package.function"), ("b", {"class_path": "package.Net"}), ("c", None)):
        make_run(f"runs/{name}/1", {"val/[loss]": [1.0]}, None, {"model": {"net": net}})
    assert "val/[loss]" in compare("runs/a", "runs/b", "runs/c")
    assert [row["model.net"] for row in read_csv()] == ["package.function", "package.Net", ""]


def test_nothing_is_cut_off_and_a_narrow_terminal_gets_several_tables(
    compare: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = "an_experiment_with_a_very_long_name_[red]indeed"
    metrics = {f"val/metric_number_{index}": [0.5] for index in range(6)}
    for number in (1, 2):
        options = {"option": f"{number} " + "word " * 30}
        make_run(f"runs/{experiment}/{number}", metrics, None, {"model": {"init_args": options}})
    targets = [f"runs/{experiment}/{number}" for number in (1, 2)]
    for columns in ("100", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        printed = compare(*targets).partition("\n\nbest:")[0]
        assert "…" not in printed
        assert max(map(len, printed.splitlines())) <= int(columns)
        tables = printed.count(f"{experiment}/1")
        assert tables == printed.count(f"{experiment}/2")
        assert (tables > 1) == (columns == "100")
        assert all(name in printed for name in metrics)
        assert printed.count("word") == 60


def test_a_run_alone_is_shown_and_it_is_said_that_nothing_is_compared(compare: Compared, trained_run: Path) -> None:
    """A run that `fit` wrote."""
    printed = compare("runs/trained")
    [row] = read_csv()
    own = [line.split(",") for line in trained_run.joinpath("metrics.csv").read_text().splitlines()]
    last = dict(zip(own[0], own[-1], strict=True))
    assert row["val/accuracy last"] == last["val/accuracy"]
    assert (row["epochs"], row["parameters"]) == ("3", "61932")
    assert 0 < float(row["seconds"]) < 60
    assert "one run: there is nothing to compare it with" in printed
    assert "*" not in printed


def test_neither_torch_nor_lightning_is_imported(trained_run: Path) -> None:
    shutil.copytree(trained_run, "runs/other/1")
    code = "import sys; from leyden.main import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    words = ["compare", "runs/trained/1", "runs/other/1"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "'matplotlib'" in found.stdout
    assert not re.search(r"'(torch|lightning|torchmetrics|jsonargparse)'", found.stdout)


# ---- the picture


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    found: list[Figure] = []
    save = draw.save

    def keep(picture: Any, path: Path) -> None:
        found.append(picture)
        save(picture, path)

    monkeypatch.setattr(draw, "save", keep)
    return found


def panels(figure: Figure) -> dict[str, Any]:
    return {axes.get_title(): axes for axes in figure.axes}


def test_a_panel_for_each_metric_and_a_line_for_each_run(compare: Compared, drawn: list[Figure]) -> None:
    make_run("runs/a/1", {"lr": [0.1] * 2, "train/loss": [3.0, 2.0], "val/loss": [4.0, 3.0], "val/f1": [1.0, 0.5]})
    make_run("runs/b/1", {"lr": [0.2] * 2, "train/loss": [3.5, 2.5], "val/loss": [4.5, 5.5], "val/f1": [1.0, 0.75]})
    compare("runs/a", "runs/b")

    found = panels(drawn[0])
    assert list(found) == ["loss", "val/f1", "lr"]
    lines = {(line.get_label(), line.is_dashed()): line for line in found["loss"].get_lines()}
    assert lines["a/1", False].get_xydata().tolist() == [[1.0, 4.0], [2.0, 3.0]], "validation"
    assert lines["b/1", True].get_xydata().tolist() == [[1.0, 3.5], [2.0, 2.5]], "training"
    assert len({lines["a/1", dashed].get_color() for dashed in (False, True)}) == 1
    [stars] = [
        [star.get_offsets().tolist()[0] for star in axes.collections] for axes in found.values() if axes.collections
    ]
    assert stars == [[2.0, 3.0], [1.0, 4.5]], "the epochs with the smallest val/loss"
    [legend] = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a/1", "b/1", "validation", "training", "best epoch"]
    with Image.open("comparison/comparison.png") as picture:
        picture.load()


def test_training_alone_is_a_solid_line() -> None:
    figure = draw.overlay({"a": {"train/loss": [(1.0, 2.0)]}}, {})
    [line] = panels(figure)["train/loss"].get_lines()
    assert not line.is_dashed()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([2.3, 0.5, 0.04, 0.01], "log"),
        ([0.5, 0.4, 1e6, 0.3], "log"),
        ([2.3, 1.0, 0.7, 0.6], "linear"),
        ([2.3, 0.5, 0.0, 0.01], "linear"),
        ([2.3, 0.5, -0.04, 0.01], "linear"),
        ([float("nan"), float("inf"), 1.0, 0.9], "linear"),
        ([float("nan")] * 4, "linear"),
    ],
)
def test_positive_values_of_very_different_size_have_a_logarithmic_scale(values: list[float], scale: str) -> None:
    runs = {str(run): {"val/loss": [(1.0, a), (2.0, b)]} for run, (a, b) in enumerate([values[:2], values[2:]])}
    [axes] = draw.overlay(runs, {}).axes
    assert axes.get_yscale() == scale
    [axes] = draw.overlay(runs, {}, linear=["val/loss"]).axes
    assert axes.get_yscale() == "linear"


def test_an_accuracy_is_read_at_its_upper_end(compare: Compared, drawn: list[Figure]) -> None:
    metrics = {"val/loss": [1.0, 0.01], "val/accuracy": [0.001, 0.9]}
    for name in "ab":
        make_run(f"runs/{name}/1", metrics, MAX)
    compare("runs/a", "runs/b")
    assert {title: axes.get_yscale() for title, axes in panels(drawn[0]).items()} == {
        "val/loss": "log",
        "val/accuracy": "linear",
    }


@pytest.mark.parametrize("count", [2, 10, 20, 40])
def test_every_run_has_a_colour_of_its_own(count: int) -> None:
    colours = [to_rgb(colour) for colour in draw.distinct_colours(count)]
    assert len(colours) == count
    nearest = min(sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) ** 0.5 for pair in combinations(colours, 2))
    assert nearest > {2: 0.2, 10: 0.2, 20: 0.09, 40: 0.02}[count]


def test_of_equal_lines_all_are_seen() -> None:
    same = {"lr": [(1.0, 0.1), (2.0, 0.1)]}
    [axes] = draw.overlay({"a": same, "b": same, "c": {"lr": [(1.0, 0.2)]}}, {}).axes
    width = {line.get_label(): line.get_linewidth() for line in axes.get_lines()}
    assert width["a"] >= 1.5 + width["b"]
    assert width["b"] == width["c"]


@pytest.mark.parametrize("names", [["a"], [f"a_long_name_of_an_experiment/{n}" for n in range(30)], ["x" * 200, "y"]])
@pytest.mark.parametrize("metrics", [1, 4, 5])
def test_the_legend_lies_outside_the_panels_and_inside_the_picture(names: list[str], metrics: int) -> None:
    runs = {name: {f"val/m{index}": [(1.0, 0.5), (2.0, 1.0)] for index in range(metrics)} for name in names}
    figure = draw.overlay(runs, {})
    figure.draw_without_rendering()
    [legend] = figure.legends
    box = legend.get_window_extent()
    assert all(not box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert box.y0 >= 0
    assert all(axes.get_window_extent().height > 150 for axes in figure.axes)
    if len(names[0]) < 200:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_a_tests_metrics_have_no_curves(compare: Compared) -> None:
    for name in "ab":
        make_run(f"runs/{name}/1", {"val/loss": [1.0]}, None, None, {"test/loss": 2.0})
    assert "comparison.png" in compare("runs/a", "runs/b")
    assert "comparison.png" not in compare("runs/a", "runs/b", "--metric", "test/loss")
    assert [path.name for path in Path("comparison").iterdir()] == ["comparison.csv"], (
        "and none of an earlier comparison"
    )


# ---- what is refused


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "compare needs runs: compare RUN RUN ..."),
        (["runs/mlp/1", "runs/lenett"], 2, "there is no run 'runs/lenett'. Did you mean runs/lenet?"),
        (["runs"], 2, "Did you mean runs/lenet runs/mlp?"),
        (["runs/mlp/1/metrics.csv"], 2, "is a file; name the run's folder"),
        (["runs/mlp/1", "runs/mlp/1"], 2, "runs/mlp/1 and runs/mlp/1 are the same run"),
        (["runs/mlp", "runs/mlp/../mlp/1/"], 2, "are the same run"),
        (["runs/mlp", "runs/lenet", "--metric", "val/acuracy"], 2, "Did you mean val/accuracy?"),
        (["--metric", "f1", "runs/mlp", "runs/lenet"], 2, "runs/mlp is a folder, not a metric"),
        (["runs/mlp", "--out", "runs/mlp/1/config.yaml"], 1, "cannot be written: File exists. Choose another"),
        (["runs/mlp", "--out", "/proc/here"], 1, "the folder /proc/here cannot be written"),
        (["runs/" + "x" * 300], 1, "File name too long"),
    ],
)
def test_wrong_words_cost_one_line(compare: Compared, words: list[str], status: int, message: str) -> None:
    printed = compare(*words, status=status)
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not Path("comparison").exists()


def test_runs_that_share_nothing_are_refused_with_what_each_has(compare: Compared) -> None:
    make_run("runs/a/1", {"val/loss": [1.0], "lr": [0.1]})
    make_run("runs/b/1", {"val/bleu": [1.0], "lr": [0.1]})
    printed = compare("runs/a", "runs/b", status=2)
    assert "the runs share no metric" in printed
    assert printed.splitlines()[1:] == ["a/1 has val/loss, lr", "b/1 has val/bleu, lr"]


@pytest.mark.usefixtures("two_runs")
def test_a_damaged_file_is_named_with_its_line(compare: Compared) -> None:
    path = Path("runs/mlp/1/metrics.csv")
    path.write_text(path.read_text().replace("0.75", "three"))
    printed = compare("runs/lenet", "runs/mlp", status=1)
    assert "runs/mlp/1/metrics.csv line 3, column val/accuracy: 'three' is not a number." in printed
    path.write_text("epoch,step,train/loss_step\n0,9,1.0\n")
    assert "runs/mlp/1 has no finished epoch yet" in compare("runs/lenet", "runs/mlp", status=2)
