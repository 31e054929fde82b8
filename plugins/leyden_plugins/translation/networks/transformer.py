"""Transformer: attention alone, in encoder and decoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leyden.options import require_positive, require_probability

Tensors = tuple[Tensor, ...]


class Transformer(nn.Module):
    """Transformer encoder-decoder with the norms before the layers, on torch's layers.

    Decoding one token at a time keeps keys and values of those before.

    Args:
        source_symbols: symbols of the source vocabulary.
        target_symbols: symbols of the target vocabulary.
        model_size: numbers for each token, between all layers.
        num_heads: heads of each attention; model_size must be a multiple.
        num_layers: layers of the encoder, and of the decoder.
        feedforward_size: numbers inside of each feed-forward layer.
        dropout: probability of dropping a number: of embeddings, attention weights, within and behind each layer.
        tied_weights: the output has the weights of the target embedding.

    Shape:
        Source (B, S) int64, its lengths (B,) int64, and the target's tokens so far (B, T) int64 to the logits
        (B, T, target_symbols) of the token behind each.

    Raises:
        ValueError: for a size below 1, sizes that do not fit, and a dropout outside of 0..1.

    Source:
        Vaswani et al., "Attention is all you need", 2017. Norms before the layers: Xiong et al., "On layer
        normalization in the transformer architecture", 2020. Dive into Deep Learning, 11.7.
    """

    def __init__(
        self,
        source_symbols: int,
        target_symbols: int,
        model_size: int = 256,
        num_heads: int = 4,
        num_layers: int = 3,
        feedforward_size: int = 1024,
        dropout: float = 0.1,
        tied_weights: bool = True,
    ) -> None:
        super().__init__()
        require_positive(
            model_size=model_size, num_heads=num_heads, num_layers=num_layers, feedforward_size=feedforward_size
        )
        if model_size % (2 * num_heads):
            raise ValueError(f"model_size is {model_size}, expected a multiple of twice the num_heads {num_heads}.")
        require_probability(dropout=dropout)
        self.model_size = model_size
        self.num_heads = num_heads
        self.source_embedding = nn.Embedding(source_symbols, model_size)
        self.target_embedding = nn.Embedding(target_symbols, model_size)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=model_size**-0.5)
        self.dropout = nn.Dropout(dropout)
        options = {"dropout": dropout, "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(model_size, num_heads, feedforward_size, **options)  # type: ignore[arg-type]
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(model_size), enable_nested_tensor=False)
        decoder = nn.TransformerDecoderLayer(model_size, num_heads, feedforward_size, **options)  # type: ignore[arg-type]
        self.decoder = nn.TransformerDecoder(decoder, num_layers, nn.LayerNorm(model_size))
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        self.output = nn.Linear(model_size, target_symbols)
        if tied_weights:
            self.output.weight = self.target_embedding.weight

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        memory, padded = self._encoded(source, lengths)
        steps = tokens.shape[1]
        later = torch.ones(steps, steps, dtype=torch.bool, device=tokens.device).triu(1)
        embedded = self._embed(self.target_embedding, tokens)
        hidden = self.decoder(embedded, memory, tgt_mask=later, tgt_is_causal=True, memory_key_padding_mask=padded)
        logits: Tensor = self.output(hidden)
        return logits

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensors, Tensors]:
        """What decoding needs of a source: what stays, and the state to begin with; items first in each tensor."""
        memory, padded = self._encoded(source, lengths)
        kept: list[Tensor] = [padded]
        for layer in self.decoder.layers:
            _, keys, values = self._projected(layer.multihead_attn, memory, slice(1, 3))
            kept += [keys, values]
        nothing = memory.new_zeros(len(memory), self.num_heads, 0, self.model_size // self.num_heads)
        return tuple(kept), (nothing,) * 2 * len(self.decoder.layers)

    def step(self, tokens: Tensor, state: Tensors, memory: Tensors) -> tuple[Tensor, Tensor | None, Tensors]:
        """Tokens (B,) and the state before them to logits (B, V), attention (B, S), and the state behind."""
        hidden = self._embed(self.target_embedding, tokens[:, None], start=state[0].shape[2])
        attention: Tensor | None = None
        following: list[Tensor] = []
        visible = ~memory[0][:, None, None]
        for number, layer in enumerate(self.decoder.layers):
            query, key, value = self._projected(layer.self_attn, layer.norm1(hidden), slice(0, 3))
            keys = torch.cat((state[2 * number], key), dim=2)
            values = torch.cat((state[2 * number + 1], value), dim=2)
            following += [keys, values]
            found, _ = self._attend(layer.self_attn, query, keys, values, None)
            hidden = hidden + layer.dropout1(found)
            query, _, _ = self._projected(layer.multihead_attn, layer.norm2(hidden), slice(0, 1))
            source_keys, source_values = memory[1 + 2 * number], memory[2 + 2 * number]
            found, attention = self._attend(layer.multihead_attn, query, source_keys, source_values, visible)
            hidden = hidden + layer.dropout2(found)
            hidden = hidden + layer._ff_block(layer.norm3(hidden))
        assert self.decoder.norm is not None
        logits = self.output(self.decoder.norm(hidden))
        return logits[:, 0], attention, tuple(following)

    def _encoded(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.arange(source.shape[1], device=source.device) >= lengths[:, None]
        embedded = self._embed(self.source_embedding, source)
        return self.encoder(embedded, src_key_padding_mask=padded), padded

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        scaled: Tensor = embedding(tokens) * math.sqrt(self.model_size)
        positions = sinusoids(start, tokens.shape[1], self.model_size, tokens.device)
        embedded: Tensor = self.dropout(scaled + positions.to(scaled.dtype))
        return embedded

    def _projected(self, layer: nn.MultiheadAttention, inputs: Tensor, which: slice) -> list[Tensor]:
        """Queries, keys and values, those of `which`, (B, heads, T, size / heads); what is not asked for is empty."""
        size = self.model_size
        rows = slice(which.start * size, which.stop * size)
        found = F.linear(inputs, layer.in_proj_weight[rows], layer.in_proj_bias[rows])
        parts = [
            part.view(*part.shape[:2], self.num_heads, -1).transpose(1, 2) for part in torch.split(found, size, dim=2)
        ]
        return [inputs[:0]] * which.start + parts + [inputs[:0]] * (3 - which.stop)

    def _attend(
        self, layer: nn.MultiheadAttention, query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One token's attention: what it finds (B, 1, size), and its weights, the mean of the heads (B, S)."""
        scores = (query @ keys.transpose(2, 3)).float() / math.sqrt(query.shape[3])
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf)
        weights = scores.softmax(dim=3).to(values.dtype)
        dropped = F.dropout(weights, layer.dropout, self.training)
        found: Tensor = layer.out_proj((dropped @ values).transpose(1, 2).flatten(2))
        return found, weights.mean(dim=1)[:, 0]


def sinusoids(start: int, count: int, size: int, device: torch.device) -> Tensor:
    """The code of `count` positions from `start` on, (count, size) float32: sines in even places, cosines in odd ones.

    Source: Vaswani et al., "Attention is all you need", 2017, 3.5.
    """
    positions = torch.arange(start, start + count, device=device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, size, 2, device=device, dtype=torch.float32) * (-math.log(10_000.0) / size))
    return torch.stack(((positions * rates).sin(), (positions * rates).cos()), dim=2).flatten(1)
