"""crossval: folds through the real command line, their ranking, going on after an interruption, and the refit."""

import csv
import math
from pathlib import Path
from statistics import mean

import pytest
import yaml

from leyden.callbacks.graceful_stop import StoppedError
from leyden.commands import crossval
from leyden.history import History
from leyden.main import main
from leyden.runs import read_checkpoint


def write_config(name: str, **options) -> str:
    model = {
        "net": "SoftmaxRegression",
        "optimizer": {"class_path": "SGD", "init_args": {"lr": options.pop("lr", 0.1)}},
    }
    trainer = {"max_epochs": 2, "accelerator": "cpu"} | options.pop("trainer", {})
    config = {"model": {"class_path": "ImageClassifier", "init_args": model | options}, "data": "FashionMNIST"}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(config | {"trainer": trainer}))
    return f"{name}.yaml"


@pytest.fixture
def data(data_options):
    """Options behind the configs: tiny pictures."""
    return data_options[2:]


def rows(folder="runs/crossval_3"):
    with Path(folder, "crossval.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_better_config_is_ranked_first_by_the_mean_of_its_folds(data, capsys):
    good, bad = write_config("good"), write_config("bad", lr=1e-6)
    assert main(["crossval", "--folds", "3", bad, good, *data]) == 0
    said = capsys.readouterr().out
    assert said.index("bad: fold 3/3") < said.index("good: fold 1/3")
    assert "best: good" in said
    assert Path("runs/crossval_3/crossval.png").is_file()
    table = rows()
    assert [(row["config"], row["fold"]) for row in table] == [(n, f) for n in ("good", "bad") for f in "123"]
    for row in table:
        history = History.read(Path(f"runs/crossval_3/{row['config']}/fold_{row['fold']}_of_3/1"))
        assert float(row["val/accuracy"]) == history.at_last("val/accuracy")
    shown = next(line for line in said.splitlines() if line.startswith("│ good"))
    assert f"{mean(float(row['val/loss']) for row in table[:3]):.4f} ±" in shown


def test_finished_folds_are_not_trained_again_and_interrupted_ones_go_on(data, monkeypatch, capsys):
    config = write_config("one")
    fit, fitted = crossval._fit, []

    def interrupted(config, experiment, processes):
        fitted.append(experiment.name)
        if len(fitted) == 2:
            config = {**config, "trainer": {**config["trainer"], "max_epochs": 1}}
            fit(config, experiment, processes)
            raise StoppedError("stopped")
        fit(config, experiment, processes)

    monkeypatch.setattr(crossval, "_fit", interrupted)
    assert main(["crossval", "--folds", "3", config, *data]) == 130
    assert fitted == ["fold_1_of_3", "fold_2_of_3"]
    interrupted_run = Path("runs/crossval_3/one/fold_2_of_3/1")
    text = (interrupted_run / "config.yaml").read_text().replace("max_epochs: 1", "max_epochs: 2")
    (interrupted_run / "config.yaml").write_text(text)
    fitted.append("again")
    assert main(["crossval", "--folds", "3", config, *data]) == 0
    assert fitted[3:] == ["fold_2_of_3", "fold_3_of_3"]
    assert "one: fold 1/3" in (said := capsys.readouterr().out)
    assert "done before" in said
    assert [path.name for path in Path("runs/crossval_3/one/fold_2_of_3").glob("[0-9]*")] == ["1"]
    assert History.read(interrupted_run).epochs == 2


def test_who_stops_it_is_told_how_to_go_on(data, monkeypatch, capsys):
    def stopped(command, words):
        raise StoppedError("go on with the same command and --resume auto.")

    monkeypatch.setattr(crossval.cli, "run", stopped)
    assert main(["crossval", "--folds", "2", write_config("one"), *data]) == 130
    said = capsys.readouterr().err
    assert "crossval_2/one/fold_1_of_2 was trained. The same command goes on from there." in said
    assert "--resume" not in said


def test_folds_of_another_config_are_not_mistaken_for_these(data, capsys):
    config = write_config("one", trainer={"max_epochs": 1})
    assert main(["crossval", "--folds", "2", config, *data]) == 0
    assert main(["crossval", "--folds", "2", config, *data, "--model.optimizer.lr", "0.2"]) == 2
    assert "model.optimizer.lr was 0.1, not 0.2" in capsys.readouterr().err


def test_the_winner_is_trained_on_all_data(data, capsys):
    good, bad = write_config("good"), write_config("bad", lr=1e-6)
    assert main(["crossval", "--folds", "2", good, bad, *data, "--refit", "--checkpoint", "best"]) == 0
    refit = Path("runs/crossval_2/good/refit/1")
    assert str(refit) in capsys.readouterr().out
    checkpoint = read_checkpoint(refit / "checkpoints" / "last.ckpt")
    steps = -(-96 // 16) * checkpoint["epoch"] + 6  # 75 + 21 pictures in batches of 16
    assert checkpoint["global_step"] == steps
    assert not (refit / "checkpoints" / "best.ckpt").exists()
    assert not Path("runs/crossval_2/bad/refit").exists()


def test_early_stopping_says_how_long_the_refit_trains(data):
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 1e9}}
    config = write_config("one", trainer={"max_epochs": 9, "callbacks": [stopping]})
    assert main(["crossval", "--folds", "2", config, *data, "--refit"]) == 0
    assert {row["epochs"] for row in rows("runs/crossval_2")} == {"2"}
    assert read_checkpoint(Path("runs/crossval_2/one/refit/1/checkpoints/last.ckpt"))["epoch"] == 1


