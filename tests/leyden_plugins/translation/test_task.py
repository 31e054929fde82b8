"""Translator: losses, metrics, translations and predictions against what is written out in the test."""

import io
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leyden.batches import BOS, EOS, PAD, SPECIALS, SentencePairs, Side, TranslationFacts, bytes_of
from leyden.errors import UsageError
from leyden.main import main
from leyden_datamodules.chinese_english import ChineseEnglish
from leyden_datamodules.english_french import EnglishFrench
from leyden_plugins.translation.networks.seq2seq import Seq2Seq
from leyden_plugins.translation.networks.transformer import Transformer
from leyden_plugins.translation.task import Translator

SOURCE = Side("en", "word", (*SPECIALS, "go", "he", "is", "calm", "."))
TARGET = Side("fr", "word", (*SPECIALS, "va", "il", "est", "calme", ".", "!"))
SMALL = partial(Seq2Seq, attention="dot", hidden_size=8, num_layers=1, embedding_size=6, dropout=0.0)


def make_task(net: Any = SMALL, facts: TranslationFacts | None = None, **kwargs: Any) -> Translator:
    torch.manual_seed(0)
    task = Translator(net=net, **kwargs)
    task.facts = facts or TranslationFacts(SOURCE, TARGET)
    task.configure_model()
    return task


def make_batch(width: int = 7) -> SentencePairs:
    """Three pairs of different lengths, both sides padded to `width`."""
    source = [[4, 8, EOS], [5, 6, 7, 8, EOS], [0, EOS]]
    target = [[4, 9, EOS], [5, 6, 7, 8, EOS], [0, 8, EOS]]
    sides: list[Tensor] = []
    for rows in (source, target):
        sides.append(torch.tensor([row + [PAD] * (width - len(row)) for row in rows]))
        sides.append(torch.tensor([len(row) for row in rows]))
    words = bytes_of(["go .", "he is calm .", "xylophone"])
    references = bytes_of(["Va !\nBouge !", "Il est calme.", "Un xylophone."])
    return SentencePairs(sides[0], sides[1], sides[2], sides[3], words, references)


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    torch.set_num_threads(1)


# ---- loss


def loss_by_hand(task: Translator, batch: SentencePairs, smoothing: float = 0.0) -> float:
    """Sentence by sentence, token by token, without padding, in float64."""
    total, count = 0.0, 0
    for row in range(len(batch.source)):
        source = batch.source[row : row + 1, : batch.source_lengths[row]]
        target = batch.target[row, : batch.target_lengths[row]].tolist()
        logits = task.network(source, batch.source_lengths[row : row + 1], torch.tensor([[BOS, *target[:-1]]]))[0]
        for place, token in enumerate(target):
            probabilities = logits[place].double().softmax(dim=0)
            wanted = torch.full_like(probabilities, smoothing / len(probabilities))
            wanted[token] += 1 - smoothing
            total -= float((wanted * probabilities.log()).sum())
            count += 1
    return total / count


@pytest.mark.parametrize("attention", ["none", "bahdanau", "dot"])
def test_the_loss_is_the_mean_over_the_target_tokens_and_padding_is_none(attention: Any) -> None:
    task, batch = make_task(partial(SMALL, attention=attention)), make_batch()
    assert float(task.loss(task.outputs(batch), batch)) == pytest.approx(loss_by_hand(task, batch), rel=1e-5)
    wide = make_batch(width=12)
    assert float(task.loss(task.outputs(wide), wide)) == pytest.approx(loss_by_hand(task, batch), rel=1e-5)


def test_label_smoothing_is_for_training_alone() -> None:
    task, batch = make_task(label_smoothing=0.2), make_batch()
    assert float(task.loss(task.outputs(batch), batch)) == pytest.approx(loss_by_hand(task, batch, 0.2), rel=1e-5)
    task.eval()
    assert float(task.loss(task.outputs(batch), batch)) == pytest.approx(loss_by_hand(task, batch), rel=1e-5)


