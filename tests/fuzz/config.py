"""Configurations of strangers: each file that is loaded, tampered with, by the code that loads and uses it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
import yaml

from tam_plugin import BudgetPolicy, Inductor, TamConfig, TaskDistribution, TaskType
from tam_plugin.budget import read_policy
from tam_plugin.budget.policy import DEFAULT_POLICY
from tam_plugin.cli.main import main as tam
from tam_plugin.errors import InputError
from tam_plugin.inductor.model import DEFAULT_FOLDER
from tam_plugin.patches.onevision import VideoAssistant, upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model
from tam_plugin.video import SampledVideo, VideoInfo
from tests.checkpoint.test_merge import Material
from tests.fuzz.harness import Limits, Result, Verdict, in_process, parser_of, right, run, wrong
from tests.fuzz.structures import tamper_file
from tests.inductor_finetuning.tiny import make_base

QUERY = "What does the man do after he leaves the house?"
_DENSE = {"image_size": 70, "patch_size": 14}
_LAYOUT = ("--newline-position", "grid", "--model-max-length", "8192", "--workers", "1")

transformers.logging.set_verbosity_error()


@dataclass(frozen=True)
class Target:
    """Something with configuration files, and what uses it.

    Attributes:
        write: writes it to an empty folder.
        files: those that are tampered with.
        use: loads it and does something with it; a :class:`Result`, or a TamError.
    """

    write: Callable[[Path], None]
    files: Sequence[str]
    use: Callable[[Path], Result]


def command(*arguments: object) -> Result:
    """Run ``tam`` in this process: exit 0 is right, 2 with one line on stderr is refused.

    Raises:
        InputError: it refused.
    """
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = tam([str(each) for each in arguments])
        except SystemExit as ended:
            code = ended.code
    lines = [line for line in said.getvalue().replace("\r", "\n").split("\n") if line.strip()]
    message = lines[-1] if lines else ""
    if any(not character.isprintable() and character != "\t" for line in lines for character in line):
        return Result(Verdict.CRASHED, f"control characters reach the terminal: {message!r}")
    if code == 0:
        return right()
    if code == 2 and message:
        raise InputError(message)
    return Result(Verdict.CRASHED, f"exit {code}: {message}")


# -- what is loaded ---------------------------------------------------------------------------------------------------


def _write_onevision(folder: Path) -> None:
    dense, tokenizer = demo_dense_model(seed=1, **_DENSE)
    config = TamConfig.from_dict({"moe": {"num_experts": 2, "top_k": 1}, "projector": {"strides": [1, 2]}})
    model = upgrade_dense(dense, config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    (folder / "generation_config.json").write_text('{"num_beams": 1, "temperature": 1.0, "max_length": 20, "top_k": 5}')


def _use_onevision(folder: Path) -> Result:
    assistant = VideoAssistant.from_pretrained(str(folder), device="cpu")
    finite = []
    head = assistant.loaded.model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, logits: finite.append(bool(torch.isfinite(logits).all())))
    pictures = np.random.default_rng(0).integers(0, 255, (3, 70, 70, 3), np.uint8)
    info = VideoInfo(path="a.mp4", duration_s=2.0, fps=1.5, num_frames=3, width=70, height=70, codec="h264")
    times = np.array([0.0, 1.0, 1.5])
    video = SampledVideo(frames=pictures, timestamps_s=times, indices=np.arange(3), info=info, backend="pyav")
    policy = assistant.decider().policy_for(QUERY, 3)
    budget = policy.budget(TaskDistribution.one_hot(TaskType.ACTION_RECOGNITION), 2.0, video_frames=3)
    answer = assistant.answer(video, QUERY, budget, max_new_tokens=3)
    if not all(finite):
        return wrong(f"an answer out of logits that are not finite: {answer.text!r}")
    return right(answer.text[:80])


def _write_dense(folder: Path) -> None:
    dense, tokenizer = demo_dense_model(seed=1, **_DENSE)
    dense.save_pretrained(folder / "dense")
    tokenizer.save_pretrained(folder / "dense")


def _write_compact(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copyfile(DEFAULT_FOLDER / name, folder / name)


def _write_classifier(folder: Path) -> None:
    make_base(folder, "bert", labels=[task.label for task in TaskType])


def _use_inductor(folder: Path) -> Result:
    distributions = Inductor.from_pretrained(folder).classify_batch([QUERY, "color"], [3.0, None], [["a", "b"], None])
    for distribution in distributions:
        if not math.isclose(sum(distribution.probabilities), 1, abs_tol=1e-3):
            return wrong(f"probabilities {distribution.probabilities}")
    return right(distributions[0].task.label)


def _write_lora(folder: Path) -> None:
    Material(folder)


def _write_policy(folder: Path) -> None:
    shutil.copyfile(DEFAULT_POLICY, folder / "policy.yaml")


def _use_policy(folder: Path) -> Result:
    policy = BudgetPolicy.from_yaml(folder / "policy.yaml")
    json.dumps(policy.to_dict(), allow_nan=False)
    for task in TaskType:
        for duration_s in (0.04, 30.0, 86_400.0):
            budget = policy.budget(TaskDistribution.one_hot(task), duration_s, video_frames=100_000)
            if not 1 <= budget.num_frames <= 100_000 or budget.visual_tokens < 1:
                return wrong(f"{task.label} at {duration_s} s: {budget}")
    return right()


def _write_tam_config(folder: Path) -> None:
    config = TamConfig().replace(
        moe={"num_experts": 2}, projector={"strides": (1, 2)}, policy=yaml.safe_load(DEFAULT_POLICY.read_text())
    )
    (folder / "tam.yaml").write_text(yaml.dump(config.to_dict(), sort_keys=False))


def _use_tam_config(folder: Path) -> Result:
    config = TamConfig.from_yaml(folder / "tam.yaml")
    stored = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    if TamConfig.from_dict(stored) != config:
        return wrong("what a checkpoint stores is another configuration")
    policy = read_policy(config.policy)
    policy.budget(TaskDistribution.one_hot(TaskType.ACTION_RECOGNITION), 20.0)
    upgrade_dense(demo_dense_model(seed=1, **_DENSE)[0], config)
    return right()


def _write_mixture(folder: Path) -> None:
    for part in ("a", "b"):
        rows = [
            {
                "id": f"{part}{n}",
                "video": f"{n}.mp4",
                "duration_s": 3 + n,
                "conversations": [
                    {"from": "human", "value": f"<image>\n{QUERY}"},
                    {"from": "gpt", "value": "He sings."},
                ],
            }
            for n in range(3)
        ]
        (folder / f"{part}.json").write_text(json.dumps(rows))
    lines = ["datasets:", f"  - json_path: {folder}/a.json", "    sampling_strategy: all"]
    lines += [f"  - json_path: {folder}/b.json", "    sampling_strategy: random:50%"]
    (folder / "mixture.yaml").write_text("\n".join(lines) + "\n")


TARGETS: dict[str, Target] = {
    "OneVision checkpoint": Target(
        _write_onevision,
        ("config.json", "config.json", "config.json", "preprocessor_config.json", "generation_config.json"),
        _use_onevision,
    ),
    "dense checkpoint, upcycle": Target(
        _write_dense,
        ("dense/config.json",),
        lambda folder: command("upcycle", folder / "dense", folder / "out", "--num-experts", "2"),
    ),
    "Inductor": Target(_write_compact, ("config.json",), _use_inductor),
    "Inductor of Hugging Face": Target(
        _write_classifier, ("config.json", "config.json", "tokenizer_config.json"), _use_inductor
    ),
    "LoRA, merge": Target(
        _write_lora,
        ("run/adapter_config.json", "run/adapter_config.json", "run/config.json", "base/config.json"),
        lambda folder: command("merge", folder / "run", folder / "out", "--base", folder / "base"),
    ),
    "policy": Target(_write_policy, ("policy.yaml",), _use_policy),
    "TAM configuration": Target(_write_tam_config, ("tam.yaml",), _use_tam_config),
    "mixture, plan-data": Target(
        _write_mixture,
        ("mixture.yaml", "mixture.yaml", "a.json"),
        lambda folder: command("plan-data", "--data", folder / "mixture.yaml", "--out", folder / "out", *_LAYOUT),
    ),
}


class ConfigFuzzer:
    """Configurations of strangers: each file that is loaded, tampered with, by the code that loads and uses it."""

    name = "config"
    limits = Limits(wall_s=40, cpu_s=80, memory_bytes=4 << 30)

    def __init__(self, material: Path, targets: Sequence[str] = tuple(TARGETS)) -> None:
        self.columns = targets
        self._material = material

    def write_material(self) -> None:
        """Write every target once, whole; cases copy it.

        Raises:
            RuntimeError: one cannot be written.
        """
        for column in self.columns:
            folder = self._material / column
            folder.mkdir()
            ended = in_process(lambda folder=folder, column=column: TARGETS[column].write(folder), self.limits)
            if ended.fault:
                raise RuntimeError(f"{column} cannot be written: {ended.fault.detail}\n{ended.output}")

    def make(self, number: int, rng: random.Random, folder: Path) -> tuple[str, Sequence[str]]:
        """One target, in turn, with one file tampered with; each of the first ones is left as it is."""
        column = self.columns[number % len(self.columns)]
        own = folder / column
        shutil.copytree(self._material / column, own, copy_function=_link_weights)
        if number < len(self.columns):
            return f"{column}: as it is", [column]
        return f"{column}: {tamper_file(own / rng.choice(TARGETS[column].files), rng)}", [column]

    def check(self, folder: Path, column: str) -> Result:
        """Load and use the target named ``column``."""
        torch.set_num_threads(1)
        os.chdir(folder)
        return TARGETS[column].use(folder / column)


def _link_weights(source: str, target: str) -> str:
    """Weights are not tampered with, and too large to copy for each case."""
    if source.endswith(".safetensors"):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = parser_of(ConfigFuzzer.name, __doc__ or "")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=tuple(TARGETS), help="default: all")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tam-fuzz-config-") as material:
        fuzzer = ConfigFuzzer(Path(material), options.targets)
        if not options.replay:
            fuzzer.write_material()
        return run(fuzzer, options)


if __name__ == "__main__":
    sys.exit(main())
