"""``--tam_*`` arguments of the host's scripts, and the :class:`TamConfig` that they make."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import EXPERT_BACKENDS, POOL_MODES, POOL_ORDERS, PROJECTOR_GATES, ROUTER_MODES, TamConfig, short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.hub import CONFIG_FILES, model_folder
from tam_plugin.inductor.stored import stored_inductor
from tam_plugin.plans import bad_rows
from tam_plugin.plans.table import read_header

VISION_TOWER = "tam"
"""The value of ``--vision_tower`` (and ``mm_vision_tower`` in a checkpoint) that asks for this plugin."""

DEFAULT_MAX_BAD_SAMPLES = bad_rows.DEFAULT_MAX_SHARE


def _argument(help_text: str) -> Any:
    return field(default=None, metadata={"help": help_text})


_SETS = {
    "tam_moe": "moe.enabled",
    "tam_num_experts": "moe.num_experts",
    "tam_top_k": "moe.top_k",
    "tam_router_mode": "moe.router_mode",
    "tam_router_noise_std": "moe.router_noise_std",
    "tam_balance_loss_weight": "moe.balance_loss_weight",
    "tam_z_loss_weight": "moe.z_loss_weight",
    "tam_expert_backend": "moe.backend",
    "tam_strides": "projector.strides",
    "tam_projector_gate": "projector.gate",
    "tam_pool_mode": "projector.pool_mode",
    "tam_pool_order": "projector.pool_order",
    "tam_image_stride": "projector.image_stride",
    "tam_policy": "policy",
    "tam_inductor": "inductor",
    "tam_time_instruction": "instruction.time",
    "tam_task_instruction": "instruction.task",
}
"""The field of :class:`TamConfig` that an argument sets."""

_SECTIONS = {"MoeConfig": "moe.", "ProjectorConfig": "projector.", "InstructionConfig": "instruction."}


@dataclass
class TamArguments:
    """Settings of the TAM vision tower; each needs ``--vision_tower tam``.

    What is not given comes from ``--tam_config``, else from the checkpoint, else from the defaults.
    """

    tam_config: str | None = _argument("YAML file with the fields of TamConfig (sections moe, projector, …).")
    tam_moe: bool | None = _argument(
        "Mixture of experts in the vision tower; False keeps it dense (dynamic frames and resolution alone, stage 2). "
        "Default: True."
    )
    tam_num_experts: int | None = _argument("Experts per encoder layer. Default: 4.")
    tam_top_k: int | None = _argument("Experts per token. Default: 2.")
    tam_router_mode: str | None = _argument(
        f"One of {', '.join(ROUTER_MODES)}; all but the first are control experiments, by_task for inference alone. "
        "Default: top_k."
    )
    tam_router_noise_std: float | None = _argument(
        "Standard deviation of the noise on router logits while training. Default: 0."
    )
    tam_balance_loss_weight: float | None = _argument("Weight of the load-balancing loss. Default: 0.001.")
    tam_z_loss_weight: float | None = _argument("Weight of the router z-loss. Default: 0.0005.")
    tam_expert_backend: str | None = _argument(
        f"How experts are computed: {', '.join(EXPERT_BACKENDS)}. Default: auto."
    )
    tam_strides: str | None = _argument(
        "Pooling strides, each with its own projector, separated by commas. Default: 1,2,3,4."
    )
    tam_projector_gate: str | None = _argument(
        f"Which projector a stride takes: {', '.join(PROJECTOR_GATES)}. Default: resolution."
    )
    tam_pool_mode: str | None = _argument(
        f"How frames are pooled: {', '.join(POOL_MODES)}. Default: the host's mm_spatial_pool_mode."
    )
    tam_pool_order: str | None = _argument(
        f"Pooling before or after the projector: {', '.join(POOL_ORDERS)}. Default: after_projector, the host's way."
    )
    tam_image_stride: int | None = _argument("Stride whose projector still images take. Default: 1.")
    tam_policy: str | None = _argument(
        "YAML file of the budget policy: frames and stride by task and duration. Default: the shipped one."
    )
    tam_inductor: str | None = _argument("Folder or hub name of the task classifier. Default: the shipped one.")
    tam_time_instruction: bool | None = _argument(
        "Tell the model the video's duration and the times of its frames. Default: True."
    )
    tam_task_instruction: bool | None = _argument("Tell the model the task type in words. Default: False.")
    tam_tunable_parts: str | None = _argument(
        "Parts of the visual side that train: none, or some of gates, experts, tower, projectors, newline, separated "
        "by commas. Default: what --mm_tunable_parts says."
    )
    tam_lora_tower: bool | None = _argument(
        "With --lora_enable: also apply LoRA to the attention of the vision tower. Default: False."
    )
    tam_plans: str | None = _argument(
        "Folder that tam plan-data wrote: frames and stride are looked up there, and no Inductor is loaded."
    )
    tam_max_bad_samples: float = field(
        default=DEFAULT_MAX_BAD_SAMPLES,
        metadata={
            "help": "Share of training samples that may be unreadable before training stops and lists them: at least "
            f"{bad_rows.MIN_ALLOWED} samples, none for 0. tam plan-data --max-bad checks this beforehand."
        },
    )
    tam_skip: str | None = _argument(
        f"The {bad_rows.FILE_NAME} that tam plan-data wrote: samples listed there are left out, and not counted as bad."
    )

    def __post_init__(self) -> None:
        bad_rows.check_max_share(self.tam_max_bad_samples, "--tam_max_bad_samples")
        if self.tam_skip is not None:
            try:
                bad_rows.read_skip_header(self.tam_skip)
            except InputError as error:
                raise ConfigError(f"--tam_skip: {error}") from error
        if self.tam_tunable_parts is not None:
            from tam_plugin.patches.llava_next.model.trainable import parse_parts

            parse_parts(self.tam_tunable_parts)
        if self.tam_plans is not None:
            try:
                read_header(self.tam_plans)
            except InputError as error:
                raise ConfigError(f"--tam_plans: {error}") from error

    def given(self) -> list[str]:
        """Names of the arguments that differ from their defaults."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


