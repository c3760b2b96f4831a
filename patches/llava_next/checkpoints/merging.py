"""What a LoRA or projector-only run of LLaVA-NeXT left, found and compared with its base, for ``tam merge``.

Everything is read from names and shapes: no weight is loaded, and the host itself is not needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tam_plugin.checkpoint.journal import dense_part
from tam_plugin.checkpoint.lora import ADAPTER_CONFIG, Adapter, open_adapter
from tam_plugin.checkpoint.mapping_merge import Parts
from tam_plugin.checkpoint.shards import Shard, open_shard
from tam_plugin.checkpoint.source import CONFIG, INDEX, SINGLE, Source, not_taken, read_json
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.checkpoint_checks import Shapes, check_experts, check_names
from tam_plugin.patches.llava_next.checkpoints import loading
from tam_plugin.patches.llava_next.checkpoints.partial_saving import FILE_NAME, is_visual
from tam_plugin.patches.llava_next.checkpoints.pretrained import shapes_of
from tam_plugin.patches.llava_next.checkpoints.tensor_layout import PROJECTOR, TOWER
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER
from tam_plugin.patches.llava_next.model.tower import TamVisionTower
from tam_plugin.patches.llava_next.records.loss import LANGUAGE_MODELS
from tam_plugin.patches.sources import is_siglip
from tam_plugin.vision.projector import ResolutionProjectors

LORA_PREFIX = "base_model.model."
PROJECTOR_FILE = "mm_projector.bin"

_TOKENIZER = ("tokenizer.json", "vocab.json", "tokenizer.model")
_BESIDE_TOKENIZER = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


def open_parts(folder: str | Path, base: Source) -> Parts:
    """Find what a run left in a folder (its own, or one of its ``checkpoint-N``) and check that it fits the base.

    Args:
        folder: the run's.
        base: the checkpoint that it started from: a LLaVA-NeXT checkpoint with a SigLIP or a TAM tower, or a plain
            language model.

    Raises:
        InputError: the folder does not belong to such a run, or a file is missing or damaged.
        ConfigError: the run had other settings than can be merged, or another base.
    """
    folder = Path(folder)
    values, tam = _run_config(folder)
    adapter: Adapter | None = None
    shard: Shard | None = None
    try:
        if _is_lora(folder):
            adapter = open_adapter(folder, LORA_PREFIX)
        shard = _open_non_lora(folder)
        return _parts(folder, base, values, tam, adapter, shard)
    except BaseException:
        for opened in (None if adapter is None else adapter.shard, shard):
            if opened is not None:
                opened.close()
        raise


def _parts(
    folder: Path, base: Source, values: dict[str, Any], tam: TamConfig, adapter: Adapter | None, shard: Shard
) -> Parts:
    family = _family(values, str(folder))
    if (base.folder / ADAPTER_CONFIG).exists():
        raise ConfigError(f"--base {str(base.folder)!r} holds an adapter itself: merge that first, and name the result")
    found = loading.family_name(base.config, "")
    if found != family:
        raise ConfigError(
            f"--base {str(base.folder)!r} is of the family {found or base.config.get('model_type')!r}, the run in "
            f"{str(folder)!r} of {family!r}: name the checkpoint that it started from"
        )
    check_base(base, values, str(folder))
    dropped = check_merged(base, shard, values, tam)
    others, notes = _small_files(folder, base)
    return Parts(
        folder=folder,
        tensors=dict.fromkeys(shard.tensors, shard),
        adapter=adapter,
        dropped=dropped,
        config=_config(base.config, values, family),
        configs=[folder / CONFIG, *([folder / ADAPTER_CONFIG] if adapter else [])],
        others=others,
        remembered=_remembered(base),
        notes=notes,
    )


def _run_config(folder: Path) -> tuple[dict[str, Any], TamConfig]:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{str(folder)!r} {problem}: expected the output_dir or a checkpoint-N of a training run")
    values = read_json(folder / CONFIG)
    if values.get("mm_vision_tower") != VISION_TOWER:
        raise ConfigError(
            f"{str(folder)!r}: mm_vision_tower = {values.get('mm_vision_tower')!r} in {CONFIG}: expected "
            f"{VISION_TOWER!r}, a run with --vision_tower {VISION_TOWER}"
        )
    if values.get("tam") is None:
        raise ConfigError(f"{str(folder)!r}: {CONFIG} has mm_vision_tower = 'tam' but no 'tam' section")
    return values, TamConfig.from_dict(values["tam"])


def _is_lora(folder: Path) -> bool:
    """Whether it holds an adapter; else the projector of a run that trained nothing else.

    Raises:
        InputError: it holds neither, or a whole checkpoint.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return True
    whole = (*SINGLE, INDEX, f"{SINGLE[1]}.index.json")
    if held := next((name for name in whole if (folder / name).is_file()), None):
        raise InputError(f"{str(folder)!r} holds {held}: it is a whole checkpoint, and there is nothing to merge")
    if not (folder / PROJECTOR_FILE).is_file():
        raise InputError(
            f"{str(folder)!r} holds neither {ADAPTER_CONFIG} nor {PROJECTOR_FILE}: expected what a LoRA or "
            "projector-only run saved; of a run that was stopped take the last checkpoint-N"
        )
    return False


