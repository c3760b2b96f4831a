"""The compact checkpoint of the embedded Inductor: a folder of ``config.json``, ``tokenizer.json``, safetensors.

Matrices are stored as int8 with one scale a row (value = int8 · scale), vectors as float32; after loading everything
is float32. Large tables of word vectors are stored in 4 bits: two values a byte, with a float16 scale for each 32 of
them (value = (q - 8) · scale). A base in 4 bits has them so, and storing such a table again changes nothing.
``config.json`` holds ``format``, the encoder's sizes, ``id2label``, the temperature and which parts of the input text
(:mod:`tam_plugin.inductor.text`) the classifier was trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.bounds import check_sizes
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_json
from tam_plugin.headers import read_header

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "tam-inductor-v1"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
_SCALE = ".scale"
_BLOCK = 32
_BLOCKS_FROM = 40_000
"""Word vectors of at least so many pieces are stored in 4 bits."""


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a checkpoint folder.

    Raises:
        InputError: no such folder or file, or it is not a JSON object.
        ConfigError: a size in it is none that a model has.
    """
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise InputError(
            f"no Inductor at {str(folder)!r}: expected a folder with {CONFIG_FILE} and safetensors weights"
        )
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{str(folder)!r} holds no {CONFIG_FILE}; expected a sequence-classification checkpoint"
        ) from None
    check_sizes(values, str(path))
    return values


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 of a matrix ``[R, C]`` with one float32 scale a row ``[R]``."""
    import torch

    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127.0
    return torch.round(weight / scale[:, None]).to(torch.int8), scale.to(torch.float32)


def quantize_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix ``[R, C]`` in 4 bits: bytes ``[R, C/2]`` and float16 scales ``[R, C/32]``.

    A block's value of largest magnitude becomes -8 · scale, so values that were stored so once come back unchanged.
    In a block's 16 bytes the low halves are its first 16 values.
    """
    import torch

    blocks = weight.reshape(len(weight), -1, _BLOCK)
    peak = blocks.gather(2, blocks.abs().argmax(dim=2, keepdim=True))
    scale = (peak / -8).to(torch.float16)
    step = torch.where(scale == 0, torch.ones_like(scale), scale).float()
    levels = torch.round(blocks / step).clamp_(-8, 7).add_(8).to(torch.uint8)
    packed = levels[..., :16] | (levels[..., 16:] << 4)
    return packed.reshape(len(weight), -1), scale.squeeze(2)


def restore_blocks(packed: Tensor, scale: Tensor) -> Tensor:
    """The float32 matrix ``[R, C]`` of what :func:`quantize_blocks` gave."""
    import torch

    bytes_RBh = packed.reshape(len(packed), -1, _BLOCK // 2)
    values = torch.cat([bytes_RBh & 15, bytes_RBh >> 4], dim=2).to(torch.float32).sub_(8)
    return values.mul_(scale.float()[..., None]).reshape(len(packed), -1)


def in_blocks(value: Tensor) -> bool:
    """Whether a matrix is a table of word vectors so large that it is stored in 4 bits."""
    return len(value) >= _BLOCKS_FROM and value.shape[1] % _BLOCK == 0


def as_stored(value: Tensor) -> Tensor:
    """A matrix as it comes back after saving and loading."""
    if in_blocks(value):
        return restore_blocks(*quantize_blocks(value))
    rows, scale = quantize_rows(value)
    return rows.float() * scale[:, None]


def save_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write a state dict: matrices as int8 rows, large tables of word vectors in 4 bits, the rest as float32."""
    from safetensors.torch import save_file

    stored = {}
    for name, tensor in state.items():
        value = tensor.detach().float().cpu()
        if value.ndim == 2 and in_blocks(value):
            stored[name], stored[name + _SCALE] = quantize_blocks(value)
        elif value.ndim == 2:
            stored[name], stored[name + _SCALE] = quantize_rows(value)
        else:
            stored[name] = value.contiguous()
    save_file(stored, str(path), metadata={"format": "pt"})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote, as float32.

    Raises:
        InputError: the file is missing or no safetensors file.
        ConfigError: quantised rows without their scales.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        read_header(path)
        stored = load_file(str(path))
    except (InputError, OSError, SafetensorError) as error:
        raise InputError(f"the Inductor's weights {str(path)!r} cannot be read: {_first_line(error)}") from error
    state = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE):
            continue
        if tensor.dtype in (torch.int8, torch.uint8) and name + _SCALE not in stored:
            raise ConfigError(f"{str(path)!r}: the {str(tensor.dtype)[6:]} weight {name!r} has no {name + _SCALE!r}")
        if tensor.dtype == torch.int8:
            scale = stored[name + _SCALE]
            if tensor.ndim != 2 or scale.shape != tensor.shape[:1]:
                raise ConfigError(
                    f"{str(path)!r}: {name!r} has shape {list(tensor.shape)}, its scales {list(scale.shape)}; "
                    "expected a matrix and one scale per row"
                )
            state[name] = tensor.to(torch.float32).mul_(scale[:, None])
        elif tensor.dtype == torch.uint8:
            state[name] = restore_blocks(tensor, stored[name + _SCALE])
        else:
            state[name] = tensor.to(torch.float32)
    return state


def read_temperature(config: dict[str, Any], *, where: str) -> float:
    """The temperature that divides the logits (``tam_temperature``, 1 when absent).

    Raises:
        ConfigError: not a positive number.
    """
    value = config.get("tam_temperature", 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigError(f"{where}: tam_temperature must be a positive number, got {value!r}")
    return float(value)


def read_flag(config: dict[str, Any], name: str, *, default: bool, where: str) -> bool:
    """A true/false entry of a checkpoint's configuration.

    Raises:
        ConfigError: another kind of value.
    """
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {name} must be true or false, got {value!r}")
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
