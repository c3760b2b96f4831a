"""Reading a page back with the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tags with their attributes in order, and the text in each element that has an id and in each cell of a table."""

    VOID = ("meta", "img", "rect", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == [], "elements that nobody closes"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self._open.append((tag, values.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        for tag, name in self._open:
            if tag in ("th", "td"):
                self.rows[-1][-1] += data
            if name is not None:
                self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag: str, attribute: str) -> list[str]:
        """An attribute of all elements of a kind that have it."""
        return [values[attribute] for name, values in self.tags if name == tag and attribute in values]

    def load(self) -> list[list[float]]:
        """The heatmap's values, a list a layer."""
        rows: dict[int, list[float]] = {}
        for _, values in self.tags:
            if "data-load" in values:
                rows.setdefault(int(values["data-layer"]), []).append(float(values["data-load"]))
        return [rows[layer] for layer in sorted(rows)]
