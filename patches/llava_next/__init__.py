"""TAM on LLaVA-NeXT: one short file a concern; none of it changes anything unless a model or a flag says tam."""

from __future__ import annotations

from tam_plugin.patches.llava_next import (
    argument_records,
    loading_records,
    loss_records,
    multimodal_records,
    partial_saving_records,
    tower_records,
    training_records,
    upgrade_records,
)
from tam_plugin.patches.llava_next.modality import VideoModality, video
from tam_plugin.patches.record import Patch

__all__ = ["RECORDS", "VideoModality", "video"]

RECORDS: tuple[Patch, ...] = (
    *argument_records.RECORDS,
    *loading_records.RECORDS,
    *partial_saving_records.RECORDS,
    *training_records.RECORDS,
    *multimodal_records.RECORDS,
    *loss_records.RECORDS,
    *tower_records.RECORDS,
    *upgrade_records.RECORDS,
)
