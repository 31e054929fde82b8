"""Translating token by token: greedy and beam search, all sentences of a batch at once, the state kept."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leyden.batches import BOS, EOS, PAD, UNKNOWN_TOKEN

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Decoding:
    """How translations are searched for.

    beam_size: hypotheses that are kept; 1 takes the likeliest token each time. length_penalty: alpha of Wu et al.,
    "Google's neural machine translation system", 2016, 7: scores are divided by ((5 + length) / 6)^alpha; 0 prefers
    short translations. max_length: tokens of a translation at most, its end (EOS) included, which is told there
    however unlikely it is; None allows twice those of the source and 10. avoid_unknown: never tell <unk>.
    """

    beam_size: int = 1
    length_penalty: float = 1.0
    max_length: int | None = None
    avoid_unknown: bool = False

    def longest(self, lengths: Tensor) -> Tensor:
        """Tokens that a translation of sources of these lengths (B,) may have, with EOS."""
        longest: Tensor = 2 * lengths + 10
        return longest if self.max_length is None else torch.full_like(lengths, self.max_length)

    def normalised(self, total: float, length: int) -> float:
        """The score of hypotheses of so many tokens, EOS included, from the sum of their log-probabilities."""
        divisor: float = ((5 + length) / 6) ** self.length_penalty
        return total / divisor


@dataclass
class Hypothesis:
    """One translation. tokens: without EOS. score: as `Decoding` says. attention: (tokens, S) or None."""

    tokens: list[int]
    score: float
    attention: Tensor | None


def _likeliest(logits: Tensor, count: int, decoding: Decoding, last: Tensor) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens of each row that may be told (N, count), and before them their log-probabilities.

    To compute these of all tokens takes longer than a small network's step. last: (N,) bool, the rows of translations
    that are as long as they may be: nothing but EOS may be told. The logits are written over.
    """
    found = logits.float()
    total = found.logsumexp(dim=1, keepdim=True)
    if last.any():
        found[last, :EOS] = found[last, EOS + 1 :] = -torch.inf
    found[:, [PAD, BOS]] = -torch.inf
    if decoding.avoid_unknown:
        found[:, UNKNOWN_TOKEN] = -torch.inf
    best, tokens = found.max(dim=1, keepdim=True) if count == 1 else found.topk(count, dim=1)
    return best - total, tokens


def _rows(tensors: Tensors, rows: Tensor) -> Tensors:
    return tuple(tensor.index_select(0, rows) for tensor in tensors)


def translate(net: Any, source: Tensor, lengths: Tensor, decoding: Decoding) -> list[list[Hypothesis]]:
    """The translations of each source, best first: `beam_size` of them at most.

    net: with `encode` and `step`, as Seq2Seq describes them. source: (B, S) int64, padded; lengths: (B,) int64.
    """
    if decoding.beam_size == 1:
        return [[found] for found in greedy(net, source, lengths, decoding)]
    return beam(net, source, lengths, decoding)


def greedy(net: Any, source: Tensor, lengths: Tensor, decoding: Decoding) -> list[Hypothesis]:
    """The likeliest token each time. Sentences that have ended are computed no further."""
    memory, state = net.encode(source, lengths)
    longest = decoding.longest(lengths)
    active = torch.arange(len(source), device=source.device)  # the sentence of each row
    tokens = torch.full_like(active, BOS)
    total = torch.zeros(len(source), device=source.device)
    told: list[tuple[Tensor, Tensor, Tensor | None]] = []  # of each step: sentences, tokens, attention
    for step in range(1, int(longest.max()) + 1):
        logits, attention, state = net.step(tokens, state, memory)
        best, likeliest = _likeliest(logits, 1, decoding, longest[active] <= step)
        tokens = likeliest[:, 0]
        total[active] += best[:, 0]
        told.append((active, tokens, attention))
        going = (tokens != EOS).nonzero()[:, 0]
        if len(going) == 0:
            break
        if len(going) < len(active):
            active, tokens = active[going], tokens[going]
            memory, state = _rows(memory, going), _rows(state, going)
    return _gathered(told, total.tolist(), decoding)


