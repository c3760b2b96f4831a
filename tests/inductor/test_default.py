"""The Inductor that ships with the package: right answers, equal batches, offline, small."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tam_plugin.errors import InputError
from tam_plugin.inductor import Inductor, QueryTruncatedWarning
from tam_plugin.inductor.dataset import read_queries
from tam_plugin.inductor.evaluation import by_part, classify, evaluate, score
from tam_plugin.inductor.finetuning.multilingual import LANGUAGES
from tam_plugin.inductor.grammar import CORPUS_FOLDER
from tam_plugin.inductor.model import DEFAULT_FOLDER

HAND_LABELLED = Path(__file__).parents[3] / "shared" / "data" / "queries" / "eval_hand_labelled.jsonl"

TEST_FOLDER = CORPUS_FOLDER / "multilingual_test"

PAPER_AND_PLAIN = [
    ("What word is printed on the screen at the start?", 8),
    ("Put the events in chronological order", 4),
    ("What color is the helicopter?", 1),
    ("What's the video mainly about?", 6),
    ("Why did the toddler cry at the end?", 7),
    ("Where is the yellow container located?", 5),
    ("How does the skier move down the slope?", 2),
    ("Is the woman happy or angry at the end of the video?", 3),
    ("How many times did the brightness change?", 4),
    ("How many people are there in the video?", 1),
    ("How many riders are on the podium?", 1),
    ("Arrange the events in chronological order.", 4),
    ("What happened after the man left the house?", 4),
    ("Analyze the video's narrative structure.", 6),
    ("What made the man angry?", 7),
    ("Is their relationship more like friend or enemy?", 7),
    ("Match the dialogue to the scene.", 8),
    ("Does the man feel sorry for the woman?", 3),
    ("what is the cat doing", 2),
    ("In which direction does the car turn?", 5),
    ("What will the boy do next?", 7),
]


@pytest.fixture(scope="module")
def inductor() -> Inductor:
    return Inductor.from_pretrained()


@pytest.mark.parametrize(("query", "label"), PAPER_AND_PLAIN)
def test_plain_queries_are_classified(inductor: Inductor, query: str, label: int) -> None:
    assert inductor.classify(query).task.index == label


def test_batch_equals_single_in_the_order_given(inductor: Inductor) -> None:
    queries = [query for query, _ in PAPER_AND_PLAIN]
    queries[3] = "word " * 200 + queries[3]
    options = [["red", "blue"] if i % 3 == 0 else None for i in range(len(queries))]
    durations = [float(i + 1) if i % 2 else None for i in range(len(queries))]
    batched = inductor.classify_batch(queries, durations, options, batch_size=4)
    for query, duration, choice, result in zip(queries, durations, options, batched, strict=True):
        single = inductor.classify(query, duration, choice)
        assert result.probabilities == pytest.approx(single.probabilities, abs=1e-5)
        assert math.isclose(sum(result.probabilities), 1.0, abs_tol=1e-6)


def test_the_number_of_workers_changes_nothing(inductor: Inductor) -> None:
    import torch

    from tam_plugin.inductor.parallel import Workers

    queries = [f"{'so ' * n}{query}" for n, (query, _) in enumerate(PAPER_AND_PLAIN)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = []
        for count in (1, 2, 5):
            with Workers(count) as workers:
                found.append(inductor.classify_batch(queries, batch_size=4, workers=workers))
                assert torch.get_num_threads() == 3
                assert workers.map(lambda _: torch.get_num_threads(), range(9)) == [1] * 9
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    for alone, result in zip(inductor.classify_batch(queries), found[0], strict=True):
        assert result.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


@pytest.mark.slow
def test_a_length_has_one_shape(inductor: Inductor) -> None:
    """Every shape leaves something in memory, so long runs must meet few of them, and long inputs few at a time."""
    shapes = set()
    hook = inductor._classifier._model.register_forward_pre_hook(lambda _, given: shapes.add(tuple(given[0].shape)))
    rng = random.Random(0)
    try:
        for _ in range(4):
            words = [1 + int(rng.expovariate(0.03)) for _ in range(rng.randrange(60, 90))]
            queries = ["so " * count + "what color is it?" for count in words]
            found = inductor.classify_batch(queries, batch_size=8)
    finally:
        hook.remove()
    assert len({length for _, length in shapes}) == len(shapes) < 30
    assert all(length % 8 == 0 for _, length in shapes)
    assert {rows for rows, length in shapes if length <= 64} == {8}
    assert max(rows * length for rows, length in shapes) <= 512
    for query, together in zip(queries[::9], found[::9], strict=True):
        alone = inductor.classify(query)
        assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert together.task == alone.task


def test_a_fault_in_a_worker_is_the_callers(inductor: Inductor) -> None:
    import torch

    from tam_plugin.inductor.parallel import Workers

    before = torch.get_num_threads()
    with Workers(2) as workers:
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda n: 1 / n, [1, 0, 2])
        assert torch.get_num_threads() == before
        assert workers.map(lambda n: n * n, [1, 2, 3]) == [1, 4, 9]
    with pytest.raises(InputError, match="number of workers must be at least 1, got 0"):
        Workers(0)


def test_options_reach_the_classifier_and_duration_does_not_decide(inductor: Inductor) -> None:
    query = "Which sentence describes the video?"
    alone = inductor.classify(query)
    ordered = inductor.classify(
        query, options=["He eats, then he runs.", "He runs before he eats.", "He runs, then eats."]
    )
    turning = inductor.classify(query, options=["The car is moving to the left.", "The car is moving to the right."])
    assert ordered.task.index == 4 and turning.task.index == 5
    assert alone.probabilities != ordered.probabilities
    assert {inductor.classify(query, d).probabilities for d in (None, 0.04, 20, 90, 86400)} == {alone.probabilities}


def test_empty_batch(inductor: Inductor) -> None:
    assert inductor.classify_batch([]) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "empty"),
        (("Why?", 0), "0"),
        (("Why?", -1.5), "-1.5"),
        (("Why?", math.nan), "nan"),
        (("Why?", math.inf), "inf"),
        (("Why?", None, "red, blue"), "options"),
        ((None,), "NoneType"),
    ],
)
def test_bad_input_is_refused(inductor: Inductor, arguments: tuple, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        inductor.classify(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queries": "Why?"}, "list of texts"),
        ({"queries": ["Why?"], "durations_s": [1.0, 2.0]}, "durations_s"),
        ({"queries": ["Why?"], "options": []}, "options"),
        ({"queries": ["Why?"], "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_batches_are_refused(inductor: Inductor, arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        inductor.classify_batch(**arguments)


def test_a_megabyte_is_classified_with_one_warning(inductor: Inductor) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = inductor.classify("a " * 500_000 + "What color is the helicopter?")
    assert [w.category for w in caught] == [QueryTruncatedWarning]
    assert "truncated" in str(caught[0].message) and math.isclose(sum(result.probabilities), 1.0, abs_tol=1e-6)


def test_more_tokens_than_the_model_reads_are_said(inductor: Inductor) -> None:
    with pytest.warns(QueryTruncatedWarning, match="at most 512"):
        inductor.classify("几点了" * 300)


def test_package_data_is_small_and_has_no_pickle() -> None:
    files = [path for path in DEFAULT_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}


def test_loads_and_runs_without_network_or_transformers() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
        "import tam_plugin.inductor\nassert 'torch' not in sys.modules\n"
        "from tam_plugin import Inductor\n"
        "print(Inductor.from_pretrained().classify('What color is the helicopter?').task.index)\n"
        "assert not {'transformers', 'torch._dynamo'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


@pytest.mark.skipif(not HAND_LABELLED.is_file(), reason="the hand-labelled evaluation queries are not present")
def test_accuracy_on_hand_labelled_queries(inductor: Inductor) -> None:
    figures = evaluate(inductor, read_queries(HAND_LABELLED))
    assert figures["accuracy"] >= 0.85
    assert figures["accuracy_label2"] >= 0.93
    assert figures["ece"] <= 0.06


@pytest.mark.slow
def test_accuracy_in_eleven_languages(inductor: Inductor) -> None:
    rows = [row for path in sorted(TEST_FOLDER.glob("??.jsonl")) for row in read_queries(path)]
    asked = [row for row in rows if row.language in LANGUAGES]
    found = classify(inductor, asked)
    figures = score(found, asked)
    assert figures["accuracy"] >= 0.83 and figures["group_accuracy"] >= 0.88 and figures["ece"] <= 0.06
    parts = by_part(found, asked, "language") or {}
    assert set(parts) == set(LANGUAGES[1:]) and min(part["accuracy"] for part in parts.values()) >= 0.75


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("xq zvw kkpt", "does not read like a question"),
        ("haha, see you tomorrow then", "does not read like a question"),
        ("for (int k = 0; k < m; ++k) total += v[k];", "does not read like a question"),
        ("รถคันนี้สีอะไร", "of a script that the Inductor does not know"),
        ("Responde solo con la letra de la opción.", "instruction on the form of the answer alone"),
    ],
)
def test_what_asks_nothing_gets_no_type(inductor: Inductor, text: str, said: str) -> None:
    assert said in (inductor.classify(text).doubt or "")
