"""The questions in other languages: enough of each and of every type, in their script, no test question trained on."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tam_plugin.inductor.dataset import WRITTEN_FOLDER, LabelledQuery, add_noise, read_queries, written_queries
from tam_plugin.inductor.finetuning.multilingual import LANGUAGES
from tam_plugin.inductor.grammar import CORPUS_FOLDER

TEST_FOLDER = CORPUS_FOLDER / "multilingual_test"
OTHERS = LANGUAGES[1:]
SCRIPTS = {"zh": "[一-鿿]", "ja": "[ぁ-ヿ一-鿿]", "ru": "[а-яё]", "ko": "[가-힣]", "ar": "[ء-ي]", "hi": "[ऀ-ॿ]"}
ROMANISED = {"hi": 0.35, "ar": 0.1, "zh": 0.1}
"""Most of a language's questions that may be in Latin letters."""


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize(("folder", "least", "spread"), [(WRITTEN_FOLDER, 350, 1.5), (TEST_FOLDER, 40, 2.5)])
def test_every_language_has_every_type_in_its_script(language: str, folder: Path, least: int, spread: float) -> None:
    rows = read_queries(folder / f"{language}.jsonl")
    counts = Counter(row.label for row in rows)
    assert (
        len(rows) >= least and set(counts) == set(range(1, 9)) and max(counts.values()) < spread * min(counts.values())
    )
    assert {row.language for row in rows} == {language} and all(row.label2 != row.label for row in rows)
    assert sum(row.label2 is not None for row in rows) >= len(rows) // 50
    if language in SCRIPTS:
        own = sum(bool(re.search(SCRIPTS[language], row.question, re.IGNORECASE)) for row in rows)
        assert own >= (1 - ROMANISED.get(language, 0.05)) * len(rows)


def test_nothing_of_the_test_set_is_in_the_written_corpus() -> None:
    def plain(row: LabelledQuery) -> str:
        return re.sub(r"\W", "", row.question.lower())

    trained = {plain(row) for row in written_queries()}
    tested = [row for path in sorted(TEST_FOLDER.glob("??.jsonl")) for row in read_queries(path)]
    assert {row.language for row in tested} == {*OTHERS, "tr", "th"}  # two that are not trained on
    assert not {plain(row) for row in tested} & trained
    assert not {row.language for row in written_queries()} & {"tr", "th"}


def test_noise_keeps_to_the_language() -> None:
    import random

    rng = random.Random(0)
    row = LabelledQuery("猫在哪里？", 5, language="zh")
    texts = {add_noise(row, rng).question for _ in range(200)}
    assert len(texts) > 5 and not [text for text in texts if re.search("[a-z]", text)]
    assert {text[-1] for text in texts} >= {"？", "里"}
