"""A further task type for an Inductor, by LoRA on it alone, from a definition and some hundred samples (Tab. 12).

The new type's samples are learned beside a replay of the old types' rows. The result is an ordinary checkpoint of the
base's kind whose ``tam_extensions`` say what the type is and how the budget policy is to treat it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError, TamNotice, require
from tam_plugin.inductor.finetuning import folder
from tam_plugin.inductor.finetuning.definition import check_new
from tam_plugin.inductor.finetuning.lora import LoraOptions, all_logits, device, teach
from tam_plugin.inductor.finetuning.rows import TASK_LABELS, Row, check_ids, cut_ids, read_rows, split_rows
from tam_plugin.inductor.finetuning.students import EMBEDDED, load_student
from tam_plugin.inductor.labels import EXTENSIONS_FIELD
from tam_plugin.inductor.model import Inductor
from tam_plugin.storage import part_folder
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskExtension


def extend(
    base: str,
    extension: TaskExtension,
    data: Sequence[str],
    out: str | Path,
    *,
    replay: Sequence[str] = (),
    evaluation: Sequence[str] = (),
    options: LoraOptions | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], str | None]:
    """Teach a task type and write the extended Inductor.

    Args:
        base: an Inductor's folder or hub name, or ``embedded``.
        extension: the task type.
        data: JSON-lines files of its samples; rows of old labels in them count as replay.
        out: folder to write.
        replay: files of rows of the labels that the base has.
        evaluation: files on which the base and the result are compared.
        options: settings of the training.
        overwrite: whether a finished Inductor in ``out`` may be replaced.

    Returns:
        Figures (rows, steps, held-out recall of the new type, held-out accuracy of the old ones before and after,
        temperature, seconds), and a Markdown table when there is something to compare on.

    Raises:
        TamError: base, definition, data or ``out`` cannot be used; nothing is written then.
    """
    started = time.monotonic()
    options, out = options or LoraOptions(), Path(out)
    require("peft", needed_for="extending an Inductor", extra="train")
    folder.check_free(out, overwrite=overwrite)
    device(options.device)
    if base != EMBEDDED and out.exists() and out.resolve() == Path(base).expanduser().resolve():
        raise InputError(f"--out {str(out)!r} is the base itself; give another folder")
    before = Inductor.from_pretrained(None if base == EMBEDDED else base)
    old_labels = (*TASK_LABELS, *before.extra_labels)
    check_new(extension.label, old_labels)
    labels = (*old_labels, extension.label)
    rows = _rows(data, replay, labels)
    judged = read_rows(evaluation, labels) if evaluation else []
    train_rows, held = split_rows(rows, options.held_out, options.seed)
    student = load_student(base, before, extension.label)
    steps = teach(student, train_rows, _ids(before, train_rows, min(options.max_tokens, student.max_tokens)), options)
    temperature = _temperature(student, before, held)
    entries = [_entry(known) for known in (*before.extensions, extension)]
    staging = part_folder(out)
    student.save(
        staging,
        {
            "tam_temperature": temperature,
            "tam_use_options": before.use_options,
            "tam_use_duration": before.use_duration,
            EXTENSIONS_FIELD: entries,
        },
    )
    after = Inductor.from_pretrained(staging)
    new = len(labels)
    found = {
        "label": extension.label,
        "rows": len(train_rows),
        "new_rows": sum(row.label == new for row in train_rows),
        "held_out_rows": len(held),
        "steps": steps,
        "temperature": temperature,
        **_figures(before, after, held, new),
        "seconds": round(time.monotonic() - started, 1),
    }
    table = compare(before, after, judged, labels) if judged else None
    folder.publish(staging, out)
    return found, table


def predictions(inductor: Inductor, rows: Sequence[Row]) -> list[int]:
    """The label of each row by an Inductor: a task type's number, or that of the extension it found."""
    numbers = {label: number for number, label in enumerate((*TASK_LABELS, *inductor.extra_labels), 1)}
    found = inductor.classify_batch(
        [row.question for row in rows], [row.duration_s for row in rows], [row.options for row in rows]
    )
    return [numbers[f.extension.label] if f.extension else f.task.index for f in found]