def test_an_epoch_weighs_each_token_alike() -> None:
    assert make_task().weight(make_batch()) == 11


@pytest.mark.parametrize("net", [SMALL, partial(Transformer, model_size=8, num_heads=2, num_layers=1, dropout=0.0)])
def test_scheduled_sampling_of_none_is_teacher_forcing(net: Any) -> None:
    task, batch = make_task(net), make_batch()
    inputs = torch.nn.functional.pad(batch.target[:, :-1], (1, 0), value=BOS)
    task.scheduled_sampling = 0.0
    torch.testing.assert_close(task._sampled(batch, inputs), task(batch.source, batch.source_lengths, inputs))


def test_scheduled_sampling_feeds_what_the_network_told() -> None:
    task, batch = make_task(scheduled_sampling=1.0), make_batch()
    losses, _ = task.outputs(batch)
    memory, state = task.network.encode(batch.source, batch.source_lengths)  # type: ignore[operator]
    tokens = torch.full((3,), BOS)
    for step in range(3):
        logits, _, state = task.network.step(tokens, state, memory)  # type: ignore[operator]
        expected = torch.nn.functional.cross_entropy(logits, batch.target[:, step], reduction="none")
        torch.testing.assert_close(losses[:, step], expected)
        tokens = logits.argmax(dim=1)
    loss = task.loss((losses, losses), batch)
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())


# ---- evaluation


