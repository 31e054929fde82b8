"""The real Time Machine, found where LEYDEN_DATA says."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from leyden.batches import TextFacts
from leyden_datamodules.time_machine import BOOK, TimeMachine
from leyden_plugins.language_model.networks.gru import GRU
from leyden_plugins.language_model.task import LanguageModel

pytestmark = pytest.mark.skipif(
    not (TimeMachine().path() / BOOK.name).is_file(), reason="timemachine/timemachine.txt is not under LEYDEN_DATA"
)


def text_of(data: TimeMachine, tokens: torch.Tensor) -> str:
    assert isinstance(data.facts, TextFacts)
    return "".join(data.facts.symbols[token] for token in tokens)


def test_the_books_counts() -> None:
    """Dive into Deep Learning, second edition, 9.2.4: 173,428 characters, 28 symbols with <unk>."""
    data = TimeMachine(clean=True, fold="all", test_size=0)
    data.prepare_data()
    data.setup("fit")
    tokens: Any = data.splits["train"].tokens  # type: ignore[attr-defined]
    assert len(tokens) == 173_428
    assert tokens.dtype == torch.uint8
    assert isinstance(data.facts, TextFacts)
    assert data.facts.symbols == ("<unk>", " ", *"abcdefghijklmnopqrstuvwxyz")
    assert text_of(data, tokens[:40]) == "the time machine by h g wells i the time"


def test_words() -> None:
    """The same section: 32,775 words of 4,580 kinds with <unk>."""
    data = TimeMachine(clean=True, level="word", fold="all", test_size=0)
    data.setup("fit")
    assert len(data.splits["train"].tokens) == 32_775  # type: ignore[attr-defined]
    assert len(data.facts.symbols) == 4_580  # type: ignore[union-attr]


def test_the_books_held_out_windows() -> None:
    data = TimeMachine(clean=True, sampling="every", train_size=10_000, val_size=5_000, batch_size=1024)
    data.setup("fit")
    assert {split: len(source) for split, source in data.splits.items()} == {"train": 10_000, "val": 5_000}
    assert len(data.train_dataloader()) == 10


def test_a_network_that_has_learnt_nothing_wavers_between_all_symbols() -> None:
    torch.manual_seed(0)
    task, data = LanguageModel(net=partial(GRU, hidden_size=8)), TimeMachine(clean=True)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    [found] = Trainer(**quiet).validate(task, data, verbose=False)
    assert found["val/perplexity"] == pytest.approx(28, rel=0.1)
    assert found["val/bits_per_character"] == pytest.approx(math.log2(found["val/perplexity"]), rel=1e-5)
