"""Labelled queries for training and evaluation: reading JSON lines, the written corpus, the grammar, and noise.

A line of a file is ``{"question", "label"}`` with optional ``label2``, ``options``, ``duration_s``, ``dataset``,
``language`` (ISO 639-1) and ``paraphrase`` (the same question in other words); labels are 1-8 in paper order. To
evaluate an extended Inductor, a label may also be the index or the name of one of its task types beyond the eight.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tam_plugin.bounds import MAX_LABELS, is_whole
from tam_plugin.errors import InputError
from tam_plugin.inductor.data.records import read_lines
from tam_plugin.inductor.grammar import CORPUS_FOLDER, Corpus
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskExtension


@dataclass(frozen=True)
class LabelledQuery:
    """One query with its label (1-8, or an extension's index), a second valid label or None, and what else is known.

    With ``needs_options`` the options decide the type, and :func:`add_noise` keeps them. In training the label may be
    :data:`NO_QUESTION`.
    """

    question: str
    label: int
    label2: int | None = None
    options: tuple[str, ...] | None = None
    duration_s: float | None = None
    dataset: str = ""
    needs_options: bool = False
    paraphrase: str | None = None
    language: str = "en"


NO_QUESTION = 0
"""Label of a text that asks nothing about a video: every task type is as probable as the others."""


def read_queries(path: str | Path, extensions: Sequence[TaskExtension] = ()) -> list[LabelledQuery]:
    """Read a JSON-lines file.

    Args:
        path: the file.
        extensions: task types beyond the eight that a label may name, by index or name.

    Raises:
        InputError: the file is missing or empty, or a line is malformed; the message names the line.
    """
    lines = enumerate(read_lines(path), 1)
    rows = [_parse(line, f"{path}, line {number}", extensions) for number, line in lines if line.strip()]
    if not rows:
        raise InputError(f"the query file {str(path)!r} is empty; expected one JSON object a line")
    return rows


def _parse(line: str, where: str, extensions: Sequence[TaskExtension]) -> LabelledQuery:
    try:
        row = json.loads(line)
        question = row["question"]
        label, label2 = row["label"], row.get("label2")
        options = row.get("options")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object with question and label ({error})") from error
    index, index2 = _index(label, extensions), _index(label2, extensions)
    if index is None or (index2 is None and label2 is not None):
        further = "".join(f", {extension.index} ({extension.label!r})" for extension in extensions)
        raise InputError(f"{where}: labels are 1-{NUM_TASK_TYPES}{further}, got label {label!r} and label2 {label2!r}")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: question must be text, got {question!r}")
    if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
        raise InputError(f"{where}: options must be a list of texts or null, got {str(options)[:60]!r}")
    return LabelledQuery(
        question,
        index,
        index2,
        tuple(options) if options else None,
        row.get("duration_s"),
        row.get("dataset", ""),
        paraphrase=row.get("paraphrase"),
        language=row.get("language") or "en",
    )


def _index(label: Any, extensions: Sequence[TaskExtension]) -> int | None:
    """The index that a label means; None if it means none."""
    if is_whole(label, 1, NUM_TASK_TYPES):
        return label
    named = {extension.label: extension.index for extension in extensions}
    if isinstance(label, str):
        return named.get(label)
    return label if is_whole(label, 1, MAX_LABELS) and label in named.values() else None


WRITTEN_FOLDER = CORPUS_FOLDER / "written"
"""The written corpus: one file a field of life, each question written for it and labelled by its writer."""


def written_queries(folder: Path = WRITTEN_FOLDER) -> list[LabelledQuery]:
    """Every question of the written corpus, in the order of its files."""
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_queries(path)]


def grammar_queries(corpus: Corpus, per_label: int, rng: random.Random) -> list[LabelledQuery]:
    """``per_label`` queries of each task type drawn from the grammar."""
    rows = []
    for label in range(1, NUM_TASK_TYPES + 1):
        for query in corpus.sample(label, per_label, rng):
            row = LabelledQuery(query.question, label, query.label2, query.options, dataset="grammar")
            rows.append(replace(row, needs_options=query.needs_options))
    return rows


def cap_per_source(rows: Sequence[LabelledQuery], cap: int, rng: random.Random) -> list[LabelledQuery]:
    """At most ``cap`` rows of each (dataset, label), so that no source dominates a task type."""
    cells: dict[tuple[str, int], list[LabelledQuery]] = defaultdict(list)
    for row in rows:
        cells[row.dataset, row.label].append(row)
    return [row for cell in cells.values() for row in (cell if len(cell) <= cap else rng.sample(cell, cap))]


_FRAMES = {
    "en": (
        "In the video, {}", "According to the video, {}", "Based on the video, {}", "In this clip, {}", "Hey, {}",
        "From the video, {}", "Watch the video. {}", "Look at the video and tell me: {}", "Please tell me {}",
        "Question: {}", "can you tell me {}", "Given the video, {}", "As shown in the video, {}", "ok so {}",
        "From what we see, {}", "In the scene, {}", "I wonder, {}", "I'd like to know {}",
        "At the start of the video, {}", "At the end of the video, {}",
    ),
    "zh": ("请问{}", "视频中，{}", "根据视频，{}", "看完视频告诉我，{}", "麻烦问下，{}", "问题：{}", "{}谢谢"),
    "es": ("En el vídeo, {}", "Según el video, {}", "oye, {}", "Pregunta: {}", "Dime: {}", "Mira el vídeo. {}"),
    "ja": ("動画の中で、{}", "この動画では、{}", "質問：{}", "すみません、{}", "動画を見て答えて。{}", "教えて、{}"),
    "de": ("Im Video: {}", "Laut Video: {}", "Frage: {}", "Sag mal, {}", "Schau dir das Video an. {}", "Hey, {}"),
    "fr": ("Dans la vidéo, {}", "D'après la vidéo, {}", "Question : {}", "dis-moi, {}", "Regarde la vidéo. {}"),
    "pt": ("No vídeo, {}", "De acordo com o vídeo, {}", "Pergunta: {}", "me diz, {}", "Assista ao vídeo. {}"),
    "ru": ("На видео {}", "Судя по видео, {}", "Вопрос: {}", "скажи, {}", "Посмотри видео. {}", "Подскажите, {}"),
    "ko": ("영상에서 {}", "이 영상을 보고 답해줘. {}", "질문: {}", "혹시 {}", "동영상에 따르면 {}", "저기요, {}"),
    "ar": ("في الفيديو، {}", "حسب الفيديو، {}", "سؤال: {}", "لو سمحت، {}", "شاهد المقطع. {}", "بالنسبة للمقطع، {}"),
    "hi": ("वीडियो में {}", "वीडियो के अनुसार, {}", "प्रश्न: {}", "ज़रा बताओ, {}", "वीडियो देखो। {}", "bhai, {}"),
    "it": ("Nel video, {}", "Secondo il video, {}", "Domanda: {}", "dimmi, {}", "Guarda il video. {}", "Scusa, {}"),
}  # fmt: skip
"""Words around a question, by language, that do not change its type."""
_SUFFIXES = (" in the video", " in this clip", " in the given video", " here", " as seen in the video", " please")
_ENDS = {"zh": "？", "ja": "？", "ar": "؟"}


def add_noise(row: LabelledQuery, rng: random.Random) -> LabelledQuery:
    """A variant of a query that keeps its label: framing words, case, punctuation, slips of typing, fewer options."""
    if row.label == NO_QUESTION:
        return row
    question = row.question.strip()
    roll = rng.random()
    if roll < 0.12:
        framed = (
            question[:1].lower() + question[1:] if row.language in ("en", "es", "fr", "it", "pt", "ru") else question
        )
        question = rng.choice(_FRAMES.get(row.language, ("{}",))).replace("{}", framed)
    elif roll < 0.18 and question[-1:] not in "?.!" and row.language == "en":
        question += rng.choice(_SUFFIXES)
    end = _ENDS.get(row.language, "?")
    if row.language == "en" and question[-1:] not in "?.!:" and rng.random() < 0.65:
        question += "." if rng.random() < 0.1 else "?"
    elif question.endswith(("?", end)) and rng.random() < 0.15:
        question = question[:-1].rstrip()
    if rng.random() < 0.6:
        question = question[:1].upper() + question[1:]
    if rng.random() < 0.06:
        question = slip(question, rng)
    options = row.options
    if options:
        options = None if not row.needs_options and rng.random() < 0.45 else tuple(rng.sample(options, len(options)))
        if options and rng.random() < 0.5:
            options = tuple(o[:1].upper() + o[1:] + rng.choice((".", "")) for o in options)
    return replace(row, question=question, options=options)


def slip(text: str, rng: random.Random) -> str:
    """One slip of typing: two letters swapped, one doubled, or one lost."""
    if len(text) < 8:
        return text
    at = rng.randrange(1, len(text) - 2)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + (text[at] * 2 if kind == 1 else "") + text[at + 1 :]


NO_QUESTION_FILE = CORPUS_FOLDER / "no_question.txt"
"""Texts that ask nothing about a video, one a line, in several languages and in code."""


def no_question_queries(count: int, rng: random.Random) -> list[LabelledQuery]:
    """``count`` texts that ask nothing about a video: half of them written ones, the others letters at random."""
    lines = [line for line in NO_QUESTION_FILE.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = [rng.choice(lines) if number % 2 else _random_text(rng) for number in range(count)]
    return [LabelledQuery(text, NO_QUESTION, dataset="no_question") for text in texts]


_LETTERS = (
    "abcdefghijklmnopqrstuvwxyz", "0123456789", "asdfghjkl", "qwertyuiop ", "!?#$%&*()[]{}<>/=+-_.,;:",
    "的一是不了人我在有他", "あいうえおかきくけこ", "абвгдежзиклмно", "가나다라마바사아", "ابتثجحخدذر", "कखगघचछजट",
)  # fmt: skip


def _random_text(rng: random.Random) -> str:
    """Letters, digits and signs without sense."""
    alphabet = "".join(rng.sample(_LETTERS, rng.choice((1, 1, 2)))) + " " * rng.randrange(3)
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 40))).strip() or "?"
