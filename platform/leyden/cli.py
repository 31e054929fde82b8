"""fit, validate, test and predict: a thin layer over LightningCLI."""

import argparse
import errno
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from leyden import names, plugin_files, plugins, processes, sharding
from leyden.batches import Facts
from leyden.callbacks import (
    Checkpoints,
    GracefulStop,
    Pictures,
    Predictions,
    RandomState,
    Report,
    RunFolder,
    RunSummary,
    SameEverywhere,
)
from leyden.callbacks.first_checks import FirstChecks
from leyden.callbacks.plain import BestByLoss, PlainModule
from leyden.callbacks.predictions import JSONL, TENSORS
from leyden.callbacks.processes import Processes
from leyden.data import DataModule, Prompt
from leyden.differences import differences
from leyden.errors import CheckpointError, LeydenError, UsageError
from leyden.folders import require_writable, write_text
from leyden.folds import Fold
from leyden.loggers import MetricsCSV, guard
from leyden.memory import keep_freed_memory
from leyden.messages import explain, require_matching_batches
from leyden.overhead import NoProfiler, skip_empty_hooks
from leyden.precision import HalfNetwork, halves_the_network
from leyden.runs import (
    AtomicCheckpointIO,
    Run,
    find_checkpoint,
    newest_valid_checkpoint,
    read_checkpoint,
    stored_config,
)
from leyden.task import SECTION, Task

logger = logging.getLogger("leyden")
LINE_SECONDS = 10.0
SHOWN_PREDICTIONS = 10
SHORT_LIST = 8  # numbers of a prediction that are shown on a line
DISK_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
USAGE = {"fit": "fit", "validate": "validate RUN", "test": "test RUN", "predict": "predict RUN INPUT ..."}
CHATTER = (  # what Lightning says on every run here, and what is answered already
    ".*does not have many workers.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*It is recommended to use `self.log.*sync_dist=True.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*srun` command is available on your system but is not used.*",
    ".*You are trying to `self.log.*but the `lr`.*",
    ".*No seed found.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Total length of `list` across ranks is zero.*",  # with fold=all there is nothing to validate on
    ".*Checkpoint directory .* exists and is not empty.*",
    "(?s).*Hit failing import with following error",  # the parser, of classes that it was not asked about
)


@dataclass
class Request:
    """What the command line asks for, before Lightning sees it."""

    command: str
    options: list[str]
    checkpoint_path: Path | None = None
    checkpoint: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, command: str, arguments: list[str]) -> "Request":
        """Split off the words before the first option: for all but `fit` the run, and for `predict` its inputs."""
        first_option = next((i for i, word in enumerate(arguments) if word.startswith("-") and word != "-"), None)
        words, options = arguments[:first_option], arguments[len(arguments[:first_option]) :]
        if command == "fit":
            if words:
                raise UsageError(f"fit takes options only, not {words[0]!r}. A config is named with --config FILE.")
            return cls(command, options)
        if {"--help", "-h"} & set(options):
            return cls(command, options)
        if not words:
            inputs = " INPUT ..." if command == "predict" else ""
            raise UsageError(f"{command} needs a trained run or checkpoint: {command} RUN{inputs}")
        if command != "predict" and len(words) > 1:
            raise UsageError(f"{command} takes one run or checkpoint, not {len(words)}: {' '.join(words)}")
        path = find_checkpoint(words[0])
        return cls(command, options, path, read_checkpoint(path), words[1:])

    def lightning_arguments(self) -> list[str]:
        """The options with short names resolved, behind the config that the checkpoint was trained with."""
        if self.checkpoint_path is None:
            return names.resolve_arguments(self.options)
        if "config" not in self.checkpoint.get(SECTION, {}) and any(
            word.startswith("--model") for word in self.options
        ):
            return names.resolve_arguments(self.options)  # not trained by `fit`
        stored = stored_config(self.checkpoint, self.checkpoint_path)
        named = plugin_files.files()
        gone = plugin_files.recall(stored.get(plugin_files.CONFIG_KEY) or [])
        for path in plugin_files.files()[len(named) :]:
            logger.info("plugin file, as in training: %s", path)
        options = names.resolve_arguments(self.options)
        # how it was trained (devices, loggers, callbacks) is no reason to evaluate it in the same way elsewhere
        kept: dict[str, Any] = {key: stored[key] for key in ("seed_everything", "model", "data") if key in stored}
        plugin_files.require_modules(kept, gone)
        kept["trainer"] = {"precision": stored.get("trainer", {}).get("precision")}
        return ["--config", yaml.safe_dump(kept, sort_keys=False), *options]

    def experiment(self, config: Any) -> str:
        """The name of the experiment: the user's, else the last config file's, else task and network."""
        if config.get("experiment"):
            return str(config.experiment)
        if files := names.configs(self.options):
            return Path(files[-1]).stem
        task: str = config.model.class_path.rpartition(".")[2]
        net = config.model.get("init_args.net")
        return (task if net is None else str(net.get("class_path", net)).rpartition(".")[2]).lower()


