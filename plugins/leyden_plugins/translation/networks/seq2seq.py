"""Recurrent encoder and decoder, with or without attention."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from leyden.options import require_positive, require_probability

Tensors = tuple[Tensor, ...]
Attention = Literal["none", "bahdanau", "dot"]
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Encoder(nn.Module):
    """Recurrent layers over a source sentence; padding is never read.

    Shape:
        Tokens (B, S) int64 and lengths (B,) to the outputs (B, S, hidden_size), 0 where padded, and the last state: one
        tensor (B, num_layers, hidden_size), or with an LSTM two.
    """

    def __init__(
        self,
        cell: str,
        symbols: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        both: bool,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding_size)
        self.dropout = nn.Dropout(dropout)
        self.both = both
        between = dropout if num_layers > 1 else 0.0
        self.recurrent = CELLS[cell](
            embedding_size, hidden_size, num_layers, batch_first=True, dropout=between, bidirectional=both
        )
        self.join = nn.Linear(2 * hidden_size, hidden_size) if both else nn.Identity()
        self.join_state = nn.Linear(2 * hidden_size, hidden_size) if both else nn.Identity()

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensors]:
        embedded = self.dropout(self.embedding(tokens))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        found, last = self.recurrent(packed)
        outputs, _ = pad_packed_sequence(found, batch_first=True, total_length=tokens.shape[1])
        parts = last if isinstance(last, tuple) else (last,)
        return self.join(outputs), tuple(self._joined(part) for part in parts)

    def _joined(self, state: Tensor) -> Tensor:
        """(directions x layers, B, H) to (B, layers, H)."""
        state = state.transpose(0, 1)
        if not self.both:
            return state.contiguous()
        joined: Tensor = torch.tanh(self.join_state(state.reshape(len(state), -1, 2 * state.shape[2])))
        return joined


class Seq2Seq(nn.Module):
    """Recurrent encoder-decoder: the encoder's last state begins the decoder's, which tells one token after another.

    attention `none`: the decoder also reads the encoder's last output at every step (Cho et al. 2014). `bahdanau`: at
    every step it reads a mean of the encoder's outputs, weighted by additive attention from its own state before.
    `dot`: what the decoder puts out and a mean weighted by the dot products with it tell the token together; the
    decoder does not read it, so that all steps of training are computed at once.

    Args:
        source_symbols: symbols of the source vocabulary.
        target_symbols: symbols of the target vocabulary.
        cell: `gru` or `lstm`.
        attention: `none`, `bahdanau` or `dot`.
        hidden_size: numbers in the hidden state of a layer.
        num_layers: recurrent layers on top of each other, in the encoder and in the decoder.
        embedding_size: numbers in the embedding of a token.
        dropout: probability of dropping a number: of embeddings, between layers, and before the output.
        bidirectional: the encoder also reads from the end.
        tied_weights: the output has the weights of the target embedding; embedding_size must equal hidden_size.

    Shape:
        Source (B, S) int64, its lengths (B,) int64, and the target's tokens so far (B, T) int64 to the logits
        (B, T, target_symbols) of the token behind each.

    Raises:
        ValueError: for a size below 1, a dropout outside of 0..1, and tied weights of different sizes.

    Source:
        Sutskever et al., "Sequence to sequence learning with neural networks", 2014. Cho et al., "Learning phrase
        representations using RNN encoder-decoder", 2014. Bahdanau et al., "Neural machine translation by jointly
        learning to align and translate", 2015. Luong et al., "Effective approaches to attention-based neural machine
        translation", 2015, 3.1. Dive into Deep Learning, 10.7 and 11.4.
    """

    def __init__(
        self,
        source_symbols: int,
        target_symbols: int,
        cell: Literal["gru", "lstm"] = "gru",
        attention: Attention = "none",
        hidden_size: int = 256,
        num_layers: int = 2,
        embedding_size: int = 256,
        dropout: float = 0.1,
        bidirectional: bool = False,
        tied_weights: bool = False,
    ) -> None:
        super().__init__()
        require_positive(hidden_size=hidden_size, num_layers=num_layers, embedding_size=embedding_size)
        require_probability(dropout=dropout)
        if tied_weights and embedding_size != hidden_size:
            raise ValueError(
                f"tied_weights needs an embedding_size that equals hidden_size; they are {embedding_size} and "
                f"{hidden_size}."
            )
        self.attention = attention
        self.encoder = Encoder(cell, source_symbols, embedding_size, hidden_size, num_layers, dropout, bidirectional)
        self.embedding = nn.Embedding(target_symbols, embedding_size)
        self.dropout = nn.Dropout(dropout)
        read = embedding_size if attention == "dot" else embedding_size + hidden_size
        between = dropout if num_layers > 1 else 0.0
        self.recurrent = CELLS[cell](read, hidden_size, num_layers, batch_first=True, dropout=between)
        if attention != "none":
            self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        if attention == "bahdanau":
            self.query = nn.Linear(hidden_size, hidden_size, bias=False)
            self.score = nn.Linear(hidden_size, 1, bias=False)
        if attention == "dot":
            self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, target_symbols)
        if tied_weights:
            nn.init.normal_(self.embedding.weight, std=embedding_size**-0.5)
            self.output.weight = self.embedding.weight

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        memory, state = self.encode(source, lengths)
        embedded = self.dropout(self.embedding(tokens))
        if self.attention != "bahdanau":
            hidden, _, _ = self._decode(embedded, state, memory)
            return self._logits(hidden)
        steps = []
        for step in range(tokens.shape[1]):
            hidden, _, state = self._decode(embedded[:, step : step + 1], state, memory)
            steps.append(hidden)
        return self._logits(torch.cat(steps, dim=1))

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensors, Tensors]:
        """What decoding needs of a source: what stays, and the state to begin with; items first in each tensor."""
        outputs, state = self.encoder(source, lengths)
        if self.attention == "none":
            last: Tensor = outputs[torch.arange(len(source), device=source.device), lengths - 1]
            return (last,), state
        padded = torch.arange(source.shape[1], device=source.device) >= lengths[:, None]
        return (outputs, self.key(outputs), padded), state

    def step(self, tokens: Tensor, state: Tensors, memory: Tensors) -> tuple[Tensor, Tensor | None, Tensors]:
        """Tokens (B,) and the state before them to logits (B, V), attention (B, S) or None, and the state behind."""
        embedded = self.dropout(self.embedding(tokens))[:, None]
        hidden, weights, state = self._decode(embedded, state, memory)
        return self._logits(hidden)[:, 0], None if weights is None else weights[:, 0], state

    def _decode(self, embedded: Tensor, state: Tensors, memory: Tensors) -> tuple[Tensor, Tensor | None, Tensors]:
        """Embedded tokens (B, T, E) to what the output reads (B, T, H), attention (B, T, S), and the state."""
        if self.attention == "none":
            context = memory[0][:, None].expand(-1, embedded.shape[1], -1)
            hidden, state = self._recur(torch.cat((embedded, context), dim=2), state)
            return hidden, None, state
        outputs, keys, padded = memory
        if self.attention == "dot":
            hidden, state = self._recur(embedded, state)
            weights = _attention(hidden @ keys.transpose(1, 2), padded)
            return torch.tanh(self.combine(torch.cat((hidden, weights @ outputs), dim=2))), weights, state
        query = self.query(state[0][:, -1:])
        weights = _attention(self.score(torch.tanh(query + keys)).transpose(1, 2), padded)
        hidden, state = self._recur(torch.cat((embedded, weights @ outputs), dim=2), state)
        return hidden, weights, state

    def _recur(self, inputs: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        layers_first = tuple(part.transpose(0, 1).contiguous() for part in state)
        given: Any = layers_first if len(layers_first) > 1 else layers_first[0]
        hidden, last = self.recurrent(inputs, given)
        parts = last if isinstance(last, tuple) else (last,)
        return hidden, tuple(part.transpose(0, 1) for part in parts)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


def _attention(scores: Tensor, padded: Tensor) -> Tensor:
    """Weights over the source (B, T, S) that sum to 1, 0 where padded (B, S)."""
    return F.softmax(scores.float().masked_fill(padded[:, None], -torch.inf), dim=2).to(scores.dtype)
