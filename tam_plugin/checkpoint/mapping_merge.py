"""What a conversion writes, decided from names and shapes alone: a partial checkpoint over its base → a whole one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.checkpoint.lora import Adapter
from tam_plugin.checkpoint.mapping import Change, check_float
from tam_plugin.checkpoint.shards import Shard
from tam_plugin.checkpoint.source import Source
from tam_plugin.checkpoint.writing import LowRank, Output, Region
from tam_plugin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run left beside its base, in the names of the plain model; a host's module finds it.

    Attributes:
        folder: where it lies.
        tensors: the file of each tensor that stands in place of the base's, or beside them.
        adapter: LoRA over both, if there is one.
        dropped: tensors of the base that the model does not have.
        config: config.json of the result.
        configs: the files that ``config`` and the adapter's scale come from.
        others: the small files that go along.
        remembered: see :meth:`~tam_plugin.checkpoint.TensorLayout.remembered`; None where nothing is known.
        notes: notes for the user.
    """

    folder: Path
    tensors: dict[str, Shard]
    adapter: Adapter | None
    dropped: frozenset[str]
    config: dict[str, Any]
    configs: list[Path]
    others: list[Path]
    remembered: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> list[Shard]:
        """The weight files of the run."""
        return [*dict.fromkeys(self.tensors.values()), *([self.adapter.shard] if self.adapter else [])]

    def close(self) -> None:
        """Close all files."""
        for shard in self.shards:
            shard.close()


def to_merged(base: Source, parts: Parts) -> Change:
    """The run's own tensors, and W + scale · B · A wherever there is LoRA.

    Raises:
        ConfigError: a layer under LoRA is nowhere, of another shape or quantized, or one is left out.
    """
    holder = {name: shard for name, shard in base.holder.items() if name not in parts.dropped} | parts.tensors
    sums: dict[str, LowRank] = {}
    if parts.adapter is not None:
        for module, low_rank in parts.adapter.pairs.items():
            name = f"{module}.weight"
            if name not in holder:
                raise ConfigError(
                    f"{str(parts.adapter.shard.path)!r} holds LoRA of {module}, but there is no {name} in "
                    f"{str(base.folder)!r} or beside the adapter: the run started from another model"
                )
            _check_shapes(name, low_rank, holder[name], parts.adapter)
            sums[name] = low_rank
        matrices = (name for name, shard in holder.items() if len(shard.tensors[name].shape) == 2)
        parts.adapter.check_layers(name.removesuffix(".weight") for name in matrices if name.endswith(".weight"))
    changed = parts.tensors.keys() | sums.keys()
    added = [
        Output(name, shard.tensors[name], (Region.whole(shard, name),), low_rank=sums.get(name))
        for name, shard in holder.items()
        if name in changed
    ]
    return Change(parts.dropped | changed.intersection(base.holder), added)


def _check_shapes(name: str, low_rank: LowRank, shard: Shard, adapter: Adapter) -> None:
    entry = shard.tensors[name]
    check_float(entry, name, str(shard.path))
    (_, wide), (tall, _) = (region.shard.tensors[region.name].shape for region in (low_rank.a, low_rank.b))
    if entry.shape != (tall, wide):
        raise ConfigError(
            f"{str(shard.path)!r}: {name} has shape {list(entry.shape)}, the adapter {str(adapter.folder)!r} is for "
            f"{[tall, wide]}: the run started from another model"
        )
