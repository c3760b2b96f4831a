"""W + scale · B · A: against peft and float64, in blocks of any size, and in how little memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from tam_plugin.checkpoint.lora import open_adapter
from tam_plugin.checkpoint.shards import Entry, open_shard
from tam_plugin.checkpoint.writing import LowRank, Output, Region, Traffic, write_shard

from .test_merge import PREFIX


def test_scales_are_those_of_peft(tmp_path: Path):
    """Patterns, rank-stabilized scaling and targets by pattern: peft itself makes the adapter and merges it."""
    peft = pytest.importorskip("peft")

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.up_proj = nn.Linear(16, 16), nn.Linear(16, 24)

    model = nn.ModuleDict({"layers": nn.ModuleList(Block() for _ in range(12))})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r"layers\.\d+\.(q|up)_proj",
        exclude_modules=["layers.3.q_proj"],
        rank_pattern={"layers.1.q_proj": 2, "up_proj": 8},
        alpha_pattern={r"layers\.\d.up_proj": 3, "q_proj": 5},
        use_rslora=True,
    )
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    wrapped.save_pretrained(tmp_path)
    adapter = open_adapter(tmp_path, PREFIX)
    merged = wrapped.merge_and_unload().state_dict()
    assert len(adapter.pairs) == 23
    for name, tensor in merged.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and module in adapter.pairs:
            low = adapter.pairs[module]
            a, b = (load_file(low.a.shard.path)[region.name].double() for region in (low.a, low.b))
            torch.testing.assert_close(tensor.double(), before[name].double() + low.scale * b @ a, atol=1e-5, rtol=1e-5)
            assert math.isclose(low.scale, wrapped_scale(config, module))
        else:
            assert torch.equal(tensor, before[name])
    adapter.check_layers(name.removesuffix(".weight") for name in before if name.endswith(".weight"))
    adapter.shard.close()


def wrapped_scale(config, module: str) -> float:
    """The scale by hand: the patterns of the test above."""
    rank = 2 if module == "layers.1.q_proj" else 8 if "up" in module else 4
    alpha = 5 if "q_proj" in module else 3 if len(module) == len("layers.1.up_proj") else 6
    return alpha / math.sqrt(rank)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    rank=st.integers(1, 9),
    chunk=st.integers(1, 400),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 99),
)
def test_sums_in_blocks_of_any_size(tmp_path_factory, rows, columns, rank, chunk, dtype, seed):
    folder = tmp_path_factory.mktemp("sum")
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw, dtype=torch.float64).to(dtype)
    a, b = torch.randn(rank, columns, generator=draw), torch.randn(rows, rank, generator=draw).bfloat16()
    save_file({"w": weight, "a": a, "b": b}, folder / "parts.safetensors")
    shard = open_shard(folder / "parts.safetensors")
    low = LowRank(Region.whole(shard, "a"), Region.whole(shard, "b"), 0.37)
    output = Output("w", Entry(shard.tensors["w"].dtype, (rows, columns)), (Region.whole(shard, "w"),), low_rank=low)
    write_shard(folder / "sum.safetensors", [output], Traffic(), chunk)
    shard.close()
    found = load_file(folder / "sum.safetensors")["w"]
    exact = weight.double() + 0.37 * b.double() @ a.double()
    assert found.dtype == dtype
    size = weight.double().abs() + 0.37 * b.double().abs() @ a.double().abs()
    # float32 in between (nothing but float64 for a matrix in float64), then one rounding.
    steps = (0 if dtype == torch.float64 else rank + 4) * 2.0**-24 + torch.finfo(dtype).eps / 2 + 1e-13
    assert ((found.double() - exact).abs() <= size * steps + 1e-9).all()


@pytest.mark.slow
def test_memory_stays_that_of_a_block(tmp_path: Path):
    """A matrix of 105 MB (its float32 and a product as large take 420 MB), merged by a process of its own."""
    rows, columns, rank = 2048, 25600, 16
    header, offset = {}, 0
    for name, shape in {"w": (rows, columns), "a": (rank, columns), "b": (rows, rank)}.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (tmp_path / "parts.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    code = """
import resource, sys, torch
from pathlib import Path
from tam_plugin.checkpoint.shards import open_shard
from tam_plugin.checkpoint.writing import LowRank, Output, Region, Traffic, write_shard

folder = Path(sys.argv[1])
torch.ones(8, 8) @ torch.ones(8, 8)
shard = open_shard(folder / "parts.safetensors")
low = LowRank(Region.whole(shard, "a"), Region.whole(shard, "b"), 1.0)
output = Output("w", shard.tensors["w"], (Region.whole(shard, "w"),), low_rank=low)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_shard(folder / "sum.safetensors", [output], Traffic())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200e6
