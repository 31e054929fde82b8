"""The metrics of translation: corpus BLEU and chrF by sacrebleu, and the book's formula."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor
from torchmetrics import Metric

from leyden.batches import CHINESE
from leyden.errors import UsageError

FIELD, RECORD = "\x1f", "\x1e"  # between the texts of a sentence, and behind each sentence


class Translated(NamedTuple):
    """A sentence, its translation, and the references."""

    source: str
    translation: str
    references: tuple[str, ...]


class TranslationScores(Metric):
    """bleu: corpus BLEU, 0 to 100. chrf: chrF2, 0 to 100. bleu_book: the mean of the sentences' `bleu_book`, 0 to 1.

    All texts are kept, and scored when they are complete, whatever process each is from. As `texts` they come along,
    for files.

    Args:
        language: of the translations (ISO 639-1); sacrebleu's tokenizer for it is used.
        lower: letters count as equal to their small ones.
        k: longest n-grams of the book's formula.

    Raises:
        UsageError: where sacrebleu lacks a library for the language.

    Source: Papineni et al., "BLEU", 2002; Popović, "chrF", 2015; Post, "A call for clarity in reporting BLEU scores",
    2018.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    texts: list[Tensor] | Tensor

    def __init__(self, language: str, lower: bool, k: int) -> None:
        super().__init__()
        self.language = language
        self.lower = lower
        self.k = k
        self._scorers()
        self.add_state("texts", [], dist_reduce_fx="cat")

    def _scorers(self) -> tuple[BLEU, CHRF]:
        try:
            return BLEU(lowercase=self.lower, trg_lang=self.language), CHRF(lowercase=self.lower)
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"sacrebleu needs more libraries to divide {self.language} into words: pip install "
                f"'sacrebleu[{self.language}]'"
            ) from error

    def update(self, texts: Tensor) -> None:
        """Sentences as `packed` makes them, (N,) uint8."""
        assert isinstance(self.texts, list)
        self.texts.append(texts)

    def compute(self) -> dict[str, Tensor]:
        """Three numbers, and `texts` (N,) uint8."""
        texts = torch.cat(self.texts) if isinstance(self.texts, list) else self.texts
        found = unpacked(texts)
        bleu, chrf = self._scorers()
        translations, references = [each.translation for each in found], streams(found)
        scores = {
            "bleu": bleu.corpus_score(translations, references).score,
            "chrf": chrf.corpus_score(translations, references).score,
            "bleu_book": math.fsum(self._by_the_book(each) for each in found) / len(found),
        }
        return {**{name: torch.tensor(score, device=self.device) for name, score in scores.items()}, "texts": texts}

    def _by_the_book(self, translated: Translated) -> float:
        """The best reference's."""
        words = split_words(translated.translation, self.language, self.lower)
        return max(
            bleu_book(words, split_words(reference, self.language, self.lower), self.k)
            for reference in translated.references
        )

    def report(self, found: Sequence[Translated]) -> str:
        """BLEU and chrF with sacrebleu's signatures, a line each, and the command line that gives the same of files."""
        translations, references = [each.translation for each in found], streams(found)
        lines = []
        for scorer in self._scorers():
            score = scorer.corpus_score(translations, references)
            lines.append(f"{score.format(signature=str(scorer.get_signature()))}\n")
        case = " -lc --chrf-lowercase" if self.lower else ""
        count = max(len(each.references) for each in found)
        command = f"sacrebleu -nr {count} references.txt -i translations.txt -m bleu chrf{case} -l xx-{self.language}"
        return "".join(lines) + command + "\n"


def packed(found: Sequence[Translated]) -> Tensor:
    """Sentences as one piece of text, (N,) uint8."""
    texts = (FIELD.join((each.source, each.translation, *each.references)) + RECORD for each in found)
    return torch.frombuffer(bytearray("".join(texts).encode()), dtype=torch.uint8)


def unpacked(texts: Tensor) -> list[Translated]:
    """The inverse of `packed`."""
    records = (record.split(FIELD) for record in texts.cpu().numpy().tobytes().decode().split(RECORD)[:-1])
    return [Translated(source, translation, tuple(references)) for source, translation, *references in records]


def streams(found: Sequence[Translated]) -> Any:
    """References as sacrebleu takes them: all first ones, all second ones, ...; None where there are no more."""
    most = max(len(each.references) for each in found)
    return [[each.references[n] if n < len(each.references) else None for each in found] for n in range(most)]


def tabbed(found: Sequence[Translated]) -> list[str]:
    """The references of each sentence with tabs between; the first again where others have more, as sacrebleu wants."""
    most = max(len(each.references) for each in found)
    return ["\t".join((*each.references, *each.references[:1] * (most - len(each.references)))) for each in found]


def split_words(text: str, language: str, lower: bool) -> list[str]:
    """The words of a sentence for the book's formula, punctuation marks apart; characters in Chinese."""
    text = text.replace("\u202f", " ").replace("\xa0", " ")
    text = text.lower() if lower else text
    if language == CHINESE:
        return [character for character in text if not character.isspace()]
    return "".join(f" {sign} " if sign in ",.!?" else sign for sign in text).split()


def bleu_book(predicted: Sequence[str], label: Sequence[str], k: int) -> float:
    """exp(min(0, 1 - len_label / len_predicted)) times the product over n = 1..k of p_n^(1/2^n).

    p_n is the share of the prediction's n-grams that the label has. 0 for an empty prediction; n ends at the length of
    the prediction.

    Source: Dive into Deep Learning, 10.7.6.
    """
    if not predicted:
        return 0.0
    score = math.exp(min(0, 1 - len(label) / len(predicted)))
    for n in range(1, min(k, len(predicted)) + 1):
        mine, theirs = (
            Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
            for words in (predicted, label)
        )
        score *= ((mine & theirs).total() / (len(predicted) - n + 1)) ** (0.5**n)
    return score
