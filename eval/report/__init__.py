"""A report of evaluations from the files that they left: Markdown, PNG figures and one self-contained page."""

from tam_plugin.eval.report.making import Request, make_report

__all__ = ["Request", "make_report"]
