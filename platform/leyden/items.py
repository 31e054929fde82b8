"""Divides what a plain LightningModule's predict_step gives for a batch into its items, as far as they can be text."""

import json
from typing import Any

from torch import Tensor

LARGEST = 1000  # numbers in a tensor of one item that is written as text


def written(prediction: Any, count: int) -> list[Any] | None:
    """The items of a batch of `count`, in plain values; none where there is no prediction.

    None where it cannot be divided, or an item is larger or more than plain values.
    """
    if prediction is None:
        return []
    items = _items(prediction, count)
    if items is None:
        return None
    try:
        values = [_plain(item) for item in items]
        json.dumps(values)
    except (TypeError, ValueError):
        return None
    return values


def length(prediction: Any) -> int:
    """How many items a batch's prediction is of, as far as it shows that."""
    if isinstance(prediction, dict):
        return length(next(iter(prediction.values()), None))
    if _is_columns(prediction):
        return length(prediction[0])
    sized = isinstance(prediction, list | tuple) or (isinstance(prediction, Tensor) and prediction.ndim)
    return len(prediction) if sized else 1


def _items(prediction: Any, count: int) -> list[Any] | None:
    """Rows of tensors, also within a dict or tuple, or the members of a list."""
    if isinstance(prediction, Tensor):
        return list(prediction) if prediction.ndim and len(prediction) == count else None
    if hasattr(prediction, "_asdict"):
        return _items(prediction._asdict(), count)
    if isinstance(prediction, dict):
        rows = _rows(list(prediction.values()), count)
        return None if rows is None else [dict(zip(prediction, row, strict=True)) for row in rows]
    if _is_columns(prediction):
        return _rows(prediction, count)
    return list(prediction) if isinstance(prediction, list | tuple) and len(prediction) == count else None


def _is_columns(prediction: Any) -> bool:
    """A tuple of tensors holds them side by side, a list of tensors is of one for each item."""
    return isinstance(prediction, tuple) and bool(prediction) and all(isinstance(each, Tensor) for each in prediction)


def _rows(columns: Any, count: int) -> list[list[Any]] | None:
    found = [_items(column, count) for column in columns]
    divided = [column for column in found if column is not None]
    return [list(row) for row in zip(*divided, strict=True)] if len(divided) == len(found) else None


def _plain(value: Any) -> Any:
    """A value with small tensors made lists. Raises TypeError for a large one."""
    if isinstance(value, Tensor):
        if value.numel() > LARGEST or value.is_complex():
            raise TypeError
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
