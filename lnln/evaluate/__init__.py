"""How good a model is when part of the input is missing: all rates and metrics, baselines, intervals."""

from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.evaluate.run import Evaluator, evaluate, evaluate_suites
from lnln.evaluate.suites import SUITES, Suite

__all__ = ["SUITES", "Evaluator", "Predictions", "Suite", "evaluate", "evaluate_suites", "read_predictions"]
