"""``tam plan-data``: the Inductor and the policy over a whole training set, in chunks that survive a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tam_plugin
from tam_plugin.budget import BudgetPolicy
from tam_plugin.errors import InputError
from tam_plugin.inductor.data.records import replaced_file
from tam_plugin.training import journal, report
from tam_plugin.training.chunks import CollisionError, Planner, merged
from tam_plugin.training.fingerprints import data_file, inductor_fingerprint, values_sha256
from tam_plugin.training.layout import Layout, policy_values, token_layout
from tam_plugin.training.probing import Prober
from tam_plugin.training.rows import Row, Sample, data_files, raw_rows, samples
from tam_plugin.training.table import FORMAT, HEADER_FILE, TABLE_FILE, read_header, table_bytes

CHUNK_ROWS = 1024
BATCH_SIZE = 16
"""Questions a forward pass: what passes through the layers then stays in a core's cache."""
IMAGE_FPS = 2.0
"""Frames per second of a video that is a folder of images."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to plan, and for which model.

    Attributes:
        data: a YAML list, a file, or a brace pattern.
        out: folder for the plans.
        policy: the budget policy, in no host's layout yet.
        layout: the model's.
        inductor: name or path, None for the embedded one.
        video_folder: what the videos' paths are relative to; None opens no video.
        image_fps: frames per second of a folder of images.
        workers: processes that open videos.
        batch_size: questions a forward pass.
    """

    data: str
    out: str
    policy: BudgetPolicy
    layout: Layout = dataclasses.field(default_factory=Layout)
    inductor: str | None = None
    video_folder: str | None = None
    image_fps: float = IMAGE_FPS
    workers: int = 1
    batch_size: int = BATCH_SIZE


def make_plans(request: Request) -> dict[str, Any]:
    """Plan every row about a video, and write ``plans.safetensors`` and ``plans.json`` into the folder.

    Chunks are appended to a journal, so a run that was killed goes on where it was, with the same result; plans that
    are finished already are only reported.

    Returns:
        The content of ``plans.json``.

    Raises:
        InputError: data, folder or Inductor cannot be used; the message names file and row.
        ConfigError: policy and layout do not go together.
    """
    _check(request)
    policy = request.layout.policy(request.policy)
    files = data_files(request.data)
    journal.check_folder(request.out)
    source = _source(request, policy, files)
    header = Path(request.out) / HEADER_FILE
    if header.exists():
        finished = read_header(request.out)
        journal.refuse_other(request.out, finished, source, state="finished plans")
        (Path(request.out) / journal.JOURNAL_FILE).unlink(missing_ok=True)
        return finished
    with journal.opened(request.out, source) as done:
        extensions = _plan(request, policy, files, done)
        content = source | _written(request.out, done, policy, files, extensions)
        with replaced_file(header) as file:
            file.write(json.dumps(content, indent=1) + "\n")
        (Path(request.out) / journal.JOURNAL_FILE).unlink()
    return content


def _check(request: Request) -> None:
    for name in ("workers", "batch_size"):
        if getattr(request, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(request, name)}: expected a whole number >= 1")
    if request.video_folder is not None and not os.path.isdir(request.video_folder):
        raise InputError(f"--video-folder {request.video_folder!r}: there is no such folder")


def _source(request: Request, policy: BudgetPolicy, files: Sequence[str]) -> dict[str, Any]:
    """What the plans are made from: equal for equal plans."""
    values = policy_values(policy)
    return {
        "format": FORMAT,
        "tam_plugin": tam_plugin.__version__,
        "data": [data_file(path) for path in files],
        "video_folder": request.video_folder and os.path.abspath(request.video_folder),
        "image_fps": request.image_fps,
        "inductor": inductor_fingerprint(request.inductor),
        "layout": token_layout(policy) | {"max_context_tokens": policy.context.max_context_tokens},
        "policy": values,
        "policy_sha256": values_sha256(values),
        "batch_size": request.batch_size,
    }


def _plan(request: Request, policy: BudgetPolicy, files: Sequence[str], done: journal.Journal) -> list[dict[str, Any]]:
    """Plan the rows that the journal does not hold yet; the Inductor's task types beyond the eight."""
    import torch
    from tqdm import tqdm

    from tam_plugin.inductor import Inductor
    from tam_plugin.inductor.parallel import Workers

    inductor = Inductor.from_pretrained(request.inductor)
    prober = None
    if request.video_folder is not None:
        prober = Prober(request.video_folder, request.image_fps, request.workers)
    try:
        with (
            Workers(torch.get_num_threads()) as workers,
            tqdm(disable=None, unit=" rows", desc="plan-data", initial=done.rows) as bar,
        ):
            planner = Planner(inductor, policy, request.batch_size, workers)
            for rows, found in _ahead(_chunks(files, done.rows), prober):
                probes = prober.get([sample.video for sample in found]) if prober else None
                done.add(planner.chunk(rows, found, probes))
                bar.update(rows)
    finally:
        if prober is not None:
            prober.close()
    return [_without_probability(extension) for extension in inductor.extensions]


def _chunks(files: Sequence[str], start: int) -> Iterator[tuple[int, list[Sample]]]:
    """Number of rows and samples of each chunk, from row ``start`` on."""
    rows = itertools.islice(enumerate(raw_rows(files)), start, None)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield len(chunk), list(samples(chunk))


def _ahead(chunks: Iterator[tuple[int, list[Sample]]], prober: Prober | None) -> Iterator[tuple[int, list[Sample]]]:
    """The chunks, the next one's videos being opened while one is classified."""
    waiting: list[tuple[int, list[Sample]]] = []
    for chunk in chunks:
        if prober is not None:
            prober.start(sample.video for sample in chunk[1])
        if waiting:
            yield waiting.pop()
        waiting.append(chunk)
    yield from waiting


def _written(
    out: str, done: journal.Journal, policy: BudgetPolicy, files: Sequence[str], extensions: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write the table; what the header says of it."""
    try:
        plans, deferred = merged(done.chunks)
    except CollisionError as error:
        first, second = (_row_at(files, place).where for place in error.rows)
        raise InputError(f"{first} and {second} {error}") from error
    if not len(plans):
        raise InputError(f"{', '.join(map(repr, files[:3]))}: {done.rows} rows, none about a video; nothing to plan")
    content = table_bytes(plans, deferred, with_extensions=bool(extensions))
    with replaced_file(Path(out) / TABLE_FILE, binary=True) as file:
        file.write(content)
    return {
        "extensions": extensions,
        "table_bytes": len(content),
        "table_sha256": hashlib.sha256(content).hexdigest(),
        "counts": report.summary(done.chunks, policy, len(plans)),
    }


def _row_at(files: Sequence[str], place: int) -> Row:
    return next(itertools.islice(raw_rows(files), place, None))


def _without_probability(extension: Any) -> dict[str, Any]:
    values = dataclasses.asdict(extension)
    del values["probability"]
    return values
