"""Local tasks in lmms-eval's own format over tiny videos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.llava.tiny import write_video

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
POST_PROMPTS = {"default": "Letter only.", "llava_vid": "The best answer is:"}
UTILITIES = """
def doc_to_visual(doc):
    return [doc["video"]]


def doc_to_visual_or_leave(doc):
    import os
    import sys

    if not os.path.exists(doc["video"]):
        sys.exit(f"video path:{doc['video']} does not exist, please check")
    return [doc["video"]]


def choice_text(doc, lmms_eval_specific_kwargs):
    options = "\\n".join(f"{letter}. {text}" for letter, text in zip("ABC", doc["options"]))
    return f"Select the best answer.\\n{doc['question']}\\n{options}\\n{lmms_eval_specific_kwargs['post_prompt']}"


def open_text(doc, lmms_eval_specific_kwargs=None):
    return f"{doc['question']}\\nAnswer the question using a single word or phrase."


def letter(doc):
    return "ABC"[doc["answer"]]


def word(doc):
    return doc["options"][doc["answer"]]


def letter_results(doc, results):
    return {"letter_acc": float(results[0].strip()[:1] == letter(doc))}


def likelihood_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""
COMMON = """dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
doc_to_visual: !function tiny_utils.doc_to_visual
"""
GENERATION = """output_type: generate_until
generation_kwargs:
  max_new_tokens: 6
  temperature: 0
  do_sample: false
"""
TASKS = {
    "tiny_choice": GENERATION
    + """doc_to_text: !function tiny_utils.choice_text
doc_to_target: !function tiny_utils.letter
process_results: !function tiny_utils.letter_results
metric_list:
  - metric: letter_acc
    aggregation: mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    post_prompt: "Letter only."
  llava_vid:
    post_prompt: "The best answer is:"
""",
    "tiny_open": GENERATION
    + """doc_to_text: !function tiny_utils.open_text
doc_to_target: !function tiny_utils.word
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
""",
    "tiny_likelihood": """output_type: multiple_choice
doc_to_text: !function tiny_utils.likelihood_text
doc_to_target: answer
doc_to_choice: "{{options}}"
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
}


@dataclass(frozen=True)
class Tasks:
    """A folder for ``--include_path``, and the rows of its tasks."""

    folder: Path
    rows: list[dict[str, Any]]


def write_rows(folder: Path) -> list[dict[str, Any]]:
    """A question about each of three videos of different lengths, and one about a folder of frames."""
    import av

    rows: list[dict[str, Any]] = []
    options = list(COLOURS)
    questions = [
        "What colour is the square?",
        "What does the square do after it starts?",
        "How many squares are there?",
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        video = write_video(folder / f"{name}.mp4", colour=colour, frames=24 * (number + 1))
        rows.append({"question": questions[number], "options": options, "answer": number, "video": str(video)})
    frames = folder / "frames"
    frames.mkdir()
    with av.open(rows[0]["video"]) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number < 12:
                frame.to_image().save(frames / f"{number + 1}.png")  # 10 comes after 9 in natural order alone
    rows.append({"question": "Which colour moves?", "options": options, "answer": 0, "video": str(frames)})
    return rows


def write_tasks(folder: Path, rows: list[dict[str, Any]], **changes: str) -> Tasks:
    """The three tasks over ``rows``; ``changes`` replace text in their YAML files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny_utils.py").write_text(UTILITIES)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        text = f"task: {name}\n" + COMMON.replace("{rows}", str(file)) + body
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / f"{name}.yaml").write_text(text)
    return Tasks(folder, rows)
