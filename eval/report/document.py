"""A report as blocks, and the blocks as Markdown or as a page that holds its own pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tam_plugin.errors import one_line, printable

STYLE = """body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #999;padding:.2rem .6rem;text-align:left}
th{background:#eee}img{max-width:100%}"""


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the report's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of lines of plain text."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells of plain text under their heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A picture that lies beside the report, and what it shows in words."""

    file: str
    text: str


@dataclass(frozen=True)
class Link:
    """A paragraph that ends in a link."""

    text: str
    target: str


Block = Heading | Paragraph | Items | Table | Figure | Link


def to_markdown(blocks: Sequence[Block]) -> str:
    """The report as Markdown (GitHub's)."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def to_html(blocks: Sequence[Block], folder: Path) -> str:
    """The report as one page; pictures of ``folder`` are in it as data."""
    title = next(_text(block.text) for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Items):
        return "\n".join(f"- {_plain(line)}" for line in block.lines)
    if isinstance(block, Table):
        lines = [block.heads, ["---"] * len(block.heads), *block.rows]
        return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    if isinstance(block, Figure):
        return f"![{_plain(block.text)}]({block.file})"
    if isinstance(block, Link):
        return f"{_plain(block.text)} [{block.target}]({block.target})"
    return _plain(block.text)


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_text(block.text)}</h{block.level}>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in block.lines)}</ul>"
    if isinstance(block, Table):
        heads = "".join(f"<th>{_text(head)}</th>" for head in block.heads)
        rows = ("".join(f"<td>{_text(cell)}</td>" for cell in row) for row in block.rows)
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    if isinstance(block, Figure):
        data = base64.b64encode((folder / block.file).read_bytes()).decode()
        return f'<p><img src="data:image/png;base64,{data}" alt="{_text(block.text)}"></p>'
    if isinstance(block, Link):
        target = _text(block.target)
        return f'<p>{_text(block.text)} <a href="{target}">{target}</a></p>'
    return f"<p>{_text(block.text)}</p>"


def _text(text: str) -> str:
    """Text from files as HTML: markup and control characters in it are inert."""
    return html.escape(printable(text, mark="\ufffd"))


def _plain(text: str) -> str:
    """Text from files as itself: no line ends, none of Markdown's or HTML's signs."""
    text = one_line(text).replace("\\", "\\\\")
    for sign in "`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _cell(text: str) -> str:
    return text if text == "---" else _plain(text)
