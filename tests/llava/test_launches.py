"""The LoRA scripts as they are launched: torchrun, two processes, DeepSpeed with the scripts' own configurations.

DeepSpeed runs on the CPU (``DS_ACCELERATOR=cpu``, gloo). The two ranks see videos of different strides.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tam_plugin import plan
from tam_plugin.patches.llava_next.checkpoints.partial_saving import is_visual
from tests.llava import tiny
from tests.llava.test_loading import load
from tests.llava.test_recipes import ON_A_CPU, SCRIPTS, Shop, changed
from tests.ranks import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("llava_train"),
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed"),
]
QUESTIONS = {"red.mp4": "What colour is the square?", "green.mp4": "Put the events in order."}
STEPS, KILLED_AFTER = 4, 2
VARIABLES = {
    "LAUNCHER": "torchrun",
    "GPUS": "2",
    "MAX_STEPS": str(STEPS),
    "SAVE_STEPS": str(KILLED_AFTER),
    "LORA_R": "4",
    "LORA_ALPHA": "8",
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
}
LAYER = "model.vision_tower.vision_tower.vision_model.encoder.layers.0."


@pytest.fixture
def shop(llava: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path) -> Shop:
    """A shop whose videos are asked questions that take different strides."""
    assert sorted(plan(question, 2.0).pool_stride for question in QUESTIONS.values()) == [1, 2]
    rows = [
        {
            "id": f"{number}-{video}",
            "video": video,
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}"},
                {"from": "gpt", "value": "Red, then green."},
            ],
        }
        for number in range(STEPS)
        for video, question in QUESTIONS.items()
    ]
    data = tmp_path / "strides.json"
    data.write_text(json.dumps(rows))
    return Shop(llava, hub, tiny.TrainingSet(data, data, training_set.media), tmp_path)


def kill_after(folder: Path, args: list[str], env: dict[str, str], cwd: Path, timeout_s: float = 400) -> None:
    """Start a launch and kill the launcher and its ranks as soon as ``folder`` is a whole checkpoint."""
    import psutil

    log = cwd / "killed.log"
    with log.open("w") as out:
        launcher = subprocess.Popen(args, env=env, cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + timeout_s
        while launcher.poll() is None and time.monotonic() < deadline:
            whole = [folder / "trainer_state.json", *(folder / f"rng_state_{rank}.pth" for rank in range(2))]
            if all(file.is_file() for file in whole):
                break
            time.sleep(0.1)
        family = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
        for process in family:
            process.kill()
        launcher.wait(timeout=30)
        psutil.wait_procs(family, timeout=30)
    assert launcher.returncode == -signal.SIGKILL and len(family) > 2, log.read_text()[-3000:]


def steps(out: Path) -> list[int]:
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [row["step"] for row in history if "L_ori" in row]


def check_output(base: Path, start_folder: Path, out: Path) -> None:
    """The output folder is complete: what should have moved did, the rest did not, and the host loads it."""
    start = {name: t for file in start_folder.glob("*.safetensors") for name, t in load_file(file).items()}
    trained, adapter = load_file(out / "tam_non_lora.safetensors"), load_file(out / "adapter_model.safetensors")
    assert trained.keys() == {name for name in start if is_visual(name)}
    moved = changed({name: start[name] for name in trained}, trained)
    kept = set(trained) - moved
    idle = [name for name in kept if not any(part in name for part in ("vision_tower", "stride_3", "stride_4"))]
    assert not idle and not any(".gate." in name for name in kept), kept
    assert {f"{LAYER}self_attn.q_proj.weight", f"{LAYER}layer_norm1.weight"} <= kept
    assert {f"{LAYER}mlp.gate.weight", f"{LAYER}mlp.experts.fc1.weight", "model.image_newline"} <= moved
    for stride in (1, 2):
        assert f"model.mm_projector.stride_{stride}.0.weight" in moved, stride
    assert not any("vision_tower" in name for name in adapter)
    assert all(tensor.any() for name, tensor in adapter.items() if "lora_B" in name) and len(adapter) > 2

    _, model, _, _ = load(out, base, name="llava-qwen-lora")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in trained.items())
    language = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(state[language].float(), start[language].float())


@pytest.fixture(scope="module")
def cpu_adam() -> None:
    """DeepSpeed's Adam on the CPU, which an offloaded optimizer needs: compiled once for this user."""
    code = "from deepspeed.ops.op_builder import CPUAdamBuilder as B; B().load(verbose=False)"
    env = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"DeepSpeed's Adam on the CPU cannot be compiled here: {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.usefixtures("cpu_adam")
def test_7b_from_a_dense_checkpoint_killed_and_resumed(shop: Shop, dense: Path, upcycled: Path) -> None:
    out = shop.folder / "lora-qwen"
    on_cpu = [text for name, value in ON_A_CPU.items() for text in (f"--{name}", value)]
    variables = {**VARIABLES, "DEEPSPEED": str(SCRIPTS / "zero2_offload.json")}
    args, env = shop.command("lora_7b.sh", dense, "lora-qwen", *on_cpu, **variables, MASTER_PORT=free_port())
    kill_after(out / f"checkpoint-{KILLED_AFTER}", args, env, shop.folder)
    assert not (out / "adapter_model.safetensors").exists()
    resumed = shop.run("lora_7b.sh", dense, "lora-qwen", *on_cpu, **variables, MASTER_PORT=free_port())
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert steps(out) == list(range(1, STEPS + 1))
    assert resumed.stdout.count("'L_ori'") == STEPS - KILLED_AFTER, resumed.stdout[-2000:]
    check_output(dense, upcycled, out)


def test_72b_from_an_upcycled_checkpoint(shop: Shop, upcycled: Path) -> None:
    variables = {**VARIABLES, "NODES": "1", "DEEPSPEED": str(SCRIPTS / "zero3.json")}
    shop.train("lora_72b.sh", upcycled, "lora-qwen-72b", **variables, MASTER_PORT=free_port())
    out = shop.folder / "lora-qwen-72b"
    assert steps(out) == list(range(1, STEPS + 1))
    check_output(upcycled, upcycled, out)


@pytest.fixture(scope="module")
def upcycled(dense: Path, hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tam upcycle`` makes of the dense checkpoint."""
    folder = tmp_path_factory.mktemp("upcycled") / "tam-qwen"
    command = [sys.executable, "-m", "tam_plugin.cli.main", "upcycle", str(dense), str(folder)]
    env = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
