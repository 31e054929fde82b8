"""The rules for tasks, tried through the real command line: a run, its files, and what can be done with them."""

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from leyden.plugins import path_of
from leyden.rules import undeclared_batch
from leyden.runs import read_checkpoint
from leyden.task import SECTION
from leyden.testing.commands import ON_CPU, Bench, Steady, TaskClass, forked, history
from leyden.testing.data import DataClass
from leyden.testing.rules import BrokenRule, check_documented, equal, require, require_kept

# relative, of small numbers absolute: a mean of the same numbers in another order; the same network compiled, trained,
# computed in bfloat16
ORDER, COMPILED, TRAINED, BFLOAT16 = 1e-6, 1e-4, 1e-5, 0.05
STEPS, SHARE = 50, 2  # of training in processes: its length, and the items in a batch of each of two processes
METRIC_NAME = re.compile(r"(train|val|test)/[a-z][a-z0-9_]*|lr|epoch|step")


def check_task(task: TaskClass, data: DataClass, folder: Path, options: Sequence[str] = ()) -> None:
    """A task in one process: fit, test, repeat, resume, bfloat16, and predict from the checkpoint alone.

    Args:
        task: the class; the command line must be able to import it by its path.
        data: a data module with the task's batch type; its `fabricate` writes the data.
        folder: an empty folder to work in.
        options: further options of `fit`, such as `--model.net LeNet`. With them training must be repeatable: without
            dropout and random augmentation.
    """
    bench = Bench(data, folder, task, options)
    for check in RULES.values():
        check(bench)


def check_processes(task: TaskClass, data: DataClass, folder: Path, options: Sequence[str] = ()) -> None:
    """A task in two and three processes (gloo) that get unequal numbers of batches gives what one process gives.

    Two processes must also train as one does whose batches are twice as large: the same losses in each of 50 steps,
    without what differs by design, dropout and the statistics of batch norm.

    Arguments as for `check_task`; a network with batch norm finds the most mistakes. `data` must fabricate odd numbers
    of validation and test items, at least three.
    """
    _check_processes(Bench(data, folder, task, options))


def _check_processes(bench: Bench) -> None:
    _check_two_processes(bench)
    _check_three_processes(bench)
    _check_training_in_processes(bench)


def _check_two_processes(bench: Bench) -> None:
    last = bench.first_run("two").last
    two = [*ON_CPU, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    bench.launch(
        [*bench.fit_words("two"), *two, _unequal_batches(bench, "val")],
        ["test", str(last), *two, _unequal_batches(bench, "test"), "--out", "test_two"],
        ["predict", str(last), *bench.inputs, *two, "--data.batch_size=2", "--out", "predict_two"],
    )
    validated = history(bench.first_run("two"))[-1]
    whole = "--data.batch_size=null"  # all in one batch
    _require_close("validation in two processes", validated, bench.evaluate("validate", last, whole), ORDER)
    _require_evaluated_alike(bench, "two")


def _check_three_processes(bench: Bench) -> None:
    """They are forked from this one, which takes no time."""
    last = str(bench.first_run("two").last)
    three = [*forked(3), "--data.batch_size=1"]
    bench.run("test", last, *three, "--out", "test_three")
    bench.run("predict", last, *bench.inputs, *three, "--out", "predict_three")
    _require_evaluated_alike(bench, "three")


def _require_evaluated_alike(bench: Bench, processes: str) -> None:
    """What `test` and `predict` found in processes is what they find in one."""
    last = bench.first_run("two").last
    if not (bench.folder / "predict_one").exists():
        bench.run("test", str(last), *ON_CPU, "--data.batch_size=null", "--out", "test_one")
        bench.run("predict", str(last), *bench.inputs, *ON_CPU, "--out", "predict_one")
    tested = bench.metrics(f"test_{processes}")
    _require_close(f"the test in {processes} processes", tested, bench.metrics("test_one"), ORDER)
    one, both = bench.records("predict_one"), bench.records(f"predict_{processes}")
    found = f"`predict` of {bench.task.__name__} gives other records in {processes} processes: {both}, in one {one}"
    require(_without_floats(one) == _without_floats(both), found, "The number of processes must not matter.")


def _check_training_in_processes(bench: Bench) -> None:
    """Fifty steps; where the set is small they are several epochs, each with a smaller last batch."""
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(STEPS), "--trainer.limit_train_batches", "1.0"]
    steps += ["--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0"]
    steps += ["--trainer.log_every_n_steps", "1", "--trainer.callbacks+", path_of(Steady)]
    # plain descent, unlike Adam, neither hides a wrong factor nor makes much of rounding
    steps += ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.001"]
    one = bench.fit("one_trains", *steps, f"--data.batch_size={2 * SHARE}")
    two = bench.fit("two_train", *steps, f"--data.batch_size={SHARE}", *forked(2))
    losses = [[row["train/loss_step"] for row in history(run) if "train/loss_step" in row] for run in (one, two)]
    require(len(losses[0]) == STEPS, f"{bench.task.__name__} logs {len(losses[0])} losses in {STEPS} steps", "")
    for step, (alone, together) in enumerate(zip(*losses, strict=True), start=1):
        found = f"in step {step} the loss of {bench.task.__name__} is {together} in two processes and {alone} in one"
        why = "Does `weight` say what `loss` is the mean of, and does each item count by itself?"
        require(math.isclose(alone, together, rel_tol=TRAINED, abs_tol=ORDER), found, why)
    weights = [read_checkpoint(run.last)["state_dict"] for run in (one, two)]
    for name, alone in weights[0].items():
        found = f"after {STEPS} steps {name} of {bench.task.__name__} differs between one process and two"
        close = torch.allclose(alone.double(), weights[1][name].double(), rtol=1e-3, atol=1e-5)
        require(close, found, "Two processes must train as one.")


