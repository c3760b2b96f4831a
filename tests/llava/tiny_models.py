"""Tiny checkpoints for LLaVA-NeXT: encoder, tokenizer, language model, and the host's own model of them.

The encoder is as wide as SigLIP-so400m (the host writes that width into its own tower) but has three thin layers,
of which the host deletes the last. It lies in a hub cache under its real name, since the host takes a tower that
is given as an existing path for a CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIGLIP = "google/siglip-so400m-patch14-384"
HIDDEN = 64
CHAT = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 256 + len(SPECIAL)


@contextmanager
def hub_cache(hub: Path) -> Iterator[None]:
    """Let this process look up hub names in ``hub``."""
    import huggingface_hub.constants
    import transformers.utils.hub

    places = [
        (module, name)
        for module in (huggingface_hub.constants, transformers.utils.hub)
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")
        if hasattr(module, name)
    ]
    before = [(module, name, getattr(module, name)) for module, name in places]
    for module, name in places:
        setattr(module, name, str(hub))
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def write_siglip(hub: Path) -> Path:
    """Put the encoder into the hub cache ``hub``, as the hub's own client would; the snapshot's folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import SiglipVisionConfig, SiglipVisionModel

    revision = "0" * 40
    repository = hub / ("models--" + SIGLIP.replace("/", "--"))
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )
    model = SiglipVisionModel(config).to(torch.bfloat16)
    # The names that the published checkpoint has, whatever this transformers calls them.
    weights = {f"vision_model.{name.removeprefix('vision_model.')}": w for name, w in model.state_dict().items()}
    save_file(weights, snapshot / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(snapshot)
    return snapshot


def write_tokenizer(folder: Path) -> None:
    """A Qwen2 tokenizer of the 256 bytes in GPT-2's order (newline is 198, as the host expects) and no merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    symbols = [chr(b) for b in printable] + [chr(256 + n) for n in range(len(others))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(256 + n): {"content": s, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        | {"special": True}
        for n, s in enumerate(SPECIAL)
    }
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL[1:]),
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def llm_settings() -> dict[str, object]:
    """Settings of the language model, for ``Qwen2Config``."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "bos_token_id": 256,
        "eos_token_id": 258,
        "pad_token_id": 256,
        "tie_word_embeddings": False,
    }


def write_llm(folder: Path) -> Path:
    """A plain Qwen2 without a tower, in bfloat16; its path should hold "qwen"."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    Qwen2ForCausalLM(Qwen2Config(**llm_settings())).to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def dense_config(**more: object) -> object:
    """The host's config of a checkpoint with the encoder above, as its training writes it."""
    from llava.model.language_model.llava_qwen import LlavaQwenConfig

    return LlavaQwenConfig(
        **llm_settings(),
        architectures=["LlavaQwenForCausalLM"],
        mm_vision_tower=SIGLIP,
        vision_tower_pretrained="",
        mm_hidden_size=1152,
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_patch_merge_type="spatial_unpad",
        mm_newline_position="grid",
        mm_spatial_pool_mode="bilinear",
        mm_resampler_type=None,
        mm_use_im_start_end=False,
        mm_use_im_patch_token=False,
        mm_tunable_parts="mm_vision_tower,mm_mlp_adapter,mm_language_model",
        unfreeze_mm_vision_tower=True,
        use_mm_proj=True,
        image_aspect_ratio="anyres_max_9",
        image_grid_pinpoints=[[384, 384], [384, 768], [768, 384], [768, 768]],
        tokenizer_padding_side="right",
        tokenizer_model_max_length=32768,
        add_faster_video=False,
        add_time_instruction=True,
        force_sample=True,
        **more,
    )


def write_dense(folder: Path, hub: Path) -> Path:
    """A LlavaQwen checkpoint in bfloat16 saved by the host's code, the encoder's weights inside."""
    import torch
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    torch.manual_seed(2)
    with hub_cache(hub):
        model = LlavaQwenForCausalLM(dense_config())
    torch.nn.init.normal_(model.model.image_newline, std=HIDDEN**-0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
