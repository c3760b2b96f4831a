"""``--model_args`` of the TAM models: every argument by name, anything else refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tam_plugin.budget import Policy, read_policy
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.ablations.arguments import with_ablation
from tam_plugin.video.info import MAX_DAMAGED
from tam_plugin.video.samplers import UNIFORM, sampler_named

DTYPES = ("auto", "float32", "bfloat16", "float16")
_TRUE_OR_FALSE = (True, False, None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments that both models take.

    Attributes:
        pretrained: checkpoint folder or hub name.
        policy: None for the checkpoint's own; the path of a policy file; or ``fixed:FRAMES:STRIDE``, the baseline.
        inductor: None for the checkpoint's own (or the embedded one); a folder or a hub name.
        max_frames: maximum number of frames per video; None leaves it to the policy.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.
        dtype: one of :data:`DTYPES`; ``auto`` takes bfloat16 on CUDA and float32 on CPU (each host's own way).
        batch_size: requests that are computed together.
        sampler: what chooses the frames of a video; see ``tam plan --help``.
        backend: video reader.
        max_damaged: share of a video's frames that may be damaged before it is refused.
        image_fps: frames per second that a folder of frames stands for; 3 is what the baseline takes.
        time_instruction: whether the prompt tells duration and frame times; None does what the checkpoint says.
        task_instruction: whether the prompt names the task type; None does what the checkpoint says.
        prompts_of: the model whose prompts in lmms-eval's task files are used.
        log: file that gets one JSON line per request, and that a killed run resumes from; None keeps no log.
        routing: file that gets one JSON line per request with the tokens that each expert of the tower took; None
            counts nothing.
        attn_implementation: as transformers names them.
        ablation: a row of the paper's ablation tables (:mod:`tam_plugin.eval.ablations`), which decides policy,
            instruction, experts and projectors; None evaluates the checkpoint as it is.
        ablation_seed: seed of rows that draw at random.
    """

    pretrained: str
    policy: str | None = None
    inductor: str | None = None
    max_frames: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 1
    sampler: str = UNIFORM
    backend: str = "auto"
    max_damaged: float = MAX_DAMAGED
    image_fps: float = 3.0
    time_instruction: bool | None = None
    task_instruction: bool | None = None
    prompts_of: str = "llava_vid"
    log: str | None = None
    routing: str | None = None
    attn_implementation: str = "sdpa"
    ablation: str | None = None
    ablation_seed: int = 0

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Any:
        """Settings from what lmms-eval makes of ``--model_args``, ``--batch_size`` and ``--device``.

        Raises:
            ConfigError: an argument is unknown, missing or out of range.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        given.pop("max_batch_size", None)  # lmms-eval hands it to every model
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"model_args: unknown argument {unknown[0]!r}; expected some of {', '.join(known)}")
        if not str(given.get("pretrained", "")).strip():
            raise ConfigError("model_args: pretrained is missing; expected pretrained=PATH_OR_NAME")
        # "pretrained=7" and "policy=2" arrive as numbers
        texts = {"pretrained", "policy", "inductor", "device", "dtype", "sampler", "backend"}
        texts |= {"prompts_of", "log", "routing"}
        given = {name: str(value) if name in texts else value for name, value in given.items()}
        settings = cls(**given)
        settings.check()
        return with_ablation(settings)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        for name in ("max_frames", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not _whole(value) or int(value) < 1):
                raise _bad(name, value, "a whole number >= 1")
            object.__setattr__(self, name, None if value is None else int(value))
        if self.dtype not in DTYPES:
            raise _bad("dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        try:
            sampler_named(self.sampler)
        except InputError as error:
            raise ConfigError(f"model_args: {error}") from error
        for name in ("time_instruction", "task_instruction"):
            if getattr(self, name) not in _TRUE_OR_FALSE:
                raise _bad(name, getattr(self, name), "true or false")
        if isinstance(self.image_fps, (bool, str)) or not self.image_fps > 0:
            raise _bad("image_fps", self.image_fps, "a number above 0")
        if isinstance(self.max_damaged, (bool, str)) or not 0 <= self.max_damaged <= 1:
            raise _bad("max_damaged", self.max_damaged, "a share between 0 and 1")

    def own_policy(self) -> Policy | None:
        """The policy that was asked for; None for the checkpoint's.

        Raises:
            ConfigError: it cannot be read.
        """
        if self.policy is None:
            return None
        try:
            return read_policy(self.policy)
        except ConfigError as error:
            raise ConfigError(f"model_args: {error}") from error


def _whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.isdecimal())


def _bad(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"model_args: {name} = {value!r}: expected {expected}")
