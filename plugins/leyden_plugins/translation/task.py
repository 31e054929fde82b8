"""Translator: translates sentences of one language into another."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from leyden.batches import BOS, CHINESE, EOS, PAD, UNKNOWN_TOKEN, SentencePairs, TranslationFacts, texts_of
from leyden.errors import UsageError
from leyden.folders import write_text
from leyden.metrics import Perplexity
from leyden.networks import dry_run
from leyden.plugins import named
from leyden.task import Record, Stage, Task
from leyden_plugins.translation.decoding import Decoding, Hypothesis, translate
from leyden_plugins.translation.drawing import attention_figure
from leyden_plugins.translation.metrics import Translated, TranslationScores, packed, tabbed, unpacked
from leyden_plugins.translation.text import detokenise, label, words_of

ROWS_AT_ONCE = 512  # hypotheses that are decoded together; on a CPU more take longer
TOKENS_AT_ONCE = 32_768  # hypotheses times tokens of the longest source


class Translator(Task[SentencePairs]):
    """Translates sentences: cross-entropy of each target token, sacreBLEU, chrF, the book's BLEU; beam search.

    Training tells each token from those before it in the reference (teacher forcing). Validation translates with the
    likeliest token each time, the test and `predict` by beam search. Gradients are clipped to a norm of 1 unless the
    trainer is told otherwise.

    Args:
        net: the network, called as net(source_symbols, target_symbols); as Seq2Seq describes it.
        label_smoothing: share of the probability that is to be spread over all symbols (Szegedy et al., "Rethinking the
            Inception architecture", 2016, 7).
        scheduled_sampling: probability with which training feeds a token that the network told, instead of the
            reference's (Bengio et al., "Scheduled sampling for sequence prediction", 2015).
        beam_size: hypotheses kept by the test and `predict`; 1 takes the likeliest token each time.
        length_penalty: scores are divided by ((5 + length) / 6)^length_penalty; 0 prefers short translations.
        max_length: tokens of a translation at most, its end included; null allows twice those of the source and 10.
        unknown: a token that is <unk>: `keep` writes it so, `avoid` never tells it, `copy` writes the source word that
            had most attention.
        n_best: `predict` gives so many translations of each sentence, at most beam_size.
        book_k: longest n-grams of the book's BLEU.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a value out of its range, and for options that the network refuses.
    """

    monitor = "val/bleu"
    mode = "max"
    sample_sheet: ClassVar[tuple[int, int]] = (10, 1)
    trainer_defaults: ClassVar[dict[str, Any]] = {"gradient_clip_val": 1.0}
    facts: TranslationFacts

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        label_smoothing: float = 0.0,
        scheduled_sampling: float = 0.0,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        unknown: Literal["keep", "avoid", "copy"] = "keep",
        n_best: int = 1,
        book_k: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, share in {"label_smoothing": label_smoothing, "scheduled_sampling": scheduled_sampling}.items():
            if not 0 <= share <= 1:
                raise UsageError(f"{name} is {share}; it must be from 0 to 1.")
        for name, count in {
            "beam_size": beam_size,
            "max_length": max_length,
            "n_best": n_best,
            "book_k": book_k,
        }.items():
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1.")
        if n_best > beam_size:
            raise UsageError(f"n_best is {n_best}, but only beam_size {beam_size} translations are kept.")
        self.network_factory = net
        self.label_smoothing = label_smoothing
        self.scheduled_sampling = scheduled_sampling
        self.greedy = Decoding(1, length_penalty, max_length, unknown == "avoid")
        self.beam = Decoding(beam_size, length_penalty, max_length, unknown == "avoid")
        self.unknown = unknown
        self.n_best = n_best
        self.book_k = book_k

    def build_network(self) -> nn.Module:
        """The network for the data's vocabularies, tried on two tokens."""
        symbols = len(self.facts.source.symbols), len(self.facts.target.symbols)
        net: Any = self.network_factory(*symbols)
        two = torch.full((1, 2), EOS)
        found = dry_run(net, two, torch.tensor([2]), two)
        if getattr(found, "shape", ()) != (1, 2, symbols[1]) or not (hasattr(net, "encode") and hasattr(net, "step")):
            raise UsageError(
                f"{named(type(net))} is no translation network: it does not make logits (1, 2, {symbols[1]}) of source "
                "and target tokens (1, 2), or has no encode and step."
            )
        if self.unknown == "copy":
            memory, state = net.encode(two, torch.tensor([2]))
            if net.step(two[:, 0], state, memory)[1] is None:
                raise UsageError("unknown is copy, but the network has no attention that says what to copy.")
        built: nn.Module = net
        return built

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """Perplexity of a token; in evaluation also the scores of the translations."""
        metrics: dict[str, Metric | MetricCollection] = {"perplexity": Perplexity()}
        if stage != "train":
            metrics["scores"] = self._scores()
        return MetricCollection(metrics)

    def _scores(self) -> TranslationScores:
        return TranslationScores(self.facts.target.language, self.facts.target.lower, self.book_k)

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """Source (B, S), its lengths (B,), the target's tokens so far (B, T) to logits (B, T, V)."""
        logits: Tensor = self.network(source, lengths, tokens)
        return logits

    def outputs(self, batch: SentencePairs) -> tuple[Tensor, Tensor | None]:
        """Of each target token (B, T), 0 where padded: its cross-entropy in nats; if smoothing, all symbols' mean."""
        inputs = F.pad(batch.target[:, :-1], (1, 0), value=BOS)
        if self.training and self.scheduled_sampling:
            logits = self._sampled(batch, inputs)
        else:
            logits = self(batch.source, batch.source_lengths, inputs)
        logs = logits.float().log_softmax(dim=2)
        padded = torch.arange(batch.target.shape[1], device=logs.device) >= batch.target_lengths[:, None]
        losses = -logs.gather(2, batch.target[:, :, None])[:, :, 0]
        smoothed = self.training and self.label_smoothing
        return losses.masked_fill(padded, 0), -logs.mean(dim=2).masked_fill(padded, 0) if smoothed else None

    def loss(self, outputs: tuple[Tensor, Tensor | None], batch: SentencePairs) -> Tensor:
        """The mean over the target tokens."""
        losses, spread = outputs
        total = losses.sum()
        if spread is not None:
            total = (1 - self.label_smoothing) * total + self.label_smoothing * spread.sum()
        return total / batch.target_lengths.sum()

    def weight(self, batch: SentencePairs) -> int:
        """Its target tokens."""
        return int(batch.target_lengths.sum())

    def measure(self, outputs: tuple[Tensor, Tensor | None], batch: SentencePairs) -> tuple[Tensor, ...]:
        """The mean loss of each row (B,), its target tokens (B,), and in evaluation the translations, packed."""
        measured = outputs[0].sum(dim=1) / batch.target_lengths, batch.target_lengths
        if self.training:
            return measured
        testing = bool(self.trainer.testing)
        found = self._translate(batch.source, batch.source_lengths, self.beam if testing else self.greedy)
        sources = [words.split(" ") for words in texts_of(batch.words)]
        rows = zip(sources, found, texts_of(batch.references), strict=True)
        texts = [
            Translated(self._source(source), self._text(best[0], source), tuple(references.split("\n")))
            for source, best, references in rows
        ]
        return *measured, packed(texts).to(self.device)

    def update_metrics(self, metrics: MetricCollection, *measured: Any) -> None:
        """Rows' losses and lengths, and where there are any translations."""
        metrics["perplexity"].update(*measured[:2])
        if len(measured) > 2:
            metrics["scores"].update(measured[2])

    def predict(self, batch: SentencePairs) -> list[Record]:
        """`translation` and its `score`, the mean over a text's sentences; `source` and `truth` where this is known.

        The score of a sentence is the logarithm of its probability, divided as `length_penalty` says. A translation of
        nothing is empty and has none.
        """
        texts = [self._sentences(*row) for row in zip(batch.source.tolist(), texts_of(batch.words), strict=True)]
        flat = [sentence for sentences in texts for sentence in sentences]
        found = iter(self._translate_all([tokens for tokens, _ in flat]))
        translated = [[(words, next(found)) for _, words in sentences] for sentences in texts]
        records = [self._record(sentences) for sentences in translated]
        if len(flat) == 1 and self._is_alone():
            [(words, [best, *_])] = translated[0]
            records[0] |= self._attention(words, best)
        known = zip(records, texts_of(batch.words), texts_of(batch.references), strict=True)
        return [
            {"source": self._source(words.split(" ")), **record, "truth": references.split("\n")}
            if references
            else record
            for record, words, references in known
        ]

    def draw_alone(self, record: Record) -> dict[str, Figure]:
        """Which source words a single sentence's translation looked at."""
        if "attention" not in record:
            return {}
        tokens = (record["source_tokens"], self.facts.source), (record["target_tokens"], self.facts.target)
        source, target = ([label(symbol, side) for symbol in symbols] for symbols, side in tokens)
        return {"attention": attention_figure(record["attention"], source, target)}

    def write_results(self, folder: Path, finished: bool) -> None:
        """Of the last validation or test: sources, translations and references line by line, and the full scores.

        sacrebleu's command line, which sacrebleu.txt says, gives the same scores of these files.
        """
        if not finished or "texts" not in self.results:
            return
        found = unpacked(self.results["texts"])
        columns = {
            "sources": [each.source for each in found],
            "translations": [each.translation for each in found],
            "references": tabbed(found),
        }
        for name, lines in columns.items():
            write_text(folder / f"{name}.txt", "".join(f"{line}\n" for line in lines))
        write_text(folder / "sacrebleu.txt", self._scores().report(found))

    def write_predictions(self, records: Sequence[Record], folder: Path) -> None:
        """The translations alone, a line for each input."""
        write_text(folder / "translations.txt", "".join(f"{record['translation']}\n" for record in records))

    def _sampled(self, batch: SentencePairs, inputs: Tensor) -> Tensor:
        """Logits (B, T, V) where some tokens that are fed are those that the network has told."""
        net: Any = self.network
        memory, state = net.encode(batch.source, batch.source_lengths)
        found: list[Tensor] = []
        tokens = inputs[:, 0]
        for step in range(inputs.shape[1]):
            if step:
                own = torch.rand(len(tokens), device=tokens.device) < self.scheduled_sampling
                tokens = torch.where(own, found[-1].argmax(dim=1), inputs[:, step])
            logits, _, state = net.step(tokens, state, memory)
            found.append(logits)
        return torch.stack(found, dim=1)

    def _translate(self, source: Tensor, lengths: Tensor, decoding: Decoding) -> list[list[Hypothesis]]:
        """The best translations of each row, which is one sentence. Raises UsageError where there is none."""
        found = translate(self.network, source, lengths, decoding)
        if all(row and math.isfinite(row[0].score) for row in found):
            return found
        raise UsageError(
            "the network's logits are not numbers (NaN): its weights are of a training that diverged. Take an earlier "
            "checkpoint, or train again with a smaller learning rate."
        )

    def _translate_all(self, sentences: Sequence[list[int]]) -> list[list[Hypothesis]]:
        """The same of sentences of any number and length, in their order; those of like lengths together."""
        order = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        while order:
            # the longest come first, so that what does not fit in memory fails at once
            rows = min(ROWS_AT_ONCE, TOKENS_AT_ONCE // len(sentences[order[-1]])) // self.beam.beam_size
            places = order[-max(1, rows) :]
            del order[-len(places) :]
            lengths = torch.tensor([len(sentences[place]) for place in places], device=self.device)
            longest = int(lengths.max())
            padded = [sentences[place] + [PAD] * (longest - len(sentences[place])) for place in places]
            translations = self._translate(torch.tensor(padded, device=self.device), lengths, self.beam)
            for place, translation in zip(places, translations, strict=True):
                found[place] = translation
        return found

    def _sentences(self, tokens: list[int], words: str) -> list[tuple[list[int], list[str]]]:
        """A row's sentences, each with its tokens as they stand in the text."""
        left = words.split(" ")
        sentences, begin = [], 0
        inside = [place for place, token in enumerate(tokens) if token != PAD]
        end = inside[-1] + 1 if inside else 0
        for place in range(end):
            if tokens[place] == EOS or place == end - 1:
                own = tokens[begin : place + 1]
                count = len(own) - (own[-1] == EOS)
                sentences.append((own, left[:count]))
                left, begin = left[count:], place + 1
        return sentences

    def _record(self, sentences: Sequence[tuple[list[str], list[Hypothesis]]]) -> Record:
        if not sentences:
            return {"translation": "", "score": None}
        separator = "" if self.facts.target.language == CHINESE else " "
        record: Record = {
            "translation": separator.join(self._text(found[0], words) for words, found in sentences),
            "score": sum(found[0].score for _, found in sentences) / len(sentences),
        }
        if self.n_best > 1:
            record["n_best"] = [
                [{"translation": self._text(each, words), "score": each.score} for each in found[: self.n_best]]
                for words, found in sentences
            ]
        return record

    def _symbols(self, hypothesis: Hypothesis, source: Sequence[str]) -> list[str]:
        """A translation's tokens in writing, unknown ones as asked for."""
        told = [self.facts.target.symbols[token] for token in hypothesis.tokens]
        if self.unknown != "copy" or hypothesis.attention is None:
            return told
        best = hypothesis.attention[:, : max(1, len(source))].argmax(dim=1).tolist()
        return [
            source[place] if token == UNKNOWN_TOKEN and source else symbol
            for token, symbol, place in zip(hypothesis.tokens, told, best, strict=True)
        ]

    def _text(self, hypothesis: Hypothesis, source: Sequence[str]) -> str:
        target = self.facts.target
        return detokenise(words_of(self._symbols(hypothesis, source), target), target.language)

    def _source(self, symbols: Sequence[str]) -> str:
        """Source tokens in writing as a text."""
        source = self.facts.source
        return detokenise(words_of(symbols, source), source.language)

    def _attention(self, words: list[str], found: Hypothesis) -> Record:
        """What draws the attention of a sentence that is alone: (target tokens, source tokens)."""
        if found.attention is None:
            return {}
        return {
            "attention": found.attention[:, : len(words)].float().cpu(),
            "source_tokens": words,
            "target_tokens": self._symbols(found, words),
        }

    def _is_alone(self) -> bool:
        """Whether nothing else is predicted."""
        trainer: Any = self.trainer
        return bool(trainer.predicting) and len(trainer.datamodule.splits["predict"]) == 1
