"""What a compact Inductor is trained from: a BERT checkpoint or another compact Inductor, and a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.fitting import has_bfloat16
from tam_plugin.taxonomy import NUM_TASK_TYPES

if TYPE_CHECKING:
    from torch import Tensor


def load_base(folder: Path, layers: int | None = None):
    """The tokenizer and a :class:`SentenceClassifier` with a BERT checkpoint's weights and an untrained head.

    Args:
        folder: of a Hugging Face ``BertModel``, or of a compact checkpoint, whose head is kept.
        layers: how many of its layers are kept, evenly spread; None for all.

    Raises:
        InputError: a file is missing or unreadable, or there are not so many layers.
        ConfigError: sizes or weights are not those of a BERT encoder.
    """
    from tokenizers import Tokenizer
    from torch import nn

    from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

    config = storage.read_config(folder)
    sizes = EncoderConfig.from_dict({**config, "num_labels": NUM_TASK_TYPES}, where=str(folder))
    if config.get("hidden_act", "gelu") != "gelu":
        raise ConfigError(f"{folder}: hidden_act must be 'gelu', got {config['hidden_act']!r}")
    model = SentenceClassifier(sizes)
    weights = storage.load_weights(folder / storage.WEIGHTS_FILE)
    if config.get("format") == storage.FORMAT:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(
                f"{folder}: expected a compact Inductor of the eight task types: {error}"[:300]
            ) from error
    else:
        model.load_bert(weights)
    if layers is not None:
        chosen = keep_layers(layers, len(model.layers))
        model.layers = nn.ModuleList(model.layers[i] for i in chosen)
        model.config = replace(sizes, num_hidden_layers=len(chosen))
    if not (folder / storage.TOKENIZER_FILE).is_file():
        raise InputError(f"{str(folder)!r} holds no {storage.TOKENIZER_FILE}; expected a fast tokenizer's file")
    tokenizer = Tokenizer.from_file(str(folder / storage.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, model


def keep_layers(count: int, of: int) -> list[int]:
    """``count`` of ``of`` layers, evenly spread, the first and the last among them.

    Raises:
        InputError: none, or more than there are.
    """
    if not 1 <= count <= of:
        raise InputError(f"--layers {count}: expected 1 to {of}")
    return [0] if count == 1 else [round(i * (of - 1) / (count - 1)) for i in range(count)]


class Teacher:
    """A compact Inductor whose probabilities another one is to learn."""

    def __init__(self, folder: Path) -> None:
        config = storage.read_config(folder)
        _, self._model = load_base(folder)
        self._model.eval()
        self._temperature = storage.read_temperature(config, where=str(folder))

    def probabilities(self, ids: list[list[int]]) -> Tensor:
        """Its probabilities ``[B, 8]`` of token id lists; rows of like length run together."""
        import torch

        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts = []
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16()):
            for start in range(0, len(order), 64):
                parts.append(self._model(*pad_ids([ids[i] for i in order[start : start + 64]], pad_id=0)).float())
        logits = torch.cat(parts)[torch.tensor(order).argsort()]
        return (logits / self._temperature).softmax(dim=1).clone()
