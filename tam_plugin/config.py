"""TamConfig: everything that a TAM checkpoint must remember, as frozen dataclasses.

``to_dict`` is what goes into a checkpoint's ``config.json`` (key ``tam``); ``from_dict`` refuses unknown
fields and bad values, naming the field, its value and what was expected.
"""

from __future__ import annotations

import dataclasses
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.bounds import MAX_EXPERTS, MAX_STRIDE, MAX_STRIDES, check_sizes, is_whole
from tam_plugin.errors import ConfigError
from tam_plugin.files import read_yaml

ROUTER_MODES = ("top_k", "random_k", "lowest_k", "by_task")
EXPERT_BACKENDS = ("auto", "grouped", "reference")
PROJECTOR_GATES = ("resolution", "soft", "random", "swapped", "single")
POOL_MODES = ("bilinear", "average", "max")
POOL_ORDERS = ("after_projector", "before_projector")
CONFIG_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """Mixture of experts in the vision encoder (Sec. 3.3, Eq. 2 and 4).

    Attributes:
        enabled: False leaves the encoder dense (the ablation "DFR alone").
        num_experts: experts per encoder layer, E.
        top_k: experts per token, K.
        router_mode: ``top_k``; ``random_k`` and ``lowest_k`` are the causal controls of Tab. 10; ``by_task`` is the
            hard gate by task type of Tab. 3c, one expert per video (``top_k`` 1).
        router_noise_std: standard deviation of Gaussian noise on router logits while training.
        router_init_std: standard deviation of the randomly initialized gates.
        balance_loss_weight: α_b of Eq. 4.
        z_loss_weight: α_z of Eq. 4.
        backend: how experts are computed; ``auto`` takes the faster way for device, size and gradients.
    """

    enabled: bool = True
    num_experts: int = 4
    top_k: int = 2
    router_mode: str = "top_k"
    router_noise_std: float = 0.0
    router_init_std: float = 0.02
    balance_loss_weight: float = 1e-3
    z_loss_weight: float = 5e-4
    backend: str = "auto"

    def __post_init__(self) -> None:
        _check_int(self, "num_experts", 1, MAX_EXPERTS)
        _check_int(self, "top_k", 1, self.num_experts)
        _check_choice(self, "router_mode", ROUTER_MODES)
        if self.router_mode == "by_task" and self.top_k != 1:
            raise _bad(self, "top_k", "1 with router_mode by_task")
        _check_choice(self, "backend", EXPERT_BACKENDS)
        for name in ("router_noise_std", "router_init_std", "balance_loss_weight", "z_loss_weight"):
            _check_non_negative(self, name)


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """Pooling strides and the projector per stride (Sec. 3.2, hybrid gating).

    Attributes:
        strides: pooling strides that exist, ascending; each has its own projector.
        gate: ``resolution`` (hard gate by stride); ``soft`` (a routed mixture, Tab. 3d); ``random`` and
            ``swapped`` (controls of Tab. 11); ``single`` (one projector for every stride, stage 2).
        num_experts: projectors of the ``soft`` gate.
        top_k: projectors per token under the ``soft`` gate.
        pool_mode: ``bilinear`` keeps ceil(grid / stride) tokens per side; ``average`` and ``max`` keep the floor.
        pool_order: ``after_projector`` is the hosts' order and equals an upgraded dense checkpoint;
            ``before_projector`` is the paper's wording and cheaper.
        image_stride: the projector that still images take.
        reducer: name of the token reducer that follows the projector, or None
            (:func:`tam_plugin.budget.register_reducer`).
    """

    strides: tuple[int, ...] = (1, 2, 3, 4)
    gate: str = "resolution"
    num_experts: int = 4
    top_k: int = 2
    pool_mode: str = "bilinear"
    pool_order: str = "after_projector"
    image_stride: int = 1
    reducer: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.strides, (list, tuple)):
            raise _bad(self, "strides", "a list, such as [1, 2, 3, 4]")
        if len(self.strides) > MAX_STRIDES:
            raise _bad(self, "strides", f"at most {MAX_STRIDES} of them, found {len(self.strides):,}")
        object.__setattr__(self, "strides", tuple(self.strides))
        ok = all(is_whole(s, 1, MAX_STRIDE) for s in self.strides)
        if not ok or not self.strides or list(self.strides) != sorted(set(self.strides)):
            raise _bad(
                self, "strides", f"ascending distinct whole numbers from 1 to {MAX_STRIDE}, such as [1, 2, 3, 4]"
            )
        _check_choice(self, "gate", PROJECTOR_GATES)
        _check_choice(self, "pool_mode", POOL_MODES)
        _check_choice(self, "pool_order", POOL_ORDERS)
        _check_int(self, "num_experts", 1, MAX_EXPERTS)
        _check_int(self, "top_k", 1, self.num_experts)
        _check_choice(self, "image_stride", self.strides)
        _check_type(self, "reducer", (str, type(None)), "the name of a token reducer, or null")

    @property
    def children(self) -> list[str]:
        """Names of the projectors that there are, as a model's modules and a checkpoint's tensors have them."""
        if self.gate == "soft":
            return ["soft"]
        return ["shared"] if self.gate == "single" else [self.child(stride) for stride in self.strides]

    @staticmethod
    def child(stride: int) -> str:
        """Name of the projector of one stride."""
        return f"stride_{stride}"


