"""The row of a host that the plugin does not ship: ``glance``, a tiny video model of its own model type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tam_plugin.checkpoint import TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import check_experts
from tam_plugin.patches.hosts import Host, HostState

DENSE, TAM = "glance", "tam_glance"


@dataclass(frozen=True, kw_only=True)
class GlanceTensorLayout(TensorLayout):
    """A checkpoint of the host: ``eye`` sees, ``bridge`` projects, ``words`` answers."""

    def tam_config(self, tam: TamConfig) -> dict[str, Any]:
        return {**self.config, "model_type": TAM, "tam": tam.to_dict()}

    def remembered(self) -> dict[str, Any]:
        return {}

    def dense_config(self, remembered: dict[str, Any] | None, vision_tower: str | None) -> dict[str, Any]:
        values = {name: value for name, value in self.config.items() if name != "tam"}
        return {**values, "model_type": DENSE}

    def check(self, shapes: Mapping[str, tuple[int, ...]], tam: TamConfig) -> None:
        check_experts(dict(shapes), tam.moe, self.where)


class Glance(Host):
    """Its row."""

    name = "glance"
    label = "Glance"
    checkpoints = "a Glance checkpoint"

    def probe(self) -> HostState:
        return HostState(self.name, True, "Glance of the tests")

    def owns(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in (DENSE, TAM)

    def tensor_layout(self, config: dict[str, Any], names: Iterable[str] | None, where: str) -> TensorLayout:
        # transformers 4 puts one more name before the encoder's.
        held = None if names is None else next((name for name in names if ".encoder.layers.0." in name), None)
        if names is not None and held is None:
            raise ConfigError(f"{where} holds no eye.*encoder.layers.0.*: expected the weights of a Glance model")
        return GlanceTensorLayout(
            host=self.label,
            where=where,
            config=config,
            encoder="eye." if held is None else held.partition("encoder.layers.0.")[0],
            num_layers=config["vision_config"]["num_hidden_layers"],
            vision=config["vision_config"],
            projector="bridge.",
            projector_linears=("0", "2"),
            projector_type="mlp2x_gelu",
            pooling_head=False,
            language=config["text_config"],
            newline_position="one_token",
            tam=TamConfig.from_dict(config["tam"]) if config["model_type"] == TAM else None,
        )

    def assistant(self, name_or_path: str | None, **options: Any) -> Any:
        from tests.third_host.model import GlanceAssistant

        if name_or_path is None:
            raise ConfigError("Glance has no demonstration model: expected a checkpoint")
        return GlanceAssistant(name_or_path, **options)
