"""Training samples that could not be read: named, counted over all workers and ranks, and bounded."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tam_plugin.errors import InputError, one_line
from tam_plugin.plans.bad_rows import describe_rule, too_many
from tam_plugin.storage import Journal, read_journal

FILE_NAME = "bad_samples.jsonl"
LISTED = 20
"""Samples that the error names; all of them are in the file."""


class TooManyBadSamplesError(InputError):
    """More samples of a training set are unreadable than were allowed; the message lists them."""


class BadSamples:
    """Keeps the list of unreadable samples.

    The list is a file that processes append to, so that one limit holds for the workers of all ranks that share a
    file system; without one, for this process.

    Args:
        total: samples in the set.
        max_share: share of them that may be unreadable, by the rule of :func:`~tam_plugin.plans.bad_rows.too_many`.
        path: the file; None keeps the list in memory.
    """

    def __init__(self, total: int, max_share: float, path: str | os.PathLike[str] | None = None) -> None:
        self.total, self.max_share = total, max_share
        self.path = None if path is None else Path(path)
        self._seen: dict[int, dict[str, object]] = {}
        self._damaged: set[int] = set()

    def start(self) -> None:
        """Forget what an earlier run left in the file; one process calls this before training."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)

    def add(self, index: int, name: str, reason: str) -> None:
        """Count a sample, and say once what is wrong with it.

        Args:
            index: its place in the set.
            name: file, or what else tells the user which sample it is.
            reason: one line.

        Raises:
            TooManyBadSamplesError: this was one too many.
        """
        if index not in self._seen:
            entry: dict[str, object] = {"index": index, "name": name, "reason": reason}
            self._seen[index] = entry
            self._append(entry)
            print(one_line(f"tam: sample {index} is left out: {name}: {reason}"), file=sys.stderr, flush=True)
        found = self.found()
        if too_many(len(found), self.total, self.max_share):
            raise TooManyBadSamplesError(self._message(found))

    def damaged(self, index: int, name: str, frames: Sequence[int]) -> None:
        """Note a video that is used although some of the requested frames are damaged: it is listed, and not counted.

        Args:
            index: the sample's place in the set.
            name: the video.
            frames: the damaged frames, by their places in the video.
        """
        if index in self._damaged:
            return
        self._damaged.add(index)
        self._append({"index": index, "name": name, "damaged_frames": list(frames)})
        named = ", ".join(map(str, frames[:8])) + (", ..." if len(frames) > 8 else "")
        damaged = f"{len(frames)} of the requested frames are damaged ({named})"
        message = f"tam: sample {index}: {name}: {damaged}; the sample is used"
        print(one_line(message), file=sys.stderr, flush=True)

    def _append(self, entry: dict[str, object]) -> None:
        if self.path is not None:
            with Journal(self.path, wait=True) as journal:
                journal.append(entry)

    def found(self) -> dict[int, dict[str, object]]:
        """Every bad sample that is known, by its index."""
        found = dict(self._seen)
        if self.path is not None and self.path.exists():
            for line in read_journal(self.path):
                if "reason" in line.record:
                    found.setdefault(line.record["index"], line.record)
        return found

    def _message(self, found: dict[int, dict[str, object]]) -> str:
        listed = "; ".join(f"{e['index']}: {e['name']}: {e['reason']}" for _, e in sorted(found.items())[:LISTED])
        more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
        where = f" (listed in {self.path})" if self.path is not None else ""
        return (
            f"{len(found)} of {self.total} training samples cannot be used, --tam_max_bad_samples "
            f"{describe_rule(self.max_share)}{where}: {listed}{more}"
        )
