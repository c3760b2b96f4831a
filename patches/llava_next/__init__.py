"""TAM on LLaVA-NeXT: one short file a concern; none of it changes anything unless a model or a flag says tam."""

from __future__ import annotations

from tam_plugin.patches.llava_next import argument_records, tower_records, upgrade_records
from tam_plugin.patches.record import Patch

RECORDS: tuple[Patch, ...] = (
    *argument_records.RECORDS,
    *tower_records.RECORDS,
    *upgrade_records.RECORDS,
)
