"""Reports on evaluated models: everything collected once, and a page, tables and numbers made of it."""

from lnln.report.collect import collect
from lnln.report.data import ReportData
from lnln.report.page import files, report

__all__ = ["ReportData", "collect", "files", "report"]
