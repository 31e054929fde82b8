"""Speed of language models: `fit` against a bare PyTorch loop, and prompts in one batch against one after another.

python benchmarks/language_model.py [fit|generate] [--epochs N] [--threads N]

fit: a GRU of 256 units on rows of 35 characters that go on from batch to batch. The bare loop indexes preloaded tokens,
carries and detaches the state and clips gradients as `fit` does; it keeps no metrics, logs and checkpoints. generate:
100 characters for each of 256 prompts of 20.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from _side_by_side import Loop, fit_beside

from leyden.cli import TrainingCLI
from leyden_plugins.language_model.generation import Sampling, generate
from leyden_plugins.language_model.networks.gru import GRU

SYMBOLS, HIDDEN, ROWS, STEPS, CHARACTERS = 27, 256, 32, 35, 180_000
PROMPTS, PROMPT_LENGTH, LENGTH = 256, 20, 100


def bare_loop(cli: TrainingCLI) -> Loop:
    """The shortest honest loop over the very batches that `fit` trains on."""
    cli.datamodule.setup("fit")
    batches = list(cli.datamodule.train_dataloader())
    net = GRU(1 + SYMBOLS, hidden_size=HIDDEN)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)

    def epoch() -> None:
        state = None
        for tokens, targets, *_ in batches:
            logits, state = net(tokens, state)
            state = tuple(part.detach() for part in state)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    return epoch


def compare_fit(epochs: int) -> None:
    """Print the ratio of `fit` to the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        letters = torch.randint(SYMBOLS, (CHARACTERS,), generator=torch.Generator().manual_seed(0)) + ord("`")
        text = Path(folder, "text.txt")
        text.write_text("".join(map(chr, letters.tolist())).replace("`", " "), encoding="utf-8")
        options = [
            *("--model", "LanguageModel", "--model.net", "GRU", f"--model.net.hidden_size={HIDDEN}"),
            *("--model.optimizer", "SGD", "--model.optimizer.lr", "1", "--data", "TextFile", f"--data.root={text}"),
            *("--data.sampling=sequential", f"--data.num_steps={STEPS}", f"--data.batch_size={ROWS}"),
            *("--runs", folder, f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar", "false"),
        ]
        result = fit_beside(options, lambda cli: {"bare": bare_loop(cli)})
    print(f"GRU {HIDDEN}, {ROWS} rows of {STEPS}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    result.report(CHARACTERS)


def compare_generation(rounds: int) -> None:
    """Print how much faster one batch is than one prompt after another."""
    torch.manual_seed(0)
    net = GRU(1 + SYMBOLS, hidden_size=HIDDEN).eval()
    prompts = torch.randint(1, 1 + SYMBOLS, (PROMPTS, PROMPT_LENGTH))
    lengths = torch.full((PROMPTS,), PROMPT_LENGTH)
    ratios = []
    for _ in range(rounds):
        together, batched = _timed(net, [(prompts, lengths)])
        singly, alone = _timed(net, [(prompts[i : i + 1], lengths[i : i + 1]) for i in range(PROMPTS)])
        assert torch.equal(batched, alone), "a prompt must go on in the same way whatever its neighbours"
        ratios.append(singly / together)
        print(f"one batch {together:.3f} s, one after another {singly:.2f} s: {ratios[-1]:.1f} times")
    print(f"{PROMPTS} prompts in one batch: median {statistics.median(ratios):.1f} times as fast")


def _timed(net: torch.nn.Module, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    started = time.perf_counter()
    with torch.no_grad():
        texts = [generate(net, *part, LENGTH, Sampling(temperature=1.0)) for part in parts]
    return time.perf_counter() - started, torch.cat(texts)


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=("fit", "generate"), default="fit")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each loop (the first warms up), or rounds")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    compare_fit(chosen.epochs) if chosen.case == "fit" else compare_generation(chosen.epochs)


if __name__ == "__main__":
    main()
