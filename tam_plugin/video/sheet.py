"""contact_sheet: the sampled frames as one picture, each with its time."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError
from tam_plugin.storage import replace_file
from tam_plugin.video.container import one_line

if TYPE_CHECKING:
    from tam_plugin.video.info import SampledVideo

_GAP = 8
_BACKGROUND, _TITLE, _TIME, _EDGE = (24, 26, 30), (232, 234, 237), (170, 176, 184), (58, 62, 68)


def contact_sheet(video: SampledVideo, path: str | os.PathLike[str], columns: int = 8, thumb_width: int = 160) -> Path:
    """Write a PNG with all sampled frames in rows, each above its presentation time.

    The picture takes its place in one step: there is never a half-written one at ``path``.

    Args:
        video: the frames.
        path: of the PNG; its folder must exist.
        columns: frames per row, at most.
        thumb_width: pixels; heights follow from the video's displayed shape.

    Returns:
        ``path``.

    Raises:
        InputError: ``columns`` or ``thumb_width`` is no whole number >= 1 (>= 16), or the file cannot be written.
    """
    for name, value, least in (("columns", columns, 1), ("thumb_width", thumb_width, 16)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} = {value!r}: expected a whole number >= {least}")
    sheet = _draw(video, min(columns, len(video)), thumb_width)
    target = Path(path)
    with replace_file(target, binary=True) as file:
        sheet.save(file, "PNG")
    return target


def _draw(video: SampledVideo, columns: int, thumb_width: int) -> Any:
    from PIL import Image, ImageDraw

    info = video.info
    thumb_height = max(1, round(thumb_width * info.height / info.width))
    small, large = _font(max(10, thumb_width // 12)), _font(max(12, thumb_width // 10))
    caption, title = _line_height(small) + 6, _line_height(large) + 2 * _GAP
    rows = math.ceil(len(video) / columns)
    width = _GAP + columns * (thumb_width + _GAP)
    sheet = Image.new("RGB", (width, title + rows * (thumb_height + caption + _GAP)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, title / 2), _fitting(draw, _headline(video), large, width - 2 * _GAP), _TITLE, large, anchor="lm")
    for number, (frame, seconds) in enumerate(zip(video.frames, video.timestamps_s, strict=True)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (thumb_width + _GAP), title + row * (thumb_height + caption + _GAP)
        thumb = Image.fromarray(frame).resize((thumb_width, thumb_height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        sheet.paste(thumb, (left, top))
        draw.rectangle((left - 1, top - 1, left + thumb_width, top + thumb_height), outline=_EDGE)
        middle = (left + thumb_width / 2, top + thumb_height + caption / 2)
        draw.text(middle, clock(float(seconds), info.duration_s), _TIME, small, anchor="mm")
    return sheet


def clock(seconds: float, duration_s: float) -> str:
    """A time as m:ss.cc, or as h:mm:ss in videos of an hour and more."""
    if duration_s >= 3600:
        whole = round(seconds)
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _headline(video: SampledVideo) -> str:
    info = video.info
    name = os.path.basename(os.path.normpath(info.path))
    parts = [one_line(name), f"{info.width}x{info.height}", clock(info.duration_s, info.duration_s)]
    parts.append(f"{len(video)} of {info.num_frames} frames")
    return "  ·  ".join(parts)


def _fitting(draw: Any, text: str, font: Any, width: float) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _line_height(font: Any) -> int:
    box = font.getbbox("Ág0:")
    return int(box[3] - box[1])
