"""A checkpoint of the shapes of Qwen2-72B and SigLIP-so400m, made of sparse files: its conversion stays small."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

H, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 8192, 29568, 80, 64, 8, 152064
WIDE, WIDE_INNER, ENCODER_LAYERS, PATCHES = 1152, 4304, 26, 729
SHARD_BYTES = 5 * 10**9
MAX_RSS_BYTES = 2 * 2**30
NEEDED_BYTES = 15 * 10**9


def shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of LLaVA-Video-72B-Qwen2 in the order in which its modules hold them."""
    key = H * KV_HEADS // HEADS
    layer = {
        "self_attn.q_proj.weight": (H, H),
        "self_attn.q_proj.bias": (H,),
        "self_attn.k_proj.weight": (key, H),
        "self_attn.k_proj.bias": (key,),
        "self_attn.v_proj.weight": (key, H),
        "self_attn.v_proj.bias": (key,),
        "self_attn.o_proj.weight": (H, H),
        "mlp.gate_proj.weight": (INNER, H),
        "mlp.up_proj.weight": (INNER, H),
        "mlp.down_proj.weight": (H, INNER),
        "input_layernorm.weight": (H,),
        "post_attention_layernorm.weight": (H,),
    }
    norms = {f"layer_norm{n}.{kind}": (WIDE,) for n in (1, 2) for kind in ("weight", "bias")}
    attention = {
        f"self_attn.{name}_proj.{kind}": (WIDE, WIDE) if kind == "weight" else (WIDE,)
        for name in ("q", "k", "v", "out")
        for kind in ("weight", "bias")
    }
    mlp = {
        "mlp.fc1.weight": (WIDE_INNER, WIDE),
        "mlp.fc1.bias": (WIDE_INNER,),
        "mlp.fc2.weight": (WIDE, WIDE_INNER),
        "mlp.fc2.bias": (WIDE,),
    }
    tower = "model.vision_tower.vision_tower.vision_model."
    return {
        "model.embed_tokens.weight": (VOCABULARY, H),
        **{f"model.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in layer.items()},
        "model.norm.weight": (H,),
        "model.image_newline": (H,),
        f"{tower}embeddings.patch_embedding.weight": (WIDE, 3, 14, 14),
        f"{tower}embeddings.patch_embedding.bias": (WIDE,),
        f"{tower}embeddings.position_embedding.weight": (PATCHES, WIDE),
        **{
            f"{tower}encoder.layers.{n}.{name}": shape
            for n in range(ENCODER_LAYERS)
            for name, shape in {**norms, **attention, **mlp}.items()
        },
        f"{tower}post_layernorm.weight": (WIDE,),
        f"{tower}post_layernorm.bias": (WIDE,),
        "model.mm_projector.0.weight": (H, WIDE),
        "model.mm_projector.0.bias": (H,),
        "model.mm_projector.2.weight": (H, H),
        "model.mm_projector.2.bias": (H,),
        "lm_head.weight": (VOCABULARY, H),
    }


def write_sparse(folder: Path) -> int:
    """The checkpoint, all zeros, with true headers; gives its bytes. It takes next to no room on the disk."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes().items():
        nbytes = 2 * math.prod(shape)
        if filled and filled + nbytes > SHARD_BYTES:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += nbytes
    folder.mkdir()
    places: dict[str, str] = {}
    total = 0
    for number, group in enumerate(groups, start=1):
        offset, header = 0, {}
        for name, shape in group.items():
            end = offset + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        with (folder / file).open("wb") as opened:
            opened.write(len(text).to_bytes(8, "little") + text)
            opened.truncate(8 + len(text) + offset)
        places.update(dict.fromkeys(group, file))
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "hidden_size": H,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return total


def measured(*argv: object) -> dict:
    """``tam upcycle … --json`` in a process of its own: what it said, with its largest memory in bytes."""
    code = (
        "import resource, sys; from tam_plugin.cli.main import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(code)"
    )
    # Through a shell: Linux counts what a process had before its exec, and that would be this process's own memory.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, "upcycle", *map(str, argv), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, rss = done.stdout.splitlines()
    return {**json.loads(said), "rss": int(rss)}


@pytest.mark.slow
def test_a_72b_checkpoint_takes_less_than_two_gigabytes_of_memory(tmp_path: Path, capsys):
    if shutil.disk_usage(tmp_path).free < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES / 1e9:.0f} GB of free disk for the shards that are written anew")
    source, target = tmp_path / "sparse", tmp_path / "tam"
    try:
        total = write_sparse(source)
        assert total > 140e9
        there = measured(source, target)
        assert there["rss"] < MAX_RSS_BYTES
        files = {path.name: path for path in target.glob("*.safetensors")}
        assert there["linked"] + there["written"] == len(files) and there["linked"] > 20
        written = [path for path in files.values() if path.stat().st_nlink == 1]
        index = json.loads((target / "model.safetensors.index.json").read_text())
        expert = 2 * (2 * WIDE * WIDE_INNER + WIDE + WIDE_INNER)
        more = ENCODER_LAYERS * (3 * expert + 2 * 4 * WIDE) + 3 * 2 * (H * WIDE + H * H + 2 * H)
        assert index["metadata"]["total_size"] == total + more
        begun = time.monotonic()
        nbytes = 0
        for number, path in enumerate(written):
            shutil.copyfile(path, tmp_path / f"plain{number}")
            with (tmp_path / f"plain{number}").open("rb+") as copy:
                os.fsync(copy.fileno())  # as the conversion does
            nbytes += path.stat().st_size
            (tmp_path / f"plain{number}").unlink()
        plain_s = time.monotonic() - begun
        with capsys.disabled():
            print(
                f"\n{total / 1e9:.1f} GB: {there['rss'] / 2**20:.0f} MiB at most, {there['linked']} shards linked, "
                f"{there['written']} written; {there['read_bytes'] / 1e9:.2f} GB read, "
                f"{there['written_bytes'] / 1e9:.2f} GB written in {there['seconds']:.1f} s; plain copying of these "
                f"{nbytes / 1e9:.2f} GB: {plain_s:.1f} s"
            )
        assert measured(source, "--inspect")["rss"] < MAX_RSS_BYTES
        back = measured(target, tmp_path / "back", "--dense", "average")
        assert back["rss"] < MAX_RSS_BYTES
    finally:
        for folder in (source, target, tmp_path / "back"):
            shutil.rmtree(folder, ignore_errors=True)
