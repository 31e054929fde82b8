"""Speed of `fit` on tables against a bare PyTorch loop: tiny steps are where a framework's overhead shows.

python benchmarks/regression.py [linear|mlp|full] [--epochs N] [--threads N] [--profile]

linear: linear regression on 2 features, batch 10. mlp: an MLP on 100 features, batch 256. full: linear regression on
100 features, full-batch gradient descent. The bare loop indexes preloaded tensors and keeps no metrics, logs and
checkpoints.
"""

import argparse
import cProfile
import pstats
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _side_by_side import Loop, bare_loop, fit_beside
from torch import nn

from leyden.cli import TrainingCLI
from leyden_plugins.classification.networks.mlp import MLP
from leyden_plugins.regression.networks.linear_regression import LinearRegression

LEARNING_RATE = 0.03
SHOWN = 40
Case = tuple[Callable[[int], nn.Module], list[str], int, int, int | None]
# network of a number of features, its options, features, rows, batch size
CASES: dict[str, Case] = {
    "linear": (lambda features: LinearRegression(features, 1), ["LinearRegression"], 2, 20_000, 10),
    "mlp": (
        lambda features: MLP(features, 1, [1024, 512]),
        ["MLP", "--model.net.hidden_sizes=[1024,512]"],
        100,
        50_000,
        256,
    ),
    "full": (lambda features: LinearRegression(features, 1), ["LinearRegression"], 100, 500_000, None),
}


def make_loop(net: nn.Module, cli: TrainingCLI) -> Loop:
    """The bare loop on the very rows that `fit` trains on."""
    data: Any = cli.datamodule
    source = data.load("train")
    features, targets = source.__getitems__(range(len(source)))
    net(features[:2])  # lazy layers take their sizes
    return bare_loop(net, features, targets[:, None], data.batch_size or len(features), F.mse_loss, LEARNING_RATE)


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES, default="linear")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each loop; the first only warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="show where the time of `fit` goes")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    build, net, features, rows, batch_size = CASES[chosen.case]
    weights = [(-1.0) ** feature for feature in range(features)]
    with tempfile.TemporaryDirectory() as runs:
        options = [
            *("--model", "Regressor", "--model.net", *net, "--model.optimizer", "SGD"),
            *("--model.optimizer.lr", str(LEARNING_RATE), "--data", "SyntheticRegression"),
            *(f"--data.weights={weights}", f"--data.rows={rows}"),
            *(f"--data.batch_size={'null' if batch_size is None else batch_size}", "--runs", runs),
            *("--trainer.max_epochs", str(chosen.epochs), "--trainer.enable_progress_bar", "false"),
        ]
        profiler = cProfile.Profile()
        if chosen.profile:
            profiler.enable()
        result = fit_beside(options, lambda cli: {} if chosen.profile else {"bare": make_loop(build(features), cli)})
        profiler.disable()
    batch = "all rows" if batch_size is None else f"batch {batch_size}"
    print(f"{chosen.case}, {batch} of {rows:,}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    result.report(rows)
    steps = -(-rows // (batch_size or rows))
    print(f"{steps:,} steps an epoch")
    if chosen.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    main()