class Parser(LightningArgumentParser):
    """Reads 1 as an int and 1.0 as a float wherever both are allowed.

    A union's types are tried in its order, and float takes 1, too. The order is not always the one in the source:
    typing's cache holds `Optional[Union[float, int]]` and `Optional[Union[int, float]]` for the same, and hands out
    whichever it saw first.
    """

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Lightning's and jsonargparse's way to add a class: the trainer, and each class that is named."""
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            hint: Any = getattr(action, "_typehint", None)
            types = get_args(hint)
            if get_origin(hint) in (Union, UnionType) and int in types and float in types:
                setattr(action, "_typehint", int | hint)  # noqa: B010  # int is then the first
        return added


class TrainingCLI(LightningCLI):
    """LightningCLI without its subcommands: the dispatcher has chosen, and checkpoints follow our own rules."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.arguments = request.lightning_arguments()
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            run=False,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 10},
            parser_class=Parser,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False, "prog": f"leyden {USAGE[request.command]}"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Lightning's hook: our own options."""
        text = "a Python file whose classes are offered by their names, too; may be repeated; in a config a list"
        parser.add_argument(plugin_files.OPTION, type=list[str] | None, help=text)
        if self.request.command == "fit":
            parser.add_argument("--experiment", type=str | None, help="name of the runs' folder; default: the config's")
            parser.add_argument("--runs", type=str, default="runs", help="the folder of all experiments")
            text = "auto: go on with the experiment's newest checkpoint, if there is one; or a run or checkpoint"
            parser.add_argument("--resume", type=str | None, help=text)
            text = "which metric picks the best checkpoint: min:NAME or max:NAME; default: the task's own"
            parser.add_argument("--monitor", type=str | None, help=text)
            text = "also save within an epoch: 500 every 500 steps, 10m every ten minutes (s, m, h); null: epochs only"
            parser.add_argument("--save_every", type=str | None, default="10m", help=text)
        else:
            parser.add_argument("--out", type=str | None, help="folder for the results; default: inside the run")
        if self.request.command == "predict":
            text = "a text to predict on, beside the files and folders; may be given several times"
            parser.add_argument("--prompt", type=str, action="append", help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Lightning's hook: parse, and check that task and data fit together before anything is made of them."""
        try:
            self.config = parser.parse_args(self.arguments)
        except argparse.ArgumentError as error:
            raise explain(str(error), self.request.command) from error
        if isinstance(self.config.trainer, list):
            raise UsageError("trainer is a list; it must be a mapping of options.")
        for group in ("model", "data"):
            if self.config.get(group) is None:
                raise explain(f"arguments are required: {group}")
        classes = [plugins.import_class(self.config[group].class_path) for group in ("model", "data")]
        require_matching_batches(*classes)
        if self.request.command == "predict":
            self._require_inputs(classes[1])
        for option, value in getattr(classes[0], "trainer_defaults", {}).items():
            if self.config.trainer.get(option) is None:
                self.config.trainer[option] = value
        if self.request.command == "fit":
            self._find_resumed()

    def _require_inputs(self, data: type) -> None:
        """`predict` is given something to look at, or knows by itself what to predict on: each data module one way."""
        given = [*self.request.inputs, *(self.config.prompt or [])]
        if issubclass(data, DataModule):
            if not given and data.reads_texts and not sys.stdin.isatty():
                self.request.inputs = ["-"]
            elif not given:
                raise UsageError("predict needs something to look at: predict RUN INPUT ... (files, folders or texts)")
        elif given:
            raise UsageError(
                f"{data.__name__} is a plain LightningDataModule, which cannot read {given[0]!r}. predict RUN, without "
                "more, predicts on what its predict_dataloader gives."
            )

    def instantiate_classes(self) -> None:
        """Lightning's hook: make task, data module and trainer. Raises UsageError for arguments that they refuse."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            refusal = _innermost(error)
            if isinstance(refusal, LeydenError | ModuleNotFoundError):
                raise refusal from error
            if isinstance(refusal, ValueError):
                raise UsageError(str(refusal)) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's hook: what every run gets joins what the user named."""
        chosen = self.config_init.trainer
        named = [tracker for tracker in _as_list(chosen.logger) if not isinstance(tracker, bool)]
        trackers = [guard(tracker, waits=self.request.command == "fit") for tracker in named]
        kwargs["plugins"] = [*_as_list(chosen.plugins), AtomicCheckpointIO()]
        own = any(isinstance(plugin, ClusterEnvironment) for plugin in kwargs["plugins"])
        if not own and not TorchElasticEnvironment.detect() and SLURMEnvironment.detect():
            # Lightning's own handler of Slurm's signal saves within the handler, which can dead-lock
            kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))
        if isinstance(self.model, Task) and halves_the_network(chosen.precision, chosen.strategy):
            kwargs["plugins"].append(HalfNetwork(chosen.precision))
            kwargs["precision"] = None
        kwargs["callbacks"] = [*_as_list(chosen.callbacks), *self._default_callbacks(chosen)]
        if chosen.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        kwargs["enable_model_summary"] = bool(chosen.enable_model_summary)
        kwargs["logger"] = [MetricsCSV(), *trackers] if self.request.command == "fit" else (trackers or False)
        kwargs["profiler"] = NoProfiler() if chosen.profiler is None else chosen.profiler
        if chosen.strategy == sharding.NAME:
            kwargs["inference_mode"] = False  # training could not use what is gathered in it
        trainer = super().instantiate_trainer(**kwargs)
        if self.request.command == "fit":
            _require_synchronisable(trainer, chosen.sync_batchnorm)
        skip_empty_hooks([*trainer.callbacks, self.model])  # type: ignore[attr-defined]
        return trainer

    @property
    def experiment(self) -> Path:
        """The folder in which the numbered runs are."""
        return Path(self.config.runs) / self.request.experiment(self.config)

    @property
    def out(self) -> Path:
        """The folder for the results of test, validate and predict."""
        if self.config.out:
            return Path(self.config.out)
        path = self.request.checkpoint_path
        run = None if path is None else Run.of_checkpoint(path)
        name = "predictions" if self.request.command == "predict" else self.request.command
        if run is None or path is None:
            return Path(name)
        return run.path / (name if path.stem == "best" else f"{name}_{path.stem}")

    def saved_config(self) -> str:
        """The config as YAML that loads back unchanged; without what is true of this one start only."""
        kept = self.config.clone()
        for key in ("config", "resume", "out", plugin_files.CONFIG_KEY):
            kept.pop(key, None)
        if kept.get("monitor") is None:
            kept.pop("monitor", None)
        if "experiment" in kept:
            kept.experiment = self.request.experiment(self.config)
        text: str = self.parser.dump(kept, skip_unset=False, skip_validation=True)
        files = plugin_files.behind(yaml.safe_load(text))
        return text + yaml.safe_dump({plugin_files.CONFIG_KEY: files}) if files else text

    def _find_resumed(self) -> None:
        """Fill in the checkpoint that `--resume` asks for."""
        request, target = self.request, self.config.resume
        if target is None:
            return
        if target == "auto":
            request.checkpoint_path, problems = newest_valid_checkpoint(self.experiment)
            for problem in problems:
                logger.warning("left out: %s", problem)
        else:
            request.checkpoint_path = _last_of(target)
        if request.checkpoint_path is None:
            logger.info("--resume auto: %s has no checkpoint yet, starting afresh", self.experiment)
        else:
            request.checkpoint = read_checkpoint(request.checkpoint_path)

    def _default_callbacks(self, chosen: Any) -> list[Any]:
        if self.request.command == "predict":
            return [FirstChecks(), Predictions(self.out)]
        if self.request.command != "fit":
            return [FirstChecks(), Pictures(test_folder=self.out)]
        has_bar = sys.stderr.isatty() if chosen.enable_progress_bar is None else chosen.enable_progress_bar
        report = Report(None if has_bar else LINE_SECONDS)
        if chosen.fast_dev_run:
            return [FirstChecks(), Processes(), report, GracefulStop()]
        path = self.request.checkpoint_path
        run = None if path is None else Run.of_checkpoint(path)
        steps = int(self.request.checkpoint.get("global_step", 0))
        config = self.saved_config()
        found: list[Any] = [
            FirstChecks(),
            SameEverywhere(config, "" if path is None else f"{path} (step {steps})"),
            Processes(),
            RunFolder(self.experiment, config, run, steps),
            Pictures(),
            report,
            RunSummary(),
            RandomState(),
            GracefulStop(self.config.save_every),
        ]
        if not isinstance(self.model, Task):
            found.append(PlainModule())
        if chosen.enable_checkpointing is not False:
            found += [*self._best(chosen), Checkpoints()]  # the last after the best, whose score it then holds
        return found

    def _best(self, chosen: Any) -> list[Any]:
        """What keeps the best checkpoint: by the metric that the user names, or the task; of a plain module by loss."""
        if self.config.monitor is not None:
            mode, _, monitor = self.config.monitor.partition(":")
            if mode not in ("min", "max") or not monitor:
                raise UsageError(f"monitor is {self.config.monitor!r}; it must be min:NAME or max:NAME.")
            setattr(self.model, "monitor", monitor)  # noqa: B010  # as the class has it, and no part of the module
            setattr(self.model, "mode", mode)  # noqa: B010
        fold = getattr(self.datamodule, "fold", None)
        if chosen.limit_val_batches == 0 or (isinstance(fold, Fold) and fold.is_all):
            return []
        monitor = getattr(self.model, "monitor", None)
        if isinstance(monitor, str):
            return [Checkpoints(monitor, getattr(self.model, "mode", "min"))]
        return [] if isinstance(self.model, Task) else [BestByLoss()]


