"""Replies: what is taken, what is refused, and that no label is ever guessed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.inductor.tagging.replies import Reply, ReplyError, parse_paraphrase, parse_tag
from tam_plugin.taxonomy import TaskType

LABELS = [task.label for task in TaskType]
ACTION, FINE, ORDER = LABELS[1], LABELS[2], LABELS[3]
ROW = {"id": "1", "question": "How many cats jump?"}


def said(task: object, second: object = None) -> str:
    return json.dumps({"task": task, "second": second})


@pytest.mark.parametrize("task", TaskType)
def test_every_label_is_found(task):
    assert parse_tag(Reply(said(task.label)), ROW) == {"label": task.index, "label2": None}


@pytest.mark.parametrize(
    ("text", "label", "label2"),
    [
        (said(ACTION, ORDER), 2, 4),
        (f"```json\n{said(ACTION)}\n```", 2, None),
        (f"```\n{said(ACTION)}```", 2, None),
        (f"<think>{said(ORDER)} no, {said(FINE)}</think>\n\n{said(ACTION)}", 2, None),
        (f"the template opened it: {said(ORDER)}</think>{said(ACTION)}", 2, None),
        (f"<think>a</think><think>{said(ORDER)}</think>{said(ACTION, FINE)}", 2, 3),
        (f"My answer is {said(ACTION)}, though {ORDER} is near.", 2, None),
        (said(ACTION.lower()), 2, None),
        (said(f" {ACTION}\n"), 2, None),
        (said(ACTION, "null"), 2, None),
        (json.dumps({"task": ACTION}), 2, None),
        (json.dumps({"reason": "{it moves}", "task": ACTION, "second": None}), 2, None),
    ],
)
def test_replies_that_are_taken(text, label, label2):
    assert parse_tag(Reply(text), ROW) == {"label": label, "label2": label2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no answer"),
        (" \n", "no answer"),
        (f"<think>{said(ACTION)}", "thinking has no end"),
        (f"<think>{said(ACTION)}</think>", "no answer"),
        (f"<think>a</think><think>{said(ACTION)}", "thinking has no end"),
        (ACTION, "no JSON object"),
        (said("Cooking"), "no category"),
        (said("2"), "no category"),
        (said(""), "no category"),
        (said(2), "task is 2"),
        (said(None), "task is null"),
        (said({"a": 1}), "task is"),
        (said([ACTION]), "list of 1"),
        (said([ACTION, ORDER]), "list of 2"),
        (said(f"{ACTION} / {ORDER}"), f"names 2 categories ({ACTION}, {ORDER})"),
        (said(f"not {ACTION}"), "no category"),
        (said(ACTION, ACTION), "repeats"),
        (said(ACTION, "Cooking"), "second is"),
        (said(ACTION, [ORDER]), "second is a list"),
        (f"{said(ACTION)} or {said(ORDER)}", "more than one JSON object"),
        (said(ACTION) * 2, "more than one JSON object"),
        (f"[{said(ACTION)}, {said(ORDER)}]", "more than one JSON object"),
        (f'{{"task": "{ACTION}", "task": "{ORDER}"}}', "given twice"),
        ("{" + "".join(f'"{i}":1,' for i in range(300_000)) + f'"task": "{ACTION}", "299999": 2}}', "given twice"),
        (f'{{"task": "{ACTION}"', "cannot be read"),
        (f"{{x}} {said(ACTION)}", "cannot be read"),
        (f"{said(ACTION)} {{", "more than one"),
        (f'{{"category": "{ACTION}"}}', "no 'task'"),
        (f'{{"answer": {said(ACTION)}}}', "no 'task'"),
        ("{}", "no 'task'"),
        ("{" * 100_000, "cannot be read"),
        ('{"a":' * 100_000, "cannot be read"),
        ('{"task": "\\ud800"}', "cannot be read"),
    ],
    ids=range(33),
)
def test_replies_that_are_refused(text, words):
    with pytest.raises(ReplyError, match=re.escape(words)) as caught:
        parse_tag(Reply(text), ROW)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_cut_reply_says_so():
    with pytest.raises(ReplyError, match="limit of tokens"):
        parse_tag(Reply("", "so many thoughts", "length"), ROW)


PIECES = st.sampled_from(
    [
        *LABELS,
        *(said(label) for label in LABELS[:4]),
        *(said([ACTION, ORDER]), said(ACTION, ORDER), f'"task": "{ACTION}"', f'"{ORDER}"'),
        *('"task": ', '"second": ', "null", "```", "json", "<think>", "</think>", "é"),
        *'{}[]",: \n',
    ]
)


@given(st.lists(PIECES, max_size=12))
def test_a_label_is_returned_only_when_task_is_written_once_with_it(pieces):
    text = "".join(pieces)
    try:
        value = parse_tag(Reply(text), ROW)
    except ReplyError:
        return
    answer = text.rpartition("</think>")[2]
    assert answer.count('"task"') == 1 and "<think>" not in answer
    (written,) = re.findall(r'"task":\s*"([^"]*)"', answer)
    assert LABELS.index(written.strip()) + 1 == value["label"]
    if value["label2"] is not None:
        assert f'"{LABELS[value["label2"] - 1]}"' in answer and value["label2"] != value["label"]


@given(st.text(max_size=200))
def test_any_text_is_a_value_or_a_reply_error(text):
    for parse in (parse_tag, parse_paraphrase):
        with pytest.raises(ReplyError):
            parse(Reply(text), ROW)


def test_a_paraphrase_is_taken():
    text = f"<think>hm</think>{json.dumps({'paraphrase': ' What number of cats jump? '})}"
    assert parse_paraphrase(Reply(text), ROW) == {"paraphrase": "What number of cats jump?"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "paraphrase is"),
        ("  ", "paraphrase is"),
        (None, "paraphrase is null"),
        (3, "paraphrase is 3"),
        (["a?", "b?"], "list of 2"),
        ("how many CATS jump", "the question itself"),
        ("What number of cats?\nHow many cats?", "several lines"),
        ("x" * 77, "77 characters for a question of 19"),
    ],
)
def test_paraphrases_that_are_refused(value, words):
    with pytest.raises(ReplyError, match=words):
        parse_paraphrase(Reply(json.dumps({"paraphrase": value})), ROW)


def test_four_times_the_length_is_the_limit():
    assert parse_paraphrase(Reply(json.dumps({"paraphrase": "x" * 76})), ROW)["paraphrase"] == "x" * 76


def test_two_paraphrases_are_refused():
    one = json.dumps({"paraphrase": "What number of cats jump?"})
    with pytest.raises(ReplyError, match="more than one"):
        parse_paraphrase(Reply(one + one), ROW)
