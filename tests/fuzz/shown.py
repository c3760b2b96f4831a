"""What players show of a file: plain sequential decodes, and the comparison of sampled frames with them.

Three decoders are asked, each for every frame in the order in which it puts them out: libav as PyAV brings it, on one
thread and on two, and the ``ffmpeg`` program where it is installed, which is another version. On whole files they
agree. On damaged ones they need not: a frame is what it says if one of them shows it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.films import BITS
from tests.fuzz.harness import Limits, Result, Verdict, in_process, right, wrong

CELLS = (BITS, 8)
"""(columns, rows) that pictures are averaged over before they are compared; the number takes the two upper rows."""

MOST_FRAMES = 400
"""Frames after which a decoder is stopped: more than any film has."""

_NATIVE_DIFFERENCE, _SCALED_DIFFERENCE = 40, 80
"""Largest difference of a cell's average at which two pictures are the same: two conversions to RGB differ by some ten,
scalers in sharp pictures by more, two numbers by about 200."""

_LIMITS = Limits(wall_s=20, cpu_s=40)


@dataclass(frozen=True)
class Shown:
    """Frames in the order in which a decoder puts them out.

    Attributes:
        cells: uint8 ``[n, rows, columns, 3]``, the averages of each picture.
        times_s: float ``[n]``, counted from the first frame; NaN where none is known.
        corrupt: bool ``[n]``, pictures that the decoder marked so.
        first_key: the first keyframe's place: decoders show grey pictures before it, which readers may leave out.
        complete: False where the decoder was stopped or failed before the end.
    """

    cells: np.ndarray
    times_s: np.ndarray
    corrupt: np.ndarray
    first_key: int = 0
    complete: bool = True

    @property
    def numbers(self) -> list[int]:
        """The number in each picture."""
        return [number_of(cells) for cells in self.cells]

    def save(self, path: Path) -> None:
        """Write it to an ``.npz`` file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Shown:
        """What :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


def cells_of(picture: np.ndarray) -> np.ndarray:
    """uint8 ``[rows, columns, 3]``: averages of an RGB picture."""
    return np.asarray(Image.fromarray(picture).resize(CELLS, Image.Resampling.BOX))


def number_of(cells: np.ndarray) -> int:
    """The number that stands in the top quarter of a picture."""
    white = cells[:2].mean(axis=(0, 2)) > 125
    return sum(1 << bit for bit in range(BITS) if white[bit])


def same_picture(first: np.ndarray, second: np.ndarray, most: int = _NATIVE_DIFFERENCE) -> bool:
    """Whether two pictures' averages are those of one picture."""
    return int(np.abs(first.astype(int) - second).max()) <= most


def _most_difference(video: Any) -> int:
    native = video.frames.shape[1:3] == (video.info.height, video.info.width)
    return _NATIVE_DIFFERENCE if native else _SCALED_DIFFERENCE


def write_shown(film: Path, folder: Path, stem: str) -> None:
    """Write what each decoder shows of ``film`` to ``folder / f"{stem}-….npz"``; nothing where a decoder fails."""

    def by_libav() -> None:
        shown_by_libav(film).save(folder / f"{stem}-libav.npz")
        shown_by_libav(film, threads=2).save(folder / f"{stem}-threads.npz")

    def by_program() -> None:
        shown_by_program(film).save(folder / f"{stem}-ffmpeg.npz")

    in_process(by_libav, _LIMITS)
    if program_options():
        in_process(by_program, _LIMITS)


def read_shown(folder: Path, stem: str) -> dict[str, Shown]:
    """What :func:`write_shown` wrote, by decoder."""
    found = {name: folder / f"{stem}-{name}.npz" for name in ("libav", "threads", "ffmpeg")}
    return {name: Shown.load(path) for name, path in found.items() if path.exists()}


