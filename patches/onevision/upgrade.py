"""Dense LlavaOnevision → TAM, in memory, computing the same (co-upcycling)."""

from __future__ import annotations

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from tam_plugin.budget.stored import policy_to_store
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.onevision.configuration import TamOnevisionConfig
from tam_plugin.patches.onevision.modeling import TamOnevisionForConditionalGeneration
from tam_plugin.vision import ResolutionProjectors, upcycle_vision_encoder


def upgrade_dense(
    dense: LlavaOnevisionForConditionalGeneration, tam_config: TamConfig
) -> TamOnevisionForConditionalGeneration:
    """Turn a dense model into a TAM model that computes the same (co-upcycling, Sec. 3.3).

    ``dense`` hands its modules over and must not be used afterwards.

    Raises:
        ConfigError: it is not a dense LlavaOnevision model.
    """
    if type(dense) is not LlavaOnevisionForConditionalGeneration:
        raise ConfigError(f"{type(dense).__name__}: expected a dense LlavaOnevisionForConditionalGeneration")
    values = dense.config.to_dict()
    values.pop("model_type")
    values.pop("architectures", None)
    tam_config = tam_config.replace(policy=policy_to_store(tam_config.policy))
    config = TamOnevisionConfig(**{**values, "tam": tam_config.to_dict()})
    with torch.device("meta"):
        model = TamOnevisionForConditionalGeneration(config)
    upcycle_vision_encoder(dense.model.vision_tower, tam_config)
    model.model.vision_tower = dense.model.vision_tower
    model.model.multi_modal_projector = ResolutionProjectors(
        dense.model.multi_modal_projector, tam_config.projector, tam_config.moe
    )
    model.model.image_newline = dense.model.image_newline
    model.model.language_model = dense.model.language_model
    model.lm_head = dense.lm_head
    model.generation_config = dense.generation_config
    model.given_inductor = tam_config.inductor
    return model.train(dense.training)
