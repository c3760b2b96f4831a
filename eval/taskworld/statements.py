"""A clip in short statements, the language model's first lesson: each names a thing, and what it is like is learned.

As captions come before questions in LLaVA's recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

from tam_plugin.eval.taskworld.batches import encode
from tam_plugin.eval.taskworld.questions import Question
from tam_plugin.patches.onevision.inputs import IGNORE_INDEX


def stated(questions: Sequence[Question], visual: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels of one turn that states every question's answer; subjects are not learned."""
    ids = encode("<|im_start|>user ") + visual + encode("\n") + encode("<|im_end|><|im_start|>assistant\n")
    labels = [IGNORE_INDEX] * len(ids)
    for question in questions:
        subject, answer = encode(f" {question.subject}"), encode(f" {question.answer}")
        ids += subject + answer
        labels += [IGNORE_INDEX] * len(subject) + answer
    return ids, labels
