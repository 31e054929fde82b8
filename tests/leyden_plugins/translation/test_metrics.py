"""BLEU and chrF against sacrebleu's command line, the book's formula against the book's numbers."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden_plugins.translation.metrics import (
    Translated,
    TranslationScores,
    bleu_book,
    packed,
    split_words,
    tabbed,
    unpacked,
)

FOUND = [
    Translated("go .", "Va !", ("va !", "Bouge !")),
    Translated("i lost .", "j'ai perdu.", ("J'ai perdu.",)),
    Translated("he's calm .", "il est bon.", ("Il est calme.", "il est mouillé.")),
    Translated("the house is large .", "la maison est très grande.", ("La maison est grande.",)),
    Translated("nothing", "", ("rien du tout .",)),
]


def scores_of(*parts: list[Translated], language: str = "fr") -> dict[str, torch.Tensor]:
    metric = TranslationScores(language, lower=True, k=2)
    for part in parts:
        metric.update(packed(part))
    return metric.compute()


def command_line(folder: Path, found: list[Translated], *options: str) -> float:
    """What `sacrebleu` prints for the same texts."""
    translations, references = folder / "translations.txt", folder / "references.txt"
    translations.write_text("".join(f"{each.translation}\n" for each in found))
    references.write_text("".join(f"{line}\n" for line in tabbed(found)))
    words = [sys.executable, "-m", "sacrebleu", "-nr", str(max(len(each.references) for each in found))]
    words += [str(references), "-i", str(translations), "-b", "-w", "6", *options]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_bleu_and_chrf_are_those_of_sacrebleus_command_line(tmp_path: Path) -> None:
    scores = scores_of(FOUND)
    assert float(scores["bleu"]) == pytest.approx(command_line(tmp_path, FOUND, "-lc"), abs=1e-4)
    assert float(scores["chrf"]) == pytest.approx(
        command_line(tmp_path, FOUND, "-m", "chrf", "--chrf-lowercase"), abs=1e-4
    )


def test_chinese_is_scored_by_characters(tmp_path: Path) -> None:
    found = [
        Translated("go", "你去哪里了？", ("你去了哪里？",)),
        Translated("he", "他很好，谢谢你。", ("他很好，谢谢。",)),
    ]
    expected = command_line(tmp_path, found, "-lc", "-l", "en-zh")
    assert float(scores_of(found, language="zh")["bleu"]) == pytest.approx(expected, abs=1e-4)
    assert expected > 20


def test_the_report_has_the_full_signature() -> None:
    report = TranslationScores("fr", lower=True, k=2).report(FOUND)
    assert "BLEU|nrefs:var|case:lc|eff:no|tok:13a|smooth:exp|version:" in report
    assert "chrF2|nrefs:var|case:lc|" in report
    assert "case:mixed" in TranslationScores("fr", lower=False, k=2).report(FOUND)
    assert "tok:zh" in TranslationScores("zh", lower=True, k=2).report(FOUND)


def test_batches_in_any_order_score_like_all_at_once() -> None:
    whole, parts = scores_of(FOUND), scores_of(FOUND[3:], FOUND[:1], FOUND[1:3])
    for name in ("bleu", "chrf", "bleu_book"):
        torch.testing.assert_close(whole[name], parts[name])


TEXT = st.text(st.characters(exclude_characters="\x1e\x1f\n", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.builds(Translated, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple)), max_size=5))
def test_packing_loses_nothing(found: list[Translated]) -> None:
    assert unpacked(packed(found) if found else torch.zeros(0, dtype=torch.uint8)) == found


@pytest.mark.parametrize(
    ("predicted", "label", "expected"),
    [  # Dive into Deep Learning, 10.7.7: what its network says, and the formula's values as it prints them
        ("va !", "va !", 1.0),
        ("j'ai perdu .", "j'ai perdu .", 1.0),
        ("il est mouillé .", "il est mouillé .", 1.0),
        ("il est riche .", "il est calme .", 0.658),
        ("je suis chez moi .", "je suis chez moi .", 1.0),
    ],
)
def test_the_books_formula_gives_the_books_numbers(predicted: str, label: str, expected: float) -> None:
    assert bleu_book(predicted.split(), label.split(), k=2) == pytest.approx(expected, abs=5e-4)


def test_the_books_example_of_the_formula() -> None:
    """Label A B C D E F, prediction A B B C D: p1 = 4/5, p2 = 3/4, p3 = 1/3, p4 = 0."""
    label, predicted = list("ABCDEF"), list("ABBCD")
    shorter = math.exp(1 - 6 / 5)
    assert bleu_book(predicted, label, 1) == pytest.approx(shorter * 0.8**0.5)
    assert bleu_book(predicted, label, 3) == pytest.approx(shorter * 0.8**0.5 * 0.75**0.25 * (1 / 3) ** 0.125)
    assert bleu_book(predicted, label, 4) == 0


def test_the_formula_where_there_is_little_to_count() -> None:
    assert bleu_book([], ["a"], 2) == 0
    assert bleu_book(["a"], ["a"], 4) == 1
    assert bleu_book(["a"], ["b"], 1) == 0


def test_the_books_score_is_of_the_best_reference() -> None:
    found = [Translated("go", "va !", ("bouge !", "Va !"))]
    assert float(scores_of(found)["bleu_book"]) == 1
    assert split_words("Va\u202f! L'été.", "fr", lower=True) == ["va", "!", "l'été", "."]
    assert split_words("你 好。", "zh", lower=True) == ["你", "好", "。"]
