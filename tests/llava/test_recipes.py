"""The training scripts as a shell runs them: stage 2, stage 3, an answer; dry runs against the runs themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tam_plugin.budget
from tests.llava import tiny
from tests.llava.test_loading import load

pytestmark = pytest.mark.usefixtures("llava_train")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ON_A_CPU = {
    "tf32": "False",
    "attn_implementation": "sdpa",
    "dataloader_num_workers": "0",
    "image_aspect_ratio": "pad",
    "gradient_accumulation_steps": "1",
    "warmup_ratio": "0",
    "learning_rate": "1e-2",  # weights near 1 have to move by more than bfloat16 rounds away
    "mm_vision_tower_lr": "1e-2",
}


class Shop:
    """Runs scripts on the tiny material."""

    def __init__(self, host: Path, hub: Path, data: tiny.TrainingSet, folder: Path) -> None:
        self.host, self.hub, self.data, self.folder = host, hub, data, folder
        default = Path(tam_plugin.budget.__file__).with_name("default_policy.yaml").read_text()
        self.policy = folder / "policy.yaml"
        self.policy.write_text(default.replace("max_frames: 120", "max_frames: 2"))

    def command(self, script: str, model: Path, out: str, *arguments: str, **variables: str):
        """A script's command line and environment; ``variables`` replace its own."""
        settings = {
            "LLAVA_NEXT": str(self.host),
            "MODEL": str(model),
            "DATA": str(self.data.yaml),
            "VIDEO_FOLDER": str(self.data.media),
            "OUT": str(self.folder / out),
            "POLICY": str(self.policy),
            "PYTHON": sys.executable,
            "LAUNCHER": "python",
            "DEEPSPEED": "none",
            "GPUS": "1",
            "NODES": "1",
            **variables,
        }
        env = tiny.environment(self.host, self.hub, **settings)
        return ["bash", str(SCRIPTS / script), *arguments], env

    def run(self, script: str, model: Path, out: str, *arguments: str, **variables: str):
        """Run a script."""
        command, env = self.command(script, model, out, *arguments, **variables)
        return subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=500, check=False
        )

    def train(self, script: str, model: Path, out: str, *arguments: str, **variables: str) -> str:
        """Run a script to its end; what it printed."""
        on_cpu = [text for name, value in ON_A_CPU.items() for text in (f"--{name}", value)]
        done = self.run(script, model, out, *on_cpu, *arguments, **variables)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    def dry(self, script: str, model: Path, **variables: str) -> str:
        """What a dry run prints."""
        done = self.run(script, model, "dry-qwen", DRY_RUN="1", **variables)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture
def shop(llava: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path) -> Shop:
    return Shop(llava, hub, training_set, tmp_path)


def parts_table(text: str) -> list[str]:
    """The table of trainable parts in what was printed."""
    lines = [line.rstrip() for line in text.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("part "))
    end = next(i for i in range(start, len(lines)) if lines[i].startswith("all "))
    return lines[start : end + 1]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name].float(), after[name].float())}


