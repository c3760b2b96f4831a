"""Questions about a clip with known answers: all eight task types, four options, none told by the words alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tam_plugin.deciding.instruction import option_lines
from tam_plugin.eval.taskworld.sprites import CAUSES, COLOR_NAMES, DIGITS, FEELINGS, SCENE_NAMES, WEATHERS
from tam_plugin.eval.taskworld.world import FLASH_COLORS, GRID, Clip
from tam_plugin.files import read_yaml
from tam_plugin.taxonomy import TaskType

SPLITS = ("train", "test")
DOOR = ("stays closed", "closes", "opens", "stays open")
FLAG = ("stays down", "comes down", "goes up", "stays up")
BALL = ("rolls left", "rolls right", "stays still", "vanishes")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("1", "2", "3", "4")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a clip.

    Attributes:
        kind: a name in ``phrases.yaml``.
        task: the task type that it was made as; what the Inductor says may differ.
        subject: what the answer is about, in the fewest words; the model says it before the answer, so that the word
            to look for stands right before what is to be said of it.
        text: the user's words.
        options: four answers, the right one among them, shuffled.
        answer: the right one.
    """

    kind: str
    task: TaskType
    subject: str
    text: str
    options: tuple[str, ...]
    answer: str

    @property
    def statement(self) -> str:
        """What the model is to say: `` color circle red``."""
        return f" {self.subject} {self.answer}"


def with_options(question: Question) -> Question:
    """The question with its options behind it, as ``compose_question`` shows them to a model."""
    return dataclasses.replace(question, text="\n".join([question.text, *option_lines(question.options)]))


@functools.cache
def phrases() -> dict[str, dict]:
    """``phrases.yaml``: task, subject and wordings by kind."""
    return read_yaml(Path(__file__).with_name("phrases.yaml"), what="TaskWorld's phrases")


def ask(clip: Clip, rng: np.random.Generator, split: str = "train") -> list[Question]:
    """Every question that the clip has a known answer to, each worded once, in a random order."""
    found = []
    for kind, slots, answer, others in _facts(clip, rng):
        entry = phrases()[kind]
        wording = entry[split][int(rng.integers(len(entry[split])))]
        wrong = [others[i] for i in rng.permutation(len(others))[:3]]
        unshuffled = [answer, *wrong]
        found.append(
            Question(
                kind=kind,
                task=TaskType(entry["task"]),
                subject=entry["subject"].format(**slots),
                text=wording.format(**slots),
                options=tuple(unshuffled[i] for i in rng.permutation(4)),
                answer=answer,
            )
        )
    return [found[i] for i in rng.permutation(len(found))]


def _facts(clip: Clip, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, str], str, list[str]]]:
    """Kind, slots, answer, and the wrong answers to choose three from."""
    f = clip.facts

    def closed(kind: str, answer: str, answers, **slots: str):
        return kind, slots, answer, [a for a in answers if a != answer]

    for shape, color in f["shapes"].items():
        yield closed("shape color", color, COLOR_NAMES, shape=shape)
    color, count = f["count"]
    yield closed("color count", str(count), NUMBERS, color=color)
    yield closed("door", DOOR[_change(f["door"])], DOOR)
    yield closed("flag", FLAG[_change(f["flag"])], FLAG)
    yield closed("ball", BALL[f["ball"]], BALL)
    for hair, feeling in f["feelings"].items():
        yield closed("feeling", feeling, FEELINGS, color=hair)
    yield closed("flash count", str(f["flashes"]), NUMBERS)
    yield closed("first flash", f["flash_colors"][0], FLASH_COLORS)
    yield closed("last flash", f["flash_colors"][-1], FLASH_COLORS)
    for mat, corner in f["corners"].items():
        yield closed("mat corner", CORNERS[corner], CORNERS, color=mat)
    for thing, (row, column) in f["places"].items():
        if row != 4:  # the middle row is neither top nor bottom
            corner = 2 * (row > 4) + (column >= GRID // 2)
            yield closed("place", CORNERS[corner], CORNERS, thing=thing)
    for name, answers in (("scene", SCENE_NAMES), ("weather", WEATHERS)):
        yield closed(f"main {name}", f[name], answers)
    for mover in ("car", "robot"):
        yield closed(f"{mover} stop", f[mover], CAUSES)
    for nth, digit in zip(ORDINALS, f["digits"], strict=True):
        yield closed("digit", digit, DIGITS, nth=nth)


def _change(states: tuple[int, int]) -> int:
    """0 stays shut, 1 shuts, 2 opens, 3 stays open, for the states (first, last), of which 0 is open."""
    first, last = (state == 0 for state in states)
    return (0, 2, 1, 3)[2 * first + last]
