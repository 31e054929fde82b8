"""Folds: which items are trained on and which validate in K-fold cross-validation. scikit-learn does the cutting."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leyden.errors import UsageError

Marks = Sequence[int | str] | Tensor  # of each item


@dataclass(frozen=True)
class Fold:
    """Fold `number` (from 1) of `count`; or, with count 1, everything at once and nothing to validate on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Fold":
        """`2/5`, or `all`. Raises UsageError for anything else."""
        if text == "all":
            return cls(1, 1)
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise UsageError(f"fold is {text!r}; it must be like 2/5 (the second of five folds validates), or all.")
        fold = cls(int(match[1]), int(match[2]))
        if fold.count < 2:
            raise UsageError(f"fold is {text!r}; one fold leaves nothing to train on: there must be at least 2.")
        if not 1 <= fold.number <= fold.count:
            raise UsageError(f"fold is {text!r}; the first number must be from 1 to {fold.count}.")
        return fold

    @property
    def is_all(self) -> bool:
        """Whether nothing is kept for validation."""
        return self.count == 1

    def cut(
        self, items: int, seed: int, strata: Marks | None = None, groups: Marks | None = None
    ) -> tuple[Tensor, Tensor]:
        """The items to train on and those that validate: two sorted (n,) int64 tensors, each item in one of them.

        The cut depends on the arguments alone, and each item validates in exactly one of the `count` folds.

        Args:
            items: how many there are.
            seed: of the shuffling before the cut.
            strata: the class of each item, where there are classes: each fold has its share of every class.
            groups: the group of each item, where there are groups: a group stays in one fold.

        Raises:
            UsageError: more folds than items or groups; a class that some fold would have no item of.
        """
        if self.is_all:
            return torch.arange(items), torch.arange(0)
        parts = _parts(items, self.count, seed, _as_list(strata), _as_list(groups))
        val = parts[self.number - 1]
        keep = torch.ones(items, dtype=torch.bool)
        keep[val] = False
        return keep.nonzero()[:, 0], val


def _as_list(marks: Marks | None) -> list[int | str] | None:
    if marks is None:
        return None
    return marks.tolist() if isinstance(marks, Tensor) else list(marks)


def _parts(
    items: int, count: int, seed: int, strata: list[int | str] | None, groups: list[int | str] | None
) -> list[Tensor]:
    """The validation items of each fold, sorted."""
    # a second to import, which only cross-validation pays
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    places, what = (items, "items") if groups is None else (len(set(groups)), "groups")
    if count > places:
        raise UsageError(f"{count} folds cannot be cut from {places} {what}: there must be at least one for each fold.")
    if strata is not None and groups is None:
        _require_all_classes(strata, count)
    kind = {
        (False, False): KFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }[strata is not None, groups is not None]
    with warnings.catch_warnings():  # what it warns of is refused here
        warnings.simplefilter("ignore", UserWarning)
        splits = kind(count, shuffle=True, random_state=seed).split([0] * items, strata, groups)
        parts = [torch.from_numpy(val).long().sort().values for _, val in splits]
    if strata is not None:
        _require_classes_in_parts(strata, parts)
    return parts


def _require_all_classes(strata: list[int | str], count: int) -> None:
    rarest, size = min(Counter(strata).items(), key=lambda entry: entry[1])
    if size < count:
        raise UsageError(
            f"{count} folds need {count} items of each class, but class {rarest} has {size}. "
            "Use fewer folds or more data."
        )


def _require_classes_in_parts(strata: list[int | str], parts: list[Tensor]) -> None:
    for number, part in enumerate(parts, start=1):
        found = {strata[index] for index in part.tolist()}
        if missing := sorted(str(name) for name in set(strata) - found):
            raise UsageError(
                f"fold {number} of {len(parts)} would have no item of class {', '.join(missing)}: its groups are too "
                "few. Use fewer folds or more data."
            )
