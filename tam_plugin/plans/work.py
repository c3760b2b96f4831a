"""One run of ``tam plan-data``: planning the remaining chunks and writing the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.budget import Policy
from tam_plugin.errors import InputError
from tam_plugin.plans import bad_rows, journal
from tam_plugin.plans import summary as report
from tam_plugin.plans.chunks import CollisionError, Merged, Planner, merged
from tam_plugin.plans.probing import Prober
from tam_plugin.plans.request import Request
from tam_plugin.plans.rows import Row, Sample, numbered_chunks, raw_rows, samples
from tam_plugin.plans.table import DEFERRED, HEADER_FILE, PLAN, TABLE_FILE, table_bytes
from tam_plugin.storage import replace_file

if TYPE_CHECKING:
    from tam_plugin.taxonomy import TaskExtension


class Work:
    """One run of a request: what is left to do, and the result.

    Args:
        request: what to plan.
        policy: in the host's layout.
        files: the data.
        done: the journal of the shards that this run holds.
        stack: closes what is opened on the way.
        max_bad: the share of bad rows that training will allow.
        chunk_rows: rows of a chunk.

    Attributes:
        changed: whether chunks were planned.
    """

    def __init__(
        self,
        request: Request,
        policy: Policy,
        files: Sequence[str],
        done: journal.ChunkJournal,
        stack: ExitStack,
        *,
        max_bad: float,
        chunk_rows: int,
    ) -> None:
        self._request, self._policy, self._files, self._done = request, policy, files, done
        self._stack, self._max_bad, self._chunk_rows = stack, max_bad, chunk_rows
        self._rows = sum(1 for _ in raw_rows(files))  # files that are no JSON are refused before anything long
        self._made: Planner | None = None
        self._prober: Prober | None = None
        if request.video_folder is not None:
            self._prober = Prober(request.video_folder, request.image_fps, request.workers)
            stack.callback(self._prober.close)
        self.changed = False
        self._noted = False

    def plan(self) -> None:
        """Plan the chunks that the journal does not hold yet, and those with a video that can be read by now.

        Raises:
            InputError: this run joins shards, and one is not finished.
        """
        from tqdm import tqdm

        done, shards = self._done, self._done.shards
        mine = [n for n in range(-(-self._rows // self._chunk_rows)) if any(shard.holds(n) for shard in shards)]
        missing = [number for number in mine if number not in done.numbers]
        if missing and len(shards) > 1:
            self._refuse_join(missing)
        wanted = {*missing, *self._readable_by_now()}
        sizes = {n: min(self._chunk_rows, self._rows - n * self._chunk_rows) for n in mine}
        finished = sum(size for number, size in sizes.items() if number not in wanted)
        bad = 0
        with tqdm(disable=None, unit=" rows", desc="plan-data", initial=finished, total=sum(sizes.values())) as bar:
            for number, size, found, rejected in self._ahead(wanted):
                probes = self._prober.get([sample.video for sample in found]) if self._prober else None
                chunk = self._planner.chunk(size, found, probes, rejected)
                done.add(number, chunk)
                self.changed = True
                bad += len(chunk.bad)
                self._note(bad)
                bar.update(size)

    def _refuse_join(self, missing: Sequence[int]) -> None:
        lacking = [shard for shard in self._done.shards if any(shard.holds(number) for number in missing)]
        names = ", ".join(f"--shard {shard}" for shard in lacking[:8]) + (", …" if len(lacking) > 8 else "")
        raise InputError(
            f"{len(lacking)} of {len(self._done.shards)} shards in {self._request.out!r} are missing or unfinished: "
            f"run the same command with {names} (or delete the plans.journal files there to plan in one run)"
        )

    def _readable_by_now(self) -> list[int]:
        """Chunks of earlier runs with a video that could not be read then and can be read now."""
        if self._prober is None or self._request.shard:
            return []
        found = []
        for number in self._done.with_unreadable:
            videos = list(self._done.chunk(number).unreadable)
            if any(probe.error is None for probe in self._prober.get(videos)):
                found.append(number)
        return found

    def _ahead(self, wanted: set[int]) -> Iterator[tuple[int, int, list[Sample], list[bad_rows.BadRow]]]:
        """Number, rows, samples and bad rows of the chunks, the next one's videos opened while one is classified."""
        waiting: list[tuple[int, int, list[Sample], list[bad_rows.BadRow]]] = []
        for number, rows in numbered_chunks(self._files, self._chunk_rows) if wanted else ():
            if number not in wanted:
                continue
            found, rejected = samples(rows)
            if self._prober is not None:
                self._prober.start(sample.video for sample in found)
            if waiting:
                yield waiting.pop()
            waiting.append((number, len(rows), found, rejected))
        yield from waiting

    def _note(self, bad: int) -> None:
        """Say once, as soon as it is known, that training would stop."""
        if not self._noted and bad_rows.too_many(bad, self._rows, self._max_bad):
            self._noted = True
            print(
                f"tam: note: {bad} rows that training cannot use so far, more than --max-bad {self._max_bad:g} allows; "
                "planning continues, so that all of them are listed",
                file=sys.stderr,
                flush=True,
            )

    @property
    def _planner(self) -> Planner:
        if self._made is None:
            import torch

            from tam_plugin.inductor import Inductor
            from tam_plugin.inductor.parallel import Workers

            inductor = Inductor.from_pretrained(self._request.inductor)
            workers = self._stack.enter_context(Workers(torch.get_num_threads()))
            self._made = Planner(inductor, self._policy, self._request.batch_size, workers)
        return self._made

    def _extensions(self) -> Sequence[TaskExtension]:
        return self._planner.extensions

    def counts(self, samples: int | None = None) -> dict[str, Any]:
        """The summary of the finished chunks (:func:`~tam_plugin.plans.summary.summary`).

        Args:
            samples: distinct samples among the rows; None where that is not known yet.
        """
        return report.summary(self._done.chunks(), self._policy, samples, self._extensions)

    def write(self, source: dict[str, Any]) -> dict[str, Any]:
        """Write table, list of bad rows and header; the header's content."""
        out = Path(self._request.out)
        journal.remove_leftovers(out)
        (out / HEADER_FILE).unlink(missing_ok=True)  # while table and header do not belong together
        result = self._merged()
        counts = self.counts(len(result.plans))
        counts["contradictory_durations"] = len(result.contradictory)
        self._write_list(out / bad_rows.FILE_NAME, source, counts)
        if not len(result.plans):
            if counts["bad_rows"]["all"]:
                return {"counts": counts}
            files = ", ".join(map(repr, self._files[:3]))
            raise InputError(f"{files}: {self._rows} rows, none about a video; nothing to plan")
        keys = [row.key for chunk in self._done.chunks() for row in chunk.bad if row.key is not None]
        extensions = [dataclasses.asdict(extension) for extension in self._extensions()]
        content = table_bytes(
            result.plans, result.deferred, np.unique(np.array(keys, np.uint64)), with_extensions=bool(extensions)
        )
        with replace_file(out / TABLE_FILE, binary=True) as file:
            file.write(content)
        header = source | {
            "extensions": extensions,
            "table_bytes": len(content),
            "table_sha256": hashlib.sha256(content).hexdigest(),
            "counts": counts,
        }
        with replace_file(out / HEADER_FILE) as file:
            file.write(json.dumps(header, indent=1) + "\n")
        return header

    def _merged(self) -> Merged:
        """All chunks in order; a sample whose rows give different durations is planned without one."""
        tables = [(chunk.plans, chunk.deferred) for chunk in self._done.chunks()]
        plans = np.concatenate([table[0] for table in tables] or [np.empty(0, PLAN)])
        deferred = np.concatenate([table[1] for table in tables] or [np.empty(0, DEFERRED)])
        del tables
        try:
            result = merged(plans, deferred)
        except CollisionError as error:
            first, second = (row.where for row in self._rows_at(error.rows))
            raise InputError(f"{first} and {second} {error}") from error
        if not result.contradictory:
            return result
        found, _ = samples(zip(result.contradictory, self._rows_at(result.contradictory), strict=True))
        anew = self._planner.chunk(0, [sample._replace(duration_s=None) for sample in found], None)
        others = ~np.isin(plans["key"], anew.plans["key"])
        again = merged(np.concatenate([plans[others], anew.plans]), np.concatenate([deferred, anew.deferred]))
        return again._replace(contradictory=result.contradictory)

    def _rows_at(self, places: Sequence[int]) -> list[Row]:
        wanted = set(places)
        found = {place: row for place, row in enumerate(raw_rows(self._files)) if place in wanted}
        return [found[place] for place in places]

    def _write_list(self, path: Path, source: dict[str, Any], counts: dict[str, Any]) -> None:
        if not counts["bad_rows"]["all"]:
            path.unlink(missing_ok=True)
            return
        header = {name: source[name] for name in ("tam_plugin", "data", "video_folder")}
        header |= {"rows": counts["rows"], "bad_rows": counts["bad_rows"]["all"]}
        with replace_file(path) as file:
            file.writelines(bad_rows.lines_of(header, (row for chunk in self._done.chunks() for row in chunk.bad)))
