"""Language models of other families and mixtures, against torch's counter and their own parameters."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tam_plugin.flops import LanguageShape, ModelShape, count_parameters, decode_flops, prefill_flops

from .conftest import ENCODER, PROJECTOR, close, counted

COMMON = {
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "pad_token_id": 0,
}
FAMILIES = {
    "qwen2": {},
    "qwen2, tied": {"tie_word_embeddings": True},
    "qwen2, as many keys as queries": {"num_key_value_heads": 6},
    "qwen3": {"head_dim": 20},
    "llama": {},
    "llama, with biases": {"attention_bias": True},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
        "decoder_sparse_step": 2,
    },
    "qwen3_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 24,
        "head_dim": 20,
        "mlp_only_layers": [1],
    },
    "gemma": {"head_dim": 20},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_prefill_decode_and_parameters(name):
    config = AutoConfig.for_model(name.partition(",")[0], **{**COMMON, **FAMILIES[name]})
    config._attn_implementation = config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    shape = LanguageShape.of(config.to_dict(), name)
    ids = torch.arange(11)[None]
    assert prefill_flops(shape, 11) == close(counted(lambda: model(ids, logits_to_keep=1)))
    assert prefill_flops(shape, 11, logits="all") == close(counted(lambda: model(ids)))
    with torch.no_grad():
        cache = model(ids).past_key_values
    assert decode_flops(shape, 11) == close(counted(lambda: model(ids[:, :1], past_key_values=cache)))
    whole = ModelShape(encoder=ENCODER, projector=PROJECTOR, language=shape, newline=False)
    counts = count_parameters(whole)["language_model"]
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    assert (counts["activated"] < counts["total"]) == (shape.sparse_layers > 0)
