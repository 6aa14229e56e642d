"""Reports on studies: what is best, whether that is noise, what matters and what is unstable."""

from tuning.report.importance import Importance, Learnt, learn
from tuning.report.page import render, study_report
from tuning.report.tables import importance_rows, stability_rows, trial_rows

__all__ = [
    "Importance",
    "Learnt",
    "importance_rows",
    "learn",
    "render",
    "stability_rows",
    "study_report",
    "trial_rows",
]
