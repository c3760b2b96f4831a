"""Records by which the host's training data follow the question."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.llava_next.model.model_config import is_tam
from tam_plugin.patches.record import Patch

DECORD = "process_video_with_decord"
PYAV = "process_video_with_pyav"


def _trainer(original: Callable) -> Callable:
    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if is_tam(self.model):
            from tam_plugin.patches.llava_next.model.training import prepare_trainer

            prepare_trainer(self)

    return __init__


def _reader(original: Callable) -> Callable:
    names = getattr(inspect.unwrap(original), "__code__", None)
    gives_times = names is not None and "frame_time" in names.co_varnames  # hosts before 2024-08 give frames alone

    @functools.wraps(original)
    def process_video(video_file, data_args):
        from tam_plugin.patches.llava_next.data.sampling import current_video

        video: Any = current_video()
        if video is None:
            return original(video_file, data_args)
        if not gives_times:
            return video.frames
        times = ",".join(f"{t:.2f}s" for t in video.timestamps_s)
        return video.frames, video.info.duration_s, times, len(video.frames)

    return process_video


def _has_no_decord(module: ModuleType) -> bool:
    return not hasattr(module, DECORD)


RECORDS = (
    Patch(
        name="training.trainer",
        target="llava.train.llava_trainer:LLaVATrainer.__init__",
        reason="the question of each sample decides its frames and stride; unreadable samples are counted",
        wrap=_trainer,
    ),
    Patch(
        name="training.decord",
        target=f"llava.utils:{DECORD}",
        reason="the host's dataset takes the frames that a sample's budget bought",
        wrap=_reader,
        signatures=(("video_file", "data_args"),),
        needed=lambda module: not _has_no_decord(module),
    ),
    Patch(
        name="training.pyav",
        target=f"llava.utils:{PYAV}",
        reason="as training.decord, for hosts before 2024-08, which read videos with PyAV",
        wrap=_reader,
        signatures=(("video_file", "data_args"),),
        needed=_has_no_decord,
    ),
)