def run(command: str, arguments: list[str]) -> int:
    """Run fit, validate, test or predict and return the exit status."""
    set_up_output()
    sys.path.insert(0, str(Path.cwd()))  # a task in a file of the current folder, also for the console script
    with errors_for_people():
        request = Request.parse(command, arguments)
        cli = TrainingCLI(request)
        prepare_process(cli.trainer)
        processes.require_startable(cli.trainer)
        if request.checkpoint:
            _adopt(cli)
        # Lightning loads the weights itself; a second copy of them must not stay for the whole run
        request.checkpoint = {
            key: request.checkpoint[key] for key in (SECTION, "global_step") if key in request.checkpoint
        }
        return {"fit": _fit, "predict": _predict}.get(command, _evaluate)(cli)


def _adopt(cli: TrainingCLI) -> None:
    """Give task and data the facts that the checkpoint was trained with."""
    model, data, checkpoint = cli.model, cli.datamodule, cli.request.checkpoint
    if isinstance(model, Task):
        model.adopt(checkpoint)
    if isinstance(data, DataModule):
        data.trained_facts = model.facts if isinstance(model, Task) else _stored_facts(checkpoint, data)


def _stored_facts(checkpoint: dict[str, Any], data: DataModule[Any]) -> Facts | None:
    """The facts about a leyden DataModule on which a plain module was trained."""
    batch_type: Any = data.batch_type()
    values = checkpoint.get(SECTION, {}).get("facts")
    return None if values is None else batch_type.facts_class().from_primitives(values)


