"""TextFile: reading, vocabulary, splits and prompts, on small texts; and each text that cannot be used."""

import io
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.batches import IGNORED, TextFacts, TokenWindows
from leyden.data import Prompt
from leyden.errors import DataError, UsageError
from leyden_datamodules._text import symbols_of
from leyden_datamodules._windows import EvaluationRows, FreeWindows, TrainingRows
from leyden_datamodules.text_file import TextFile, made_up_text

FACTS = TextFacts(("<unk>", " ", "a", "b", "c"), "char", False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "text.txt"


def words(length: int) -> str:
    """A text of few symbols, so that all are in every part of it."""
    return made_up_text(length, seed=0).lower()


def read(path: Path, content: str | bytes, *stages: str, **options: Any) -> TextFile:
    """A TextFile of this text, set up for these stages."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = TextFile(root=str(path), **options)
    for stage in stages or ("fit", "test"):
        data.setup(stage)
    return data


def text_of(data: TextFile, source: Any) -> str:
    """What a source reads, its windows behind each other; tokens that are only targets are left out."""
    assert isinstance(data.facts, TextFacts)
    batch: TokenWindows = source.__getitems__(range(len(source)))
    if isinstance(source, EvaluationRows):
        order = sorted(range(len(source)), key=lambda item: (item % source.rows, item))
        return "".join(
            data.facts.symbols[token] for item in order for token in batch.tokens[item, : batch.lengths[item]]
        )
    return "".join(data.facts.symbols[token] for token in batch.tokens.flatten())


# ---- symbols


@given(st.text())
def test_cleaning_is_the_books(text: str) -> None:
    assert symbols_of(text, "char", clean=True) == re.sub("[^A-Za-z]+", " ", text).lower()
    assert list(symbols_of(text, "word", clean=True)) == re.sub("[^A-Za-z]+", " ", text).lower().split()
    assert symbols_of(text, "char", clean=False) == text


def test_words_that_are_not_cleaned() -> None:
    text = "“Don’t!” he said, in 1898;\n\nwell-known, it's Ålesund … 时间"
    expected = ["“", "Don’t", "!", "”", "he", "said", ",", "in", "1898", ";", "well", "-", "known", ","]
    assert symbols_of(text, "word", clean=False) == [*expected, "it's", "Ålesund", "…", "时间"]


# ---- vocabulary


def test_the_vocabulary_is_that_of_the_training_text(path: Path) -> None:
    """Of 101 characters, 85 pairs are trained on, so that q and z, and x but as a target, are never seen."""
    content = "ab ba " * 14 + "ba" + "qzq abab ba ba b"[:15]
    data = read(path, content, val_size=0.05, test_size=0.1, num_steps=4)
    assert data.facts == TextFacts(("<unk>", " ", "a", "b"), "char", False)
    heldout: Any = data.splits["val"]
    assert (heldout.__getitems__([0]).tokens[0] == 0).any()


def test_rare_symbols_are_unknown(path: Path) -> None:
    content = "the cat the dog the cow a dog " * 10
    data = read(path, content, level="word", clean=True, min_freq=15, val_size=10, test_size=10, num_steps=5)
    counts = Counter(content.split()[:60])
    assert data.facts is not None
    assert data.facts.symbols == ("<unk>", *sorted(word for word, count in counts.items() if count >= 15))
    source: Any = data.splits["train"]
    words = content.split()[int(source.offset) :][:5]
    named = [data.facts.symbols[token] for token in source.__getitems__([0]).tokens[0]]
    assert named == [word if word in data.facts.symbols else "<unk>" for word in words]


@pytest.mark.parametrize(("symbols", "dtype"), [(255, torch.uint8), (256, torch.int16), (40000, torch.int32)])
def test_tokens_are_held_in_the_smallest_type(path: Path, symbols: int, dtype: torch.dtype) -> None:
    characters = "".join(chr(0x20000 + number) for number in range(symbols))
    data = read(path, characters + characters[:100], "fit", val_size=50, test_size=40, num_steps=4)
    source: Any = data.splits["train"]
    assert source.tokens.dtype == dtype
    assert source.tokens.tolist()[:3] == [1, 2, 3]
    assert source.tokens.max() == symbols


# ---- splits


def test_the_end_is_tested_on_and_what_comes_before_it_validates(path: Path) -> None:
    content = words(2001)
    data = read(path, content, val_size=0.05, test_size=0.1, num_steps=10, eval_rows=3)
    assert text_of(data, data.splits["val"]) == content[1700:1800]
    assert text_of(data, data.splits["test"]) == content[1800:2000]
    trained = text_of(data, data.splits["train"])
    assert trained in content[:1700]
    assert len(trained) > 1680


def test_sizes_may_be_numbers_of_tokens(path: Path) -> None:
    content = words(2001)
    data = read(path, content, train_size=500, val_size=300, test_size=200, num_steps=10, sampling="sequential")
    assert text_of(data, data.splits["val"]) == content[500:800]
    assert text_of(data, data.splits["test"]) == content[1800:2000]
    assert text_of(data, data.splits["train"]) in content[:500]


def test_the_books_held_out_protocol(path: Path) -> None:
    """The windows that start at the first 100 characters train, those at the next 50 validate."""
    content = "in those days the jar held a spark; " * 12
    data = read(path, content, sampling="every", train_size=100, val_size=50, num_steps=8)
    assert isinstance(data.facts, TextFacts)
    for split, begins in {"train": range(100), "val": range(100, 150)}.items():
        source: Any = data.splits[split]
        tokens, targets, starts, _ = source.__getitems__(range(len(source)))
        found = ["".join(data.facts.symbols[token] for token in window) for window in tokens]
        assert found == [content[begin : begin + 8] for begin in begins]
        found = ["".join(data.facts.symbols[token] for token in window) for window in targets]
        assert found == [content[begin + 1 : begin + 9] for begin in begins]
        assert starts.all()
    assert sum(len(batch.tokens) for batch in data.val_dataloader()) == 50


def test_the_books_memorising_protocol(path: Path) -> None:
    content = words(400)
    options: Any = {"sampling": "sequential", "max_tokens": 151, "fold": "all", "test_size": 0, "batch_size": 5}
    data = read(path, content, "fit", num_steps=10, **options)
    source: Any = data.splits["train"]
    batches = [source.__getitems__(range(begin, begin + 5)) for begin in (0, 5, 10)]
    side_by_side = torch.cat([batch.tokens for batch in batches], dim=1)
    assert isinstance(data.facts, TextFacts)
    assert "".join(data.facts.symbols[token] for token in side_by_side.flatten()) == content[:150]
    assert data.val_dataloader() == []
    with pytest.raises(UsageError, match="nothing to test on: test_size is 0"):
        data.setup("test")


def test_each_token_validates_in_one_fold_and_is_trained_on_in_the_others(path: Path) -> None:
    content = words(2001)
    validated = ""
    for number in range(1, 4):
        options: Any = {"fold": f"{number}/3", "test_size": 200, "num_steps": 8, "eval_rows": 2}
        data = read(path, content, "fit", **options, sampling="every")
        begin, end = 1800 * (number - 1) // 3, 1800 * number // 3
        tokens = data.splits["train"].tokens  # type: ignore[attr-defined]
        trained = "".join(data.facts.symbols[token] for token in tokens)  # type: ignore[union-attr]
        assert trained == (content[: begin + 1] if begin else "") + (content[end:1801] if end < 1800 else "")
        validated += text_of(data, read(path, content, "fit", **options).splits["val"])
    assert validated == content[:1800]


def test_a_folds_vocabulary_is_that_of_its_training_text(path: Path) -> None:
    content = "abcd" * 50 + "e" * 99 + "a" + "abcd" * 50
    symbols = [
        read(path, content, "fit", fold=f"{number}/5", test_size=0, num_steps=2).facts.symbols  # type: ignore[union-attr]
        for number in (1, 3)
    ]
    assert symbols == [("<unk>", "a", "b", "c", "d", "e"), ("<unk>", "a", "b", "c", "d")]


def test_sampling_sequential_has_a_row_for_each_item_of_a_batch_in_all_processes(path: Path) -> None:
    data = read(path, words(2001), "validate", sampling="sequential", batch_size=4, num_steps=10)
    data.trainer = SimpleNamespace(world_size=3, global_rank=1, num_training_batches=100, predicting=False)  # type: ignore[assignment]
    data.setup("fit")
    source: Any = data.splits["train"]
    assert isinstance(source, TrainingRows)
    assert source.rows == 12
    [first, *others] = data.train_dataloader()
    assert len(first.tokens) == 4
    assert first.starts.all()
    assert others
    for before, batch in zip([first, *others], others, strict=False):
        assert torch.equal(batch.tokens[:, 0], before.targets[:, -1])


def test_the_same_seed_gives_the_same_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    content = words(3000)
    one, two = ([batch.tokens for batch in read(path, content).train_dataloader()] for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(one, two, strict=True))
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    three = [batch.tokens for batch in read(path, content).train_dataloader()]
    assert not torch.equal(one[0], three[0])


# ---- files


def test_a_folder_is_read_by_path(tmp_path: Path) -> None:
    contents = {"b.txt": "bbbbbc", "a/z.txt": "aaaaac", ".hidden.txt": "xxx", ".git/c.txt": "yyy", "c.md": "zzz"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    data = TextFile(root=str(tmp_path), fold="all", test_size=0, num_steps=12, sampling="every")
    data.setup("fit")
    assert text_of(data, data.splits["train"]) == "aaaaac\nbbbbb"


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(path: Path) -> None:
    data = read(path, b"\xef\xbb\xbfab\r\nab\r\n", "fit", fold="all", test_size=0, num_steps=5, sampling="every")
    assert text_of(data, data.splits["train"]) == "ab\nab"


# ---- what cannot be used


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, r"text\.txt: is empty"),
        (b" \n ", {}, r"text\.txt: is empty"),
        (b"a", {}, r"text\.txt: too short: it has 1 tokens \(level char\), of at least 2"),
        (b"one", {"level": "word"}, r"text\.txt: too short: it has 1 tokens \(level word\)"),
        (b"ab" * 20, {"num_steps": 35}, r"text\.txt: its train part has 34 tokens; 36 are needed .* num_steps 35"),
        (
            b"ab" * 50,
            {"num_steps": 9, "sampling": "sequential", "batch_size": 10},
            r"its train part has 85 tokens; 91 .* num_steps 9 for each of 10 rows \(batch_size x processes\)",
        ),
        (b"ab" * 50, {"sampling": "every", "test_size": 0}, r"its val part has 6 tokens; 33 are needed"),
        (b"ab" * 4, {"val_size": 0.05, "num_steps": 2}, r"text\.txt: its val part has 1 tokens; 2 are needed"),
        (b"abcd\xe9fg", {}, r"text\.txt, line 1: the byte 0xe9 is not UTF-8"),
        (b"a" * 100, {}, r"text\.txt: its training text is nothing but 'a'"),
        (b"ab" * 50, {"val_size": 60, "test_size": 50}, r"its 100 tokens are too few .* val_size 60 and test_size 50"),
        (b"ab" * 50, {"train_size": 200}, r"its 100 tokens are too few for train_size 200"),
    ],
)
def test_a_text_that_cannot_be_used(path: Path, content: bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(path, content, **options)


def test_an_empty_file_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcabc")
    (tmp_path / "b.txt").touch()
    with pytest.raises(DataError, match=r"b\.txt: is empty"):
        TextFile(root=str(tmp_path)).setup("fit")


def test_a_min_freq_that_leaves_no_vocabulary(path: Path) -> None:
    with pytest.raises(UsageError, match=r"min_freq 90 a vocabulary of 0 symbols is left, of 2 in the text"):
        read(path, b"ab" * 50, min_freq=90)


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.root FILE"):
        TextFile().setup("fit")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        TextFile(root=str(tmp_path / "nowhere")).setup("fit")
    with pytest.raises(DataError, match=r"no \.txt files"):
        TextFile(root=str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"min_freq": 0}, "min_freq is 0"),
        ({"eval_rows": 0}, "eval_rows is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"val_size": 0}, "--data.fold all"),
        ({"val_size": 1.0}, r"val_size is 1\.0"),
        ({"test_size": -1}, "test_size is -1"),
        ({"train_size": -0.5}, r"train_size is -0\.5"),
    ],
)
def test_an_option_out_of_its_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TextFile(**options)


def test_rows_need_a_batch_size(path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size is the number of rows"):
        read(path, b"ab" * 500, sampling="sequential", batch_size=None)


def test_more_processes_than_rows(path: Path) -> None:
    data = read(path, b"abc" * 500, eval_rows=2)
    data.trainer = SimpleNamespace(world_size=3, global_rank=1)  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"val is evaluated in 2 rows, too few for 3 processes.*eval_rows 3"):
        data.val_dataloader()


# ---- prompts


def prompts(*inputs: str, facts: TextFacts = FACTS) -> Any:
    data = TextFile()
    data.facts, data.inputs = facts, list(inputs)
    data.setup("predict")
    return data.splits["predict"]


def test_prompts_are_texts_files_and_standard_input(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path.write_text("ab\nb c\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"cc\r\na b")))
    source = prompts("abc", str(path), "-", Prompt("text.txt"), "c" * 5000)
    assert source.inputs[:-1] == ["abc", "ab", "b c", "cc", "a b", "text.txt"]
    tokens, targets, starts, lengths = source.__getitems__([2, 1])
    assert tokens.tolist() == [[3, 1, 4], [2, 3, 0]]
    assert (targets == IGNORED).all()
    assert starts.tolist() == [True, True]
    assert lengths.tolist() == [3, 2]
    assert len(source.tokens[-1]) == 5000


def test_prompts_are_read_as_the_training_text_was() -> None:
    facts = TextFacts(("<unk>", "machine", "the", "time"), "word", True)
    assert [each.tolist() for each in prompts("The TIME-machine...", facts=facts).tokens] == [[2, 3, 1]]


def test_what_training_has_not_seen_is_unknown_and_named_once() -> None:
    with pytest.warns(UserWarning, match="not seen in training, and so taken for <unk>: 'é', '中'$") as found:
        source = prompts("aéb", "中é", "ab")
    assert len(found) == 1
    assert [tokens.tolist() for tokens in source.tokens] == [[2, 0, 3], [0, 0], [2, 3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompts("abc")


def test_a_long_list_of_strangers_is_cut() -> None:
    with pytest.warns(UserWarning, match=r"'d', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', \.\.\.$"):
        prompts("defghijklmnop")


@pytest.mark.parametrize("given", ["", Prompt("")])
def test_an_empty_prompt(given: str) -> None:
    number = "prompt 2" if isinstance(given, Prompt) else "input 2"
    with pytest.raises(UsageError, match=f"^{number} is empty"):
        prompts("ab", given)


def test_a_prompt_without_words() -> None:
    facts = TextFacts(("<unk>", "time"), "word", True)
    with pytest.raises(UsageError, match=r"input 1 has no word to go on from: '1898!'"):
        prompts("1898!", facts=facts)


def test_an_empty_line_is_named(path: Path) -> None:
    path.write_text("ab\n\nb\n")
    with pytest.raises(UsageError, match=r"text\.txt, line 2: is empty"):
        prompts(str(path))
    path.write_text("")
    with pytest.raises(UsageError, match=r"text\.txt is empty"):
        prompts(str(path))


def test_prompts_that_are_not_utf8(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"text\.txt, line 1: the byte 0xff is not UTF-8"):
        prompts(str(path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x80")))
    with pytest.raises(DataError, match=r"standard input, line 1: the byte 0x80 is not UTF-8"):
        prompts("-")


def test_free_windows_are_the_default(path: Path) -> None:
    assert isinstance(read(path, b"abc" * 500).splits["train"], FreeWindows)
