"""``tam plan-data``: the Inductor and the policy over a whole training set, in chunks that survive a kill.

It is training's preflight too: every video is opened, and the rows that training could not use are listed
(:mod:`tam_plugin.plans.bad_rows`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tam_plugin
from tam_plugin.budget import Policy
from tam_plugin.errors import InputError
from tam_plugin.plans import bad_rows, journal
from tam_plugin.plans.check import layout_values, policy_values
from tam_plugin.plans.journal import WHOLE, Shard
from tam_plugin.plans.request import Request
from tam_plugin.plans.rows import data_files
from tam_plugin.plans.table import FORMAT, HEADER_FILE, read_header
from tam_plugin.plans.work import Work
from tam_plugin.storage import data_file, values_sha256

CHUNK_ROWS = 1024


def make_plans(request: Request, *, max_bad: float = bad_rows.DEFAULT_MAX_SHARE) -> dict[str, Any]:
    """Plan every row about a video; write ``plans.safetensors``, ``plans.json`` and, where needed, ``bad_rows.jsonl``.

    Chunks are appended to a journal, so a run that was killed resumes, with the same result. Where videos could not be
    read, the journal stays beside the finished plans: the same request again opens those videos once more, and plans
    the chunks anew in which one can be read now. Finished plans without such videos are only reported.

    Args:
        request: what to plan.
        max_bad: the share of bad rows that training will allow; only a note during the run depends on it.

    Returns:
        The content of ``plans.json``; of one shard, its ``shard`` and ``counts``. Where no row can be planned, nothing
        is written but the list of bad rows, and ``table_bytes`` is missing.

    Raises:
        InputError: data, folder or Inductor cannot be used; no row is about a video; shards are missing.
        ConfigError: policy and layout do not go together.
    """
    _check(request)
    policy = request.policy.adapted(request.layout)
    files = data_files(request.data)
    journal.check_folder(request.out)
    source = _source(request, policy, files)
    shards = _shards(request)
    finished = _finished(request.out, source)
    if finished is not None and 0 < len(there := journal.shards_in(request.out)) < there[0].total:
        journal.remove(request.out)  # a kill came while they were being removed
    if finished is not None and (request.shard or not journal.shards_in(request.out)):
        return finished
    with journal.opened(request.out, source | {"chunk_rows": CHUNK_ROWS}, shards) as done, ExitStack() as stack:
        work = Work(request, policy, files, done, stack, max_bad=max_bad, chunk_rows=CHUNK_ROWS)
        work.plan()
        if request.shard:
            return {"shard": str(request.shard), "counts": work.counts()}
        content = work.write(source) if finished is None or work.changed else finished
        if not done.with_unreadable and "table_bytes" in content:
            journal.remove(request.out)
    return content


def _shards(request: Request) -> list[Shard]:
    """The shards that this run holds: its own; or all of those that are there, which it joins."""
    there = journal.shards_in(request.out)
    total = there[0].total if there else None
    if request.shard is not None:
        if total not in (None, request.shard.total):
            what = "an undivided run" if total == 1 else f"shards of {total}"
            raise InputError(
                f"--shard {request.shard}: --out {request.out!r} holds {what}; finish that, delete its plans.journal "
                "files, or give another folder"
            )
        return [request.shard]
    if request.join and total in (None, 1):
        raise InputError(f"--join: --out {request.out!r} holds no shards; 'tam plan-data --shard I/N' makes them")
    return [Shard(number, total) for number in range(1, total + 1)] if total else [WHOLE]


def _finished(out: str, source: dict[str, Any]) -> dict[str, Any] | None:
    """The header of plans that are finished already."""
    if not (Path(out) / HEADER_FILE).exists():
        return None
    finished = read_header(out)
    journal.refuse_other(out, finished, source, state="finished plans")
    return finished


def _check(request: Request) -> None:
    for name in ("workers", "batch_size"):
        if getattr(request, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(request, name)}: expected a whole number >= 1")
    if request.video_folder is not None and not os.path.isdir(request.video_folder):
        raise InputError(f"--video-folder {request.video_folder!r}: there is no such folder")


def _source(request: Request, policy: Policy, files: Sequence[str]) -> dict[str, Any]:
    """What the plans are made from: equal for equal plans."""
    from tam_plugin.inductor.stored import inductor_fingerprint

    values = policy_values(policy)
    return {
        "format": FORMAT,
        "tam_plugin": tam_plugin.__version__,
        "data": [data_file(path) for path in files],
        "video_folder": request.video_folder and os.path.abspath(request.video_folder),
        "image_fps": request.image_fps,
        "inductor": inductor_fingerprint(request.inductor),
        "layout": layout_values(policy),
        "policy": values,
        "policy_sha256": values_sha256(values),
        "batch_size": request.batch_size,
    }
