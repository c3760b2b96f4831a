"""The host's own training scripts: what they call the trainer with, and the same cut to this machine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import tiny

FOLDERS = ("scripts/video/train", "scripts/train")
COMMANDS = ("python", "python3", "torchrun", "deepspeed", "accelerate", "nvidia-smi")
WRITES_DOWN = "#!/bin/bash\nprintf '%s\\0' \"$@\" $'\\x01' >> \"$CALLS\"\n"
VARIABLES = ("NUM_GPUS", "NNODES", "RANK", "ADDR", "PORT", "MID_RUN_NAME", "RUN_NAME")
"""What the scripts take from the machines that they were written for."""

PATHS = {
    "vision_tower",
    "model_name_or_path",
    "data_path",
    "image_folder",
    "video_folder",
    "output_dir",
    "deepspeed",
    "run_name",
    "pretrain_mm_mlp_adapter",
}
"""Flags whose values are paths or names."""

Flags = dict[str, str]


@dataclass(frozen=True)
class Script:
    """One of the host's scripts.

    Attributes:
        name: below ``scripts``.
        trainer: the file that it runs, such as ``train_mem.py``.
        flags: what it passes, by flag without its dashes.
    """

    name: str
    trainer: str
    flags: Flags

    @property
    def starts_from_llm(self) -> bool:
        """Whether it starts from a plain language model."""
        return self.flags["model_name_or_path"].startswith("Qwen/")


def read_scripts(host: Path, folder: Path) -> list[Script]:
    """Every training script of a checkout, with the command line that bash makes of it.

    Each script is run by bash where the only commands are stand-ins that write down how they were called.
    """
    commands = folder / "commands"
    commands.mkdir()
    for name in COMMANDS:
        (commands / name).write_text(WRITES_DOWN)
        (commands / name).chmod(0o755)
    found = []
    for script in sorted(path for part in FOLDERS for path in (host / part).glob("*.sh")):
        calls = folder / "calls"
        calls.write_bytes(b"")
        env = {"PATH": str(commands), "CALLS": str(calls), **dict.fromkeys(VARIABLES, "1")}
        subprocess.run(["/bin/bash", str(script)], env=env, cwd=folder, capture_output=True, timeout=60, check=False)
        for call in calls.read_text().split("\x01\0"):
            words = call.split("\0")
            trainers = [n for n, word in enumerate(words) if Path(word).name in ("train_mem.py", "train_dpo.py")]
            if trainers:
                at = trainers[0]
                name = str(script.relative_to(host / "scripts"))
                found.append(Script(name, Path(words[at]).name, _flags(words[at + 1 :])))
    return found


def _flags(words: list[str]) -> Flags:
    flags: Flags = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            flags[name] = value
        elif word:
            flags[name] = f"{flags[name]} {word}".strip()
    return flags


@dataclass(frozen=True)
class Place:
    """What stands here for the models, data and devices of the scripts.

    Attributes:
        host: the checkout.
        hub: the hub cache with the tiny encoder.
        llm: a plain language model.
        llava: a LLaVA checkpoint.
        data: videos, an image and text.
        projector: a projector file of an earlier run, if there is one.
        policy: a budget policy of few frames.
        backend: of torch.compile.
    """

    host: Path
    hub: Path
    llm: Path
    llava: Path
    data: tiny.TrainingSet
    projector: Path | None = None
    policy: Path | None = None
    backend: str = "inductor"

    def cut(self, script: Script, output: Path) -> Flags:
        """A script's flags with ``--vision_tower tam``: paths of here, two steps of one sample, no GPU, no account."""
        given = script.flags
        replaced = {
            "vision_tower": "tam",
            "model_name_or_path": self.llm if script.starts_from_llm else self.llava,
            "data_path": self.rows_for(given),
            "image_folder": self.data.media,
            "video_folder": self.data.media,
            "output_dir": output,
            "deepspeed": self.host / given["deepspeed"],
            "report_to": "none",  # wandb needs an account
            "tf32": "False",  # for Ampere and later
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "dataloader_num_workers": 0,
            "pretrain_mm_mlp_adapter": self.projector,
            "torch_compile_backend": self.backend,
        }
        flags = {name: str(replaced.get(name, value)) for name, value in given.items()}
        flags |= {"max_steps": "2", "attn_implementation": "sdpa"}  # flash-attn needs a GPU
        if script.starts_from_llm:
            flags["vision_tower_pretrained"] = tiny.SIGLIP
        return flags | ({} if self.policy is None else {"tam_policy": str(self.policy)})

    def is_own(self, name: str) -> bool:
        """Whether a flag's value is a path or name of this machine, which no script could have."""
        return name in PATHS

    def rows_for(self, given: Flags) -> Path:
        """Videos, a picture and text; without videos where a script has no folder of them."""
        if "video_folder" in given:
            return self.data.yaml
        if given["version"] != "plain":
            return self.data.json.with_name("others.json")
        file = self.data.json.with_name("pictures.json")  # a picture and its caption, as pretraining takes them
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a red square"}]
        file.write_text(json.dumps([{"id": n, "image": "red.png", "conversations": turns} for n in range(4)]))
        return file

    def environment(self) -> dict[str, str]:
        """For a process that trains with DeepSpeed on a CPU."""
        return tiny.environment(self.host, self.hub, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")


def words(flags: Flags) -> list[str]:
    """Flags as a command line."""
    return [word for name, value in flags.items() for word in (f"--{name}", value)]
