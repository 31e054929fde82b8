"""Speed of translation, on English-French sentence pairs (the folder fra-eng under $LEYDEN_DATA or ./data).

python benchmarks/translation.py [fit|bucketing|decoding|preparing|floor] [--pairs N] [--epochs N]
    [--threads N] [--bf16]

fit: a Transformer (width 256, 3 + 3 layers) in `fit` against a bare loop over the very same batches, with the same
optimizer and clipping and no metrics, logs and checkpoints. bucketing: training on batches of like lengths against all
sentences padded to the longest. decoding: greedy translation of 1,000 sentences in batches of 256 against one by one,
with --bf16 in bf16-mixed as the recipes do.
preparing: reading, normalising, splitting, byte pairs and tokens of all pairs, and the same from the cache. floor: BLEU
of the source as it stands and of the translation of the most similar training sentence, on the recipes' test splits.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _side_by_side import Loop, fit_beside

from leyden.batches import BOS, EOS, PAD, SentencePairs
from leyden.cli import TrainingCLI
from leyden_datamodules._parallel import ParallelData
from leyden_datamodules.chinese_english import ChineseEnglish
from leyden_datamodules.english_french import EnglishFrench
from leyden_plugins.translation.decoding import Decoding, greedy
from leyden_plugins.translation.metrics import Translated, TranslationScores
from leyden_plugins.translation.networks.transformer import Transformer

OPTIONS: dict[str, Any] = {"source_level": "bpe", "target_level": "bpe", "bpe_size": 6000, "batch_size": 128}
SENTENCES, BATCH = 1000, 256


def shuffled_file(pairs: int, folder: str) -> str:
    """So many pairs, from all over the file, as a data set of their own."""
    lines = Path(EnglishFrench().path(), "fra.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))[:pairs].tolist()
    Path(folder, "fra.txt").write_text("".join(lines[place] for place in chosen), encoding="utf-8")
    return folder


def train_step(net: Transformer) -> Callable[[SentencePairs], None]:
    """One step of training, and nothing else."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def step(batch: SentencePairs) -> None:
        inputs = F.pad(batch.target[:, :-1], (1, 0), value=BOS)
        logits = net(batch.source, batch.source_lengths, inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step


def make_net(data: ParallelData) -> Transformer:
    """The Transformer of the recipes, for the data's vocabularies."""
    facts = data.describe()
    torch.manual_seed(0)
    return Transformer(len(facts.source.symbols), len(facts.target.symbols))


def compare_fit(pairs: int, epochs: int) -> None:
    """Print the ratio of `fit` to the bare loop."""

    def loops(cli: TrainingCLI) -> dict[str, Loop]:
        cli.datamodule.setup("fit")
        batches = list(cli.datamodule.train_dataloader())
        step = train_step(make_net(cli.datamodule))
        return {"bare": lambda: [step(batch) for batch in batches] and None}

    with tempfile.TemporaryDirectory() as folder:
        options = [
            *("--model", "Translator", "--model.net", "Transformer", "--model.optimizer", "AdamW"),
            *("--data", "EnglishFrench", f"--data.root={shuffled_file(pairs, folder)}", "--runs", folder),
            *(f"--data.{name}={value}" for name, value in OPTIONS.items()),
            *(f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false"),
        ]
        fit_beside(options, loops).report(pairs)


def compare_bucketing(pairs: int, epochs: int) -> None:
    """Print how long an epoch of batches of like lengths takes, as a share of one padded to the longest."""
    with tempfile.TemporaryDirectory() as folder:
        root = shuffled_file(pairs, folder)
        data = EnglishFrench(root=root, **OPTIONS)
        data.setup("fit")
        source: Any = data.splits["train"]
        longest = int(max(source.source.lengths.max(), source.target.lengths.max()))
        padded = EnglishFrench(root=root, num_steps=longest, **OPTIONS)
        padded.setup("fit")
    step = train_step(make_net(data))
    ratios = []
    for _ in range(epochs):
        seconds = []
        for each in (data, padded):
            started = time.perf_counter()
            for batch in each.train_dataloader():
                step(batch)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
        print(f"like lengths {seconds[0]:.1f} s, all padded to {longest} {seconds[1]:.1f} s: {ratios[-1]:.3f}")
    print(
        f"an epoch of {len(source)} pairs in batches of like lengths takes {statistics.median(ratios):.3f} of the time"
    )


def compare_decoding(pairs: int, epochs: int, bf16: bool) -> None:
    """Print how much faster batches are than one sentence after another."""
    with tempfile.TemporaryDirectory() as folder:
        data = EnglishFrench(root=shuffled_file(max(pairs, 4 * SENTENCES), folder), **OPTIONS)
        data.setup("fit")
    source: Any = data.splits["train"]
    net = make_net(data).eval()
    net.output.bias.data[EOS] = -100  # random weights find no end: every translation has the length that is allowed
    batch = source.__getitems__(source.source.lengths[:SENTENCES].argsort().tolist())
    ratios = []
    for _ in range(epochs):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            together, batched = _timed(net, batch, BATCH)
            singly, alone = _timed(net, batch, 1)
        same = sum(one == other for one, other in zip(batched, alone, strict=True))
        ratios.append(singly / together)
        print(
            f"batches {together:.2f} s, one by one {singly:.1f} s: {ratios[-1]:.1f} times; {same} of {SENTENCES} alike"
        )
    print(f"{SENTENCES} sentences in batches: median {statistics.median(ratios):.1f} times as fast")


def _timed(net: Transformer, batch: SentencePairs, size: int) -> tuple[float, list[list[int]]]:
    started, found = time.perf_counter(), []
    for start in range(0, SENTENCES, size):
        lengths = batch.source_lengths[start : start + size]
        rows = batch.source[start : start + size, : int(lengths.max())]
        with torch.no_grad():
            found += [each.tokens for each in greedy(net, rows, lengths, Decoding(max_length=12))]
    return time.perf_counter() - started, found


def time_preparing(epochs: int) -> None:
    """Print how long all pairs take, first and from the cache."""
    for _ in range(epochs):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LEYDEN_CACHE"] = folder
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                data = EnglishFrench(**OPTIONS)
                data.setup("fit")
                seconds.append(time.perf_counter() - started)
        print(f"{len(data._pairs.first)} pairs: {seconds[0]:.1f} s, from the cache {seconds[1]:.2f} s")


def score_floors() -> None:
    """Print BLEU of the source itself, and of the nearest neighbour's translation."""
    for kind, options in ((EnglishFrench, {}), (ChineseEnglish, {"source_level": "char", "simplified": True})):
        data: ParallelData = kind(val_size=1000, test_size=2000, **options)
        data.setup("fit")
        data.setup("test")
        test: Any = data.splits["test"]
        corpus, pairs = data._corpus, data._pairs
        training = torch.from_numpy(corpus.split == 0).nonzero()[:, 0].tolist()
        facts = data.describe()
        join = "" if facts.source.language == "zh" else " "
        sources = [words.replace(" ", join) for words in test.words]
        nearest = most_similar([pairs.first[place] for place in training], sources, facts.source.language)
        candidates = {
            "the source itself": sources,
            "nearest neighbour": [pairs.second[training[place]] for place in nearest],
        }
        for name, translations in candidates.items():
            rows = zip(sources, translations, test.references, strict=True)
            found = [Translated(source, text, tuple(known.split("\n"))) for source, text, known in rows]
            report = TranslationScores(facts.target.language, lower=True, k=2).report(found)
            print(f"{kind.__name__}, {len(found)} test sources, {name}:\n{report}")


def most_similar(known: Sequence[str], asked: Sequence[str], language: str) -> list[int]:
    """Of each sentence the most similar known one: TF-IDF of words and pairs of words (in Chinese, of characters)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pattern = r"\S" if language == "zh" else r"\w+|[^\w\s]"
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=pattern)
    matrix = vectorizer.fit_transform(known).T.tocsr()
    found: list[int] = []
    for start in range(0, len(asked), 100):
        similarity = vectorizer.transform(asked[start : start + 100]) @ matrix
        found += similarity.toarray().argmax(axis=1).tolist()
    return found


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ("fit", "bucketing", "decoding", "preparing", "floor")
    parser.add_argument("case", nargs="?", choices=cases, default="fit")
    parser.add_argument("--pairs", type=int, default=4000, help="sentence pairs that are trained on")
    parser.add_argument(
        "--epochs", type=int, default=3, help="epochs of each loop (of fit the first warms up), or rounds"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="decode in bf16-mixed")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.case == "floor":
        score_floors()
    elif chosen.case == "preparing":
        time_preparing(chosen.epochs)
    elif chosen.case == "decoding":
        compare_decoding(chosen.pairs, chosen.epochs, chosen.bf16)
    else:
        cases_of = {"fit": compare_fit, "bucketing": compare_bucketing}
        cases_of[chosen.case](chosen.pairs, chosen.epochs)


if __name__ == "__main__":
    main()
