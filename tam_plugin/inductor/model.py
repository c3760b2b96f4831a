"""The Inductor: which of the eight task types a query is (Sec. 3.1 of the paper)."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tam_plugin.errors import InputError
from tam_plugin.hub import is_hub_name
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import Classifier, CompactClassifier, HuggingFaceClassifier, padded_length
from tam_plugin.inductor.doubt import Doubt
from tam_plugin.inductor.labels import map_labels, read_extensions
from tam_plugin.inductor.parallel import Workers
from tam_plugin.inductor.text import PreparedQuery, QueryTruncatedWarning, build_input, prepare_query
from tam_plugin.taxonomy import TaskDistribution, TaskExtension

DEFAULT_FOLDER = Path(__file__).with_name("default")
"""The Inductor that ships with the package."""
FULL_BATCH_TOKENS = 64
"""The longest inputs, in tokens, of which a whole batch runs at once."""


class Inductor:
    """A text classifier from a query (with options and duration, where known) to a :class:`TaskDistribution`.

    Use :meth:`from_pretrained`; the constructor is for a classifier already at hand.

    Attributes:
        temperature: divides the logits before the softmax; fitted on held-out data, stored with the checkpoint.
        extra_labels: labels of the checkpoint beyond the eight task types. Their outputs take no part in the
            probabilities, which are the softmax over the eight.
        columns: the classifier's output of each task type, in paper order, then of each extra label.
        max_tokens: the longest input that the classifier reads; longer ones lose their middle.
        extensions: those of the extra labels that the checkpoint says how to treat (``tam_extensions``). One that is
            more probable than each of the eight and the other extensions becomes the distribution's ``extension``.
        doubt: which of the checkpoint's answers mean nothing; None where it does not say.
        use_options: whether the input text carries answer options.
        use_duration: whether the input text carries the video's length class.
    """

    def __init__(self, classifier: Classifier) -> None:
        config, where = classifier.config, classifier.where
        labels = map_labels(config.get("id2label") or {}, where=where)
        self._classifier = classifier
        self._columns = list(labels.columns)
        self.columns = (*labels.columns, *labels.extra_columns)
        self.max_tokens = classifier.max_tokens
        self.extra_labels = labels.extra
        self._extensions = read_extensions(config, labels, where=where)
        self.extensions = tuple(self._extensions.values())
        self.temperature = storage.read_temperature(config, where=where)
        self.doubt = Doubt.from_config(config, where=where)
        self.use_options = storage.read_flag(config, "tam_use_options", default=True, where=where)
        self.use_duration = storage.read_flag(config, "tam_use_duration", default=True, where=where)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None) -> Inductor:
        """Load an Inductor.

        Args:
            name_or_path: None for the one that ships with the package; the folder of a checkpoint in the compact
                format or of any Hugging Face sequence classifier; or a name on the Hugging Face hub. A folder is
                read without network, and only safetensors weights are read.

        Raises:
            InputError: nothing is there, or it cannot be read.
            ConfigError: fewer than eight labels, labels that do not name the task types, or a broken configuration.
        """
        if name_or_path is None:
            return cls(_compact(DEFAULT_FOLDER, "the embedded Inductor"))
        name = os.fspath(name_or_path)
        folder = Path(name).expanduser()
        if not name.strip():
            raise InputError("the Inductor's name or path is empty; expected a folder, a hub name, or None")
        if folder.is_dir():
            if storage.read_config(folder).get("format") == storage.FORMAT:
                return cls(_compact(folder, name))
            return cls(HuggingFaceClassifier(str(folder), local=True))
        if folder.exists() or not is_hub_name(name):
            raise InputError(f"no Inductor at {name!r}: expected a folder with config.json and safetensors weights")
        return cls(HuggingFaceClassifier(name, local=False))

    def classify(
        self, query: str, duration_s: float | None = None, options: Sequence[str] | None = None
    ) -> TaskDistribution:
        """The distribution over task types of one query.

        Args:
            query: the user's words about the video.
            duration_s: the video's duration in seconds, or None when unknown.
            options: the answer options, if there are any.

        Raises:
            InputError: empty query, or a duration that is not a positive finite number.
        """
        return self.classify_batch([query], [duration_s], [options])[0]

    def classify_batch(
        self,
        queries: Sequence[str],
        durations_s: Sequence[float | None] | None = None,
        options: Sequence[Sequence[str] | None] | None = None,
        batch_size: int = 64,
        workers: Workers | None = None,
    ) -> list[TaskDistribution]:
        """The distribution of each query, in the order given; queries of like length run together.

        Args:
            queries: the users' words.
            durations_s: a duration in seconds or None for each query; None when all are unknown.
            options: a list of options or None for each query; None when there are none.
            batch_size: queries per forward pass, at most.
            workers: run forward passes side by side, each on one thread. None runs one after another, each on all of
                torch's threads.

        Warns:
            QueryTruncatedWarning: once a call, when a query is longer than is read.

        Raises:
            InputError: as in :meth:`classify`, or lists of different lengths.
        """
        if isinstance(queries, str):
            raise InputError("queries must be a list of texts; for one query use classify()")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        durations_s = _aligned(durations_s, len(queries), "durations_s")
        options = _aligned(options, len(queries), "options")
        prepared = [prepare_query(query) for query in queries]
        texts = [self.input_text(p, d, o) for p, d, o in zip(prepared, durations_s, options, strict=True)]
        if not texts:
            return []
        ids, cut = self._within_length(self.token_ids(texts))
        notices = [p.notice or c for p, c in zip(prepared, cut, strict=True) if p.notice or c]
        if notices:
            count = f" ({len(notices)} of {len(texts)} queries were truncated)" if len(texts) > 1 else ""
            warnings.warn(f"{notices[0]}{count}", QueryTruncatedWarning, stacklevel=2)
        batches = self._batches([len(row) for row in ids], batch_size)
        filled = len(batches) > 1  # the last one too, so that a length has one shape (see LENGTH_STEP)

        def logits(batch: tuple[list[int], int]) -> list[list[float]]:
            chosen, size = batch
            rows = [ids[i] for i in chosen]
            rows += rows[-1:] * (size - len(rows)) if filled else []
            found: list[list[float]] = (self._classifier.logits(rows) / self.temperature).tolist()
            return found[: len(chosen)]

        results: list[TaskDistribution | None] = [None] * len(ids)
        found = map(logits, batches) if workers is None else workers.map(logits, batches)
        for (chosen, _), rows in zip(batches, found, strict=True):
            for i, row in zip(chosen, rows, strict=True):
                results[i] = self._judged(self._distribution(row), prepared[i])
        return [result for result in results if result is not None]

    def _batches(self, lengths: list[int], batch_size: int) -> list[tuple[list[int], int]]:
        """Inputs that run together, long ones first so that workers end together, and the rows of each forward pass.

        Long inputs run in smaller batches: a pass takes as much memory whatever its length, and a length has one shape.
        """
        order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
        batches, at = [], 0
        while at < len(order):
            length = padded_length(lengths[order[at]], self.max_tokens)
            size = max(1, min(batch_size, batch_size * FULL_BATCH_TOKENS // length))
            batches.append((order[at : at + size], size))
            at += size
        return batches

    def _distribution(self, logits: list[float]) -> TaskDistribution:
        """Softmax over the eight; and the extension that is more probable than all of them, if there is one."""
        eight = [logits[column] for column in self._columns]
        found = TaskDistribution.from_logits(eight)
        likeliest = self._likeliest_extension(logits, max(eight))
        if likeliest is None:
            return found
        extension, probability = likeliest
        return replace(found, extension=extension, extension_probability=probability)

    def _judged(self, found: TaskDistribution, query: PreparedQuery) -> TaskDistribution:
        """What is found, as far as the checkpoint vouches for it."""
        if self.doubt is None:
            return found
        return self.doubt.judge(found, query, self._classifier.unknown_share(query.text))

    def _likeliest_extension(self, logits: list[float], peak: float) -> tuple[TaskExtension, float] | None:
        """The extension whose logit is above ``peak``, that of the likeliest of the eight, and its probability."""
        column = max(self._extensions, key=lambda c: logits[c], default=None)
        if column is None or logits[column] <= peak:
            return None
        weights = (math.exp(logits[c] - logits[column]) for c in (*self._columns, *self._extensions))
        return self._extensions[column], 1 / sum(weights)

    def input_text(
        self, query: str | PreparedQuery, duration_s: float | None = None, options: Sequence[str] | None = None
    ) -> str:
        """The text that the classifier reads for a query (:mod:`tam_plugin.inductor.text`)."""
        return build_input(
            query,
            options=options,
            duration_s=duration_s,
            use_options=self.use_options,
            use_duration=self.use_duration,
        )

    def token_ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of input texts, special tokens included."""
        return self._classifier.token_ids(texts)

    def _within_length(self, ids: list[list[int]]) -> tuple[list[list[int]], list[str | None]]:
        """Token lists cut in the middle to the model's length, and for each what was done or None."""
        most = self._classifier.max_tokens
        head = most // 4
        kept = [row if len(row) <= most else row[:head] + row[len(row) - (most - head) :] for row in ids]
        notices = [
            f"the query and its options have {len(row)} tokens; this Inductor reads at most {most}, "
            "so the middle was truncated"
            if len(row) > most
            else None
            for row in ids
        ]
        return kept, notices


def _compact(folder: Path, where: str) -> CompactClassifier:
    return CompactClassifier(folder, storage.read_config(folder), where=where)


def _aligned(values, count: int, name: str):
    if values is None:
        return [None] * count
    if len(values) != count:
        raise InputError(f"{name} must hold one entry a query: got {len(values)} for {count} queries")
    return values
