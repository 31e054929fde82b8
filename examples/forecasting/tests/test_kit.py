"""leyden's conformance kit on everything that this package offers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from leyden.testing import check_compiled, check_data, check_documented, check_processes, check_task, check_trainable
from torch import Tensor

from forecasting.data import SeriesCSV
from forecasting.networks.nlinear import NLinear
from forecasting.networks.temporal_conv import TemporalConv
from forecasting.task import Forecaster

OPTIONS = ["--model.net", "TemporalConv", "--model.net.channels", "4", "--model.net.blocks", "2"]


@pytest.mark.parametrize("network", [NLinear, TemporalConv])
def test_network(network: type) -> None:
    check_documented(network)
    generator = torch.Generator().manual_seed(0)
    history = torch.randn(8, 12, generator=generator)
    future = history[:, -1:] + torch.randn(8, 4, generator=generator)

    def loss(forecasts: Tensor) -> Tensor:
        return F.mse_loss(forecasts, future)

    check_trainable(lambda: network(12, 4), [history], loss, below=0.8)  # the last value alone has about 1


def test_data(tmp_path: Path) -> None:
    check_data(SeriesCSV, tmp_path)


def test_task(tmp_path: Path) -> None:
    check_task(Forecaster, SeriesCSV, tmp_path, OPTIONS)


def test_task_in_two_processes(tmp_path: Path) -> None:
    check_processes(Forecaster, SeriesCSV, tmp_path, OPTIONS)


def test_task_compiled(tmp_path: Path) -> None:
    check_compiled(Forecaster, SeriesCSV, tmp_path, OPTIONS)
