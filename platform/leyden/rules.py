"""What a plugin must keep to: the engine refuses what breaks a rule, the kit fails it, both in the same words."""

import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor

from leyden.batches import Facts
from leyden.plugins import PluginError, cause, named, path_of

LONGEST_SHOWN = 40  # characters of a fact in a message
_CONTAINERS = (dict, OrderedDict, list, tuple)


class Breach(NamedTuple):
    """A rule that is broken: what was found, and why that matters or what to do."""

    found: str
    why: str

    def error(self, cls: type) -> PluginError:
        """The error that names the class and where it comes from."""
        return PluginError(f"{named(cls)}: {self.found}. {self.why}")


def undeclared_batch(cls: Any, base: str) -> Breach | None:
    """A task or data module must derive from `base[BatchType]`, a NamedTuple with `facts_class`."""
    batch_type = cls.batch_type()
    if batch_type is None:
        why = f"Write `class {cls.__name__}({base}[BatchType])`: task and data find each other by it."
        return Breach("declares no batch type", why)
    if not hasattr(batch_type, "_fields") or not callable(getattr(batch_type, "facts_class", None)):
        why = "leyden.batches holds examples: a NamedTuple of tensors with a static method facts_class."
        return Breach(f"declares the batch type {batch_type.__name__}, which is no NamedTuple with facts_class", why)
    return None


def first_batch(stage: RunningStage | None) -> str:
    """What the first batch of a stage is called in a message."""
    names = {"train": "training ", "sanity_check": "validation ", "validate": "validation "}
    value = "" if stage is None else stage.value
    return f"first {names.get(value, f'{value} ')}batch"


def wrong_batch(where: str, batch: Any, declared: type) -> Breach | None:
    """Batches must be of the declared type. `where`: what gave it, such as `the train split gives`."""
    if type(batch) is declared:
        return None
    return Breach(f"{where} {kind(batch)}, declared is {declared.__name__}", "The task reads the declared type only.")


def wrong_output(found: Any, given: str, expected: tuple[int, ...], numbers: str) -> Breach | None:
    """A network must use the numbers that it is built with. `given`: what it was run on, such as `one image`."""
    if isinstance(found, Tensor) and found.shape == expected:
        return None
    return Breach(
        f"gives {kind(found)} for {given}, expected {expected}",
        f"It must be as the numbers say that it is built with: {numbers}.",
    )


def require_records(task: type, records: Any, count: int) -> None:
    """A task predicts a dict for each item that can be written as JSON. Raises PluginError for anything else."""
    why = "Each input gets one line of predictions.jsonl: return a list with a dict of plain values for each item."
    if not isinstance(records, list) or len(records) != count or not all(isinstance(each, dict) for each in records):
        found = f"{len(records)} records" if isinstance(records, list) else kind(records)
        raise Breach(f"predict() gives {found} for a batch of {count} items", why).error(task)
    for key, value in records[0].items() if records else ():
        try:
            json.dumps(0 if isinstance(value, Tensor) else value)  # tensors are for drawing, and not written
        except (TypeError, ValueError) as error:
            raise Breach(f"predict() gives {kind(value)} as {key!r}", why).error(task) from error


def wrong_loss(loss: Any) -> Breach | None:
    """A loss must be a scalar that the weights have a part in."""
    if not isinstance(loss, Tensor) or loss.ndim:
        return Breach(f"loss() gives {kind(loss)}", "Training needs one number: the mean over the batch.")
    if not loss.requires_grad:
        return Breach("loss() gives a number without a gradient", "No weight has a part in it, so none is trained.")
    return None


def without_facts(batch_type: Any, data: Any) -> Breach:
    """A task cannot build its network without the facts, which only leyden's data modules must have."""
    facts = getattr(batch_type, "facts_class", lambda: Facts)().__name__
    giver = "the data" if data is None else named(type(data))
    why = (
        f"A LightningDataModule can have them as an attribute `facts`, set in setup(), and give {batch_type.__name__}; "
        f"a DataModule[{batch_type.__name__}] brings the rest as well."
    )
    return Breach(f"its network is built from {facts}, and {giver} has none", why)


def unusable(task: type, network: type, batch: Any, facts: Any, error: Exception) -> Breach:
    """A batch from which no loss can be computed."""
    shapes = [str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__ for part in batch]
    found = f"no loss can be computed: {cause(error, task.__module__, network.__module__).removesuffix('.')}"
    why = (
        f"The network {named(network)} is built with {_shortened(facts)} and must be as these say; the batch is "
        f"{type(batch).__name__}({', '.join(shapes)}). LEYDEN_DEBUG=1 shows where it was raised."
    )
    return Breach(found, why)


def _shortened(facts: Any) -> str:
    """Facts for a message: of a long field only how long it is."""
    values = {each.name: getattr(facts, each.name) for each in fields(facts)}
    shown = [f"{len(value)} {name}" if _is_long(value) else f"{name}={value!r}" for name, value in values.items()]
    return f"{type(facts).__name__}({', '.join(shown)})"


def _is_long(value: Any) -> bool:
    return isinstance(value, tuple | str) and len(repr(value)) > LONGEST_SHOWN


def unsaved_state(state: Mapping[str, Any]) -> Breach | None:
    """What goes into a checkpoint must load without running code. `state`: by the checkpoint's section."""
    if _loads(dict(state)):
        return None
    path, value = _culprit("", dict(state))
    why = (
        "A checkpoint holds tensors, numbers, texts, and lists and dicts of them: it must load without running "
        "anybody's code, and after that code has changed."
    )
    if path.startswith("hyper_parameters"):
        why += f" self.save_hyperparameters(ignore=[{path.split('.')[1]!r}]) leaves it out."
    return Breach(f"its state cannot be saved as plain values: {path} is a {path_of(type(value))}", why)


def kind(value: Any) -> str:
    """What a value is, for a message."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _loads(value: Any) -> bool:
    """Whether a checkpoint with this in it would load. Tensors would."""
    file = io.BytesIO()
    try:
        torch.save(_hollow(value), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # an object may raise anything when it is asked for its state
        return False
    return True


def _hollow(value: Any) -> Any:
    if isinstance(value, Tensor):
        return 0
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _hollow(item)) for key, item in value.items())
    return type(value)(_hollow(item) for item in value) if type(value) in (list, tuple) else value


def _culprit(path: str, value: Any) -> tuple[str, Any]:
    """The innermost part that does not load, with its dotted name."""
    if type(value) in _CONTAINERS:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if not _loads({key: item} if isinstance(value, dict) else item):
                return _culprit(f"{path}.{key}".lstrip("."), item)
    return path, value
