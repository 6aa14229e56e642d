"""How good a model is when part of the input is missing: all rates and metrics, baselines, intervals."""

from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.evaluate.run import evaluate

__all__ = ["Predictions", "evaluate", "read_predictions"]
