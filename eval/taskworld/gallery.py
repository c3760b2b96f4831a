"""Pictures of the world for its documentation: clips with what is asked about them.

python -m tam_plugin.eval.taskworld.gallery --out docs/taskworld
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tam_plugin.eval.taskworld.questions import Question, ask
from tam_plugin.eval.taskworld.render import draw, ticks_at
from tam_plugin.eval.taskworld.world import Clip, draw_clip

CLIPS = ((401, 6.0), (402, 35.0), (403, 210.0))
"""Seeds and durations of the clips that are shown; no split holds them."""
FRAMES = 6
SIDE = 216
LINE = 20


def picture(clip: Clip, questions: Sequence[Question]) -> Image.Image:
    """Six frames of a clip with their times, and questions with their answers below."""
    ticks = ticks_at(clip, FRAMES)
    frames = draw(clip, ticks)
    font = ImageFont.load_default(15)
    out = Image.new("RGB", (FRAMES * (SIDE + 6) - 6, SIDE + LINE * (len(questions) + 2)), "white")
    pen = ImageDraw.Draw(out)
    for i, frame in enumerate(frames):
        left = i * (SIDE + 6)
        out.paste(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, 0))
        time_s = clip.duration_s * float(ticks[i]) / clip.num_ticks
        pen.text((left + 2, SIDE + 2), f"{time_s:.1f} s", "black", font)
    for i, question in enumerate(questions):
        line = f"{question.task.index} {question.task.label}: {question.text} {question.answer}"
        pen.text((2, SIDE + LINE * (i + 1) + 8), line, "black", font)
    return out


def main() -> None:
    """Write one PNG a clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed, duration_s in CLIPS:
        clip = draw_clip(seed, duration_s)
        asked = ask(clip, np.random.default_rng(seed), "test")
        one_a_task = {question.task: question for question in reversed(asked)}
        chosen = [one_a_task[task] for task in sorted(one_a_task, key=lambda task: task.index)]
        picture(clip, chosen).quantize(64).save(args.out / f"clip_{duration_s:.0f}s.png", optimize=True)


if __name__ == "__main__":
    main()
