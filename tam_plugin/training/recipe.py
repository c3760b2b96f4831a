"""The paper's training recipe as values (Sec. 3.3, 4.1, Tab. 8): what the scripts are checked against."""

from __future__ import annotations

import math
from typing import Any

from tam_plugin.errors import InputError

BASE_BATCH_SIZE = 32
"""BS₀ of Eq. 3: 1 sample per GPU, accumulated twice, on 16 GPUs (Tab. 8). The paper does not say it outright."""

PAPER: dict[str, dict[str, Any]] = {
    "stage2": {
        "learning_rate": 2.5e-5,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "warmup_ratio": 0.03,
        "max_steps": 1200,
        "model_max_length": 21000,
    },
    "stage3": {
        "learning_rate": 2.5e-5,
        "mm_vision_tower_lr": 5e-6,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "warmup_ratio": 0.03,
        "max_steps": 3200,
        "model_max_length": 21000,
        "tam_num_experts": 4,
        "tam_top_k": 2,
        "tam_balance_loss_weight": 1e-3,
        "tam_z_loss_weight": 5e-4,
    },
}
"""Tab. 8 and Sec. 4.1, by the host's argument names; the GPUs are 16, AdamW is the host's default."""

STAGE2_ORDERS = {
    "llm_first": "mm_language_model",
    "projector_first": "mm_mlp_adapter",
    "tower_and_projector_first": "mm_vision_tower,mm_mlp_adapter",
}
"""What stage 2 trains (Tab. 3b), as the host's ``--mm_tunable_parts``; the paper's choice is the first."""


def scaled_learning_rate(base: float, batch_size: int, base_batch_size: int = BASE_BATCH_SIZE) -> float:
    """LR = LR₀ · sqrt(BS / BS₀) (Eq. 3).

    Args:
        base: LR₀, 2.5e-5 for the language model and 5e-6 for the vision tower.
        batch_size: BS: samples per GPU × accumulation × GPUs.
        base_batch_size: BS₀.

    Raises:
        InputError: a value that is not positive.
    """
    for name, value in (("base", base), ("batch_size", batch_size), ("base_batch_size", base_batch_size)):
        if not value > 0 or not math.isfinite(value):
            raise InputError(f"{name} = {value!r}: expected a positive number")
    return base * math.sqrt(batch_size / base_batch_size)