def prepare_process(trainer: Trainer) -> None:
    """Settings of the whole process that pay for this trainer's hardware."""
    if isinstance(trainer.accelerator, CPUAccelerator):
        keep_freed_memory()


def _require_synchronisable(trainer: Trainer, sync_batchnorm: bool | None) -> None:
    if sync_batchnorm and trainer.world_size > 1 and isinstance(trainer.accelerator, CPUAccelerator):
        raise UsageError(
            "sync_batchnorm is true, but torch's SyncBatchNorm works on GPUs only, and training is on the CPU. Leave "
            "--trainer.sync_batchnorm out: each process then normalises by its own batch."
        )


def _fit(cli: TrainingCLI) -> int:
    trainer, path = cli.trainer, cli.request.checkpoint_path
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        require_writable(cli.experiment)
    if plain := _plain_parts(cli):
        logger.info("%s", plain)
    steps_done = cli.request.checkpoint.get("global_step", 0)
    if path is not None:
        logger.info("going on from %s (step %d)", path, steps_done)
        _refuse_other_optimizer(cli)
        _refuse_other_monitor(cli)
        _print_differences(cli)
    try:
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    except BaseException:
        with suppress(OSError):
            cli.experiment.rmdir()  # when no run came to be
        raise
    if trainer.global_step == steps_done:
        logger.info("nothing was left to train; --trainer.max_epochs says how long training is")
    folder = RunFolder.of(trainer)
    if folder is not None and trainer.is_global_zero:
        following = f" Next: test {folder.path}" if any(folder.checkpoints.glob("*.ckpt")) else ""
        print(f"run folder: {folder.path} ({', '.join(_shown(folder.path))}).{following}")
    return 0