def shown_by_libav(film: Path, threads: int = 1) -> Shown:
    """A plain decode by PyAV of the stream that libav takes for the best."""
    import av

    cells: list[np.ndarray] = []
    times: list[float] = []
    corrupt: list[bool] = []
    keys: list[bool] = []
    complete = True
    with av.open(f"file:{film}", metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        for frame in _decoded(container, stream):
            turned = np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame))
            cells.append(cells_of(np.ascontiguousarray(turned)))
            times.append(np.nan if frame.pts is None else float(frame.pts * stream.time_base))
            corrupt.append(bool(frame.is_corrupt))
            keys.append(bool(frame.key_frame))
            if len(cells) == MOST_FRAMES:
                complete = False
                break
    return Shown(
        np.array(cells, np.uint8).reshape(-1, CELLS[1], CELLS[0], 3),
        np.array(times) - (times[0] if times else 0),
        np.array(corrupt, bool),
        keys.index(True) if any(keys) else 0,
        complete,
    )


def _decoded(container: Any, stream: Any) -> Any:
    """Every frame that comes out; a packet that cannot be decoded is passed over, as players do."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            packet = None
        except av.error.FFmpegError:  # the end of what can be read
            packet = None
        with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError):
            yield from stream.codec_context.decode(packet if packet is not None and packet.size else None)
        if packet is None or not packet.size:
            return


def _turns(frame: Any) -> int:
    """Quarter turns counter-clockwise that players give the picture."""
    try:
        return round(frame.rotation / 90) % 4
    except (AttributeError, ValueError):
        return 0


@cache
def program_options() -> tuple[str, ...] | None:
    """How the ``ffmpeg`` program is told to leave frames as they come, by its version; None where it is missing."""
    if not shutil.which("ffmpeg"):
        return None
    told = subprocess.run(["ffmpeg", "-hide_banner", "-h", "long"], capture_output=True, text=True, check=False).stdout
    return ("-fps_mode", "passthrough") if "fps_mode" in told else ("-vsync", "passthrough")


def shown_by_program(film: Path) -> Shown:
    """A plain decode by the ``ffmpeg`` program; it tells no times."""
    width, height = 8 * CELLS[0], 8 * CELLS[1]
    done = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-protocol_whitelist", "file"),
            *("-i", f"file:{film}", *(program_options() or ()), "-frames:v", str(MOST_FRAMES)),
            *("-vf", f"scale={width}:{height}:flags=area", "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_LIMITS.wall_s - 2,
        check=False,
    )
    size = width * height * 3
    whole = len(done.stdout) // size
    pictures = np.frombuffer(done.stdout[: whole * size], np.uint8).reshape(-1, height, width, 3)
    cells = [cells_of(picture) for picture in pictures]
    return Shown(
        np.array(cells, np.uint8).reshape(-1, CELLS[1], CELLS[0], 3),
        np.full(whole, np.nan),
        np.zeros(whole, bool),
        complete=whole < MOST_FRAMES,
    )


def judge_whole(video: Any, num_frames: int, shown: dict[str, Shown]) -> Result:
    """The verdict on ``num_frames`` frames sampled from a whole file: exactly what one of the decoders shows."""
    faults = {name: _fault_of_whole(video, num_frames, each) for name, each in shown.items()}
    if not all(faults.values()):
        return right()
    return wrong("; ".join(f"{name}: {fault}" for name, fault in faults.items()))


def _fault_of_whole(video: Any, num_frames: int, shown: Shown) -> str | None:
    count = len(shown.cells)
    if video.info.num_frames != count:
        return f"{video.info.num_frames} frames instead of {count}"
    if video.damaged_frames and not shown.corrupt.any():
        return f"damage is reported where there is none: {list(video.damaged_frames)[:8]}"
    expected = np.linspace(0, count - 1, min(num_frames, count), dtype=int)
    if not np.array_equal(video.indices, expected):
        return f"indices {video.indices.tolist()} instead of {expected.tolist()}"
    cells, most = [cells_of(frame) for frame in video.frames], _most_difference(video)
    bad = [row for row, i in enumerate(expected) if not same_picture(cells[row], shown.cells[i], most)]
    if bad:
        read = [number_of(cells[row]) for row in bad]
        true = [number_of(shown.cells[expected[row]]) for row in bad]
        return f"{len(bad)} of {len(expected)} frames are others: {read[:8]} instead of {true[:8]}"
    return _fault_of_times(video, shown)


def _fault_of_times(video: Any, shown: Shown) -> str | None:
    times, true = video.timestamps_s, shown.times_s[video.indices]
    if len(times) > 1 and not (np.diff(times) > 0).all():
        return f"timestamps do not rise: {times.tolist()[:8]}"
    # where the decoder's own times fall or are missing, the reader's are of its own making
    if np.isfinite(shown.times_s).all() and (np.diff(shown.times_s) > 0).all() and np.abs(times - true).max() > 2e-3:
        return f"timestamps {times.tolist()[:6]} instead of {true.tolist()[:6]}"
    return None


def judge_damaged(video: Any, shown: dict[str, Shown], original: Shown) -> Result:
    """The verdict on frames sampled from a file that was tampered with.

    Each frame that is not reported as damaged must be a picture that a decoder shows at its place or time, or the
    undamaged film's at that place; a picture that the decoder marked as corrupt, and that looks so, must be reported.
    What no decoder notices cannot be known: where each shows a broken picture that it does not mark, another broken one
    (what it puts in place of the missing part may be anything) is as good.
    """
    told = set(video.damaged_frames)
    if not np.isfinite(video.timestamps_s).all() or (np.diff(video.indices) <= 0).any():
        return wrong(f"times {video.timestamps_s.tolist()[:8]}, indices {video.indices.tolist()[:8]}")
    pictures = _Pictures(video, shown, original)
    others, untold = [], []
    for row, (index, time_s) in enumerate(zip(video.indices.tolist(), video.timestamps_s.tolist(), strict=True)):
        if index in told:
            continue
        cells = cells_of(video.frames[row])
        found = pictures.at(index, time_s)
        matches = [corrupt for each, corrupt in found if pictures.same(cells, each)]
        broken = not pictures.is_original(cells)
        if not matches and not (broken and pictures.broken_everywhere(index, time_s)):
            others.append((index, number_of(cells)))
        elif matches and all(matches) and broken:
            untold.append(index)
    if others and any(not each.complete for each in shown.values()):
        return right("not judged: no decoder came to the end")
    if others:
        pairs = ", ".join(f"{index} shows {number}" for index, number in others[:8])
        return wrong(f"{len(others)} of {len(video.indices)} frames are others: {pairs}")
    if untold:
        return wrong(f"{len(untold)} frames that libav marks as corrupt are not reported: {untold[:8]}")
    return Result(Verdict.DAMAGE, f"{len(told)} frames") if told else right()


class _Pictures:
    """The pictures that may stand at a place or time of a video."""

    def __init__(self, video: Any, shown: dict[str, Shown], original: Shown) -> None:
        self._shown = list(shown.values())
        self._original = original
        self._most = _most_difference(video)
        # frames that never come out of a decoder have a place all the same
        self._lost = max(0, video.info.num_frames - max((len(each.cells) for each in self._shown), default=0))

    def same(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether two pictures are one, at the size that the video was sampled at."""
        return same_picture(first, second, self._most)

    def is_original(self, cells: np.ndarray) -> bool:
        """Whether the undamaged film holds the picture somewhere."""
        return any(self.same(cells, each) for each in self._original.cells)

    def broken_everywhere(self, index: int, time_s: float) -> bool:
        """Whether each decoder shows a picture there that the undamaged film does not hold, and marks none of them."""
        per_decoder = [self._of(each, index, time_s) for each in self._shown]
        return all(
            any(not corrupt and not self.is_original(cells) for cells, corrupt in pictures) for pictures in per_decoder
        )

    def at(self, index: int, time_s: float) -> list[tuple[np.ndarray, bool]]:
        """All of them, and whether the decoder marked them as corrupt."""
        return [found for each in (*self._shown, self._original) for found in self._of(each, index, time_s)]

    def _of(self, shown: Shown, index: int, time_s: float) -> list[tuple[np.ndarray, bool]]:
        places: set[int] = set()
        for start in {0, shown.first_key} if len(shown.cells) else ():
            since_s = time_s + shown.times_s[start]
            places |= set(np.flatnonzero(np.abs(shown.times_s - since_s) <= 2e-3).tolist())
            places |= {start + index - lost for lost in range(self._lost + 1)}
        return [(shown.cells[place], bool(shown.corrupt[place])) for place in places if 0 <= place < len(shown.cells)]
