"""From a trace to what people look at: charts, one self-contained HTML page, one figure."""

from grokscope.report.figure import write_figure
from grokscope.report.page import build_page, write_report

__all__ = ["build_page", "write_figure", "write_report"]
