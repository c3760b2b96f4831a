"""Two kinds of text classifier behind one small interface: the compact format and any Hugging Face checkpoint.

Each gives ``token_ids(texts)`` and ``logits(ids)``; the :class:`~tam_plugin.inductor.model.Inductor` does the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tam_plugin.bounds import check_sizes
from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError, TamError, require
from tam_plugin.headers import check_fits
from tam_plugin.inductor import storage
from tam_plugin.model_folder import check_folder, weight_shapes

if TYPE_CHECKING:
    from torch import Tensor

_HF_MAX_TOKENS = 1024
LENGTH_STEP = 8
"""Inputs are padded to a multiple of this many tokens. Each shape that was ever computed leaves a oneDNN primitive
between freed activations, so with a shape for every length the memory of a long run grows."""


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
        labels = config.get("id2label")
        if not isinstance(labels, dict) or len(labels) != sizes.num_labels:
            raise ConfigError(f"{where}: num_labels = {sizes.num_labels}, but id2label = {short(labels)}")
        check_folder(folder)
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / storage.TOKENIZER_FILE))
        except Exception as error:  # the tokenizers package raises plain Exception
            raise InputError(f"{where}: {storage.TOKENIZER_FILE} cannot be read: {str(error)[:120]!r}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = map(self._tokenizer.token_to_id, ("<unk>", "[UNK]"))
        self._unknown_id = next((i for i in ids if i is not None), None)
        self.max_tokens = int(sizes.max_position_embeddings)
        with torch.device("meta"):
            self._model = SentenceClassifier(sizes)
        state = storage.load_weights(folder / storage.WEIGHTS_FILE)
        try:
            self._model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise ConfigError(f"{where}: the weights do not fit the sizes in config.json: {_summary(error)}") from error
        self._model.eval().requires_grad_(False)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        return _checked_ids(ids, self._model.config.vocab_size, where=self.where)

    def unknown_share(self, text: str) -> float:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        spans = [span for i, span in zip(encoding.ids, encoding.offsets, strict=True) if i == self._unknown_id]
        unknown = sum(len("".join(text[start:end].split())) for start, end in spans)
        return unknown / max(1, len("".join(text.split())))

    def logits(self, ids: list[list[int]]) -> Tensor:
        import torch

        ids_BN, mask_BN = pad_ids(ids, pad_id=0, length=padded_length(max(map(len, ids)), self.max_tokens))
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
        config = read_hf_config(name_or_path, local=local)
        self.config = config.to_dict() | {"id2label": dict(config.id2label)}
        from tam_plugin.inductor.labels import map_labels

        map_labels(self.config["id2label"], where=self.where)  # refuses before weights are read
        if local:
            _check_size(config, name_or_path)
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_path, **options)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                name_or_path, config=config, use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:  # transformers, tokenizers and safetensors each raise their own
            raise InputError(f"the Inductor checkpoint {name_or_path!r} cannot be loaded: {_summary(error)}") from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"]))[:160]
            raise ConfigError(f"{name_or_path}: not a trained sequence classifier, weights are missing: {missing}")
        self._pad_id = _padding_id(self._tokenizer, config, where=self.where)
        model.config.pad_token_id = self._pad_id
        self.max_tokens = min(_HF_MAX_TOKENS, int(getattr(config, "max_position_embeddings", _HF_MAX_TOKENS)))
        self._model = model.float().eval().requires_grad_(False)

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        ids = self._tokenizer(texts, padding=False, truncation=False)["input_ids"]
        return _checked_ids(ids, self._model.get_input_embeddings().num_embeddings, where=self.where)

    def unknown_share(self, text: str) -> float:
        unknown, ids = self._tokenizer.unk_token_id, self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return 0.0 if unknown is None else ids.count(unknown) / max(1, len(ids))

    def logits(self, ids: list[list[int]]) -> Tensor:
        import torch

        ids_BN, mask_BN = pad_ids(ids, pad_id=self._pad_id, length=padded_length(max(map(len, ids)), self.max_tokens))
        with torch.inference_mode():
            return self._model(input_ids=ids_BN, attention_mask=mask_BN.long()).logits.float()


def read_hf_config(name_or_path: str, *, local: bool) -> Any:
    """The configuration of a Hugging Face checkpoint, its sizes looked at first.

    Args:
        name_or_path: a folder, or a name on the hub.
        local: whether it is a folder, which is read without network.

    Raises:
        InputError: there is none, or it cannot be read.
        ConfigError: its sizes are none that a model has, or its folder names files outside of it.
    """
    transformers = require("transformers", needed_for="loading a Hugging Face Inductor checkpoint")
    try:
        if local:
            check_folder(name_or_path)
            check_sizes(storage.read_config(Path(name_or_path)), f"{name_or_path}/{storage.CONFIG_FILE}")
        else:
            found = transformers.utils.cached_file(name_or_path, storage.CONFIG_FILE)
            check_sizes(storage.read_config(Path(str(found)).parent), name_or_path)
        return transformers.AutoConfig.from_pretrained(name_or_path, local_files_only=local, trust_remote_code=False)
    except TamError:
        raise
    except Exception as error:  # transformers and the hub each raise their own
        raise InputError(f"no Inductor checkpoint at {name_or_path!r}: {_summary(error)}") from error


def _check_size(config: Any, folder: str) -> None:
    """Refuse a configuration that makes a larger model than the weights are, before memory is taken for it."""
    import torch
    import transformers

    held = weight_shapes(folder)
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a class makes of strange sizes
        raise InputError(f"no model can be built from {folder}/config.json: {_summary(error)}") from error
    check_fits(model, held, folder)


def _checked_ids(ids: list[list[int]], vocabulary: int, *, where: str) -> list[list[int]]:
    for row in ids:
        if not row or max(row) >= vocabulary:
            found = f"token {max(row)}" if row else "no token"
            raise ConfigError(
                f"{where}: its tokenizer makes {found} of a text, the model knows 0 to {vocabulary - 1}: they do not "
                "belong together"
            )
    return ids


def pad_ids(ids: list[list[int]], pad_id: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, N]`` padded on the right, and a mask that is True on real tokens.

    Args:
        ids: the token ids of each input.
        pad_id: what fills the rest.
        length: N; None takes the longest input's.
    """
    import torch

    length = max(map(len, ids)) if length is None else length
    padded = torch.tensor([row + [pad_id] * (length - len(row)) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    return padded, torch.arange(length)[None, :] < lengths[:, None]


def padded_length(longest: int, most: int) -> int:
    """``longest`` rounded up to :data:`LENGTH_STEP`, within ``most``, the longest input that the model reads."""
    return max(longest, min(most, -(-longest // LENGTH_STEP) * LENGTH_STEP))


def _padding_id(tokenizer: Any, config: Any, *, where: str) -> int:
    for owner, name in ((tokenizer, "pad_token_id"), (config, "pad_token_id"), (tokenizer, "eos_token_id")):
        value = getattr(owner, name, None)
        if isinstance(value, int) and value >= 0:
            return value
    raise ConfigError(f"{where}: batches need a padding token, and neither pad_token nor eos_token is set")


def _summary(error: BaseException) -> str:
    """The message of an error of transformers or torch on one line."""
    return " ".join(str(error).split())[:240] or type(error).__name__
