"""One question as a page: what was decided, what was seen, which experts were used, what was answered (Fig. 8)."""

from __future__ import annotations

from tam_plugin.page.case import Case
from tam_plugin.page.html import write_case

__all__ = ["Case", "write_case"]
