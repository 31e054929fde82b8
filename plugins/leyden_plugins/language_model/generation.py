"""Going on with prompts: the state that they leave, then token by token, all prompts of a batch at once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State | None], tuple[Tensor, State]]  # a network, as RecurrentNetwork describes its shapes


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature: 0 takes the likeliest; above 0, logits are divided by it and a token is drawn. top_k: only of the k
    likeliest. top_p: then only of the fewest likeliest that together have this probability (Holtzman et al., "The
    curious case of neural text degeneration", 2020). seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def choose(self, logits: Tensor, numbers: Tensor) -> Tensor:
        """A token for each row, (B,) int64. logits: (B, V). numbers: (B,) uniform in [0, 1)."""
        if self.temperature == 0:
            return logits.argmax(dim=1)
        if self.top_k is None and self.top_p is None:  # nothing is left out: no need to sort
            up_to = (logits.float() / self.temperature).softmax(dim=1).cumsum(dim=1)
            return _first_above(up_to, numbers)
        likeliest, tokens = logits.float().topk(self.top_k or logits.shape[1])
        probabilities = (likeliest / self.temperature).softmax(dim=1)
        up_to = probabilities.cumsum(dim=1)
        if self.top_p is not None:
            probabilities = probabilities.masked_fill(up_to - probabilities >= self.top_p, 0)
            up_to = probabilities.cumsum(dim=1)
        return tokens.gather(1, _first_above(up_to, numbers)[:, None])[:, 0]

    def numbers(self, prompts: Tensor, lengths: Tensor, count: int) -> Tensor:
        """Uniform numbers (B, count), which depend on each prompt and the seed, not on its neighbours."""
        rows = [
            torch.rand(count, generator=torch.Generator().manual_seed(self._seed_of(tokens[:length])))
            for tokens, length in zip(prompts.tolist(), lengths.tolist(), strict=True)
        ]
        return torch.stack(rows).to(prompts.device)

    def _seed_of(self, tokens: list[int]) -> int:
        digest = hashlib.sha256(f"{self.seed} {tokens}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def _first_above(up_to: Tensor, numbers: Tensor) -> Tensor:
    """The first place (B,) up to which the probabilities exceed the number's share of them all. up_to: (B, V)."""
    total = up_to[:, -1:].contiguous()
    last = torch.searchsorted(up_to, total)  # that has any; a number may be rounded to 1
    return torch.searchsorted(up_to, numbers[:, None] * total, right=True).minimum(last)[:, 0]


def warm_up(net: Step, prompts: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
    """What a network makes of prompts: logits (B, V) of the token after each, and its state.

    prompts: (B, T) int64, padded; lengths: (B,) int64, 1 to T. Padding is never read: the rows go on together up to the
    end of the shortest, the others up to the end of the next, and so on.
    """
    logits: Tensor | None = None
    state: State = ()
    for begin, end in pairwise([0, *sorted(set(lengths.tolist()))]):
        rows = (lengths >= end).nonzero()[:, 0]
        found, own = net(prompts[rows, begin:end], tuple(part[:, rows] for part in state) or None)
        if logits is None:
            logits, state = found[:, -1], own
        else:
            logits = logits.index_copy(0, rows, found[:, -1])
            state = tuple(part.index_copy(1, rows, new) for part, new in zip(state, own, strict=True))
    assert logits is not None
    return logits, state


def generate(net: Step, prompts: Tensor, lengths: Tensor, count: int, sampling: Sampling) -> Tensor:
    """The next `count` tokens of each prompt, (B, count) int64. prompts and lengths as in `warm_up`."""
    numbers = sampling.numbers(prompts, lengths, count)
    logits, state = warm_up(net, prompts, lengths)
    tokens = [sampling.choose(logits, numbers[:, 0])]
    for step in range(1, count):
        following, state = net(tokens[-1][:, None], state)
        tokens.append(sampling.choose(following[:, 0], numbers[:, step]))
    return torch.stack(tokens, dim=1)