class Told(nn.Module):
    """Tells the sentence whose place is the source's length; attention goes to the first word, then the second, ..."""

    def __init__(self, source_symbols: int, symbols: int, sentences: list[list[int]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sentences = sentences
        self.symbols = symbols

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self.symbols) + self.weight

    def encode(self, source: Tensor, lengths: Tensor) -> Any:
        rows = lengths[:, None]
        return (rows, torch.zeros(len(source), source.shape[1])), (torch.zeros_like(rows),)

    def step(self, tokens: Tensor, state: Any, memory: Any) -> Any:
        logits = torch.full((len(tokens), self.symbols), -9.0)
        attention = memory[1].clone()
        for row, (which, place) in enumerate(zip(memory[0][:, 0].tolist(), state[0][:, 0].tolist(), strict=True)):
            sentence = [*self.sentences[which % len(self.sentences)], EOS, EOS, EOS]
            logits[row, sentence[min(place, len(sentence) - 1)]] = 9.0
            attention[row, min(place, attention.shape[1] - 1)] = 1.0
        return logits, attention, (state[0] + 1,)


def evaluated(task: Translator, batch: SentencePairs, testing: bool) -> dict[str, Tensor]:
    task.eval()
    task._trainer = SimpleNamespace(testing=testing)  # type: ignore[assignment]
    metrics = task.build_metrics("test")
    with torch.no_grad():
        outputs = task.outputs(batch)
        task.update_metrics(metrics, *task.measure(outputs, batch))
    return metrics.compute()


@pytest.mark.parametrize("testing", [False, True])
def test_evaluation_scores_what_is_translated_against_all_references(testing: bool) -> None:
    told = [[], [], [5, 6, 8], [4, 9], [], [5, 6, 7, 8]]  # 2: il est . 3: va ! 5: il est calme .
    task = make_task(partial(Told, sentences=told), beam_size=2)
    found = evaluated(task, make_batch(), testing)
    assert float(found["bleu_book"]) == pytest.approx((1 + 1 + math.sqrt(1 / 3) * 0) / 3)
    assert float(found["perplexity"]) == pytest.approx(len(TARGET.symbols))
    texts = bytes(found["texts"].tolist()).decode()
    assert texts.split("\x1e")[:-1] == [
        "go.\x1fva !\x1fVa !\x1fBouge !",
        "he is calm.\x1fil est calme.\x1fIl est calme.",
        "xylophone\x1fil est.\x1fUn xylophone.",
    ]


def test_unknown_words_are_kept_copied_or_avoided() -> None:
    told = [[], [], [0], [0, 4], [], [5, 0, 8]]
    net = partial(Told, sentences=told)
    for unknown, expected in (
        ("keep", ["<unk> va", "il <unk>.", "<unk>"]),
        ("copy", ["go va", "il is.", "xylophone"]),
    ):
        task = make_task(net, unknown=unknown, beam_size=1).eval()
        assert [record["translation"] for record in predicted(task, make_batch())] == expected
    avoided = predicted(make_task(net, unknown="avoid", beam_size=1).eval(), make_batch())
    assert not any("<unk>" in record["translation"] for record in avoided)


# ---- predict


def predicted(task: Translator, batch: SentencePairs) -> list[dict[str, Any]]:
    task._trainer = SimpleNamespace(predicting=False)  # type: ignore[assignment]
    with torch.no_grad():
        return task.eval().predict(batch)


def test_a_text_of_several_sentences_is_translated_one_by_one_and_rejoined_and_nothing_stays_nothing() -> None:
    rows = [[4, 8, EOS, 5, 6, 7, 8, EOS], [], [4, EOS]]
    width = max(map(len, rows))
    source = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    nothing = torch.zeros(3, 0, dtype=torch.uint8)
    words = bytes_of(["go . he is calm .", "", "go"])
    batch = SentencePairs(source, lengths, torch.full((3, 1), PAD), torch.zeros_like(lengths), words, nothing)
    task = make_task()
    records = predicted(task, batch)
    alone = []
    for row, text in ((rows[0][:3], "go ."), (rows[0][3:], "he is calm ."), (rows[2], "go")):
        one = SentencePairs(torch.tensor([row]), torch.tensor([len(row)]), *batch[2:4], bytes_of([text]), nothing[:1])
        alone += predicted(task, one)
    assert records[0]["translation"] == f"{alone[0]['translation']} {alone[1]['translation']}"
    assert records[0]["score"] == pytest.approx((alone[0]["score"] + alone[1]["score"]) / 2, abs=1e-5)
    assert records[1] == {"translation": "", "score": None}
    assert records[2]["translation"] == alone[2]["translation"]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_network_that_diverged_is_no_translator(beam_size: int) -> None:
    task = make_task(beam_size=beam_size)
    next(iter(task.network.parameters())).data.fill_(torch.nan)
    with pytest.raises(UsageError, match=r"^the network's logits are not numbers \(NaN\): .* diverged"):
        predicted(task, make_batch())


def test_n_best_translations_of_each_sentence() -> None:
    records = predicted(make_task(beam_size=4, n_best=3), make_batch())
    for record in records:
        [best] = record["n_best"]
        assert len(best) == 3
        assert best[0] == {"translation": record["translation"], "score": record["score"]}
        assert best[0]["score"] >= best[1]["score"] >= best[2]["score"]


def test_a_batch_that_knows_them_tells_sources_and_references() -> None:
    records = predicted(make_task(), make_batch())
    assert [record["source"] for record in records] == ["go.", "he is calm.", "xylophone"]
    assert [record["truth"] for record in records] == [
        ["Va !", "Bouge !"],
        ["Il est calme."],
        ["Un xylophone."],
    ]


# ---- the command line


def fitted(tmp_path: Path, *options: str, data: type[Any] = EnglishFrench, epochs: int = 2) -> Path:
    arguments = data.fabricate(tmp_path / "data")
    words = [f"--data.{name}={value}" for name, value in arguments.items()]
    net = ["--model.net", "Seq2Seq", "--model.net.attention", "dot", "--model.net.hidden_size", "16"]
    trainer = [f"--trainer.max_epochs={epochs}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    given = ["fit", "--model", "Translator", *net, "--data", data.__name__, *words, *trainer, "--experiment", "tiny"]
    assert main([*given, *options]) == 0
    return tmp_path / "runs" / "tiny" / "1"


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_ten_samples_after_each_epoch_and_files_that_sacrebleu_scores_alike(tmp_path: Path) -> None:
    run = fitted(tmp_path, "--model.net.embedding_size=8")
    for epoch in (1, 2):
        lines = (run / "samples" / f"epoch_00{epoch}.jsonl").read_text().splitlines()
        assert len(lines) == 10
        assert all(json.loads(line).keys() == {"source", "translation", "score", "truth"} for line in lines)
    assert main(["test", str(run)]) == 0
    test = run / "test"
    scores = json.loads((test / "metrics.json").read_text())
    bleu_line, _, command = (test / "sacrebleu.txt").read_text().splitlines()
    assert bleu_line.startswith("BLEU|nrefs:")
    words = [sys.executable, "-m", *command.split(), "-b", "-w", "6"]
    words = [word for word in words if word != "chrf"]
    found = subprocess.run(words, cwd=test, capture_output=True, text=True, check=True).stdout
    assert float(found) == pytest.approx(scores["test/bleu"], abs=1e-4)


def test_a_pipe_is_translated_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fitted(tmp_path, epochs=1)
    content = "The grey house.\n\nA river. The night!\nxylophone\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content.encode()), isatty=lambda: False))
    assert main(["predict", str(run), "--out", "found"]) == 0
    records = records_of(tmp_path / "found")
    assert [record["input"] for record in records] == content.splitlines()
    assert records[1]["translation"] == ""
    lines = (tmp_path / "found" / "translations.txt").read_text().split("\n")[:-1]
    assert lines == [record["translation"] for record in records]
    assert "The grey house.: " in capsys.readouterr().out


def test_one_sentence_alone_shows_where_the_network_looked(tmp_path: Path) -> None:
    run = fitted(tmp_path, epochs=1)
    assert main(["predict", str(run), "The grey house.", "--out", "found"]) == 0
    [record] = records_of(tmp_path / "found")
    assert record["source_tokens"] == ["the", "grey", "house", "."]
    if record["translation"]:
        with Image.open(tmp_path / "found" / record["attention"]) as picture:
            assert picture.width > 100
    assert main(["predict", str(run), "The house.", "A river.", "--out", "found"]) == 0
    assert not any("attention" in record for record in records_of(tmp_path / "found"))
    assert not list((tmp_path / "found").glob("*.png"))


def test_data_of_another_language_pair_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path, epochs=1)
    other = ChineseEnglish.fabricate(tmp_path / "other")
    words = [f"--data.{name}={value}" for name, value in other.items()]
    assert main(["test", str(run), "--data", "ChineseEnglish", *words]) != 0
    assert "languages: en to fr -> en to zh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5; it must be from 0 to 1."),
        ({"scheduled_sampling": -0.1}, "scheduled_sampling is -0.1"),
        ({"beam_size": 0}, "beam_size is 0; it must be at least 1."),
        ({"max_length": 0}, "max_length is 0"),
        ({"n_best": 6}, "n_best is 6, but only beam_size 5 translations are kept."),
        ({"book_k": 0}, "book_k is 0"),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Translator(net=SMALL, **options)
    assert message in str(caught.value)


def test_copying_needs_attention() -> None:
    with pytest.raises(UsageError, match="no attention that says what to copy"):
        make_task(partial(SMALL, attention="none"), unknown="copy")


class Silent(Told):
    """Has no logits for some symbols."""

    def __init__(self, source_symbols: int, target_symbols: int) -> None:
        super().__init__(source_symbols, target_symbols - 1, [[4]])


class Unstepped(nn.Module):
    """Cannot translate token by token."""

    def __init__(self, source_symbols: int, target_symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(target_symbols, target_symbols)

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self.embedding(tokens)
        return logits


@pytest.mark.parametrize("net", [Silent, Unstepped])
def test_a_network_that_cannot_translate_is_refused(net: type[nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"is no translation network: it does not make logits \(1, 2, 10\)"):
        make_task(net)
