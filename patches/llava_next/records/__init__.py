"""Every patch record on LLaVA-NeXT, in the order in which they are applied."""

from __future__ import annotations

from tam_plugin.patches.llava_next.records import (
    argument,
    loading,
    loss,
    multimodal,
    partial_saving,
    tower,
    training,
    upgrade,
)
from tam_plugin.patches.record import Patch

RECORDS: tuple[Patch, ...] = (
    *argument.RECORDS,
    *loading.RECORDS,
    *partial_saving.RECORDS,
    *training.RECORDS,
    *multimodal.RECORDS,
    *loss.RECORDS,
    *tower.RECORDS,
    *upgrade.RECORDS,
)
