"""Facts survive being written, and conflict where a trained network could not serve the data."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.batches import (
    SPECIALS,
    Facts,
    ImageFacts,
    LabelledRows,
    SentencePairs,
    Side,
    StyleFacts,
    StylePairs,
    TableFacts,
    TranslationFacts,
    bytes_of,
    texts_of,
)

FACTS = TableFacts(
    feature_names=("area", "area is missing", "zone=A", "zone=B"),
    target_name="price",
    id_name=None,
    log_target=True,
    target_mean=12.0,
    target_std=0.5,
    positive_target=True,
    numeric_columns=(("area", 3.5, 1.5, None, True),),
    categorical_columns=(("zone", ("A", "B"), False, False),),
)


STYLES = StyleFacts((("hill.png", "oak.jpg", 300, 450), ("lake.png", "oak.jpg", 200, 300)))
SOURCE = Side("en", "bpe", (*SPECIALS, "a", "b", "c", "ab", "abc"), ("a b", "ab c"))
TARGET = Side("zh", "char", (*SPECIALS, "我", "们"), simplified=True)
TRANSLATION = TranslationFacts(SOURCE, TARGET, num_steps=9)


@pytest.mark.parametrize("facts", [FACTS, ImageFacts(3, (24, 32), ("cat", "dog")), STYLES, TRANSLATION])
def test_facts_survive_a_file_format_without_tuples(facts: Facts) -> None:
    again = type(facts).from_primitives(json.loads(json.dumps(facts.to_primitives())))
    assert again == facts
    assert hash(again) == hash(facts), "a list somewhere inside could not be hashed"


def test_rows_have_table_facts() -> None:
    assert LabelledRows.facts_class() is TableFacts


def test_other_statistics_are_no_conflict() -> None:
    other = replace(FACTS, target_mean=0.0, target_std=2.0, target_name="cost", id_name="Id", positive_target=False)
    other = replace(other, numeric_columns=(("area", 0.0, 9.0, 0.5, True),))
    assert FACTS.conflicts(FACTS) == FACTS.conflicts(other) == []


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (
            replace(FACTS, feature_names=("area", "zone=B", "zone=C", "zone=A")),
            ["features that it lacks: area is missing", "features that the network does not know: zone=C"],
        ),
        (
            replace(FACTS, feature_names=tuple(f"x{number}" for number in range(7))),
            [
                "features that it lacks: area, area is missing, zone=A, zone=B",
                "features that the network does not know: x0, x1, x2, x3, x4, ... (7 in all)",
            ],
        ),
        (replace(FACTS, feature_names=FACTS.feature_names[::-1]), ["its features are in another order"]),
        (replace(FACTS, log_target=False), ["log_target: True -> False"]),
    ],
)
def test_conflicts(other: TableFacts, lines: list[str]) -> None:
    assert FACTS.conflicts(other) == lines


def test_pictures_that_were_painted_are_no_others() -> None:
    assert StylePairs.facts_class() is StyleFacts
    assert STYLES.conflicts(STYLES) == []
    first, (content, *rest) = STYLES.pairs
    assert STYLES.conflicts(StyleFacts((first, ("sea.png", *rest)))) == [
        f"2 pairs -> 2; the first difference is pair 1: {(content, *rest)} -> {('sea.png', *rest)}"
    ]
    assert STYLES.conflicts(StyleFacts((first,)))[0].endswith(f"pair 1: {(content, *rest)} -> none")


def test_sentence_pairs_have_translation_facts() -> None:
    assert SentencePairs.facts_class() is TranslationFacts


def test_sentences_of_another_length_are_no_conflict() -> None:
    assert TRANSLATION.conflicts(TRANSLATION) == TRANSLATION.conflicts(replace(TRANSLATION, num_steps=None)) == []


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (TranslationFacts(TARGET, SOURCE), ["languages: en to zh -> zh to en"]),
        (
            TranslationFacts(SOURCE, replace(TARGET, language="fr", symbols=SPECIALS)),
            ["languages: en to zh -> en to fr"],
        ),
        (
            TranslationFacts(replace(SOURCE, symbols=(*SPECIALS, "a", "x")), TARGET),
            ["source vocabulary: 9 symbols -> 6; the first difference is symbol 5: 'b' -> 'x'"],
        ),
        (
            TranslationFacts(SOURCE, replace(TARGET, symbols=(*TARGET.symbols, "他"))),
            ["target vocabulary: 6 symbols -> 7; the first difference is symbol 6: nothing -> '他'"],
        ),
        (TranslationFacts(replace(SOURCE, merges=("b c", "ab c")), TARGET), ["source: other byte-pair merges"]),
        (
            TranslationFacts(replace(SOURCE, level="word", lower=False), replace(TARGET, simplified=False)),
            ["source level: bpe -> word", "source lower: True -> False", "target simplified: True -> False"],
        ),
    ],
)
def test_conflicts_of_translation(other: TranslationFacts, lines: list[str]) -> None:
    assert TRANSLATION.conflicts(other) == lines


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(texts, max_size=5))
def test_texts_come_back_from_their_bytes(given: list[str]) -> None:
    rows = bytes_of(given)
    assert rows.dtype == torch.uint8
    assert rows.shape == (len(given), max((len(text.encode()) for text in given), default=0))
    assert texts_of(rows) == given


def test_bytes_may_be_padded_further() -> None:
    assert bytes_of(["a", "é"]).tolist() == [[97, 0], [0xC3, 0xA9]]
    wider = torch.nn.functional.pad(bytes_of(["a", "é"]), (0, 3))
    assert texts_of(wider) == ["a", "é"]
    assert texts_of(bytes_of(["", ""])) == ["", ""]
