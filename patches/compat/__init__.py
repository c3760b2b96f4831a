"""What LLaVA-NeXT itself needs on today's packages; useful without TAM. Each record is active only where needed."""

from __future__ import annotations

from tam_plugin.patches.record import Patch

RECORDS: tuple[Patch, ...] = ()