def check_compiled(
    task: TaskClass, data: DataClass, folder: Path, options: Sequence[str] = (), backend: str = "aot_eager"
) -> None:
    """A task with `--model.compile` computes the same, and its checkpoint serves without compiling.

    Arguments as for `check_task`. `backend` is torch.compile's; `inductor` needs a C++ compiler and half a minute.
    """
    _check_compilation(Bench(data, folder, task, options), backend)


def _check_compilation(bench: Bench, backend: str = "aot_eager") -> None:
    # batches of one size are compiled once for training and once for evaluation
    size = f"--data.batch_size={len(bench.module.splits['val'])}"
    run = bench.fit("compiled", "--model.compile", backend, size)
    renamed = [name for name in read_checkpoint(run.last)["state_dict"] if "_orig_mod" in name]
    require(
        not renamed, f"the compiled weights are called {renamed[:3]}", "Without compiling they could not be loaded."
    )
    plain = bench.evaluate("validate", run.last, "--model.compile", "false", size)
    _require_close(f"validation compiled by {backend}", history(run)[-1], plain, COMPILED)
    torch.compiler.reset()


def _check_declared(bench: Bench) -> None:
    task, data = bench.task, bench.data
    for cls, base in ((task, "Task"), (data, "DataModule")):
        require_kept(cls.__name__, undeclared_batch(cls, base))
    found = f"{task.__name__} reads {task.batch_type()}, {data.__name__} gives {data.batch_type()}"
    require(task.batch_type() is data.batch_type(), found, "No data could be found for the task.")


def _check_metrics(bench: Bench) -> None:
    run = bench.whole
    name, monitor, mode = bench.task.__name__, bench.task.monitor, bench.task.mode
    logged = {metric for row in history(run) for metric in row}
    tested = bench.evaluate("test", run.last)
    for metric in [*sorted(logged), *tested]:
        why = "Curves, trackers and comparisons go by names like val/loss."
        require(METRIC_NAME.fullmatch(metric), f"{name} logs {metric!r}", why)
    for metric in ("train/loss", "val/loss", "test/loss"):
        require(metric in logged | set(tested), f"{name} does not log {metric}", "It is looked for in every run.")
    bad = [metric for metric, value in tested.items() if not math.isfinite(value)]
    require(not bad, f"after two epochs {name} has {bad} of NaN or inf", "Nothing could be compared by them.")
    require(monitor in logged, f"{name} has the monitor {monitor!r}, which it never logs", "No run would have a best.")
    require(mode in ("min", "max"), f"{name} has the mode {mode!r}", "It says which of two values is the better.")
    require(run.best.is_file(), f"{name} leaves no {run.best}", "`test` and `predict` take the best checkpoint.")


def _check_checkpoint(bench: Bench) -> None:
    checkpoint = read_checkpoint(bench.whole.last)
    for section in ("hyper_parameters", SECTION):
        try:
            json.dumps(checkpoint[section])
        except TypeError as error:
            raise BrokenRule(
                f"the checkpoint of {bench.task.__name__} holds more than plain values in {section}: {error}",
                "It must load without running anybody's code, and after that code has changed.",
            ) from error