def _open_non_lora(folder: Path) -> Shard:
    if not (folder / FILE_NAME).is_file():
        raise InputError(
            f"{str(folder)!r} holds no {FILE_NAME}, which a TAM run saves beside its adapter or projector: the run was "
            "stopped while it saved; take an earlier checkpoint of it"
        )
    return open_shard(folder / FILE_NAME)


def _family(values: dict[str, Any], where: str) -> str:
    family = loading.family_name(values, "")
    if family not in loading.OVER_BASE:
        raise ConfigError(
            f"{where!r} is of the family {family or values.get('model_type')!r}: TAM adapters lie over "
            f"{', '.join(loading.OVER_BASE)}"
        )
    return family


def _config(of_base: dict[str, Any], values: dict[str, Any], family: str) -> dict[str, Any]:
    """config.json of the model that the loader makes of the two."""
    changes = {k: v for k, v in values.items() if k not in loading.NOT_COPIED and of_base.get(k) != v}
    return {**of_base, **changes, "model_type": family, "architectures": [LANGUAGE_MODELS[family]]}


def _small_files(folder: Path, base: Source) -> tuple[list[Path], list[str]]:
    """The base's small files, with the run's tokenizer in place of the base's if it has one."""
    known = {*_TOKENIZER, *_BESIDE_TOKENIZER}
    own = [folder / name for name in sorted(known) if (folder / name).is_file()]
    notes = [f"not copied: {path.name} of the run ({problem})" for path in own if (problem := not_taken(path))]
    own = [path for path in own if not_taken(path) is None]
    if any(path.name in _TOKENIZER for path in own):
        return [*own, *(path for path in base.others if path.name not in known)], notes
    if not any(path.name in _TOKENIZER for path in base.others):
        notes.append("there is no tokenizer, neither beside the run's weights nor in the base")
    return base.others, notes


def _remembered(base: Source) -> dict[str, Any] | None:
    """What a way back to a dense checkpoint asks for: the base's tower, or what the base itself remembers."""
    tower = base.config.get("mm_vision_tower")
    if tower == VISION_TOWER:
        return dense_part(base.folder)
    if not isinstance(tower, str) or not is_siglip(tower):
        return None
    return {name: base.config.get(name) for name in ("mm_vision_tower", "mm_spatial_pool_mode")}


NEWLINE = "model.image_newline"
LAYERS = "model.layers."
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
_MLP = re.compile(r"mlp(\d+)x_gelu")


def check_base(base: Source, values: dict[str, Any], run: str) -> None:
    """Refuse a base whose language model is incomplete, or of other sizes than the run's.

    Args:
        base: the base.
        values: config.json of the run.
        run: the run's folder, for messages.

    Raises:
        ConfigError: by field or name.
    """
    where = f"--base {str(base.folder)!r}"
    for field in SIZES:
        stored, trained = base.config.get(field), values.get(field)
        if None not in (stored, trained) and stored != trained:
            raise ConfigError(
                f"{where} has {field} = {stored!r}, the run in {run!r} {trained!r}: name the checkpoint that it "
                "started from"
            )
    rows: Any = values.get("vocab_size")  # one that is missing fits no tensor
    wide: Any = values.get("hidden_size")
    expected: Shapes = {"model.norm.weight": (wide,), "model.embed_tokens.weight": (rows, wide)}
    if not values.get("tie_word_embeddings"):
        expected["lm_head.weight"] = (rows, wide)
    # Layers of these families are alike, so that the first says what the others hold.
    first = {name: shape for name, shape in base.shapes.items() if name.startswith(f"{LAYERS}0.")}
    for number in range(values.get("num_hidden_layers") or 0):
        start = f"{LAYERS}{number}."
        expected[f"{start}input_layernorm.weight"] = (wide,)
        if not any(".experts." in name for name in first):
            expected.update((name.replace(f"{LAYERS}0.", start, 1), shape) for name, shape in first.items())
    check_names(base.shapes, expected, where)


