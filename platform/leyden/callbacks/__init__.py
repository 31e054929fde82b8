"""What every run gets, and what it may get: EMA, GradientNorms. One file for each."""

from leyden.callbacks.checkpoints import Checkpoints
from leyden.callbacks.ema import EMA
from leyden.callbacks.graceful_stop import GracefulStop
from leyden.callbacks.gradient_norms import GradientNorms
from leyden.callbacks.pictures import Pictures
from leyden.callbacks.predictions import Predictions
from leyden.callbacks.random_state import RandomState
from leyden.callbacks.report import Report
from leyden.callbacks.run_folder import RunFolder
from leyden.callbacks.same_everywhere import SameEverywhere
from leyden.callbacks.summary import RunSummary

__all__ = [
    "EMA",
    "Checkpoints",
    "GracefulStop",
    "GradientNorms",
    "Pictures",
    "Predictions",
    "RandomState",
    "Report",
    "RunFolder",
    "RunSummary",
    "SameEverywhere",
]
