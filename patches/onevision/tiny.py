"""A tiny LLaVA-OneVision with random weights: the architecture end to end, with nothing learned.

It serves ``tam ask`` when no checkpoint is named, ``tam eval ablations`` and the tests. Same code path as a real
checkpoint: SigLIP with the real 27 × 27 patch grid, Qwen2, a byte-level tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def demo_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer: 256 bytes and five special tokens, made in place."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def demo_config(tokenizer: PreTrainedTokenizerBase, **vision: Any) -> LlavaOnevisionConfig:
    """Tiny shapes; ``vision`` overrides fields of the SigLIP configuration."""
    siglip = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
        **vision,
    }
    qwen2 = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    images: Any = tokenizer.convert_tokens_to_ids("<image>")
    videos: Any = tokenizer.convert_tokens_to_ids("<video>")
    return LlavaOnevisionConfig(
        vision_config=siglip,
        text_config=qwen2,
        image_token_index=images,
        video_token_index=videos,
        image_grid_pinpoints=[[siglip["image_size"]] * 2],
        vision_aspect_ratio="anyres_max_9",
    )


def demo_dense_model(
    seed: int = 0, **vision: Any
) -> tuple[LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase]:
    """The dense host model with seeded random weights in float32, and its tokenizer."""
    tokenizer = demo_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(demo_config(tokenizer, **vision))
    return model.eval(), tokenizer
