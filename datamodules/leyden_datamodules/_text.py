"""What the data modules of texts share: reading, vocabulary, splits, and prompts for `predict`."""

import logging
import re
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from leyden.batches import IGNORED, UNKNOWN, TextFacts, TokenWindows
from leyden.data import BatchSource, DataModule, Prompt, Split, TrainLoader
from leyden.errors import DataError, UsageError
from leyden.folds import Fold
from leyden_datamodules._windows import EvaluationRows, FreeWindows, RowLoader, TrainingRows, WindowLoader

Size = int | float
logger = logging.getLogger("leyden")
SHOWN_SYMBOLS = 10  # in one warning
_NO_LETTERS = re.compile("[^A-Za-z]+")
_LIKE_A_FILE = re.compile(r"\S*/\S*|\S+\.[A-Za-z]\w{1,4}")
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def read_text(path: Path) -> str:
    """A UTF-8 text with lines that end in \\n. Raises DataError naming the file and, for other bytes, their line."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def decode(content: bytes, where: str) -> str:
    """Bytes as text. Raises DataError that says where they are from and in which line they are not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content[error.start]
        raise DataError(f"{where}, line {line}: the byte {found:#04x} is not UTF-8. Convert it to UTF-8.") from error


def symbols_of(text: str, level: str, clean: bool) -> Sequence[str]:
    """The characters or the words of a text. Words of a text that is not cleaned are its punctuation marks, too.

    Cleaning is that of Dive into Deep Learning, second edition, 9.2: whatever is no letter from A to Z becomes a space,
    one for each stretch of it and of line breaks, and letters become small.
    """
    text = _NO_LETTERS.sub(" ", text).lower() if clean else text
    if level == "char":
        return text
    return text.split() if clean else _WORD.findall(text)


def cut(tokens: Tensor, pieces: Sequence[tuple[int, int]]) -> Tensor:
    """The tokens of some pairs of a token and the next one, given by first pair and end: without a copy of one piece.

    Two pieces are joined, by which one pair is made that the text does not have.
    """
    parts = [tokens[begin : end + 1] for begin, end in pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def fold_pieces(fold: Fold, pairs: int) -> dict[str, list[tuple[int, int]]]:
    """What is trained on and what validates of so many pairs: a fold is one stretch of the text."""
    if fold.is_all:
        return {"train": [(0, pairs)]}
    begin, end = (pairs * number // fold.count for number in (fold.number - 1, fold.number))
    around = [(0, begin), (end, pairs)]
    return {"train": [piece for piece in around if piece[0] < piece[1]], "val": [(begin, end)]}


class Prompts(Dataset[TokenWindows]):
    """Texts to go on with. inputs: N of them. tokens: N tensors (n,) int64, none empty."""

    def __init__(self, inputs: Sequence[str], tokens: Sequence[Tensor]) -> None:
        self.inputs = inputs
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: Sequence[int]) -> TokenWindows:
        chosen = [self.tokens[index] for index in indices]
        padded = pad_sequence(chosen, batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in chosen])
        return TokenWindows(padded, torch.full_like(padded, IGNORED), lengths > 0, lengths)


