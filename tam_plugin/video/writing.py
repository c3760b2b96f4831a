"""FrameWriter: decoded frames → upright RGB of the size wanted, straight into the output array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.video.container import check_picture_size
from tam_plugin.video.scaling import conversion_settings, scaling_flags

if TYPE_CHECKING:
    from tam_plugin.video.reading import ReadRequest

_PIXEL = np.dtype("V3")
"""An RGB pixel as one element: turning a picture moves pixels, not single bytes."""


class FrameWriter:
    """Converts decoded frames to upright RGB of the size wanted; one frame is in flight at a time."""

    def __init__(self, request: ReadRequest) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = request.path
        self._out = request.out.view(_PIXEL)[..., 0]
        self._orientation = request.orientation
        self._reformatter = VideoReformatter()
        width, height = request.stored_size
        self._settings: dict[str, Any] = {"format": "rgb24", "width": width, "height": height}
        if request.scales:
            self._settings["interpolation"] = scaling_flags()

    def write(self, row: int, frame: Any) -> None:
        """Put ``frame`` (an ``av.VideoFrame``) into row ``row``."""
        check_picture_size(self._path, frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, **self._settings, **conversion_settings(frame))
        plane = rgb.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height, : rgb.width * 3]
        self._out[row] = self._orientation.apply(lines.view(_PIXEL))