def visual_shapes(tam: TamConfig, values: dict[str, Any], held: Shapes, where: str) -> Shapes:
    """Shapes of the tower, the projectors and the newline that a configuration makes, by their names in the model.

    Args:
        tam: the TAM configuration.
        values: config.json.
        held: shapes of the run's weights and of its base's; projectors that are neither linear nor an MLP are to be
            all like the first.
        where: the run, for messages.

    Raises:
        ConfigError: no tower or projector can be built from it.
    """
    with torch.device("meta"):
        tower = TamVisionTower(tam)
        dense = _dense_projector(values, tower.hidden_size)
        projectors = None if dense is None else ResolutionProjectors(dense, tam.projector, tam.moe)
    shapes = {TOWER + name: shape for name, shape in shapes_of(tower.state_dict()).items()}
    if projectors is not None:
        shapes.update((PROJECTOR + name, shape) for name, shape in shapes_of(projectors.state_dict()).items())
    else:
        starts = [f"{PROJECTOR}{child}." for child in tam.projector.children]
        first = {name: shape for name, shape in held.items() if name.startswith(starts[0])}
        if not first:
            raise ConfigError(f"{where} holds no {starts[0]}*: the checkpoint is incomplete")
        shapes.update(
            (start + name.removeprefix(starts[0]), shape) for start in starts for name, shape in first.items()
        )
    if "unpad" in (values.get("mm_patch_merge_type") or ""):
        shapes[NEWLINE] = (values["hidden_size"],)
    return shapes


def check_merged(base: Source, shard: Shard, values: dict[str, Any], tam: TamConfig) -> frozenset[str]:
    """Compare the weights beside an adapter, over those of the base, with what the configuration makes.

    Args:
        base: the base.
        shard: the file beside the adapter.
        values: config.json of the run.
        tam: its TAM configuration.

    Returns:
        Names of the base's tensors that the model does not have: a dense tower's and its projector's.

    Raises:
        ConfigError: a tensor is missing, of another shape, or none of the model's.
    """
    own, of_base = {name: entry.shape for name, entry in shard.tensors.items()}, base.shapes
    where = f"{str(shard.path)!r} over {str(base.folder)!r}"
    visual = visual_shapes(tam, values, of_base | own, where)
    dropped = frozenset(name for name in of_base if name.startswith((TOWER, PROJECTOR)) and name not in visual)
    for name, shape in own.items():
        known = name in visual if name.startswith((TOWER, PROJECTOR)) else name in of_base or is_visual(name)
        if not known:
            raise ConfigError(
                f"{str(shard.path)!r} holds {name}, which the model that config.json makes over {str(base.folder)!r} "
                "does not have"
            )
        if name not in visual and of_base.get(name, shape) != shape:
            raise ConfigError(f"{where}: {name} has shape {list(shape)}, that of the base {list(of_base[name])}")
    held = {name: shape for name, shape in of_base.items() if name not in dropped} | own
    check_experts({name: shape for name, shape in held.items() if name.startswith(TOWER)}, tam.moe, where)
    check_names(held, visual, where)
    return dropped


def _dense_projector(values: dict[str, Any], vision_size: int) -> nn.Module | None:
    """The projector that the host builds, for the kinds that are plain stacks of linear layers."""
    kind, size = values.get("mm_projector_type") or "linear", values["hidden_size"]
    if kind == "linear":
        return nn.Linear(vision_size, size)
    found = _MLP.fullmatch(kind)
    if found is None:
        return None
    layers: list[nn.Module] = [nn.Linear(vision_size, size)]
    for _ in range(1, int(found[1])):
        layers += [nn.GELU(), nn.Linear(size, size)]
    return nn.Sequential(*layers)
