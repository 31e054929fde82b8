"""LanguageModel: tells the next token of a text."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from leyden.batches import IGNORED, TextFacts, TokenWindows
from leyden.errors import UsageError
from leyden.metrics import Perplexity
from leyden.networks import dry_run
from leyden.plugins import named
from leyden.sharding import whole
from leyden.task import Record, Stage, Task
from leyden_plugins.language_model.generation import Sampling, State, generate
from leyden_plugins.language_model.metrics import BitsPerToken

CARRIED = "carried_state"  # where a checkpoint from the middle of an epoch holds the network's memory


class LanguageModel(Task[TokenWindows]):
    """Models a text token by token: cross-entropy, perplexity, bits per character; goes on with prompts.

    Where the data's rows go on from batch to batch, so does the network's state, detached from the batch before.
    Gradients are clipped to a norm of 1 unless the trainer is told otherwise; what the norm was before is logged.

    Args:
        net: the network, called as net(vocab_size); maps int64 tokens (B, T) and a state, or None, to logits
            (B, T, vocab_size) and the state behind them, a tuple of tensors (layers, B, size).
        length: how many tokens `predict`, and the samples after each epoch, go on for.
        temperature: 0 goes on with the likeliest token; above 0 it is drawn, the wilder the higher.
        top_k: draw only of so many likeliest tokens.
        top_p: draw only of the fewest likeliest tokens that together have this probability.
        sampling_seed: of the drawing. The same prompt goes on in the same way whatever else is predicted.
        kwargs: the arguments of every task (optimizer, lr_scheduler, compile, ...).

    Raises:
        UsageError: for a value out of its range, and for options that the network refuses.
    """

    monitor = "val/perplexity"
    mode = "min"
    trainer_defaults: ClassVar[dict[str, Any]] = {"gradient_clip_val": 1.0}
    facts: TextFacts

    def __init__(
        self,
        net: Callable[[int], nn.Module],
        length: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        sampling_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if length < 1:
            raise UsageError(f"length is {length}; it must be at least 1.")
        _check_sampling(temperature, top_k, top_p)
        self.network_factory = net
        self.length = length
        self.sampling = Sampling(temperature, top_k, top_p, sampling_seed)
        self._carried: dict[bool, State] = {}  # by whether it is training's
        self._resumed: list[Tensor] = []

    def build_network(self) -> nn.Module:
        """The network for the data's vocabulary, tried on two tokens."""
        symbols = len(self.facts.symbols)
        if self.sampling.top_k is not None and self.sampling.top_k > symbols:
            raise UsageError(f"top_k is {self.sampling.top_k}, but the vocabulary has only {symbols} symbols.")
        net = self.network_factory(symbols)
        found: Any = dry_run(net, torch.zeros(1, 2, dtype=torch.int64))
        if not (isinstance(found, tuple) and len(found) == 2 and getattr(found[0], "shape", ()) == (1, 2, symbols)):
            raise UsageError(
                f"{named(type(net))} is no language model: it does not make logits (1, 2, {symbols}) and a state of "
                "tokens (1, 2)."
            )
        return net

    def build_metrics(self, stage: Stage) -> MetricCollection:
        """Perplexity of a token, and bits of a character where tokens are characters."""
        metrics: dict[str, Metric | MetricCollection] = {"perplexity": Perplexity()}
        if self.facts.level == "char":
            metrics["bits_per_character"] = BitsPerToken()
        return MetricCollection(metrics)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Tokens (B, T) int64, and the state behind those before them, to logits (B, T, V) and the state."""
        logits, state = self.network(tokens, state)
        return logits, state

    def outputs(self, batch: TokenWindows) -> Tensor:
        """The cross-entropy of each token (B, T), in nats; 0 where padded."""
        logits, state = self(batch.tokens, self._state_before(batch))
        self._carried[self.training] = tuple(part.detach() for part in state)
        targets = batch.targets.flatten()
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="none")
        return losses.view_as(batch.targets)

    def loss(self, outputs: Tensor, batch: TokenWindows) -> Tensor:
        """The mean over the tokens."""
        return outputs.sum() / batch.lengths.sum()

    def weight(self, batch: TokenWindows) -> int:
        """Its tokens."""
        return int(batch.lengths.sum())

    def measure(self, outputs: Tensor, batch: TokenWindows) -> tuple[Tensor, Tensor]:
        """The mean loss of each row (B,), and its number of tokens (B,)."""
        return outputs.sum(dim=1) / batch.lengths, batch.lengths

    def predict(self, batch: TokenWindows) -> list[Record]:
        """`prompt` as the network saw it, and its `continuation`."""
        continuations = generate(self, batch.tokens, batch.lengths, self.length, self.sampling)
        rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), continuations.tolist(), strict=True)
        return [
            {"prompt": self._text(tokens[:length]), "continuation": self._text(following)}
            for tokens, length, following in rows
        ]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning's hook: gradients are complete, unscaled, and not clipped yet."""
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval and (self.trainer.global_step + 1) % interval == 0:
            norm = get_total_norm([each.grad for each in self.parameters() if each.grad is not None])
            self.log("train/gradient_norm", whole(norm))

    def on_train_start(self) -> None:
        """Lightning's hook: each process goes on with its own rows."""
        super().on_train_start()
        if self._resumed and len(self._resumed[0]) == self.trainer.world_size:
            self._carried[True] = tuple(part[self.trainer.global_rank] for part in self._resumed)
        self._resumed = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: in the middle of an epoch, rows will go on from the network's state."""
        super().on_save_checkpoint(checkpoint)
        if True in self._carried and not self.trainer.is_last_batch:
            checkpoint[CARRIED] = [_of_all(part, self.trainer.world_size) for part in self._carried[True]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = checkpoint.get(CARRIED, [])

    def _state_before(self, batch: TokenWindows) -> State | None:
        """The state from which each row goes on: 0 where it starts."""
        carried, rows = self._carried.get(self.training), len(batch.starts)
        if carried is None or carried[0].shape[1] < rows:  # rows that are more than those before all start
            return None
        starts = batch.starts[:, None]
        return tuple(part[:, :rows].to(starts.device).masked_fill(starts, 0) for part in carried)

    def _text(self, tokens: list[int]) -> str:
        separator = "" if self.facts.level == "char" else " "
        return separator.join(self.facts.symbols[token] for token in tokens)


def _of_all(tensor: Tensor, processes: int) -> Tensor:
    """The tensor of each process, (processes, ...)."""
    if processes == 1:
        return tensor[None]
    found = [torch.empty_like(tensor) for _ in range(processes)]
    torch.distributed.all_gather(found, tensor.contiguous())
    return torch.stack(found)


def _check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"temperature is {temperature}; it must be 0 (always the likeliest token) or more.")
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k is {top_k}; it must be at least 1.")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p is {top_p}; it must be above 0 and at most 1.")
    for name, value in {"top_k": top_k, "top_p": top_p}.items():
        if value is not None and temperature == 0:
            raise UsageError(
                f"{name} is {value}, but with temperature 0 nothing is drawn: always the likeliest token is taken. Set "
                "a temperature too, such as --model.temperature 1."
            )
