"""Conversions from folder to folder: unchanged shards are linked or copied, the rest is streamed.

``config.json`` comes last: until then nothing loads the target, and the same command resumes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tam_plugin.checkpoint.journal import dense_part
from tam_plugin.checkpoint.mapping import Change, to_mixture
from tam_plugin.checkpoint.mapping_dense import DenseChoice, to_dense
from tam_plugin.checkpoint.mapping_merge import Parts, to_merged
from tam_plugin.checkpoint.source import Source, identity
from tam_plugin.checkpoint.target import Options, execute, files_of, resolve_transfer
from tam_plugin.checkpoint.tensor_layout import TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError

__all__ = ["Options", "Summary", "densify", "merge", "upcycle"]


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    Attributes:
        folder: the new checkpoint.
        linked: shards that are hard links to the source's; writing into one changes both.
        copied: shards that were copied whole.
        written: shards that were newly written.
        resumed: shards that an earlier run had finished.
        read_bytes: read by this run.
        written_bytes: written by this run.
        seconds: of this run.
        notes: notes for the user.
    """

    folder: str
    linked: int
    copied: int
    written: int
    resumed: int
    read_bytes: int
    written_bytes: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def upcycle(
    source: Source,
    target: str | Path,
    layout: TensorLayout,
    tam: TamConfig,
    *,
    seed: int = 0,
    pool_mode_given: bool = False,
    options: Options | None = None,
) -> Summary:
    """Make a TAM checkpoint of a dense one; it computes what the dense one computes.

    Args:
        source: the dense checkpoint.
        target: folder of the new one.
        layout: the host's.
        tam: what is asked for.
        seed: of the gates.
        pool_mode_given: whether ``tam.projector.pool_mode`` was chosen; else the checkpoint's own is kept.
        options: how to write.

    Raises:
        ConfigError: the source is a TAM checkpoint already, or not what its configuration says.
        InputError: the target cannot be used, or the disk is too full.
    """
    if layout.tam is not None:
        raise ConfigError(
            f"{layout.where} is a TAM checkpoint already ({_experts(layout.tam)}): expected a dense one; "
            "--dense average converts it to one"
        )
    tam = layout.complete(tam, pool_mode_given=pool_mode_given)
    change = to_mixture(source, layout, tam, seed)
    layout.check(change.shapes(source), tam)
    settings = {"to": "mixture", "tam": tam.to_dict(), "seed": seed}
    header = {"settings": settings, "dense": layout.remembered()}
    return _convert(source, Path(target), change, layout.tam_config(tam), header, options or Options(), layout.notes)


def densify(
    source: Source,
    target: str | Path,
    layout: TensorLayout,
    choice: DenseChoice,
    *,
    vision_tower: str | None = None,
    options: Options | None = None,
) -> Summary:
    """Make a dense checkpoint of a TAM one: right after :func:`upcycle` it has exactly the tensors of the first one.

    Args:
        source: the TAM checkpoint.
        target: folder of the dense one.
        layout: the host's.
        choice: how experts and projectors become dense.
        vision_tower: the dense tower's name for config.json, where it cannot be known.
        options: how to write.

    Raises:
        ConfigError: the source is dense, or incomplete.
        InputError: there is no such expert or stride, the target cannot be used, or the disk is too full.
    """
    if layout.tam is None:
        raise ConfigError(f"{layout.where} is a dense checkpoint already: expected a TAM checkpoint")
    change = to_dense(source, layout, layout.tam, choice)
    config = layout.dense_config(dense_part(source.folder), vision_tower)
    settings = {"to": "dense", "expert": choice.expert, "stride": choice.stride, "vision_tower": vision_tower}
    header = {"settings": settings, "dense": None}
    return _convert(source, Path(target), change, config, header, options or Options(), layout.notes)


def merge(base: Source, target: str | Path, parts: Parts, *, options: Options | None = None) -> Summary:
    """Make a whole checkpoint of a run that saved LoRA or its projector only, and of the base that it started from.

    Args:
        base: the checkpoint that the run started from.
        target: folder of the whole one.
        parts: what the run left.
        options: how to write.

    Raises:
        ConfigError: the parts do not fit the base.
        InputError: the target cannot be used, or the disk is too full.
    """
    _check_places(parts.folder, Path(target), "run")
    _check_places(base.folder, Path(target), "base")
    change = to_merged(base, parts)
    header = {
        "settings": {"to": "merged"},
        "adapter": identity([*(shard.path for shard in parts.shards), *parts.configs]),
        "dense": parts.remembered,
    }
    base = replace(base, others=parts.others)
    return _convert(base, Path(target), change, parts.config, header, options or Options(), parts.notes)


def _convert(
    source: Source,
    target: Path,
    change: Change,
    config: dict[str, Any],
    header: dict[str, Any],
    options: Options,
    notes: Iterable[str],
) -> Summary:
    begun = time.monotonic()
    _check_places(source.folder, target, "source")
    files = files_of(source, change, options.max_shard_bytes)
    transfer = resolve_transfer(options.transfer, source, target, files)
    settings = {**header["settings"], "transfer": transfer, "max_shard_bytes": options.max_shard_bytes}
    header = {**header, "settings": settings, "source": source.identity()}
    resumed, traffic = execute(source, target, files, config, header, transfer, options)
    whole = sum(file.whole is not None for file in files)
    notes = list(notes)
    if source.left_out:
        notes.append(f"not copied: {', '.join(source.left_out)}")
    if transfer == "link" and whole:
        notes.append(
            "linked shards share their bytes with the source: save later models elsewhere, or convert with --copy"
        )
    return Summary(
        folder=str(target),
        linked=whole if transfer == "link" else 0,
        copied=whole if transfer == "copy" else 0,
        written=len(files) - whole,
        resumed=resumed,
        read_bytes=traffic.read,
        written_bytes=traffic.written,
        seconds=round(time.monotonic() - begun, 3),
        notes=notes,
    )


def _check_places(source: Path, target: Path, what: str) -> None:
    if not target.name and not str(target).strip("./"):
        raise InputError(f"DST {str(target)!r}: expected the name of a folder for the new checkpoint")
    first, second = (Path(os.path.realpath(path)) for path in (source, target))
    if first == second:
        raise InputError(f"DST {str(target)!r} is the {what} itself: name another folder")
    if first in second.parents:
        raise InputError(f"DST {str(target)!r} lies inside the {what} {str(source)!r}: name a folder beside it")
    if second in first.parents:
        raise InputError(f"DST {str(target)!r} contains the {what} {str(source)!r}: name a folder beside it")


def _experts(tam: TamConfig) -> str:
    return f"{tam.moe.num_experts} experts" if tam.moe.enabled else "dense encoder, several projectors"