def tam_config_from_args(
    args: Any, base: TamConfig | dict[str, Any] | None = None, *, folder: str | None = None
) -> TamConfig:
    """The configuration that the arguments ask for.

    Args:
        args: a :class:`TamArguments`, or what holds one as ``tam_args``: the host's ``model_args`` and
            ``data_args`` after parsing.
        base: what holds where neither an argument nor ``--tam_config`` says otherwise (a checkpoint's).
        folder: of the checkpoint that ``base`` is of.

    Raises:
        ConfigError: the YAML file or a value is bad, or the checkpoint names a policy or an Inductor outside of its
            folder and no argument stands in its place; the message names the file or the argument.
    """
    tam_args = args if isinstance(args, TamArguments) else getattr(args, "tam_args", None) or TamArguments()
    given = TamConfig.from_dict(base)
    if tam_args.tam_config is not None:
        stored = given.vision_encoder
        try:
            given = TamConfig.from_yaml(tam_args.tam_config)
        except ConfigError as error:
            raise ConfigError(f"--tam_config {tam_args.tam_config!r}: {error}") from error
        if given.vision_encoder is None:
            given = given.replace(vision_encoder=stored)
    else:
        given = _with_own_parts(given, tam_args, folder)
    changes: dict[str, Any] = {}
    for argument in fields(tam_args):
        value = getattr(tam_args, argument.name)
        if value is None or argument.name not in _SETS:
            continue
        section, _, name = _SETS[argument.name].rpartition(".")
        value = _strides(value) if name == "strides" else value
        if not section:
            changes[name] = value
        else:
            changes.setdefault(section, {})[name] = value
    try:
        return given.replace(**changes)
    except ConfigError as error:
        raise ConfigError(_in_terms_of_arguments(str(error), tam_args)) from error


def _in_terms_of_arguments(message: str, tam_args: TamArguments) -> str:
    """An error about a field of :class:`TamConfig` as one about the argument that sets the field."""
    found = re.fullmatch(r"(\w+)\.(\w+) = (.*?): (expected .*)", message, re.DOTALL)
    if found is None:
        return message
    owner, name, value, expected = found.groups()
    section = _SECTIONS.get(owner, "")
    argument = next((a for a, sets in _SETS.items() if sets == section + name), None)
    if argument is None:
        return message
    given = {a: getattr(tam_args, a) for a in _SETS if getattr(tam_args, a) is not None}
    what = f"--{argument} {short(given[argument])}" if argument in given else f"--{argument} (not given, so {value})"
    beside = [f"--{a} {short(v)}" for a, v in given.items() if section and _SETS[a].startswith(section)]
    beside = [text for text in beside if not text.startswith(f"--{argument} ")]
    return f"{what}: {expected}" + (f" with {' and '.join(beside)}" if beside else "")


def _with_own_parts(stored: TamConfig, tam_args: TamArguments, folder: str | None) -> TamConfig:
    """A checkpoint's configuration with its Inductor's folder; what arguments replace is not looked at."""
    changes: dict[str, Any] = {}
    if isinstance(stored.policy, str) and tam_args.tam_policy is None:
        stored_policy(stored.policy)
    if stored.inductor is not None:
        changes["inductor"] = None if tam_args.tam_inductor else stored_inductor(stored.inductor, folder)
    return stored.replace(**changes)


def check_files(config: TamConfig) -> None:
    """Refuse a policy or Inductor that is not there, before anything is loaded.

    Raises:
        ConfigError: a bad or missing policy file, or a missing Inductor folder.
    """
    from tam_plugin.budget import read_policy

    try:
        read_policy(config.policy)
    except ConfigError as error:
        where = f"--tam_policy {config.policy!r}" if isinstance(config.policy, str) else "tam.policy"
        raise ConfigError(f"{where}: {error}") from error
    check_inductor(config.inductor)


def check_inductor(name_or_path: str | None) -> None:
    """Refuse an Inductor that is not there, without loading it.

    Raises:
        ConfigError: neither a folder nor a hub name that is in the local cache.
    """
    if name_or_path is None or (Path(name_or_path).expanduser() / "config.json").is_file():
        return
    try:
        if (model_folder(name_or_path, CONFIG_FILES) / "config.json").is_file():
            return
    except InputError:
        pass
    raise ConfigError(
        f"no Inductor at {name_or_path!r} (--tam_inductor): expected a folder with config.json and safetensors "
        "weights, or a hub name that can be reached; without one the plugin's own Inductor is used"
    )


def _strides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--tam_strides {text!r}: expected whole numbers separated by commas, such as 1,2,3,4"
        ) from None
