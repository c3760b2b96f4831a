"""Video file and budget → SampledVideo: opened videos, frame index, readers, samplers, preprocessing, contact sheets.

Nothing here imports PyAV, Pillow or torch before a function that needs it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "VideoInfo": "tam_plugin.video.info",
    "SampledVideo": "tam_plugin.video.info",
    "probe_video": "tam_plugin.video.sampling",
    "sample_frames": "tam_plugin.video.sampling",
    "open_video": "tam_plugin.video.opened",
    "Video": "tam_plugin.video.opened",
    "Sampler": "tam_plugin.video.samplers",
    "register_sampler": "tam_plugin.video.samplers",
    "sampler_named": "tam_plugin.video.samplers",
    "uniform_indices": "tam_plugin.video.indices",
    "snap_indices": "tam_plugin.video.indices",
    "available_backends": "tam_plugin.video.reader",
    "preprocess_frames": "tam_plugin.video.preprocess",
    "contact_sheet": "tam_plugin.video.sheet",
}

__all__ = [
    "SampledVideo",
    "Sampler",
    "Video",
    "VideoInfo",
    "available_backends",
    "contact_sheet",
    "open_video",
    "preprocess_frames",
    "probe_video",
    "register_sampler",
    "sample_frames",
    "sampler_named",
    "snap_indices",
    "uniform_indices",
]

if TYPE_CHECKING:
    from tam_plugin.video.indices import snap_indices, uniform_indices
    from tam_plugin.video.info import SampledVideo, VideoInfo
    from tam_plugin.video.opened import Video, open_video
    from tam_plugin.video.preprocess import preprocess_frames
    from tam_plugin.video.reader import available_backends
    from tam_plugin.video.samplers import Sampler, register_sampler, sampler_named
    from tam_plugin.video.sampling import probe_video, sample_frames
    from tam_plugin.video.sheet import contact_sheet


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