def test_a_config_that_diverges_is_left_out_and_the_others_are_ranked(data, capsys):
    good, bad = write_config("good"), write_config("bad", lr=1e38)
    assert main(["crossval", "--folds", "2", bad, good, *data]) == 1
    said = capsys.readouterr().out
    assert "bad is not ranked: it failed in fold 1: the loss became" in said
    assert "best: good" in said
    assert {row["config"] for row in rows("runs/crossval_2")} == {"good"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--folds", "1"], "--folds is 1; there must be at least 2"),
        (["--folds", "200"], "200 folds cannot be cut from 96 items"),
        (["--folds", "2", "--metric", "val/acuracy"], "Did you mean val/accuracy?"),
        (["--folds", "2", "--data.fold", "1/2"], "names a fold of its own"),
        (["--folds", "2", "--model.net", "LeNett"], "Did you mean LeNet?"),
        (["--folds", "2", "--refit", "--model.lr_scheduler", "ReduceLROnPlateau"], "one cannot be refitted"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words, found, data, capsys):
    config = write_config("one", trainer={"max_epochs": 1})
    assert main(["crossval", config, *data, *words]) == 2
    assert found in capsys.readouterr().err


def test_a_misspelt_metric_is_refused_before_further_folds_are_trained(data, capsys):
    config = write_config("one", trainer={"max_epochs": 1})
    assert main(["crossval", "--folds", "2", config, *data, "--metric", "val/acuracy"]) == 2
    assert "fold 2/2" not in capsys.readouterr().out


def test_a_metric_that_is_nan_has_no_spread_and_ranks_nothing(data, capsys, monkeypatch):
    measured = crossval._metrics
    monkeypatch.setattr(crossval, "_metrics", lambda *told: measured(*told) | {"val/accuracy": math.nan})
    command = ["crossval", "--folds", "2", write_config("one", trainer={"max_epochs": 1}), *data]
    assert main([*command, "--metric", "val/loss"]) == 0
    assert "│ nan" in capsys.readouterr().out
    assert main(command) == 1  # accuracy is what picks the best checkpoint
    assert "val/accuracy is nan in some fold of every config" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "order"), [("min", [1.0, 2.0]), ("max", [2.0, 1.0])])
def test_nan_is_ranked_last(mode, order):
    ranked = sorted([math.nan, 2.0, math.nan, 1.0], key=lambda value: crossval._rank(value, mode))
    assert ranked[:2] == order


def test_two_configs_of_one_name_are_refused(data, capsys):
    Path("other").mkdir()
    config = write_config("one")
    Path("other/one.yaml").write_text(Path(config).read_text())
    assert main(["crossval", "--folds", "2", config, "other/one.yaml", *data]) == 2
    assert "two configs are called 'one'" in capsys.readouterr().err


def test_a_fold_in_two_processes(data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = write_config("one", trainer={"max_epochs": 1, "devices": 2, "strategy": "ddp"})
    assert main(["crossval", "--folds", "2", config, *data]) == 0
    assert len(rows("runs/crossval_2")) == 2
