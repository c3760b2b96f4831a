"""Loading on the OneVision host: TAM checkpoints as they are, dense ones upgraded in memory and said so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tam_plugin.config import TamConfig, short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_json
from tam_plugin.patches.hosts import check_host
from tam_plugin.patches.hosts.onevision import TAM_MODEL_TYPE, Onevision
from tam_plugin.patches.onevision.generation import followed
from tam_plugin.patches.onevision.inputs import encode_words
from tam_plugin.patches.onevision.modeling import TamOnevisionForConditionalGeneration
from tam_plugin.patches.onevision.upgrade import upgrade_dense
from tam_plugin.patches.onevision.weights import check_directory, first_line, load_weights
from tam_plugin.patches.sources import checkpoint_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
MIN_STD = 1e-3
PREPROCESSOR = "preprocessor_config.json"


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
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
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
    values = checkpoint_config(name_or_path)
    check_host(Onevision.name, values, name_or_path)
    notice = None
    mean, std = _image_statistics(name_or_path)
    if values["model_type"] == TAM_MODEL_TYPE:
        if tam_config is not None:
            raise ConfigError(f"{name_or_path!r} is a TAM checkpoint already: its own configuration holds")
        check_directory(name_or_path, TamOnevisionForConditionalGeneration, values)
        model = TamOnevisionForConditionalGeneration.from_pretrained(name_or_path, torch_dtype=dtype)
    else:
        check_directory(name_or_path, LlavaOnevisionForConditionalGeneration, values)
        dense = load_weights(LlavaOnevisionForConditionalGeneration.from_pretrained, name_or_path, torch_dtype=dtype)
        model = upgrade_dense(dense, tam_config or TamConfig())
        notice = (
            f"{name_or_path} is a dense checkpoint, upgraded in memory: its experts and projectors are untrained copies"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
        encode_words("What?", tokenizer, model.config)
    except Exception as error:  # its files' own parsers raise their own
        raise InputError(f"no tokenizer can be read from {name_or_path!r}: {first_line(error)}") from error
    model.generation_config = followed(model.generation_config, model.config.text_config.vocab_size, name_or_path)
    return Loaded(model.eval().to(where), tokenizer, mean, std, notice)


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


def _image_statistics(name_or_path: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the checkpoint's image processor; SigLIP's where it has none."""
    from transformers.utils import cached_file

    folder = Path(name_or_path)
    try:
        file = folder / PREPROCESSOR if folder.is_dir() else Path(str(cached_file(name_or_path, PREPROCESSOR)))
        values = read_json(file, error=ConfigError)
    except OSError:  # there is none
        return SIGLIP_MEAN, SIGLIP_STD
    found = []
    for name, least in (("image_mean", -1.0), ("image_std", MIN_STD)):
        value = values.get(name, SIGLIP_MEAN)
        numbers = isinstance(value, (list, tuple)) and all(
            isinstance(x, (int, float)) and not isinstance(x, bool) and least <= x <= 2 for x in value
        )
        if not numbers or len(value) != len(SIGLIP_MEAN):
            raise ConfigError(f"{str(file)!r}: {name} = {short(value)}: expected three numbers from {least:g} to 2")
        red, green, blue = map(float, value)
        found.append((red, green, blue))
    return found[0], found[1]
