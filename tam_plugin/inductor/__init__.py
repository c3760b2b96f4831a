"""Query → TaskDistribution: the text classifier that decides what a question needs of the video."""

from __future__ import annotations

from tam_plugin.inductor.model import Inductor
from tam_plugin.inductor.text import PreparedQuery, QueryTruncatedWarning, build_input, prepare_query

__all__ = ["Inductor", "PreparedQuery", "QueryTruncatedWarning", "build_input", "prepare_query"]
