"""What every run gets, and EMA. One file for each."""

from leyden.callbacks.checkpoints import Checkpoints
from leyden.callbacks.ema import EMA
from leyden.callbacks.graceful_stop import GracefulStop
from leyden.callbacks.pictures import Pictures
from leyden.callbacks.predictions import Predictions
from leyden.callbacks.report import Report
from leyden.callbacks.run_folder import RunFolder

__all__ = ["EMA", "Checkpoints", "GracefulStop", "Pictures", "Predictions", "Report", "RunFolder"]
