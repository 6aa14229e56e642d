"""How good a model is when part of the input is missing: all rates and metrics, baselines, intervals."""

from lnln.evaluate.run import evaluate

__all__ = ["evaluate"]
