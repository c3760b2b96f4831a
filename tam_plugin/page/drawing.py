"""Parts of a page: escaped text, bars, thumbnails, and the heatmap of expert use; HTML and SVG as text.

Darkness alone carries what a colour shows, and every value stands beside it as a number, so a page can be read in
grey and printed.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tam_plugin.errors import printable
from tam_plugin.video.sheet import clock

if TYPE_CHECKING:
    from tam_plugin.video import SampledVideo

THUMB_WIDTH = 176
"""Pixels of a thumbnail; 120 of them make a page of about a megabyte."""

_CELL_WIDTH, _CELL_HEIGHT, _LEFT, _TOP = 64, 20, 64, 22
_LIGHT, _DARK = (247, 249, 252), (16, 42, 82)
_WHITE_FROM = 0.58
"""Depth from which white figures stand out more than black ones."""


def text(value: object) -> str:
    """``value`` as HTML text or attribute: markup in it is inert, control characters and lone surrogates are shown."""
    return html.escape(printable(value, mark="\ufffd"))


def bars(values: dict[str, float], chosen: str) -> str:
    """Rows of a table, one per value: name, bar, percentage; the ``chosen`` one is marked."""
    rows = []
    for name, value in values.items():
        mark = ' class="chosen"' if name == chosen else ""
        rows.append(
            f'<tr{mark}><th scope="row">{text(name)}</th><td class="track"><div class="bar" '
            f'style="width:{100 * value:.2f}%"></div></td><td class="number"><data value="{value!r}">{value:.1%}</data>'
            "</td></tr>"
        )
    return "\n".join(rows)


def thumbnails(video: SampledVideo) -> str:
    """One figure per frame: the picture inside the page, its number and its time."""
    duration_s, figures = video.info.duration_s, []
    for number, (frame, seconds) in enumerate(zip(video.frames, video.timestamps_s, strict=True), start=1):
        at = clock(float(seconds), duration_s)
        figures.append(
            f'<figure><img src="{_jpeg_uri(frame)}" width="{THUMB_WIDTH}" alt="Frame {number} at {at}">'
            f'<figcaption>{number} · <time datetime="PT{float(seconds):.6f}S">{at}</time></figcaption></figure>'
        )
    return "\n".join(figures)


def _jpeg_uri(frame) -> str:
    from PIL import Image

    picture = Image.fromarray(frame)
    height = max(1, round(THUMB_WIDTH * picture.height / picture.width))
    buffer = io.BytesIO()
    picture.resize((THUMB_WIDTH, height), Image.Resampling.LANCZOS, reducing_gap=2.0).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def heatmap(load: Sequence[Sequence[float]], weight: Sequence[Sequence[float]], most: float) -> str:
    """SVG of layers × experts: each cell as dark as its load is near to ``most``, with the load in percent.

    Args:
        load: ``[L][E]``, each row summing to 1.
        weight: ``[L][E]``, shown when the mouse points at a cell.
        most: the load that is drawn darkest.
    """
    experts = len(load[0])
    width, height = _LEFT + experts * _CELL_WIDTH, _TOP + len(load) * _CELL_HEIGHT
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Expert use: {len(load)} layers, {experts} experts">'
    ]
    for expert in range(experts):
        x = _LEFT + (expert + 0.5) * _CELL_WIDTH
        parts.append(f'<text x="{x:g}" y="{_TOP - 7}" text-anchor="middle">expert {expert + 1}</text>')
    for layer, (loads, weights) in enumerate(zip(load, weight, strict=True)):
        y = _TOP + layer * _CELL_HEIGHT
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">layer {layer + 1}</text>')
        for expert, (share, mean) in enumerate(zip(loads, weights, strict=True)):
            parts.append(_cell(layer, expert, share, mean, most))
    return "\n".join([*parts, "</svg>"])


def _cell(layer: int, expert: int, share: float, mean: float, most: float) -> str:
    x, y = _LEFT + expert * _CELL_WIDTH, _TOP + layer * _CELL_HEIGHT
    depth = min(1.0, share / most)
    fill = "#" + "".join(f"{round(a + (b - a) * depth):02x}" for a, b in zip(_LIGHT, _DARK, strict=True))
    return (
        f'<g data-layer="{layer + 1}" data-expert="{expert + 1}" data-load="{share!r}">'
        f"<title>layer {layer + 1}, expert {expert + 1}: {share:.2%} of the assignments, mean weight {mean:.3f}</title>"
        f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 1}" height="{_CELL_HEIGHT - 1}" fill="{fill}" stroke="#8a94a3" '
        f'stroke-width="0.5"/><text x="{x + _CELL_WIDTH / 2:g}" y="{y + 14}" text-anchor="middle" '
        f'fill="{"#ffffff" if depth > _WHITE_FROM else "#14181f"}">{share:.1%}</text></g>'
    )
