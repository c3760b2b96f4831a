"""Two kinds of text classifier behind one small interface: the compact format and any Hugging Face checkpoint.

Each gives ``token_ids(texts)`` and ``logits(ids)``; the :class:`~tam_plugin.inductor.model.Inductor` does the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tam_plugin.errors import ConfigError, InputError, require
from tam_plugin.inductor import storage

if TYPE_CHECKING:
    from torch import Tensor

_HF_MAX_TOKENS = 1024


class Classifier(Protocol):
    """What the Inductor needs of a text classifier."""

    config: dict[str, Any]
    """The checkpoint's configuration; ``id2label`` names the outputs."""
    where: str
    """The checkpoint's name, for messages."""
    max_tokens: int
    """The longest input that the model reads."""

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, however long."""

    def unknown_share(self, text: str) -> float:
        """Share of the text's letters, digits and signs of which the model has no piece."""

    def logits(self, ids: list[list[int]]) -> Tensor:
        """Float32 logits ``[B, L]`` of a batch of token id lists, padded here."""


class CompactClassifier:
    """A :class:`~tam_plugin.inductor.encoder.SentenceClassifier` in the format of :mod:`tam_plugin.inductor.storage`.

    Raises:
        InputError: a file is missing or cannot be read.
        ConfigError: sizes, labels and weights do not belong together.
    """

    def __init__(self, folder: Path, config: dict[str, Any], *, where: str) -> None:
        import torch
        from tokenizers import Tokenizer

        from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

        self.config, self.where = config, where
        sizes = EncoderConfig.from_dict(config, where=where)
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / storage.TOKENIZER_FILE))
        except Exception as error:  # the tokenizers package raises plain Exception
            raise InputError(f"{where}: {storage.TOKENIZER_FILE} cannot be read: {str(error)[:120]!r}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = map(self._tokenizer.token_to_id, ("<unk>", "[UNK]"))
        self._unknown_id = next((i for i in ids if i is not None), None)
        self.max_tokens = int(sizes.max_position_embeddings)
        state = storage.load_weights(folder / storage.WEIGHTS_FILE)
        with torch.device("meta"):
            self._model = SentenceClassifier(sizes)
        try:
            self._model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise ConfigError(f"{where}: the weights do not fit the sizes in config.json: {_summary(error)}") from error
        self._model.eval().requires_grad_(False)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]

    def unknown_share(self, text: str) -> float:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = [span for i, span in zip(encoding.ids, encoding.offsets, strict=True) if i == self._unknown_id]
        unknown = sum(len("".join(text[start:end].split())) for start, end in spans)
        return unknown / max(1, len("".join(text.split())))

    def logits(self, ids: list[list[int]]) -> Tensor:
        import torch

        ids_BN, mask_BN = pad_ids(ids, pad_id=0)
        with torch.inference_mode():
            return self._model(ids_BN, mask_BN)


class HuggingFaceClassifier:
    """Any transformers sequence-classification checkpoint, from a folder (never the network) or by hub name.

    Raises:
        InputError: the checkpoint or its tokenizer cannot be loaded.
        ConfigError: it has no classification head, or weights are missing.
    """

    def __init__(self, name_or_path: str, *, local: bool) -> None:
        transformers = require("transformers", needed_for="loading a Hugging Face Inductor checkpoint")
        self.where = name_or_path
        options = {"local_files_only": local, "trust_remote_code": False}
        try:
            config = transformers.AutoConfig.from_pretrained(name_or_path, **options)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"no Inductor checkpoint at {name_or_path!r}: {_summary(error)}") from error
        self.config = config.to_dict() | {"id2label": dict(config.id2label)}
        from tam_plugin.inductor.labels import map_labels

        map_labels(self.config["id2label"], where=self.where)  # refuses before weights are read
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_path, **options)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                name_or_path, config=config, use_safetensors=True, output_loading_info=True, **options
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"the Inductor checkpoint {name_or_path!r} cannot be loaded: {_summary(error)}") from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"]))[:160]
            raise ConfigError(f"{name_or_path}: not a trained sequence classifier, weights are missing: {missing}")
        self._pad_id = _padding_id(self._tokenizer, config, where=self.where)
        model.config.pad_token_id = self._pad_id
        self.max_tokens = min(_HF_MAX_TOKENS, int(getattr(config, "max_position_embeddings", _HF_MAX_TOKENS)))
        self._model = model.float().eval().requires_grad_(False)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, padding=False, truncation=False)["input_ids"]

    def unknown_share(self, text: str) -> float:
        unknown, ids = self._tokenizer.unk_token_id, self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return 0.0 if unknown is None else ids.count(unknown) / max(1, len(ids))

    def logits(self, ids: list[list[int]]) -> Tensor:
        import torch

        ids_BN, mask_BN = pad_ids(ids, pad_id=self._pad_id)
        with torch.inference_mode():
            return self._model(input_ids=ids_BN, attention_mask=mask_BN.long()).logits.float()


def pad_ids(ids: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, N]`` padded on the right, and a mask that is True on real tokens."""
    import torch

    longest = max(map(len, ids))
    padded = torch.tensor([row + [pad_id] * (longest - len(row)) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    return padded, torch.arange(longest)[None, :] < lengths[:, None]


def _padding_id(tokenizer: Any, config: Any, *, where: str) -> int:
    for owner, name in ((tokenizer, "pad_token_id"), (config, "pad_token_id"), (tokenizer, "eos_token_id")):
        value = getattr(owner, name, None)
        if isinstance(value, int) and value >= 0:
            return value
    raise ConfigError(f"{where}: batches need a padding token, and neither pad_token nor eos_token is set")


def _summary(error: BaseException) -> str:
    """The message of an error of transformers or torch on one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__
