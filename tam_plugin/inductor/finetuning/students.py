"""Checkpoints that a further task type is taught to: one face for the compact format and for Hugging Face.

A student's head has one row more than its checkpoint's: the old rows are kept, the new one starts as their mean, so
that it is never the likeliest before it has learned anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tam_plugin.errors import ConfigError
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.model import DEFAULT_FOLDER, Inductor
from tam_plugin.taxonomy import TaskType

if TYPE_CHECKING:
    from torch import Tensor, nn

EMBEDDED = "embedded"


class Student(Protocol):
    """A classifier that can be trained and written again."""

    columns: list[int]
    """The output of each label: the eight in paper order, then the extra ones, then the new one."""
    lora_targets: list[str]
    """Names of the linear layers of attention and MLP."""
    max_tokens: int

    @property
    def model(self) -> nn.Module:
        """The classifier with its wider head."""

    @property
    def head(self) -> nn.Module:
        """The last linear layer."""

    def logits(self, ids: list[list[int]]) -> Tensor:
        """Logits ``[B, L]`` of token id lists, in the order of ``columns``, with gradients."""

    def save(self, folder: Path, changes: dict[str, Any]) -> None:
        """Write a checkpoint of the same kind, its configuration changed by ``changes``."""


def load_student(base: str, inductor: Inductor, new_label: str) -> Student:
    """The student of the checkpoint that ``inductor`` was loaded from.

    Args:
        base: folder, hub name, or ``embedded``.
        inductor: the same checkpoint, loaded; it has vouched for files and labels.
        new_label: name of the task type to be taught.

    Raises:
        ConfigError: its head or its layers cannot be found.
    """
    folder = DEFAULT_FOLDER if base == EMBEDDED else Path(base).expanduser()
    names = [*(task.label for task in TaskType), *inductor.extra_labels, new_label]
    if folder.is_dir() and storage.read_config(folder).get("format") == storage.FORMAT:
        return CompactStudent(folder, inductor, names)
    return HuggingFaceStudent(str(folder) if folder.is_dir() else base, inductor, names)


class CompactStudent:
    """A checkpoint in the compact format; it is written with int8 matrices again."""

    def __init__(self, folder: Path, inductor: Inductor, names: Sequence[str]) -> None:
        from torch import nn

        from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

        self._folder, self._config = folder, storage.read_config(folder)
        sizes = EncoderConfig.from_dict(self._config | {"num_labels": len(names)}, where=str(folder))
        state = storage.load_weights(folder / storage.WEIGHTS_FILE)
        for name in ("head.weight", "head.bias"):
            state[name] = _widened(state[name])
        self.model = SentenceClassifier(sizes)
        self.model.load_state_dict(state)
        self.head = self.model.head
        self.columns = [*inductor.columns, len(names) - 1]
        self._names = names
        self.max_tokens = int(sizes.max_position_embeddings)
        linear = (n for n, m in self.model.named_modules() if isinstance(m, nn.Linear))
        self.lora_targets = [name for name in linear if name.startswith("layers.")]

    def logits(self, ids: list[list[int]]) -> Tensor:
        ids_BN, mask_BN = pad_ids(ids, pad_id=0)
        device = self.head.weight.device
        return self.model(ids_BN.to(device), mask_BN.to(device))[:, self.columns]

    def save(self, folder: Path, changes: dict[str, Any]) -> None:
        storage.save_weights(folder / storage.WEIGHTS_FILE, self.model.state_dict())
        shutil.copyfile(self._folder / storage.TOKENIZER_FILE, folder / storage.TOKENIZER_FILE)
        labels = {"num_labels": len(self._names), "id2label": _id2label(self.columns, self._names)}
        config = self._config | labels | changes
        (folder / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class HuggingFaceStudent:
    """A transformers sequence classifier."""

    def __init__(self, name_or_path: str, inductor: Inductor, names: Sequence[str]) -> None:
        import transformers
        from torch import nn

        from tam_plugin.inductor.finetuning.bases import find_head

        local = Path(name_or_path).is_dir()
        options = {"local_files_only": local, "trust_remote_code": False}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_path, **options)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            name_or_path, use_safetensors=True, **options
        ).float()
        self.model = model
        inside = f"{model.base_model_prefix}."
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(inside)]
        self.lora_targets = [name for name in linear if "pooler" not in name]
        if not self.lora_targets:
            raise ConfigError(f"{name_or_path}: {type(model).__name__} has no linear layers that LoRA could adapt")
        head_name, head = find_head(model)
        wider = nn.Linear(head.in_features, len(names), bias=head.bias is not None)
        wider.load_state_dict({name: _widened(value) for name, value in head.state_dict().items()})
        parent, _, attribute = head_name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, wider)
        self.head = wider
        self.columns = [*inductor.columns, len(names) - 1]
        by_output = _id2label(self.columns, names)
        model.config.id2label = {int(i): name for i, name in by_output.items()}
        model.config.label2id = {name: int(i) for i, name in by_output.items()}
        model.num_labels = len(names)
        self._pad_id = self._padding_id()
        model.config.pad_token_id = self._pad_id
        self.max_tokens = inductor.max_tokens

    def _padding_id(self) -> int:
        candidates = (self._tokenizer.pad_token_id, self.model.config.pad_token_id, self._tokenizer.eos_token_id)
        return next(i for i in candidates if isinstance(i, int) and i >= 0)

    def logits(self, ids: list[list[int]]) -> Tensor:
        ids_BN, mask_BN = pad_ids(ids, self._pad_id)
        device = self.head.weight.device
        logits = self.model(input_ids=ids_BN.to(device), attention_mask=mask_BN.long().to(device)).logits
        return logits.float()[:, self.columns]

    def save(self, folder: Path, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            setattr(self.model.config, name, value)
        self.model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def _widened(value: Tensor) -> Tensor:
    """A head's weight or bias with the mean of its rows below them."""
    import torch

    return torch.cat([value, value.mean(dim=0, keepdim=True)])


def _id2label(columns: Sequence[int], names: Sequence[str]) -> dict[str, str]:
    by_output = dict(zip(columns, names, strict=True))
    return {str(column): by_output[column] for column in sorted(by_output)}
