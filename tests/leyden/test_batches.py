"""Facts survive being written, and conflict where a trained network could not serve the data."""

import json
from dataclasses import replace

import pytest

from leyden.batches import Facts, ImageFacts, LabelledRows, StyleFacts, StylePairs, TableFacts

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


@pytest.mark.parametrize("facts", [FACTS, ImageFacts(3, (24, 32), ("cat", "dog")), STYLES])
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
