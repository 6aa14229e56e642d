"""Reports on evaluated models: a page, its curve, its numbers."""

from lnln.report.page import render, report, scores_csv, verdict

__all__ = ["render", "report", "scores_csv", "verdict"]
