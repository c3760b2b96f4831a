"""Loading on the OneVision host: TAM checkpoints as they are, dense ones upgraded in memory and said so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tam_plugin.config import TamConfig, short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.model_names import missing_folder
from tam_plugin.patches.onevision.configuration import TamOnevisionConfig
from tam_plugin.patches.onevision.modeling import TamOnevisionForConditionalGeneration
from tam_plugin.patches.onevision.upgrade import upgrade_dense
from tam_plugin.patches.onevision.weights import check_directory, first_line, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DENSE_MODEL_TYPE = "llava_onevision"
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: the checkpoint's.
        image_mean: per channel, for values in [0, 1].
        image_std: per channel.
        notice: None, or what a user must know about these weights.
    """

    model: TamOnevisionForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    notice: str | None = None


def load(name_or_path: str, *, tam_config: TamConfig | None = None, device: str = "auto", dtype: Any = None) -> Loaded:
    """Load a checkpoint directory, or a hub name that is in the local cache or can be fetched.

    Args:
        name_or_path: a TAM checkpoint, or a dense LLaVA-OneVision / LLaVA-Video checkpoint of the ``llava-hf``
            family, which is upgraded in memory.
        tam_config: how to upgrade a dense checkpoint; refused for one that is a TAM checkpoint already.
        device: ``auto`` takes CUDA where there is one.
        dtype: None takes bfloat16 on CUDA and float32 on CPU.

    Raises:
        InputError: nothing can be read under that name.
        ConfigError: the checkpoint is of another kind, or its weights do not match its configuration.
    """
    from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

    where = pick_device(device)
    dtype = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    model_type = _model_type(name_or_path)
    notice = None
    if model_type == TamOnevisionConfig.model_type:
        if tam_config is not None:
            raise ConfigError(f"{name_or_path!r} is a TAM checkpoint already: its own configuration holds")
        check_directory(name_or_path)
        model = TamOnevisionForConditionalGeneration.from_pretrained(name_or_path, torch_dtype=dtype)
    elif model_type == DENSE_MODEL_TYPE:
        dense = load_weights(LlavaOnevisionForConditionalGeneration.from_pretrained, name_or_path, torch_dtype=dtype)
        model = upgrade_dense(dense, tam_config or TamConfig())
        notice = (
            f"{name_or_path} is a dense checkpoint, upgraded in memory: its experts and projectors are untrained copies"
        )
    else:
        raise ConfigError(
            f"{name_or_path!r} has model_type {model_type!r}: expected {TamOnevisionConfig.model_type!r} or "
            f"{DENSE_MODEL_TYPE!r} (a llava-hf checkpoint)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # its files' own parsers raise their own
        raise InputError(f"no tokenizer can be read from {name_or_path!r}: {first_line(error)}") from error
    mean, std = _image_statistics(name_or_path)
    return Loaded(model.eval().to(where), tokenizer, mean, std, notice)  # type: ignore[arg-type]


def pick_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA where there is one.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; expected auto or cpu"
        )
    return device


def _model_type(name_or_path: str) -> str | None:
    from transformers import PretrainedConfig

    if not name_or_path.strip():
        raise InputError("the model's name is empty: expected a checkpoint directory or a hub name")
    try:
        path = Path(name_or_path)
        if path.exists() and not (path / "config.json").is_file():
            kind = "holds no config.json" if path.is_dir() else "is not a directory"
            raise InputError(f"{name_or_path!r} {kind}: expected a model checkpoint directory")
        if problem := missing_folder(name_or_path):
            raise InputError(problem)
        values, _ = PretrainedConfig.get_config_dict(name_or_path)
        return values.get("model_type")
    except InputError:
        raise
    except Exception as error:  # a broken JSON file, a name too long, no network: each raises its own
        raise InputError(f"no model can be read from {short(name_or_path)}: {first_line(error)}") from error


def _image_statistics(name_or_path: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the checkpoint's image processor; SigLIP's where it has none."""
    from transformers.utils import cached_file

    try:
        file = cached_file(name_or_path, "preprocessor_config.json")
    except OSError:
        return SIGLIP_MEAN, SIGLIP_STD
    try:
        values = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        mean, std = (tuple(map(float, values.get(n, SIGLIP_MEAN))) for n in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"image_mean {mean} and image_std {std} must hold three numbers each")
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be used: {error}") from error
    return mean, std
