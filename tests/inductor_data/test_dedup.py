"""Duplicates against exact Jaccard by brute force; what stays, what goes, and in which order."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_plugin.inductor.data.dedup import MISSED, DedupReport, NearDuplicates, bands, dedup, normalise, shingles
from tam_plugin.inductor.data.records import Record, read_records
from tam_plugin.inductor.dataset import LabelledQuery, add_noise
from tam_plugin.inductor.grammar import Corpus


def reference_shingles(record: Record) -> set[str]:
    """Four characters of each normalised part, written without the package; ASCII texts only."""
    found = set()
    for part in (record.question, *(record.options or ())):
        text = " " + re.sub(r"[^a-z0-9]+", " ", part.lower()).strip() + " "
        found |= {"".join(four) for four in zip(text, text[1:], text[2:], text[3:], strict=False)} or {text}
    return found


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Questions of the grammar and noisy variants of them: of each similarity, in a mixed order."""
    rng, corpus, rows = random.Random(5), Corpus.load(), []
    for label in range(1, 9):
        for query in corpus.sample(label, 40, rng):
            row = LabelledQuery(query.question, label, options=query.options, needs_options=True)
            rows += [row, *(add_noise(row, rng) for _ in range(rng.randrange(3)))]
    rng.shuffle(rows)
    kept = [row for row in rows if (row.question + "".join(row.options or ())).isascii()]
    kept = [row for row in kept if not set("$+<>=^`|~") & set(row.question + "".join(row.options or ()))]
    return [Record(f"q{n}", row.question, row.options, label=row.label) for n, row in enumerate(kept)]


def run(folder: Path, records: list[Record], **settings) -> tuple[list[Record], DedupReport]:
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(record.to_json() + "\n" for record in records))
    report = dedup(source, out, **settings)
    return [record for record, _, _ in read_records(out)], report


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_against_brute_force(tmp_path, records, threshold):
    sets = {record.id: reference_shingles(record) for record in records}
    kept, report = run(tmp_path, records, threshold=threshold, keep_labels_apart=False)
    assert len(records) > 400 and report.read == len(records) == len(kept) + report.exact + report.near
    place = {record.id: n for n, record in enumerate(records)}
    kept_ids = {record.id for record in kept}
    assert [place[r.id] for r in kept] == sorted(place[r.id] for r in kept)
    for pair in report.removed:
        assert pair.kept in kept_ids and pair.id not in kept_ids and place[pair.kept] < place[pair.id]
        similarity = jaccard(sets[pair.kept], sets[pair.id])
        assert similarity >= threshold and pair.similarity == pytest.approx(similarity, abs=1e-4)
    exact: list[str] = []
    for record in records:
        if all(jaccard(sets[record.id], sets[other]) < threshold for other in exact):
            exact.append(record.id)
    should_go = {record.id for record in records} - set(exact)
    assert should_go and len(should_go - kept_ids) >= (1 - MISSED) * len(should_go)


def test_a_second_run_removes_nothing_and_the_same_run_does_the_same(tmp_path, records):
    kept, _ = run(tmp_path, records)
    first = (tmp_path / "out.jsonl").read_bytes()
    run(tmp_path, records)
    assert (tmp_path / "out.jsonl").read_bytes() == first
    again, report = run(tmp_path, kept)
    assert again == kept and report.removed == []


@pytest.mark.parametrize("seed", range(3))
def test_groups_far_apart_keep_one_each_in_any_order(tmp_path, seed):
    """Where likeness is transitive, the number that stays does not depend on the order."""
    rng = random.Random(seed)
    words = [["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(12)] for _ in range(30)]
    texts = [" ".join(group) + end for group in words for end in ("", "?", " !", ", ok")]
    rng.shuffle(texts)
    kept, report = run(tmp_path, [Record(str(n), text) for n, text in enumerate(texts)])
    assert len(kept) == 30 and report.exact + report.near == 90


def test_case_punctuation_space_and_order_of_options_make_no_difference(tmp_path):
    rows = [
        Record("a", "What's in the Box?", ("A cat", "a dog.")),
        Record("b", "whats in the box"),
        Record("c", " what s  in the box ", ("A Dog", "a cat")),
        Record("d", "2 + 2?"),
        Record("e", "2 < 2"),
        Record("f", "???"),
        Record("g", "!"),
    ]
    kept, report = run(tmp_path, rows, threshold=1.0)
    assert [r.id for r in kept] == ["a", "b", "d", "e", "f", "g"] and report.exact == 1


def test_likes_with_other_labels_stay_and_are_listed(tmp_path):
    text = "What does the man in the red coat do after he opens the door of the house"
    rows = [
        Record("a", text, label=2),
        Record("b", text + "?", label=4, label2=2),
        Record("c", text + " then", label=4),
        Record("d", text.upper(), label=2, label2=4),
        Record("e", text + "!"),
    ]
    kept, report = run(tmp_path, rows)
    assert [r.id for r in kept] == ["a", "b"]
    assert [(p.kept, p.id, p.labels) for p in report.conflicts] == [("a", "b", (2, 4))]
    assert [(p.kept, p.id) for p in report.removed] == [("b", "c"), ("a", "d"), ("a", "e")]
    stored = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert stored["conflicts"] == [{"kept": "a", "id": "b", "similarity": 1.0, "labels": [2, 4]}]
    assert (stored["read"], stored["kept"], stored["exact"], stored["near"]) == (5, 2, 2, 1)
    kept, report = run(tmp_path, rows, keep_labels_apart=False)
    assert [r.id for r in kept] == ["a"] and report.conflicts == []
    kept, _ = run(tmp_path, rows[::-1])
    assert [r.id for r in kept] == ["e", "d", "c"], "a label is not lost to a query without one"


def test_lines_stay_as_they_stood(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['{"id":"1" , "question":"Où?","kept_along":[1]}', '{"question": "Why?", "id": "2", "label": 7}']
    source.write_text("\r\n".join([lines[0], "", lines[1], '{"id": "3", "question": "ou\u0300"}']), encoding="utf-8")
    assert dedup(source, out).exact == 1
    assert out.read_text(encoding="utf-8").splitlines() == lines


@given(st.lists(st.text(max_size=40), min_size=2, max_size=12), st.sampled_from([0.3, 0.6, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_any_text_is_like_itself_and_nothing_below_the_threshold_is_found(texts, threshold):
    index = NearDuplicates(threshold, 64)
    added: list[str] = []
    for text in map(normalise, texts):
        found = list(index.find(text))
        assert {place for place, _, same in found if same} == {n for n, other in enumerate(added) if other == text}
        for place, similarity, _ in found:
            a, b = shingles(text), shingles(added[place])
            assert similarity == len(a & b) / len(a | b) >= threshold
        index.add(text)
        added.append(text)


@pytest.mark.parametrize("num_perm", [16, 64, 128])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_few_at_the_threshold(threshold, num_perm):
    count, rows = bands(threshold, num_perm)
    assert count >= 2 and count * rows <= num_perm
    draws, rng = 4000, random.Random(0)
    missed = sum(
        not any(all(rng.random() < threshold for _ in range(rows)) for _ in range(count)) for _ in range(draws)
    )
    assert missed / draws <= MISSED + 0.015