@dataclass(frozen=True, kw_only=True)
class InstructionConfig:
    """What the prompt tells the LLM about the video (Sec. 4.3, Tab. 3a).

    Attributes:
        time: tell duration and the true timestamps of the frames.
        task: tell the task type in words.
    """

    time: bool = True
    task: bool = False

    def __post_init__(self) -> None:
        _check_bool(self, "time")
        _check_bool(self, "task")


@dataclass(frozen=True, kw_only=True)
class TamConfig:
    """The whole configuration of a TAM model.

    Attributes:
        moe: mixture of experts in the vision encoder.
        projector: pooling and projectors.
        instruction: time and task instruction in the prompt.
        policy: budget policy: None (the default), the path of a YAML file, or the policy itself as a mapping
            (what a checkpoint stores, so that a reload does not depend on a file).
        inductor: None (the embedded Inductor) or a checkpoint name or path.
        vision_encoder: configuration of the SigLIP encoder as a mapping (``SiglipVisionConfig`` fields), so
            that a reload fetches nothing; None until a model is upgraded.
        version: format of this mapping.
    """

    moe: MoeConfig = field(default_factory=MoeConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    instruction: InstructionConfig = field(default_factory=InstructionConfig)
    policy: str | dict[str, Any] | None = None
    inductor: str | None = None
    vision_encoder: dict[str, Any] | None = None
    version: int = CONFIG_VERSION

    def __post_init__(self) -> None:
        for name, cls in _SECTIONS.items():
            if not isinstance(getattr(self, name), cls):
                raise _bad(self, name, f"a {cls.__name__} (from_dict takes a mapping)")
        _check_type(self, "policy", (str, dict, type(None)), "a path, a mapping or null")
        _check_type(self, "inductor", (str, type(None)), "a checkpoint name or path, or null")
        _check_type(self, "vision_encoder", (dict, type(None)), "a mapping of SiglipVisionConfig fields, or null")
        check_sizes(self.vision_encoder or {}, "TamConfig.vision_encoder")
        if not is_whole(self.version, CONFIG_VERSION, CONFIG_VERSION):
            raise _bad(self, "version", f"{CONFIG_VERSION} (a newer file needs a newer tam-plugin)")

    def to_dict(self) -> dict[str, Any]:
        """A mapping of plain values (JSON and YAML safe); ``from_dict`` gives the same config back."""
        plain = dataclasses.asdict(self)
        plain["projector"]["strides"] = list(self.projector.strides)
        if self.projector.reducer is None:  # versions before there were token reducers refuse the field
            del plain["projector"]["reducer"]
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any] | TamConfig | None) -> TamConfig:
        """Build a config from a (possibly partial) mapping; missing fields take their defaults.

        Raises:
            ConfigError: an unknown field or a bad value, by its dotted name.
        """
        if isinstance(values, TamConfig):
            return values
        given = _mapping(values, "TamConfig", cls)
        for name, section in _SECTIONS.items():
            if name in given and not isinstance(given[name], section):
                given[name] = section(**_mapping(given[name], name, section))
        return cls(**given)

    @classmethod
    def from_yaml(cls, path: str | Path) -> TamConfig:
        """Read a config from a YAML file of the same shape as :meth:`to_dict`.

        Raises:
            ConfigError: the file cannot be read, is not YAML, or :meth:`from_dict` refuses it.
        """
        return cls.from_dict(read_yaml(path, what="TAM config"))

    def replace(self, **changes: Any) -> TamConfig:
        """A copy with top-level fields changed; sections may be given as mappings of what changes in them."""
        merged = {
            name: dataclasses.replace(getattr(self, name), **_mapping(value, name, _SECTIONS[name]))
            if name in _SECTIONS and isinstance(value, dict)
            else value
            for name, value in changes.items()
        }
        return dataclasses.replace(self, **merged)


_SECTIONS: dict[str, type] = {"moe": MoeConfig, "projector": ProjectorConfig, "instruction": InstructionConfig}


def short(value: Any) -> str:
    """``repr`` of a value for an error message, cut in length and depth."""
    return reprlib.repr(value)


def _mapping(values: Any, where: str, cls: type) -> dict[str, Any]:
    """``values`` as a dict whose keys are all fields of ``cls``."""
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping, got {short(values)}")
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown field {short(key)}; expected one of {', '.join(known)}")
    return dict(values)


def _bad(config: Any, name: str, expected: str) -> ConfigError:
    return ConfigError(f"{type(config).__name__}.{name} = {short(getattr(config, name))}: expected {expected}")


def _check_choice(config: Any, name: str, choices: tuple) -> None:
    if getattr(config, name) not in choices:
        raise _bad(config, name, "one of " + ", ".join(map(str, choices)))


def _check_int(config: Any, name: str, low: int, high: int) -> None:
    value = getattr(config, name)
    if not is_whole(value, low, high):
        raise _bad(config, name, f"a whole number from {low} to {high}")


def _check_non_negative(config: Any, name: str) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise _bad(config, name, "a finite number >= 0")


def _check_bool(config: Any, name: str) -> None:
    if not isinstance(getattr(config, name), bool):
        raise _bad(config, name, "true or false")


def _check_type(config: Any, name: str, types: tuple, expected: str) -> None:
    if not isinstance(getattr(config, name), types):
        raise _bad(config, name, expected)