def compare(before: Inductor, after: Inductor, rows: Sequence[Row], labels: Sequence[str]) -> str:
    """A Markdown table of the old types' accuracy and every type's recall before and after; the last label is new.

    After, a question of an old type that goes to the new one is wrong.
    """
    old, new = predictions(before, rows), predictions(after, rows)
    last = len(labels)

    def line(name: str, chosen: Sequence[int]) -> str:
        was, now = (_percent(sum(p[i] == rows[i].label for i in chosen), len(chosen)) for p in (old, new))
        return f"| {name} | {len(chosen)} | {'–' if chosen and rows[chosen[0]].label == last else was} | {now} |"

    members = {n: [i for i, row in enumerate(rows) if row.label == n] for n in range(1, last + 1)}
    others = [i for i, row in enumerate(rows) if row.label <= NUM_TASK_TYPES]
    taken = sum(new[i] == last for i in others)
    lines = ["| | rows | before | after |", "|---|---|---|---|", line("the eight task types, accuracy", others)]
    lines += [line(f"{labels[n - 1]}, recall", chosen) for n, chosen in members.items() if chosen or n == last]
    lines.append(f"| the eight, taken for {labels[-1]} | {len(others)} | – | {_percent(taken, len(others))} |")
    return "\n".join(lines)


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "–"


def _rows(data: Sequence[str], replay: Sequence[str], labels: Sequence[str]) -> list[Row]:
    """Samples and replay, checked."""
    rows = read_rows(data, labels)
    new = len(labels)
    if not any(row.label == new for row in rows):
        files = ", ".join(data)
        raise InputError(f"{files}: no sample of the new type; expected rows with label {labels[-1]!r} or {new}")
    if replay:
        rows += read_rows(replay, labels[:-1])
        check_ids(rows)
    if all(row.label == new for row in rows):
        warnings.warn(
            "without --replay nothing reminds the Inductor of the old task types: it will take their questions for the "
            f"new one; give rows of labels 1-{new - 1}",
            TamNotice,
            stacklevel=3,
        )
    return rows


def _ids(inductor: Inductor, rows: Sequence[Row], most: int) -> list[list[int]]:
    """Token ids of the rows' input texts, as the base reads them."""
    flags = {"use_options": inductor.use_options, "use_duration": inductor.use_duration}
    return cut_ids(inductor.token_ids([row.text(**flags) for row in rows]), most)


def _temperature(student: Any, before: Inductor, held: Sequence[Row]) -> float:
    """The temperature that held-out rows ask for, and never a sharper one than the base's: they are few, and easy."""
    import torch

    from tam_plugin.inductor.fitting import fit_temperature

    if not held:
        return before.temperature
    logits = all_logits(student, _ids(before, held, student.max_tokens))
    return max(before.temperature, round(fit_temperature(logits, torch.tensor([row.label - 1 for row in held])), 4))


def _figures(before: Inductor, after: Inductor, held: Sequence[Row], new: int) -> dict[str, float | None]:
    """Held-out recall of the new label, and accuracy of the rows of old labels before and after."""
    fresh, rest = [r for r in held if r.label == new], [r for r in held if r.label != new]

    def share(inductor: Inductor, rows: Sequence[Row]) -> float | None:
        right = [p == row.label for p, row in zip(predictions(inductor, rows), rows, strict=True)]
        return sum(right) / len(right) if right else None

    return {
        "new_recall": share(after, fresh),
        "old_accuracy_before": share(before, rest),
        "old_accuracy_after": share(after, rest),
    }


def _entry(extension: TaskExtension) -> dict[str, Any]:
    own = {"group": extension.group} if extension.rule is None else {"rule": dict(extension.rule)}
    return {"label": extension.label, "description": extension.description, **own}