class TextData(DataModule[TokenWindows]):
    """Base of the data modules of texts: each token is to tell the next one.

    The text's beginning is trained on, what follows validates, and its end is tested on. The vocabulary is that of the
    training text; all other symbols are <unk>. A fold is one stretch of what is not tested on.

    Evaluation reads the text in `eval_rows` rows side by side, each token once; the network's memory goes on from batch
    to batch. What it finds does not depend on batch_size, nor on the number of processes.

    A subclass says which files hold the text (`files`).

    Args:
        level: what a token is, a character (char) or a word (word); uncleaned, a punctuation mark is a word of its own.
        clean: keep nothing but the letters A to Z, as small ones, with one space for whatever stands between them.
        min_freq: symbols that occur less often in the training text are <unk>.
        max_tokens: read no more of the text than so many tokens; null reads all.
        num_steps: tokens in a window, through which gradients go back.
        sampling: the windows of training. random: in random order, from an offset drawn anew for each epoch.
            sequential: batch_size rows side by side, each batch going on where the one before stopped. every: a window
            starts at every token, also in evaluation, where none goes on (the protocol of the book's second edition).
        eval_rows: rows in which text is evaluated; each begins with no memory.
        train_size: tokens to train on, or (below 1) their share of the text; null takes what the others leave.
        val_size: the same for validation. With `sampling` every, sizes count the windows that start there.
        test_size: the same for the test; 0 leaves nothing to test on.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a text that cannot be used, naming its file.
    """

    reads_texts = True

    def __init__(
        self,
        level: Literal["char", "word"] = "char",
        clean: bool = False,
        min_freq: int = 1,
        max_tokens: int | None = None,
        num_steps: int = 32,
        sampling: Literal["random", "sequential", "every"] = "random",
        eval_rows: int = 16,
        train_size: int | float | None = None,
        val_size: int | float = 0.05,
        test_size: int | float = 0.1,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        counts = {"min_freq": min_freq, "num_steps": num_steps, "eval_rows": eval_rows, "max_tokens": max_tokens}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1.")
        if val_size == 0:
            raise UsageError("val_size is 0; to train on everything that is not tested on, say --data.fold all.")
        for name, size in {"train_size": train_size, "val_size": val_size, "test_size": test_size}.items():
            if size is not None:
                require_size(name, size, "a number of tokens, or a share of the text below 1")
        self.level = level
        self.clean = clean
        self.min_freq = min_freq
        self.max_tokens = max_tokens
        self.num_steps = num_steps
        self.sampling = sampling
        self.eval_rows = eval_rows
        self.train_size = train_size
        self.val_size = val_size
        self.test_size = test_size

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five prompts of different lengths, one with what no training text has."""
        return ["the", "a merchant of", "the grey house of the", "so", "river \u2020"]

    @abstractmethod
    def files(self) -> list[Path]:
        """The files of the text, in order. Raises DataError where there are none."""

    def describe(self) -> TextFacts:
        """The vocabulary of the training text."""
        return self._corpus[1]

    def load(self, split: Split) -> BatchSource:
        """A split of the text as windows. Raises DataError where it is too short for one."""
        tokens, _ = self._corpus
        pieces = self._pieces(split, len(tokens) - 1)
        if self.sampling == "every" and self.fold is None:  # windows that start here end where the next split begins
            [(begin, end)] = pieces
            pieces = [(begin, min(end + self.num_steps - 1, len(tokens) - 1))]
        return self._windows(cut(tokens, pieces), split)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """The same: `load` minds the fold, with which the vocabulary changes."""
        return self.load(split)

    def train_dataloader(self) -> TrainLoader:
        """Windows in random order, or rows that go on."""
        loader = self._loader("train", WindowLoader, shuffle=self.sampling != "sequential")
        assert isinstance(loader, TrainLoader)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Each process has rows of its own; an empty list where there is nothing to validate on."""
        return self._evaluation_loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Each process has rows of its own."""
        return self._evaluation_loader("test")

    def load_inputs(self, inputs: Sequence[str]) -> Prompts:
        """Texts to go on with: as they stand, the lines of a file, or with `-` those of standard input.

        Raises UsageError for an empty one. Symbols that training has not seen are named in one warning.
        """
        facts = cast(TextFacts, self.facts or self.describe())
        known = {symbol: token for token, symbol in enumerate(facts.symbols)}
        texts, tokens, strangers = [], [], dict[str, None]()
        for place, text in prompts(inputs, self.trainer):
            symbols = symbols_of(text, facts.level, facts.clean)
            if not symbols:
                what = "is empty" if not text.strip() else f"has no {facts.level} to go on from: {text!r}"
                raise UsageError(f"{place} {what}. Nothing was predicted.")
            strangers |= dict.fromkeys(symbol for symbol in symbols if symbol not in known)
            texts.append(text)
            tokens.append(torch.tensor([known.get(symbol, 0) for symbol in symbols]))
        if strangers:
            shown = ", ".join(repr(symbol) for symbol in list(strangers)[:SHOWN_SYMBOLS])
            more = ", ..." if len(strangers) > SHOWN_SYMBOLS else ""
            rank_zero_warn(f"not seen in training, and so taken for {UNKNOWN}: {shown}{more}")
        return Prompts(texts, tokens)

    @cached_property
    def _corpus(self) -> tuple[Tensor, TextFacts]:
        """All tokens of the text, (N,) of the smallest integer type that holds them, and the facts."""
        symbols = symbols_of(self._text(), self.level, self.clean)[: self.max_tokens]
        if len(symbols) < 2:
            raise DataError(
                f"{self._place}: too short: it has {len(symbols)} tokens (level {self.level}), of at least 2."
            )
        alphabet = sorted(set(symbols))
        numbers = {symbol: number for number, symbol in enumerate(alphabet)}
        codes = torch.from_numpy(np.fromiter(map(numbers.__getitem__, symbols), np.int32, len(symbols)))
        trained = cut(codes, self._pieces("train", len(codes) - 1))
        frequent = trained.bincount(minlength=len(alphabet)) >= self.min_freq
        vocabulary = (UNKNOWN, *(alphabet[number] for number in frequent.nonzero()[:, 0].tolist()))
        self._require_vocabulary(vocabulary, alphabet)
        table = torch.where(frequent, frequent.cumsum(0), 0).to(_integer_type(len(vocabulary)))
        return table[codes], TextFacts(vocabulary, self.level, self.clean)

    def _text(self) -> str:
        texts = []
        for file in self.files():
            texts.append(read_text(file))
            if not texts[-1].strip():
                raise DataError(f"{file}: is empty. Put a text in its place, or remove it.")
        return "\n".join(texts)

    @property
    def _place(self) -> str:
        files = self.files()
        return str(files[0] if len(files) == 1 else self.path())

    def _require_vocabulary(self, vocabulary: Sequence[str], alphabet: Sequence[str]) -> None:
        if len(vocabulary) > 2:
            return
        if self.min_freq > 1:
            raise UsageError(
                f"with min_freq {self.min_freq} a vocabulary of {len(vocabulary) - 1} symbols is left, of "
                f"{len(alphabet)} in the text; it must have two at least. Use a smaller --data.min_freq."
            )
        raise DataError(
            f"{self._place}: its training text is nothing but {vocabulary[1]!r}; there is nothing to learn."
        )

    def _pieces(self, split: Split, pairs: int) -> list[tuple[int, int]]:
        """Where a split is, of so many pairs of a token and the next one: the first pair and the end of each piece."""
        val, test = (number_of(size, pairs) for size in (self.val_size, self.test_size))
        train = pairs - val - test if self.train_size is None else number_of(self.train_size, pairs)
        if train < 1 or train + val + test > pairs:
            raise DataError(
                f"{self._place}: its {pairs + 1} tokens are too few for train_size {self.train_size}, val_size "
                f"{self.val_size} and test_size {self.test_size}."
            )
        if split == "test":
            return [(pairs - test, pairs)]
        if self.fold is not None:
            return fold_pieces(self.fold, train + val)[split]
        return [(0, train)] if split == "train" else [(train, train + val)]

    def _windows(self, tokens: Tensor, split: Split) -> BatchSource:
        pairs = len(tokens) - 1
        if split == "test" and self.test_size == 0:
            raise UsageError("there is nothing to test on: test_size is 0.")
        if split != "train" and self.sampling != "every":
            self._require_pairs(split, pairs, 1)
            return EvaluationRows(tokens, self.num_steps, min(self.eval_rows, pairs))
        if self.sampling == "sequential":
            rows = self._training_rows()
            whose = f" for each of {rows} rows (batch_size x processes)"
            self._require_pairs(split, pairs, rows * self.num_steps, whose)
            return TrainingRows(tokens, self.num_steps, rows, self._order_seed())
        self._require_pairs(split, pairs, self.num_steps)
        stride = 1 if self.sampling == "every" else self.num_steps
        return FreeWindows(tokens, self.num_steps, stride, self._order_seed())

    def _require_pairs(self, split: Split, pairs: int, needed: int, whose: str = "") -> None:
        if pairs < needed:
            raise DataError(
                f"{self._place}: its {split} part has {pairs + 1} tokens; {needed + 1} are needed for a window of "
                f"num_steps {self.num_steps}{whose}."
            )

    def _training_rows(self) -> int:
        if self.batch_size is None:
            raise UsageError("with sampling sequential the batch_size is the number of rows; it cannot be null.")
        return self.batch_size * self._processes

    @property
    def _processes(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _evaluation_loader(self, split: Split) -> DataLoader[Any]:
        if self.sampling == "every":
            return self._loader(split, DataLoader)
        source: Any = self.splits[split]
        processes = self._processes
        if source.rows < processes:
            raise UsageError(
                f"{split} is evaluated in {source.rows} rows, too few for {processes} processes. Use more rows "
                f"(--data.eval_rows {processes}) or fewer processes (--trainer.devices {source.rows})."
            )
        return self._loader(split, RowLoader)


def require_size(name: str, size: float, expected: str) -> None:
    """UsageError unless a size is a number of items or, with a fraction, a share of them."""
    if size < 0 or (isinstance(size, float) and size >= 1):
        raise UsageError(f"{name} is {size}; it must be {expected}.")


def number_of(size: float, count: int) -> int:
    """How many of `count` items a size means."""
    return round(size * count) if isinstance(size, float) else size


def _integer_type(symbols: int) -> torch.dtype:
    """The smallest type that can number so many symbols."""
    return next(kind for kind in (torch.uint8, torch.int16, torch.int32) if symbols - 1 <= torch.iinfo(kind).max)


def prompts(inputs: Iterable[str], trainer: Trainer | None) -> Iterator[tuple[str, str]]:
    """Each text that `predict` was given, with the words that say where it is from.

    Texts as they stand, the lines of a file, and for `-` those of standard input. Raises DataError for what is not
    UTF-8, and UsageError for a file or standard input with nothing in it.
    """
    for number, given in enumerate(inputs, start=1):
        if isinstance(given, Prompt):
            yield f"prompt {number}", given
        elif given == "-":
            yield from _lines(decode(_standard_input(trainer), "standard input"), "standard input")
        elif _is_file(given):
            yield from _lines(read_text(Path(given)), given)
        else:
            if _LIKE_A_FILE.fullmatch(given):
                rank_zero_warn(f"input {number}: there is no file {given!r}; it is taken for a text.")
            yield f"input {number}", given


def _standard_input(trainer: Trainer | None) -> bytes:
    """Read by the first process for all: they share it."""
    if trainer is None or trainer.is_global_zero:
        logger.info("reading texts from standard input, to its end")
    if trainer is None:
        return sys.stdin.buffer.read()
    content = sys.stdin.buffer.read() if trainer.is_global_zero else b""
    return trainer.strategy.broadcast(content)


def _is_file(name: str) -> bool:
    with suppress(OSError):  # a text may be too long for a name
        return Path(name).is_file()
    return False


def _lines(text: str, where: str) -> Iterator[tuple[str, str]]:
    if not text:
        raise UsageError(f"{where} is empty: nothing was predicted.")
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        yield f"{where}, line {number}:" if len(lines) > 1 else where, line
