"""The host's own ``train_mem.py`` from a shell with ``--vision_tower tam``: trained, killed, resumed, loaded, asked."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tam_plugin.budget
from tam_plugin import Inductor
from tam_plugin.budget.stored import stored_policy
from tam_plugin.inductor.model import DEFAULT_FOLDER
from tam_plugin.inductor.stored import stored_inductor
from tests.llava import tiny
from tests.llava.test_loading import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llava_train")]
STEPS, KILLED_AFTER = 20, 10


def command(
    host: Path, dense: Path, data: tiny.TrainingSet, out: Path, *, script: str = "train_mem.py", steps: int = STEPS
) -> list[str]:
    policy = out.parent / "policy.yaml"
    default = Path(tam_plugin.budget.__file__).with_name("default_policy.yaml").read_text()
    policy.write_text(default.replace("max_frames: 120", "max_frames: 2"))
    inductor = out.parent / "my_inductor"
    shutil.copytree(DEFAULT_FOLDER, inductor, dirs_exist_ok=True)
    arguments = tiny.train_args(
        dense,
        data,
        out,
        steps,
        vision_tower="tam",
        tam_policy=policy,
        tam_inductor=inductor,
        save_steps=KILLED_AFTER,
        dataloader_num_workers=2,
        image_aspect_ratio="pad",
    )
    return [str(host / "llava" / "train" / script), *arguments]


def run_until(folder: Path, args: list[str], env: dict[str, str], cwd: Path, timeout_s: float = 300) -> str:
    """Start the command and kill it as soon as ``folder`` is a whole checkpoint; what it had printed."""
    log = cwd / "killed.log"
    with log.open("w") as out:
        process = subprocess.Popen(args, env=env, cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + timeout_s
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "trainer_state.json").is_file():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.1)
        process.wait(timeout=30)
    printed = log.read_text()
    assert process.returncode == -signal.SIGKILL, printed[-3000:]
    return printed


def test_twenty_steps_killed_resumed_loaded_and_asked(
    llava_train: Path, dense: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path
) -> None:
    out = tmp_path / "tam-qwen"
    args = [sys.executable, *command(llava_train, dense, training_set, out)]
    env = tiny.environment(llava_train, hub)
    run_until(out / f"checkpoint-{KILLED_AFTER}", args, env, tmp_path)
    resumed = subprocess.run(args, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert resumed.returncode == 0, resumed.stderr[-3000:]

    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    steps = [row for row in history if "L_ori" in row]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    losses = [row["L_ori"] for row in steps]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses
    for row in steps:
        assert abs(row["loss"] - row["L_ori"]) < 0.1  # the router losses are small beside it, and logged themselves
        if "L_b" in row:  # a step of images or videos
            assert row["L_z"] > 0 and abs(sum(row[f"expert_load_{e}"] for e in range(4)) - 1) < 1e-5
    assert sum("L_b" in row for row in steps) >= STEPS // 2
    # The second process went on where the first was killed: it logged the later steps alone.
    logged = len(re.findall(r"'L_ori'", resumed.stdout))
    assert logged == STEPS - KILLED_AFTER, resumed.stdout[-2000:]

    # Policy and Inductor are parts of what was saved: nothing else on this machine is needed to ask it.
    shutil.rmtree(out.parent / "my_inductor")
    for folder in (out, out / f"checkpoint-{STEPS}"):
        tam = json.loads((folder / "config.json").read_text())["tam"]
        assert stored_inductor(tam["inductor"], folder) == str(folder / "inductor")
        assert Inductor.from_pretrained(folder / "inductor").classify("What color is it?").task.index == 1
        assert stored_policy(tam["policy"]).max_frames == 2

    tokenizer, model, _, _ = load(out)
    model = model.float().eval()
    question = "<|im_start|>user\nWhat colour is the square?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([[-200, *tokenizer(question).input_ids]])
    inputs = {"images": [torch.randn(4, 3, 384, 384)], "modalities": ["video"], "image_sizes": [(48, 64)]}
    with torch.inference_mode():
        answer = model.generate(ids, **inputs, max_new_tokens=4, do_sample=False)[0]
        logits = model(ids, **inputs).logits[0, -1]
    assert answer[0] == logits.argmax() and tokenizer.decode(answer)


LAUNCHES = {
    "train.py as __main__": ("train.py", []),
    "torchrun, two processes": ("train_mem.py", ["-m", "torch.distributed.run", "--nproc_per_node", "2"]),
}


@pytest.mark.parametrize("launch", LAUNCHES)
def test_other_ways_to_launch(
    llava_train: Path, dense: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path, launch: str
) -> None:
    script, before = LAUNCHES[launch]
    out = tmp_path / "tam-qwen"
    args = [sys.executable, *before, *command(llava_train, dense, training_set, out, script=script, steps=1)]
    env = tiny.environment(llava_train, hub, OMP_NUM_THREADS="1")
    ran = subprocess.run(args, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "L_ori" in row] == [1]
    config = json.loads((out / "config.json").read_text())
    assert config["mm_vision_tower"] == "tam" and config["tam"]["moe"]["num_experts"] == 4
