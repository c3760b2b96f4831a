"""The question in the texts that benchmarks make of it."""

from __future__ import annotations

import importlib

import pytest

from tam_plugin.eval.lmms.questions import Question, question_of

ABC = ("a red car", "a blue car", "a bicycle")
LINES = "A. a red car\nB. a blue car\nC. a bicycle"


@pytest.mark.parametrize(
    ("context", "doc", "expected"),
    [
        (
            "This video's subtitles are listed below: \nWhat was that?\nSelect a seat.\n"
            "Select the best answer to the following multiple-choice question based on the video and the subtitles.\n"
            f"What was that?\n{LINES}\nAnswer the question using a single word or phrase.",
            {"question": "What was that?"},
            Question("What was that?", ABC),
        ),
        (
            "This video's subtitles are listed below: \nHello there.\nMind the gap.\n"
            "Select the best answer to the following question. Respond with only the letter.\n"
            f"What comes first?\n{LINES}\nThe best answer is:",
            {},
            Question("What comes first?", ABC),
        ),
        ("what is on the table?", {"question": "What is on the table?"}, Question("what is on the table?", ())),
        (
            "Describe it.\nWhat is it?",
            {"question": ["a list"], "options": "['one', 'two']"},
            Question("Describe it. What is it?", ("one", "two")),
        ),
        ("Why?\nA", {"question": "Why?", "options": "first\nsecond"}, Question("Why?", ("first", "second"))),
        ("<image>\n", {}, None),
        ("\n \n", {"question": " "}, None),
        ("?!", {}, None),
        (" \nAnswer the question using a single word or phrase.", {"question": " "}, None),
        (f"Select the best answer.\n\n{LINES}\nThe best answer is:", {"question": ""}, None),
        ("Choose the option that fits.", {}, Question("Choose the option that fits.", ())),
        (
            f"why did it stop\n{LINES}\nAnswer with the option's letter from the given choices directly.",
            {"question": "why did it stop", "a0": "a red car", "a1": "a blue car", "a2": "a bicycle"},
            Question("why did it stop", ABC),
        ),
    ],
)
def test_question_options_and_nothing_else(context, doc, expected):
    assert question_of(context, doc) == expected


DOCS = {
    "question": "What does the man do after he opens the door?",
    "options": ["A. runs", "B. sits"],
    "candidates": ["runs", "sits"],
    "option": ["A. runs", "B. sits"],
    "option0": "runs",
    "option1": "sits",
    "option2": "N/A",
    "option3": "N/A",
    "option4": "N/A",
}


@pytest.mark.parametrize(
    ("module", "function", "specific", "options"),
    [
        ("videomme", "videomme_doc_to_text", {"post_prompt": "The best answer is:"}, 2),
        ("mvbench", "mvbench_doc_to_text", {"post_prompt": "Only give the best option.\n"}, 2),
        ("egoschema", "egoschema_doc_to_text", None, 2),
        ("longvideobench", "longvideobench_doc_to_text", {"pre_prompt": "", "post_prompt": "Answer directly.\n"}, 2),
        ("mlvu", "mlvu_doc_to_text", {"post_prompt": "\nOnly give the best option.\nBest option: ("}, 2),
        ("tempcompass", "tempcompass_doc_to_text_yes_no", {"post_prompt": {"yes_no": "\nAnswer yes or no:"}}, 2),
        ("activitynetqa", "activitynetqa_doc_to_text", {"post_prompt": " Answer using a single word."}, 2),
        ("perceptiontest.val", "perceptiontest_val_doc_to_text", None, 2),
    ],
)
def test_texts_of_the_benchmarks(module, function, specific, options, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    pytest.importorskip("lmms_eval", reason="needs lmms-eval")
    utilities = importlib.import_module(f"lmms_eval.tasks.{module}.utils")
    doc = {**DOCS, "options": ["runs", "sits"]} if module.startswith("perception") else DOCS
    found = question_of(getattr(utilities, function)(doc, specific), doc)
    assert found is not None
    assert found.text.casefold() == DOCS["question"].casefold()
    assert len(found.options) == options
    assert found.options[0] in ("runs", "A. runs")  # the Inductor takes letters off


def test_mvbench_text_without_its_row():
    assert question_of("Question:Which one?\nOption:\n(A) a\n(B) b\nOnly give the best option.\n", {}) == (
        "Which one?",
        ("a", "b"),
    )
