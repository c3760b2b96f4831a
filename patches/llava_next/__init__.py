"""TAM on LLaVA-NeXT: one short file a concern; none of it changes anything unless a model or a flag says tam."""

from __future__ import annotations

from tam_plugin.patches.llava_next import (
    argument_records,
    loading_records,
    partial_saving_records,
    tower_records,
    upgrade_records,
)
from tam_plugin.patches.record import Patch

RECORDS: tuple[Patch, ...] = (
    *argument_records.RECORDS,
    *loading_records.RECORDS,
    *partial_saving_records.RECORDS,
    *tower_records.RECORDS,
    *upgrade_records.RECORDS,
)
