"""What LLaVA-NeXT itself needs on today's packages; useful without TAM. Each record is active only where needed."""

from __future__ import annotations

from tam_plugin.patches.compat import (
    conversation,
    cpu,
    generation_cache,
    model_imports,
    qwen_adapters,
    rope,
    siglip_folder,
    siglip_meta,
    trainer_arguments,
    trainer_imports,
    trainer_loop,
    trainer_tokenizer,
    trainer_workers,
)
from tam_plugin.patches.record import Patch

RECORDS: tuple[Patch, ...] = (
    *model_imports.RECORDS,
    *conversation.RECORDS,
    *rope.RECORDS,
    *siglip_folder.RECORDS,
    *siglip_meta.RECORDS,
    *generation_cache.RECORDS,
    *trainer_imports.RECORDS,
    *trainer_arguments.RECORDS,
    *trainer_tokenizer.RECORDS,
    *trainer_loop.RECORDS,
    *trainer_workers.RECORDS,
    *cpu.RECORDS,
    *qwen_adapters.RECORDS,
)