@pytest.mark.slow
def test_stage_2_stage_3_and_an_answer(shop: Shop, dense: Path, hub: Path) -> None:
    printed = shop.train("stage2_llm_first.sh", dense, "stage2-qwen", MAX_STEPS="3")
    assert parts_table(printed) == parts_table(shop.dry("stage2_llm_first.sh", dense))
    second = load_file(shop.folder / "stage2-qwen" / "model.safetensors")
    names = {name.replace("mm_projector.shared.", "mm_projector."): tensor for name, tensor in second.items()}
    moved = changed(load_file(dense / "model.safetensors"), names)
    assert moved and not any(part in name for name in moved for part in ("vision_tower", "mm_projector", "newline"))

    printed = shop.train("stage3_all.sh", shop.folder / "stage2-qwen", "stage3-qwen", MAX_STEPS="3")
    assert parts_table(printed) == parts_table(shop.dry("stage3_all.sh", shop.folder / "stage2-qwen"))
    third = load_file(shop.folder / "stage3-qwen" / "model.safetensors")
    layer = "model.vision_tower.vision_tower.vision_model.encoder.layers.0."
    experts = third[f"{layer}mlp.experts.fc1.weight"]
    assert experts.shape[0] == 4 and not torch.equal(experts[0], second[f"{layer}mlp.fc1.weight"])
    kept = {n: t for n, t in second.items() if n in third and "post_layernorm" not in n}  # which the host never uses
    same = set(kept) - changed(kept, {n: third[n] for n in kept})
    assert not same, same
    assert any("stride_4" in name for name in third) and not any("shared" in name for name in third)

    tokenizer, model, _, _ = load(shop.folder / "stage3-qwen")
    ids = torch.tensor([[-200, *tokenizer("What colour is the square?").input_ids]])
    inputs = {"images": [torch.randn(2, 3, 384, 384)], "modalities": ["video"], "image_sizes": [(48, 64)]}
    with torch.inference_mode():
        answer = model.float().eval().generate(ids, **inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == 3


ORDERS = {
    "projector_first": {"projectors": 77952},
    "tower_and_projector_first": {"projectors": 77952, "tower": 12453248},
}


@pytest.mark.parametrize("order", ORDERS)
def test_other_orders_of_stage_2_are_a_setting(shop: Shop, dense: Path, order: str) -> None:
    table = [line.split() for line in parts_table(shop.dry("stage2_llm_first.sh", dense, ORDER=order))[1:]]
    trained = {name: int(count.replace(",", "")) for name, _, count in table if count != "0" and name != "all"}
    assert trained == ORDERS[order]


def test_a_dry_run_prints_the_papers_values(shop: Shop, dense: Path) -> None:
    from tam_plugin.training.recipe import PAPER

    for stage, script in (("stage2", "stage2_llm_first.sh"), ("stage3", "stage3_all.sh")):
        printed = shop.dry(script, dense, GPUS="8", NODES="2", LAUNCHER="torchrun", DEEPSPEED=str(zero(stage)))
        command = printed.splitlines()[0].split()
        for name, value in PAPER[stage].items():
            given = command[command.index(f"--{name}") + 1]
            assert given == value or float(given) == pytest.approx(value), name
        assert {"8", "2"} == {command[command.index(f) + 1] for f in ("--nproc_per_node", "--nnodes")}
        assert re.search(rf"16 GPUs, ZeRO-{1 if stage == 'stage2' else 2}, 21,000 tokens", printed)


def zero(stage: str) -> Path:
    """The DeepSpeed configuration that Tab. 8 gives a stage."""
    return SCRIPTS / ("zero1_offload.json" if stage == "stage2" else "zero2_offload.json")


ZERO_3 = str(SCRIPTS / "zero3.json")
REFUSED = [
    ("stage2_llm_first.sh", {"DATA": "/no/such.yaml"}, "DATA=/no/such.yaml does not exist: expected the training set"),
    ("stage2_llm_first.sh", {"ORDER": "all"}, "ORDER=all: expected one of llm_first, projector_first"),
    ("stage3_all.sh", {"GPUS": "0"}, "GPUS=0: expected a whole number from 1"),
    ("stage3_all.sh", {"MODEL": "./nothing"}, "MODEL=./nothing holds no config.json"),
    ("stage3_all.sh", {"LLAVA_NEXT": "/"}, "LLAVA_NEXT=/ holds no llava/train/train_mem.py"),
    ("lora_7b.sh", {"DEEPSPEED": "zero9.json"}, "DEEPSPEED=zero9.json does not exist"),
    ("lora_72b.sh", {"DRY_RUN": "1", "DEEPSPEED": ZERO_3}, "disk first (tam upcycle"),
    ("lora_72b.sh", {"LAUNCHER": "torchrun", "DEEPSPEED": ZERO_3}, "disk first (tam upcycle"),
    ("lora_72b.sh", {"VIDEO_FOLDER": ""}, "VIDEO_FOLDER is not set: expected the folder"),
    ("stage1_inductor.sh", {"TAGGED": "none.jsonl"}, "TAGGED=none.jsonl does not exist"),
]


@pytest.mark.parametrize(("script", "variables", "message"), REFUSED)
def test_what_is_missing_is_said_before_anything_starts(shop: Shop, dense: Path, script, variables, message) -> None:
    done = shop.run(script, dense, "none", **variables)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (shop.folder / "none").exists()
