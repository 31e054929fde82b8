"""What the recurrent language models share: an embedding or one-hot input, torch's recurrent layers, the output."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from leyden.options import require_positive, require_probability

State = tuple[Tensor, ...]


class RecurrentNetwork(nn.Module):
    """Recurrent layers of `layer_class` between an embedding, or one-hot tokens, and a linear output.

    Args:
        vocab_size: number of symbols.
        hidden_size: numbers in the hidden state of a layer.
        num_layers: recurrent layers on top of each other.
        embedding_size: numbers in the embedding of a token; null gives the first layer one-hot tokens.
        dropout: probability of dropping a number between layers: behind the embedding, behind each recurrent layer.
        tied_weights: the output has the weights of the embedding (Press and Wolf, "Using the output embedding to
            improve language models", 2017); embedding_size must equal hidden_size.
        bidirectional: must be false. A network that also reads backwards sees the token that it is to tell; as an
            encoder, in translation, it has its place.

    Shape:
        Tokens (B, T) int64, and the state that was given back for the tokens before, or None, to logits
        (B, T, vocab_size) and the state: one tensor (num_layers, B, hidden_size), or with an LSTM two.

    Raises:
        ValueError: for a size below 1, a dropout outside of 0..1, tied weights of different sizes, and bidirectional.
    """

    layer_class: ClassVar[type[nn.RNN | nn.GRU | nn.LSTM]]

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        tied_weights: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers)
        if embedding_size is not None:
            require_positive(embedding_size=embedding_size)
        require_probability(dropout=dropout)
        if tied_weights and embedding_size != hidden_size:
            raise ValueError(
                f"tied_weights needs an embedding_size that equals hidden_size; they are {embedding_size} and "
                f"{hidden_size}."
            )
        if bidirectional:
            raise ValueError(
                "bidirectional is true: a network that also reads backwards would see the token that it is to tell, "
                "and learn nothing. It serves as an encoder, in translation."
            )
        self.vocab_size = vocab_size
        self.embedding = None if embedding_size is None else nn.Embedding(vocab_size, embedding_size)
        self.recurrent = self.layer_class(
            embedding_size or vocab_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, vocab_size)
        if tied_weights and self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -(hidden_size**-0.5), hidden_size**-0.5)  # as the output has it
            self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden: Tensor
        hidden, last = self.recurrent(self._inputs(tokens), self._as_layers_take_it(state))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits, last if isinstance(last, tuple) else (last,)

    def _inputs(self, tokens: Tensor) -> Tensor:
        if self.embedding is not None:
            embedded: Tensor = self.dropout(self.embedding(tokens))
            return embedded
        one_hot = torch.zeros(*tokens.shape, self.vocab_size, dtype=self.output.weight.dtype, device=tokens.device)
        return one_hot.scatter_(2, tokens[:, :, None], 1)

    def _as_layers_take_it(self, state: State | None) -> Any:
        """Only an LSTM takes a tuple."""
        return state[0] if state is not None and len(state) == 1 else state