def _check_repeated(bench: Bench) -> None:
    """The saved config trains the same again, also when training stops and is resumed."""
    whole = bench.whole
    words = ["fit", "--config", str(whole.path / "config.yaml"), "--experiment", "resumed"]
    resumed = bench.fit(*words, "--trainer.max_epochs", "1")
    first, again = (yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8")) for run in (whole, resumed))
    again["experiment"], again["trainer"]["max_epochs"] = first["experiment"], first["trainer"]["max_epochs"]
    require(again == first, f"config.yaml of {bench.task.__name__} reads back changed", "No run could be repeated.")
    bench.fit(*words, "--resume", "auto")
    found = f"{bench.task.__name__} has other weights after one epoch and a resumed one than after two in one go"
    why = "A training that is stopped could not go on as if nothing had been. Does something random differ?"
    require(equal(*(read_checkpoint(run.last)["state_dict"] for run in (resumed, whole))), found, why)


def _check_schedule(bench: Bench) -> None:
    run = bench.fit("scheduled", "--model.lr_scheduler", "CosineWithWarmup", "--trainer.max_epochs", "2")
    first, last = (row["lr"] for row in history(run) if "lr" in row)
    found = f"with a cosine schedule over two epochs the rate of {bench.task.__name__} goes from {first} to {last}"
    why = "The schedule is told how long training is in Task.on_train_start: a task's own must call it."
    require(last < first / 10, found, why)


def _check_bfloat16(bench: Bench) -> None:
    whole = bench.whole
    run = bench.fit("bf16", "--trainer.precision", "bf16-mixed")
    kept, expected = ([value.dtype for value in read_checkpoint(r.last)["state_dict"].values()] for r in (run, whole))
    found = f"with bf16-mixed the weights of {bench.task.__name__} change their types"
    require(kept == expected, found, "Mixed precision keeps weights whole, so that small steps are not lost.")
    loss = history(run)[-1]["val/loss"]
    why = "Use functions that autocast knows, or compute what is delicate in float32."
    require(math.isfinite(loss), f"with bf16-mixed the loss of {bench.task.__name__} is {loss}", why)


def _check_half_precision(bench: Bench) -> None:
    """With bf16-true the network is bfloat16, and what is measured with it is what float32 measures."""
    run = bench.fit("bf16_true", "--trainer.precision", "bf16-true")
    state = read_checkpoint(run.last)["state_dict"]
    kept = {name: value.dtype for name, value in state.items() if value.is_floating_point()}
    wide = [name for name, dtype in kept.items() if name.startswith("net.") and dtype != torch.bfloat16]
    found = f"with bf16-true {wide[:3]} of {bench.task.__name__} are not bfloat16"
    require(not wide, found, "The network was to take half of the memory.")
    narrow, full = (bench.evaluate("test", run.last, "--trainer.precision", each) for each in ("bf16-true", "32-true"))
    losses = narrow["test/loss"], full["test/loss"]
    found = f"with bf16-true the loss of {bench.task.__name__} is {losses[0]}, and {losses[1]} with the same in 32-true"
    why = "Make new tensors with the types of those that come in; what is delicate computes in float32."
    require(math.isclose(*losses, rel_tol=BFLOAT16, abs_tol=BFLOAT16), found, why)
    bench.run("predict", str(run.last), *bench.inputs, *ON_CPU, "--out", "predicted_bf16_true")


def _check_predict(bench: Bench) -> None:
    """The checkpoint alone, elsewhere: no run folder, no config, no data set."""
    inputs = bench.inputs  # made from the data set
    alone = bench.folder / "alone" / "model.ckpt"
    alone.parent.mkdir(exist_ok=True)
    shutil.copy(bench.whole.last, alone)
    with bench.hidden("runs", "data"):
        bench.run("predict", str(alone), *inputs, *ON_CPU, "--out", "predicted")
    empty = [record["input"] for record in bench.records("predicted") if not record.keys() - {"index", "input"}]
    require(not empty, f"{bench.task.__name__} predicts nothing for {empty}", "predict() gives what it found for each.")


def _unequal_batches(bench: Bench, split: str) -> str:
    """The batch size with which the first of two processes has one batch more than the second."""
    size = len(bench.module.splits[split])
    found = f"{bench.data.__name__} fabricates {size} {split} items"
    require(size % 2 and size > 1, found, "With an odd number two processes get unequal numbers of batches.")
    return f"--data.batch_size={size // 2}"


def _require_close(what: str, found: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    pairs = {name: (found.get(name, math.nan), value) for name, value in expected.items()}
    within = {"rel_tol": tolerance, "abs_tol": tolerance}
    other = {name: pair for name, pair in pairs.items() if not math.isclose(*pair, **within)}
    require(not other, f"{what} gives other metrics, found and expected: {other}", "Nobody could trust either.")


def _without_floats(node: object) -> object:
    """Nested records without their numbers with fractions, which depend on how a batch is computed."""
    if isinstance(node, dict):
        return {key: _without_floats(value) for key, value in node.items() if not isinstance(value, float)}
    return (
        [_without_floats(value) for value in node if not isinstance(value, float)] if isinstance(node, list) else node
    )


RULES: dict[str, Callable[[Bench], None]] = {
    "documented": lambda bench: check_documented(bench.task),
    "declares_its_batches": _check_declared,
    "trains_and_logs": _check_metrics,
    "saved_as_plain_values": _check_checkpoint,
    "repeated_and_resumed": _check_repeated,
    "schedule": _check_schedule,
    "bfloat16": _check_bfloat16,
    "half_precision": _check_half_precision,
    "predicts_from_the_checkpoint": _check_predict,
}
FURTHER_RULES: dict[str, Callable[[Bench], None]] = {
    "processes": _check_processes,
    "compiled": _check_compilation,
}
