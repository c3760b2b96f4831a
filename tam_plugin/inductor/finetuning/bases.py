"""Hugging Face models to fine-tune: a plain base with a new head, or a classifier of the eight task types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError, InputError, require
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import read_hf_config
from tam_plugin.inductor.labels import map_labels
from tam_plugin.taxonomy import TaskType

DEFAULT_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def check_base(name_or_path: str) -> Any:
    """The base's configuration, with the eight labels of the task types.

    Raises:
        InputError: no model can be read there.
        ConfigError: a compact checkpoint, or a classifier of other labels than the eight.
    """
    require("transformers", needed_for="training an Inductor on a Hugging Face base")
    folder = Path(name_or_path).expanduser()
    if not name_or_path.strip():
        raise InputError("the base's name is empty; expected a folder or a name on the Hugging Face hub")
    if folder.is_dir() and storage.read_config(folder).get("format") == storage.FORMAT:
        raise ConfigError(f"the base {name_or_path!r} is a compact Inductor; expected a Hugging Face model")
    try:
        config = read_hf_config(str(folder) if folder.is_dir() else name_or_path, local=folder.is_dir())
    except InputError as error:
        raise _unreachable(name_or_path, error) from error
    if _is_classifier(config):
        labels = map_labels(dict(config.id2label), where=f"the base {name_or_path!r}")
        if labels.extra:
            raise ConfigError(
                f"the base {name_or_path!r} has labels beyond the eight task types: {', '.join(labels.extra)[:200]}; "
                "expected a model without a head, or a classifier of the eight"
            )
    return config


def load_base(name_or_path: str, config: Any) -> tuple[Any, Any]:
    """Tokenizer and float32 model with a head of the eight task types in paper order; a new head is random.

    Args:
        name_or_path: folder, or name on the hub.
        config: what :func:`check_base` gave.

    Raises:
        InputError: weights or tokenizer cannot be read (safetensors only).
        ConfigError: there is no classifier of this architecture, weights are missing, or no padding token can be set.
    """
    import transformers

    trained = _is_classifier(config)
    columns = map_labels(dict(config.id2label), where=name_or_path).columns if trained else None
    config.id2label = {task.index - 1: task.label for task in TaskType}
    config.label2id = {task.label: task.index - 1 for task in TaskType}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**_source(name_or_path))
        model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            **_source(name_or_path), config=config, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreachable(name_or_path, error) from error
    prefix = f"{model.base_model_prefix}."
    missing = sorted(n for n in info["missing_keys"] if trained or (n.startswith(prefix) and "pooler" not in n))
    if missing:
        raise ConfigError(f"the base {name_or_path!r} lacks weights: {', '.join(missing)[:160]}")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(f"the base {name_or_path!r}: batches need a padding token; neither pad nor eos is set")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    model = model.float()
    if columns is not None:
        reorder_head(model, columns)
    return tokenizer, model


def find_head(model: Any) -> tuple[str, Any]:
    """Name and module of the linear layer that gives a transformers classifier's logits.

    Raises:
        ConfigError: there is not exactly one outside the encoder.
    """
    from torch import nn

    inside = f"{model.base_model_prefix}."
    labels = model.config.num_labels
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == labels and not name.startswith(inside)
    ]
    if len(found) != 1:
        raise ConfigError(
            f"{type(model).__name__}: expected one linear layer of {labels} outputs as its head, found {len(found)}"
        )
    return found[0]


def reorder_head(model: Any, columns: tuple[int, ...]) -> None:
    """Bring the head's rows into paper order; ``columns`` is the output of each task type."""
    import torch

    _, head = find_head(model)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter[list(columns)].clone())


def _is_classifier(config: Any) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ())


def _source(name_or_path: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained``: a folder is read without network, and no code of a checkpoint is run."""
    folder = Path(name_or_path).expanduser()
    local = folder.is_dir()
    return {
        "pretrained_model_name_or_path": str(folder) if local else name_or_path,
        "local_files_only": local,
        "trust_remote_code": False,
    }


def _unreachable(name_or_path: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:240] or type(error).__name__
    return InputError(
        f"the base {name_or_path!r} cannot be read: {reason}; give a folder with config.json, tokenizer and "
        "safetensors weights, or a name that the Hugging Face hub or its cache on this machine has"
    )
