"""A clip in short statements, the language model's first lesson: each names a thing, and what it is like is learned.

As captions come before questions in LLaVA's recipe: the word to look for stands right before what is to be said of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tam_plugin.eval.taskworld.batches import encode
from tam_plugin.eval.taskworld.questions import Question
from tam_plugin.patches.onevision.inputs import IGNORE_INDEX

SUBJECTS = {
    "shape color": " color {shape}",
    "color count": " count {color}",
    "door": " door",
    "flag": " flag",
    "ball": " ball",
    "feeling": " hair {color}",
    "flash count": " flashes",
    "first flash": " flash first",
    "last flash": " flash last",
    "mat corner": " mat {color}",
    "place": " position {thing}",
    "main scene": " scene",
    "main weather": " weather",
    "car stop": " car",
    "robot stop": " robot",
    "digit": " digit {nth}",
}
"""What is said of each kind of question before its answer."""


def stated(questions: Sequence[Question], visual: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels of one turn that states every question's answer; subjects are not learned."""
    ids = encode("<|im_start|>user ") + visual + encode("\n") + encode("<|im_end|><|im_start|>assistant\n")
    labels = [IGNORE_INDEX] * len(ids)
    for question in questions:
        subject = encode(SUBJECTS[question.kind].format(**question.slots))
        answer = encode(" " + question.answer)
        ids += subject + answer
        labels += [IGNORE_INDEX] * len(subject) + answer
    return ids, labels
