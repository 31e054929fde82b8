"""LanguageModel: losses, metrics, carried state, gradients and predictions against what is written out in the test."""

import json
import math
import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torchmetrics.text import Perplexity as TorchmetricsPerplexity

from leyden.batches import IGNORED, TextFacts, TokenWindows
from leyden.errors import UsageError
from leyden.main import main
from leyden.runs import read_checkpoint
from leyden_datamodules.text_file import TextFile, made_up_text
from leyden_plugins.language_model import task as language_model
from leyden_plugins.language_model.networks.gru import GRU
from leyden_plugins.language_model.networks.lstm import LSTM
from leyden_plugins.language_model.networks.rnn import RNN
from leyden_plugins.language_model.task import CARRIED, LanguageModel

SYMBOLS = ("<unk>", " ", "a", "b", "c")
STAY = partial(torch.optim.SGD, lr=0.0)  # an optimizer that leaves the weights as they are


def make_task(net: Any = None, level: str = "char", **kwargs: Any) -> LanguageModel:
    torch.manual_seed(0)
    task = LanguageModel(net=net or partial(LSTM, hidden_size=6, num_layers=2), **kwargs)
    task.facts = TextFacts(SYMBOLS, level, False)
    task.configure_model()
    return task


def make_trainer(**kwargs: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    return Trainer(**{**quiet, **kwargs})


def make_batch(rows: int = 3, steps: int = 6, starts: bool = True, seed: int = 0) -> TokenWindows:
    """Random tokens; each row a token shorter than the one before."""
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(0, len(SYMBOLS), (2, rows, steps), generator=generator)
    lengths = torch.arange(steps, steps - rows, -1)
    padded = torch.arange(steps) >= lengths[:, None]
    filled = tokens.masked_fill(padded, 0), targets.masked_fill(padded, IGNORED)
    return TokenWindows(*filled, torch.full((rows,), starts), lengths)


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text(made_up_text(3001, seed=0))
    return str(tmp_path / "text.txt")


# ---- loss and metrics


def by_hand(net: Any, batch: TokenWindows) -> list[float]:
    """-log of the probability of each target, from a state of 0."""
    logits, _ = net(batch.tokens)
    probabilities = logits.double().softmax(dim=2)
    return [
        -math.log(probabilities[row, step, batch.targets[row, step]].item())
        for row in range(len(batch.tokens))
        for step in range(int(batch.lengths[row]))
    ]


def test_the_loss_is_the_mean_cross_entropy_of_the_tokens() -> None:
    task, batch = make_task(), make_batch()
    losses = by_hand(task.network, batch)
    assert task.loss(task.outputs(batch), batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert task.weight(batch) == len(losses) == 15


def test_perplexity_and_bits_are_torchmetrics_perplexity_over_unequal_batches() -> None:
    task = make_task()
    oracle = TorchmetricsPerplexity(ignore_index=IGNORED)
    metrics = task.build_metrics("val")
    for batch in (make_batch(3, seed=1), make_batch(1, steps=2, seed=2)):
        logits, _ = task(batch.tokens)
        oracle.update(logits, batch.targets)
        task.update_metrics(metrics, *task.measure(task.outputs(batch), batch))
    found, expected = metrics.compute(), oracle.compute().item()
    assert found["perplexity"].item() == pytest.approx(expected, rel=1e-6)
    assert found["bits_per_character"].item() == pytest.approx(math.log2(expected), rel=1e-6)


def test_what_training_measures_waits_and_counts_the_same() -> None:
    task = make_task()
    batches = [make_batch(3, seed=1), make_batch(1, steps=2, seed=2)]
    measured = [task.measure(task.outputs(batch), batch) for batch in batches]
    assert all(len(part) == len(batch.tokens) for parts, batch in zip(measured, batches, strict=True) for part in parts)
    once, twice = task.build_metrics("train"), task.build_metrics("train")
    for parts in measured:
        task.update_metrics(twice, *parts)
    task.update_metrics(once, *(torch.cat(parts) for parts in zip(*measured, strict=True)))
    assert once.compute()["perplexity"].item() == pytest.approx(twice.compute()["perplexity"].item(), rel=1e-6)


def test_words_have_no_bits_per_character() -> None:
    assert set(make_task(level="word").build_metrics("val")) == {"perplexity"}


# ---- the state that is carried


def rows_at_once(net: Any, data: TextFile, rows: int) -> list[Tensor]:
    """The losses of each evaluation row, from one forward pass over all of it."""
    source: Any = data.splits["val"]
    bounds = [source._begins(torch.tensor(row)).item() for row in range(rows + 1)]
    losses = []
    for begin, end in pairwise(bounds):
        tokens = source.tokens[begin : end + 1].long()
        logits, _ = net(tokens[None, :-1])
        losses.append(F.cross_entropy(logits[0], tokens[1:], reduction="none"))
    return losses


@pytest.mark.parametrize("net", [RNN, GRU, LSTM])
@pytest.mark.parametrize("rows", [1, 3])
def test_evaluation_in_windows_is_one_long_forward_pass(text: str, net: type[nn.Module], rows: int) -> None:
    torch.manual_seed(0)
    task = LanguageModel(net=partial(net, hidden_size=16))
    data = TextFile(root=text, num_steps=7, eval_rows=rows, val_size=200)
    [found] = make_trainer().validate(task, data, verbose=False)
    with torch.no_grad():
        expected = torch.cat(rows_at_once(task.network.eval(), data, rows)).double().mean().item()
    assert found["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert found["val/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert found["val/bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)
    other = TextFile(root=text, num_steps=50, eval_rows=rows, val_size=200, batch_size=1)
    [again] = make_trainer().validate(task, other, verbose=False)
    assert again["val/loss"] == pytest.approx(found["val/loss"], rel=1e-5)


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("validated", [1.0, 0.4])  # at the epoch's end, and in its middle
def test_sequential_training_is_one_long_forward_pass(text: str, accumulated: int, validated: float) -> None:
    torch.manual_seed(0)
    task = LanguageModel(net=partial(GRU, hidden_size=16), optimizer=STAY)
    data = TextFile(root=text, num_steps=9, sampling="sequential", batch_size=4)
    trainer = make_trainer(max_epochs=2, accumulate_grad_batches=accumulated, val_check_interval=validated)
    trainer.fit(task, data)
    source: Any = data.splits["train"]
    length = source.windows * source.num_steps
    source.begin_epoch(1)  # the last that was trained
    tokens = source.tokens[int(source.offset) :].long()
    rows = [tokens[row * length : (row + 1) * length + 1] for row in range(4)]
    with torch.no_grad():
        logits, _ = task.network(torch.stack([row[:-1] for row in rows]))
    expected = F.cross_entropy(logits.flatten(0, 1).double(), torch.cat([row[1:] for row in rows])).item()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_random_windows_begin_with_no_memory(text: str) -> None:
    task = LanguageModel(net=partial(GRU, hidden_size=16), optimizer=STAY)
    data = TextFile(root=text, num_steps=9, batch_size=100)
    trainer = make_trainer(max_epochs=2)
    trainer.fit(task, data)
    source: Any = data.splits["train"]
    source.begin_epoch(1)
    tokens, targets, _, _ = source.__getitems__(range(len(source)))
    with torch.no_grad():
        logits, _ = task.network(tokens)
    expected = F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten()).item()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_gradients_do_not_go_back_into_the_batch_before() -> None:
    task = make_task().train()
    first, second = (make_batch(starts=starts, seed=seed) for starts, seed in ((True, 1), (False, 2)))
    task.outputs(first)
    task.loss(task.outputs(second), second).backward()
    found = [parameter.grad.clone() for parameter in task.network.parameters() if parameter.grad is not None]
    task.network.zero_grad()
    _, state = task.network(first.tokens)
    logits, _ = task.network(second.tokens, tuple(part.detach() for part in state))
    F.cross_entropy(logits.flatten(0, 1), second.targets.flatten(), ignore_index=IGNORED).backward()
    expected = [parameter.grad for parameter in task.network.parameters()]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_each_row_starts_or_goes_on_by_itself_and_rows_may_end() -> None:
    task = make_task().eval()
    batches = [make_batch(3, seed=1), make_batch(2, seed=2, starts=False)]
    batches[1] = batches[1]._replace(starts=torch.tensor([True, False]))
    with torch.no_grad():
        task.outputs(batches[0])
        found = task.outputs(batches[1])
        _, state = task.network(batches[0].tokens)
        anew, _ = task.network(batches[1].tokens[:1])
        going_on, _ = task.network(batches[1].tokens[1:], tuple(part[:, 1:2] for part in state))
    logits = torch.cat((anew, going_on))
    expected = F.cross_entropy(logits.flatten(0, 1), batches[1].targets.flatten(), reduction="none")
    torch.testing.assert_close(found.flatten(), expected)


def test_more_rows_than_before_are_new_ones() -> None:
    task = make_task().eval()
    small, large = make_batch(1, seed=1), make_batch(3, seed=2)
    with torch.no_grad():
        expected = task.outputs(large)
        task.outputs(small)
        assert torch.equal(task.outputs(large), expected)


# ---- gradients


class Gradients(Callback):
    """Keeps the gradients before they are clipped, and the weights before and after the step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        parameters = list(pl_module.network.parameters())
        self.gradients = [parameter.grad.clone() for parameter in parameters]
        self.before = [parameter.detach().clone() for parameter in parameters]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.after = [parameter.detach().clone() for parameter in pl_module.network.parameters()]


class GradientNorms(CSVLogger):
    """Keeps the gradient norms that are logged, by the number of steps done."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.norms: dict[int, float] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "train/gradient_norm" in metrics:
            self.norms[int(step or 0) + 1] = metrics["train/gradient_norm"]


@pytest.mark.parametrize("limit", [0.01, 1e9])
def test_gradients_are_clipped_by_the_formula(text: str, limit: float) -> None:
    """Dive into Deep Learning, (9.5.9): g is multiplied by min(1, limit / |g|), |g| over all of the network."""
    task = LanguageModel(net=partial(LSTM, hidden_size=16), optimizer=partial(torch.optim.SGD, lr=0.5))
    seen = Gradients()
    logger = GradientNorms()
    options: Any = {"max_steps": 1, "callbacks": [seen], "gradient_clip_val": limit, "log_every_n_steps": 1}
    make_trainer(**options, logger=logger).fit(task, TextFile(root=text))
    norm = torch.cat([gradient.flatten() for gradient in seen.gradients]).double().square().sum().sqrt().item()
    for before, after, gradient in zip(seen.before, seen.after, seen.gradients, strict=True):
        expected = before - 0.5 * gradient * min(1.0, limit / norm)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6)
    assert (norm > limit) == (limit == 0.01)
    assert logger.norms == {1: pytest.approx(norm, rel=1e-5)}


def test_the_gradient_norm_is_computed_and_logged_once_per_interval(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Mock(side_effect=language_model.get_total_norm)
    monkeypatch.setattr(language_model, "get_total_norm", computed)
    task = LanguageModel(net=partial(GRU, hidden_size=8))
    data, logger = TextFile(root=text, num_steps=10, batch_size=16), GradientNorms()
    make_trainer(max_steps=10, log_every_n_steps=4, logger=logger).fit(task, data)
    assert list(logger.norms) == [4, 8]
    assert computed.call_count == 2


# ---- predictions


class Alphabet(nn.Module):
    """After each symbol comes the one with the next number."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor]]:
        logits = F.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float()
        return logits, (torch.zeros(1, len(tokens), 1),)


def test_a_prediction_is_the_prompt_and_what_follows_it() -> None:
    tokens = torch.tensor([[2, 0, 3], [1, 0, 0]])
    batch = TokenWindows(tokens, torch.full_like(tokens, IGNORED), torch.ones(2) > 0, torch.tensor([3, 1]))
    task = make_task(Alphabet, length=4)
    assert task.predict(batch) == [
        {"prompt": "a<unk>b", "continuation": "c<unk> a"},
        {"prompt": " ", "continuation": "abc<unk>"},
    ]
    words = make_task(Alphabet, level="word", length=2)
    assert words.predict(batch)[0] == {"prompt": "a <unk> b", "continuation": "c <unk>"}


def test_predicting_leaves_the_carried_state_alone() -> None:
    task = make_task().eval()
    first, second = make_batch(seed=1), make_batch(seed=2, starts=False)
    with torch.no_grad():
        task.outputs(first)
        expected = task.outputs(second)
        task.outputs(first)
        task.predict(make_batch(5, seed=3))
        assert torch.equal(task.outputs(second), expected)


# ---- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0\.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"top_k": 3}, "top_k is 3, but with temperature 0"),
        ({"top_p": 0.5}, r"top_p is 0\.5, but with temperature 0"),
        ({"length": 0}, "length is 0"),
        ({"temperature": 1.0, "top_k": 6}, "top_k is 6, but the vocabulary has only 5 symbols"),
        ({"net": partial(LSTM, bidirectional=True)}, "LanguageModel cannot build its network: bidirectional is true"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_task(**options)


class NoState(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def test_a_network_that_is_no_language_model() -> None:
    with pytest.raises(UsageError, match=r"NoState of .* is no language model: it does not make logits \(1, 2, 5\)"):
        make_task(NoState)


# ---- through the command line

FIT = ["fit", "--model", "LanguageModel", "--model.net", "GRU", "--model.net.hidden_size", "16", "--data", "TextFile"]
SMALL = ["--data.num_steps", "10", "--data.val_size", "100", "--data.batch_size", "8", "--trainer.accelerator", "cpu"]
RUN = "runs/gru/1"


@pytest.fixture
def fit(text: str) -> Any:
    def run(*options: str, status: int = 0) -> None:
        short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "6"]
        assert main([*FIT, "--data.root", text, *SMALL, *short, *options]) == status

    return run


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_run_is_clipped_samples_each_epoch_and_goes_on_with_prompts(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "3")
    assert "gradient_clip_val: 1.0" in Path(RUN, "config.yaml").read_text()
    for epoch in (1, 2):
        for sample in lines(f"{RUN}/samples/epoch_00{epoch}.jsonl"):
            assert len(sample["prompt"]) <= 10
            assert len(sample["continuation"].replace("<unk>", "?")) == 50
    header = Path(RUN, "metrics.csv").read_text().splitlines()[0]
    assert {"train/gradient_norm", "val/perplexity", "train/bits_per_character"} <= set(header.split(","))
    drawing = ["--model.temperature", "0.8", "--model.top_k", "5", "--model.top_p", ".9", "--model.length", "20"]
    assert main(["predict", RUN, "the river", "old house", *drawing, "--model.sampling_seed", "3"]) == 0
    first = lines(f"{RUN}/predictions/predictions.jsonl")
    assert [record["input"] for record in first] == [record["prompt"] for record in first] == ["the river", "old house"]
    assert all(len(record["continuation"].replace("<unk>", "?")) == 20 for record in first)
    assert main(["predict", RUN, "old house", *drawing, "--model.sampling_seed", "3"]) == 0
    assert lines(f"{RUN}/predictions/predictions.jsonl")[0]["continuation"] == first[1]["continuation"]
    assert main(["predict", RUN, "--prompt", "the river", "--model.length", "3"]) == 0
    assert "the river" in capsys.readouterr().out


SIGNALLING = """
import os
import signal

from lightning.pytorch import Callback


class Signalling(Callback):
    '''Sends this process a signal while it trains batch `step`, counted from 0 over the whole training.'''

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and trainer.is_global_zero:
            self.step = -1
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("sampling", ["sequential", "random"])
@pytest.mark.parametrize("step", [7, 11])  # in the middle of the second epoch, and at its last batch
def test_a_training_that_is_stopped_ends_as_if_nothing_had_been(fit: Any, sampling: str, step: int) -> None:
    Path("signalling.py").write_text(SIGNALLING)
    options = ["--data.sampling", sampling, "--trainer.max_epochs", "3"]
    signal = ["--trainer.callbacks", "signalling.Signalling", "--trainer.callbacks.step", str(step)]
    fit(*options, "--experiment", "straight")
    fit(*options, *signal, status=130)
    stopped = read_checkpoint(Path(f"{RUN}/checkpoints/last.ckpt"))
    assert (CARRIED in stopped) == (step == 7)
    fit(*options, *signal, "--resume", "auto")
    resumed, straight = (read_checkpoint(Path(f"runs/{name}/1/checkpoints/last.ckpt")) for name in ("gru", "straight"))
    assert CARRIED not in straight
    for name, value in straight["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert resumed["optimizer_states"][0]["state"][0]["exp_avg"].equal(
        straight["optimizer_states"][0]["state"][0]["exp_avg"]
    )


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    status = main(list(words))
    error = capsys.readouterr().err
    assert status in (1, 2), error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


def test_another_vocabulary_is_refused_by_its_size_and_first_difference(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fit()
    facts = read_checkpoint(Path(f"{RUN}/checkpoints/last.ckpt"))["leyden"]["facts"]
    mine = len(facts["symbols"])
    Path("other.txt").write_text("a zebra at the zoo\n" * 100)
    found = failure(capsys, "validate", RUN, "--data.root", "other.txt")
    assert re.search(rf"vocabulary: {mine} symbols -> 11; the first difference is symbol 3: '\.' -> 'a'", found), found
    found = failure(capsys, "test", RUN, "--data.clean", "true")
    assert "clean: False -> True" in found
    assert "the first difference is symbol 1: '\\n' -> ' '" in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.root", "empty.txt"], "empty.txt: is empty"),
        (["--data.root", "short.txt"], "short.txt: its train part has"),
        (["--data.root", "latin.txt"], "latin.txt, line 1: the byte 0xe9 is not UTF-8"),
        (["--data.root", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--model.temperature", "-1"], "temperature is -1"),
        (["--model.temperature=1", "--model.top_k=99"], "top_k is 99, but the vocabulary has only"),
        (["--model.net.bidirectional", "true"], "would see the token that it is to tell"),
        (["--data.sampling", "sequential", "--data.batch_size", "500"], "for each of 500 rows"),
        (["--data.val_size", "0"], "--data.fold all"),
    ],
)
def test_bad_input_is_one_message(
    text: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").touch()
    Path("short.txt").write_text("abcdefghi")
    Path("latin.txt").write_bytes(b"h\xe9" * 900)
    assert message in failure(capsys, *FIT, "--data.root", text, "--data.num_steps", "10", *options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([""], "input 1 is empty"),
        (["--prompt", ""], "prompt 1 is empty"),
        (["the", "--model.temperature", "-1"], "temperature is -1"),
        (["the", "--model.temperature=1", "--model.top_k=99"], "top_k is 99, but the vocabulary has only"),
    ],
)
def test_a_prediction_that_cannot_be_is_one_message(
    fit: Any, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit()
    assert message in failure(capsys, "predict", RUN, *words)


def test_what_was_never_seen_is_named(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    capsys.readouterr()
    with pytest.warns(UserWarning, match="taken for <unk>: 'ß'$"):
        assert main(["predict", RUN, "the riverß"]) == 0
    assert lines(f"{RUN}/predictions/predictions.jsonl")[0]["prompt"] == "the river<unk>"