def _shown(run: Path) -> list[str]:
    """What there is to look at in a run's folder."""
    return [*sorted(path.name for path in run.glob("*.png")), *(f"{path.name}/" for path in run.glob("samples"))]


def _evaluate(cli: TrainingCLI) -> int:
    evaluate = cli.trainer.test if cli.request.command == "test" else cli.trainer.validate
    if cli.trainer.is_global_zero:
        require_writable(cli.out)
    _print_differences(cli)
    path = str(cli.request.checkpoint_path)
    results = evaluate(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True, verbose=False)
    if not results:
        raise UsageError("nothing was evaluated: the trainer was told to take no batches.")
    [metrics] = results
    if cli.trainer.is_global_zero:
        result = {"checkpoint": path, **metrics}
        write_text(cli.out / "metrics.json", json.dumps(result, indent=2) + "\n")
        width = max(len(name) for name in metrics)
        print("\n".join(f"{name:<{width}}  {value:.4f}" for name, value in metrics.items()))
        print(f"checkpoint: {path}\nresults: {cli.out}")
    return 0


def _predict(cli: TrainingCLI) -> int:
    model, data = cli.model, cli.datamodule
    require_writable(cli.out)
    _print_differences(cli)
    if isinstance(data, DataModule):
        data.inputs = [*cli.request.inputs, *map(Prompt, cli.config.prompt or [])]
        data.facts = data.trained_facts
        if data.facts is None:
            raise UsageError(
                f"the checkpoint was not trained on {type(data).__name__}: predict knows nothing of its data."
            )
    path = str(cli.request.checkpoint_path)
    try:
        cli.trainer.predict(model, datamodule=data, return_predictions=False, ckpt_path=path, weights_only=True)
    except (TypeError, AttributeError) as error:
        if type(model).predict_step is not LightningModule.predict_step:
            raise
        raise LeydenError(
            f"{plugins.named(type(model))} has no predict_step, and its forward does not take what the data gives: "
            f"{error}. Write a predict_step(batch, batch_idx)."
        ) from error
    except MisconfigurationException as error:
        if "argument can be passed to its parent's `batch_size=" not in str(error):
            raise
        raise LeydenError(
            f"{plugins.named(type(data))}: Lightning cannot predict with a DataLoader whose batch_size is given by "
            "position. Write DataLoader(dataset, batch_size=...) in predict_dataloader."
        ) from error
    if cli.trainer.is_global_zero:
        writer = next(c for c in cli.trainer.callbacks if isinstance(c, Predictions))  # type: ignore[attr-defined]
        _show(writer, cli.out)
    return 0


def _show(writer: Predictions, folder: Path) -> None:
    """The first predictions, and where all are."""
    for record in writer.records[:SHOWN_PREDICTIONS]:
        print(f"{record.get('input', record['index'])}: {_summary(record)}")
    if writer.batches:
        print(f"the predictions of {len(writer.batches)} batches in {folder / TENSORS}")
    if writer.records:
        hidden = len(writer.records) - SHOWN_PREDICTIONS
        more = f"... and {hidden} more; " if hidden > 0 else ""
        pictures = ", pictures beside it" if any("picture" in record for record in writer.records) else ""
        print(f"{more}all {len(writer.records)} in {folder / JSONL}{pictures}")
    elif not writer.batches:
        print("predict_step gave nothing to write")


def _summary(record: dict[str, Any]) -> str:
    """What of a prediction fits on a line."""
    shown = {key: value for key, value in record.items() if key not in ("index", "input", "picture", "dataloader")}
    return " ".join(filter(None, (_short(value, key) for key, value in shown.items())))


def _short(value: Any, key: str = "") -> str:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return f"{len(value)} {key}"
    if isinstance(value, list) and len(value) <= SHORT_LIST and all(isinstance(each, int | float) for each in value):
        return f"[{' '.join(map(_short, value))}]"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value) if isinstance(value, str | int) else ""


def _plain_parts(cli: TrainingCLI) -> str:
    """One line about what is missing with parts that were not written for leyden; "" where all is there."""
    parts, lost = [], ["sample pictures"]
    if not isinstance(cli.model, Task):
        parts.append(f"{type(cli.model).__name__} is a plain LightningModule")
        lost += ["stopping at a loss of nan", "metrics that do not depend on the number of processes"]
    if not isinstance(cli.datamodule, DataModule):
        parts.append(f"{type(cli.datamodule).__name__} is a plain LightningDataModule")
        lost += ["predict on files", "folds", "going on in the middle of an epoch"]
    return f"{' and '.join(parts)}: without {', '.join(lost)}" if parts else ""