def _gathered(
    told: list[tuple[Tensor, Tensor, Tensor | None]], total: list[float], decoding: Decoding
) -> list[Hypothesis]:
    tokens: list[list[int]] = [[] for _ in total]
    attention: list[list[Tensor]] = [[] for _ in total]
    for sentences, step, weights in told:
        for row, (sentence, token) in enumerate(zip(sentences.tolist(), step.tolist(), strict=True)):
            tokens[sentence].append(token)
            if weights is not None:
                attention[sentence].append(weights[row])
    return [
        _hypothesis(own, decoding.normalised(score, len(own)), rows)
        for own, score, rows in zip(tokens, total, attention, strict=True)
    ]


def _hypothesis(tokens: list[int], score: float, attention: list[Tensor]) -> Hypothesis:
    told = tokens[:-1] if tokens and tokens[-1] == EOS else tokens
    return Hypothesis(told, score, torch.stack(attention[: len(told)]) if attention and told else None)


def beam(net: Any, source: Tensor, lengths: Tensor, decoding: Decoding) -> list[list[Hypothesis]]:
    """Beam search: of all continuations of the hypotheses that are kept, the likeliest are kept.

    A hypothesis ends when EOS is among the likeliest continuations; a sentence ends when `beam_size` have. Nothing is
    found for a sentence only where the logits are not numbers (NaN).
    """
    size, count, device = decoding.beam_size, len(source), source.device
    memory, state = net.encode(source, lengths)
    longest = decoding.longest(lengths)
    active = torch.arange(count, device=device)  # the sentence of each group of `size` rows
    each = active.repeat_interleave(size)
    memory, state = _rows(memory, each), _rows(state, each)
    scores = torch.full((count, size), -torch.inf, device=device)
    scores[:, 0] = 0  # all begin alike: the first alone may go on
    tokens = torch.full((count * size,), BOS, device=device)
    prefix = torch.zeros(count * size, 0, dtype=torch.int64, device=device)
    attended: Tensor | None = None
    ended: list[list[Hypothesis]] = [[] for _ in range(count)]
    for step in range(1, int(longest.max()) + 1):
        logits, attention, state = net.step(tokens, state, memory)
        # no more than twice `size` continuations of one hypothesis can be among all likeliest
        width = min(2 * size, logits.shape[1])
        last = longest[active] <= step
        logs, likeliest = _likeliest(logits, width, decoding, last.repeat_interleave(size))
        every = (scores.view(-1, 1) + logs).view(len(active), -1)
        candidates, places = every.topk(min(2 * size, every.shape[1]), dim=1)
        first = torch.arange(len(active), device=device)[:, None] * size
        origin, token = places // width + first, likeliest.view(len(active), -1).gather(1, places)
        if attention is not None:
            attended = attention[:, None] if attended is None else torch.cat((attended, attention[:, None]), dim=1)
        ends = token == EOS
        going_on = candidates.masked_fill(ends, -torch.inf)
        scores, kept = going_on.topk(min(size, going_on.shape[1]), dim=1)
        ending = candidates[:, :size].isfinite() & ends[:, :size]
        for group, place in ending.nonzero().tolist():
            row, sentence = int(origin[group, place]), int(active[group])
            own = [*prefix[row].tolist(), int(token[group, place])]
            weights = [] if attended is None else list(attended[row])
            score = decoding.normalised(float(candidates[group, place]), step)
            ended[sentence].append(_hypothesis(own, score, weights))
        alive = [
            group
            for group, (sentence, final) in enumerate(zip(active.tolist(), last.tolist(), strict=True))
            if not final and len(ended[sentence]) < size and bool(scores[group, 0].isfinite())
        ]
        if not alive:
            break
        scores, kept, size_now = scores[alive], kept[alive], scores.shape[1]
        if size_now < size:  # fewer continuations than places, in tiny vocabularies
            scores = torch.cat((scores, scores.new_full((len(alive), size - size_now), -torch.inf)), dim=1)
            kept = torch.cat((kept, kept[:, :1].expand(-1, size - size_now)), dim=1)
        rows = origin[alive].gather(1, kept).flatten()
        tokens = token[alive].gather(1, kept).flatten()
        prefix = torch.cat((prefix[rows], tokens[:, None]), dim=1)
        attended = None if attended is None else attended[rows]
        active, state = active[alive], _rows(state, rows)
        if len(memory[0]) != len(rows):
            memory = _rows(memory, rows)
    return [sorted(found, key=lambda each: -each.score)[:size] for found in ended]