def _last_of(target: str) -> Path:
    """To go on with a run means its last checkpoint, not its best."""
    last = Run(Path(target)).last
    return last if last.is_file() else find_checkpoint(target)


def _innermost(error: BaseException) -> BaseException:
    """What a class raised when the parser made it; the parser wraps it into messages of its own."""
    return error if isinstance(error, LeydenError) or error.__cause__ is None else _innermost(error.__cause__)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _print_differences(cli: TrainingCLI) -> None:
    """Say where the command line differs from what the checkpoint was trained with."""
    for key, trained, now in _differences(cli):
        logger.info("differs from training: %s %s -> %s", key, trained, now)


def _refuse_other_optimizer(cli: TrainingCLI) -> None:
    """A checkpoint restores its optimizer and schedule: other options for them would silently have no effect."""
    for key, trained, now in _differences(cli):
        if key.startswith(("model.optimizer", "model.lr_", "model.weight_decay_on")):
            raise UsageError(
                f"a resumed run goes on with the optimizer and schedule of its checkpoint: {key} was {trained}, "
                f"not {now}. Leave it as it was, or start a new run without --resume."
            )


def _refuse_other_monitor(cli: TrainingCLI) -> None:
    """The best checkpoint so far was picked by a metric; scores of another cannot be compared with its score."""
    text = cli.request.checkpoint.get(SECTION, {}).get("config")
    trained = None if text is None else yaml.safe_load(text).get("monitor")
    if trained != cli.config.monitor:
        raise UsageError(
            f"a resumed run goes on picking its best checkpoint as before: monitor was {trained}, not "
            f"{cli.config.monitor}. Leave it as it was, or start a new run without --resume."
        )


def _differences(cli: TrainingCLI) -> list[tuple[str, Any, Any]]:
    """Options of task and data with their value in training and now; where the class differs, only the class."""
    if cli.request.checkpoint_path is None or "config" not in cli.request.checkpoint.get(SECTION, {}):
        return []
    trained = stored_config(cli.request.checkpoint, cli.request.checkpoint_path)
    found = differences([trained, yaml.safe_load(cli.saved_config())])
    different = [(key, *values) for key, values in found.items() if key.startswith(("model.", "data."))]
    classes = [key.removesuffix("class_path") for key, *_ in different if key.endswith(".class_path")]
    return [row for row in different if row[0].endswith(".class_path") or not row[0].startswith(tuple(classes))]


def set_up_output() -> None:
    """Our lines on standard output, from rank 0 only; of Lightning's, what is news to the user."""
    logger.setLevel(logging.INFO if getattr(rank_zero_only, "rank", 0) in (0, None) else logging.ERROR)
    for handler in list(logger.handlers):  # a second command in one process, whose stdout may be another
        logger.removeHandler(handler)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(console)
    logger.propagate = False
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for pattern in CHATTER:
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jsonargparse.*")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"


@contextmanager
def errors_for_people() -> Iterator[None]:
    """What libraries raise for wrong input becomes a LeydenError. LEYDEN_DEBUG=1 shows the traceback as well."""
    try:
        yield
    except (LeydenError, KeyboardInterrupt):
        raise
    except MisconfigurationException as error:
        raise UsageError(str(error)) from error
    except ModuleNotFoundError as error:
        raise LeydenError(f"something that is asked for needs a package that is not installed: {error}") from error
    except OSError as error:
        if error.errno not in DISK_REFUSALS:
            raise LeydenError(str(error)) from error
        where = error.filename or "the disk"
        raise LeydenError(f"{where}: {error.strerror}. What was saved before is untouched.") from error
    except (ValueError, TypeError, RuntimeError) as error:
        if (explained := processes.explained(error)) is not None:
            raise explained from error
        *_, frame = traceback.extract_tb(error.__traceback__)
        if "/lightning/" in Path(frame.filename).as_posix():
            raise UsageError(str(error).strip()) from error  # options of the trainer that do not fit task or data
        if "loading state_dict" not in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        shown = "\n".join(line if len(line) < 200 else line[:200] + " ..." for line in lines[:4])
        raise CheckpointError(f"the checkpoint's weights do not fit the network:\n{shown}") from error
