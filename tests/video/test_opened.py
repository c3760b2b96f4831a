"""A video that is opened once: the same frames as by single calls, by any sampler, with no more opens than it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tam_plugin import TaskDistribution, TaskType
from tam_plugin.errors import InputError
from tam_plugin.video import (
    SampledVideo,
    open_video,
    probe_video,
    register_sampler,
    sample_frames,
    sampler_named,
    uniform_indices,
)
from tam_plugin.video import samplers as registry

from .clips import make_clip, picture, shown_frames
from .test_proved_frames import FILES

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc about this process")


@dataclass
class Brightest:
    """Takes the brightest of the keyframes, by small pictures of them; the question says how many at most."""

    name: str = "brightest"
    asked: list[Any] = field(default_factory=list)

    def __call__(self, video: Any, num_frames: int, *, query: str | None, distribution: Any) -> Any:
        self.asked.append((query, distribution, video.num_frames))
        if len(video.keyframes) == 0:
            return uniform_indices(video.num_frames, num_frames)
        looked_at = video.frames_at(video.keyframes, size=16, num_threads=1)
        brightness = looked_at.frames.mean((1, 2, 3))
        most = min(num_frames, int((query or "99").split()[-1]))
        return np.sort(looked_at.indices[np.argsort(-brightness)[:most]])


@dataclass
class Fixed:
    """Names these frames, whatever is asked."""

    indices: Any
    name: str = "fixed"

    def __call__(self, video: Any, num_frames: int, *, query: str | None, distribution: Any) -> Any:
        return self.indices


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that libav opened, as often as it did."""
    names: list[str] = []
    real = av.open

    def counted(name: str, *arguments: Any, **options: Any) -> Any:
        names.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(av, "open", counted)
    return names


def held_open(path: Path) -> int:
    """How many open files of this process are ``path``."""
    links = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link) == os.path.realpath(path) for link in links)


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def assert_same(one: SampledVideo, other: SampledVideo) -> None:
    assert np.array_equal(one.frames, other.frames)
    assert one.indices.tolist() == other.indices.tolist()
    assert one.timestamps_s.tolist() == other.timestamps_s.tolist()
    plain = [replace(each, frames=None, indices=None, timestamps_s=None) for each in (one, other)]
    assert plain[0] == plain[1]


@pytest.fixture(scope="module", params=[*FILES, "mp4", "mkv", "ffv1", "folder"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opened")
    if request.param == "folder":
        for number in range(9):
            Image.fromarray(picture(number)).save(folder / f"{number}.png")
        return folder
    if request.param in ("mp4", "mkv"):
        return make_clip(folder / f"a.{request.param}")
    if request.param == "ffv1":
        return make_clip(folder / "a.mkv", codec="ffv1")
    return FILES[request.param](folder)


class TestSameFrames:
    def test_one_handle_gives_what_single_calls_give(self, path: Path) -> None:
        with open_video(path) as video:
            assert video.info == probe_video(path)
            for wanted, snap, size, threads in (
                (7, False, None, 2),
                (60, True, 32, 1),
                (1, False, None, 1),
                (7, False, None, 2),
            ):
                sampled = video.sample(
                    wanted, sampler="keyframe" if snap else "uniform", size=size, num_threads=threads
                )
                alone = sample_frames(path, wanted, snap_to_keyframes=snap, size=size, num_threads=threads)
                assert_same(sampled, alone)
                assert sampled.sampler == ("keyframe" if snap else "uniform")
                named = video.frames_at(sampled.indices, size=size)
                assert np.array_equal(named.frames, sampled.frames) and named.sampler == "indices"
            assert video.num_frames == len(video.timestamps_s) == video.info.num_frames

    def test_keyframes_are_those_of_the_decoder(self, path: Path) -> None:
        with open_video(path) as video:
            keyframes = video.keyframes.tolist()
        if path.is_dir():
            assert keyframes == list(range(9))
        elif keyframes:  # none where the file can only be decoded from its start
            with av.open(str(path)) as container:
                frames = list(container.decode(container.streams.best("video")))
            assert keyframes == [number for number, frame in enumerate(frames) if frame.key_frame]

    def test_threads_share_a_handle(self, path: Path) -> None:
        with open_video(path) as video:
            alone = video.sample(5, num_threads=2)
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda _: video.sample(5, num_threads=2), range(8)))
        for each in found:
            assert_same(each, alone)


class TestOpens:
    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
    def test_a_question_opens_a_file_once_for_each_thread(
        self, tmp_path: Path, opens: list[str], name: str, threads: int
    ) -> None:
        codec = {"codec": "libvpx", "options": {"cpu-used": "5"}} if name.endswith("webm") else {}
        path = make_clip(tmp_path / name, **codec)
        opens.clear()
        with open_video(path) as video:
            assert video.info.num_frames == 60
            video.sample(8, num_threads=threads)
            video.sample(16, sampler="keyframe", num_threads=threads)
            video.sample(8, sampler=Brightest(), num_threads=threads)
        # a thread that finds nothing left to do when it starts opens nothing
        assert len(opens) == 1 if threads == 1 else 1 <= len(opens) <= threads

    @on_linux
    def test_packets_are_read_once(self, tmp_path: Path) -> None:
        """Noise hardly shrinks: what is read of the file stands out from what else is read."""
        path = make_clip(tmp_path / "a.mkv", 90, size=(640, 360), options={"crf": "4", "preset": "ultrafast"})
        size = path.stat().st_size
        sample_frames(path, 1)  # what libraries read once
        before = bytes_read()
        with open_video(path) as video:
            assert video.info.num_frames == 90
            assert size <= bytes_read() - before < 1.2 * size
            before = bytes_read()
            assert video.info.duration_s == pytest.approx(3.6, abs=0.01) and len(video.timestamps_s) == 90
            assert bytes_read() - before < 0.05 * size
            video.frames_at([0], num_threads=1)
            assert bytes_read() - before < 0.5 * size

    @on_linux
    def test_nothing_stays_open(self, clip: Path, tmp_path: Path) -> None:
        with open_video(clip) as video:
            video.sample(8, num_threads=2)
            assert held_open(clip) >= 1
        assert held_open(clip) == 0
        assert video.info.num_frames == 60
        with pytest.raises(InputError, match="was closed"):
            video.sample(4)
        with open_video(clip) as video:
            for refused in (Fixed([99]), Fixed([3, 3])):
                with pytest.raises(InputError):
                    video.sample(4, sampler=refused)
            with pytest.raises(ZeroDivisionError):
                video.sample(4, sampler=lambda *_, **__: 1 / 0)  # type: ignore[arg-type]
            assert len(video.sample(4)) == 4
        assert held_open(clip) == 0
        broken = tmp_path / "a.mp4"
        data = bytearray(clip.read_bytes())
        start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
        data[start:end] = bytes(end - start)
        broken.write_bytes(data)
        with pytest.raises(InputError, match="none of its frames can be decoded"):
            open_video(broken)
        assert held_open(broken) == 0


class TestSamplers:
    def test_a_sampler_looks_at_the_video_and_knows_the_question(self, tmp_path: Path, opens: list[str]) -> None:
        path = make_clip(tmp_path / "a.mkv", gop=10, options={"sc_threshold": "0"})
        every, _ = shown_frames(path)
        opens.clear()
        sampler = Brightest()
        distribution = TaskDistribution.one_hot(TaskType(1))
        with open_video(path) as video:
            sampled = video.sample(
                4, sampler=sampler, query="the brightest 3", distribution=distribution, num_threads=1
            )
        assert sampler.asked == [("the brightest 3", distribution, 60)]
        brightness = every[::10].mean((1, 2, 3))
        assert sampled.indices.tolist() == sorted(10 * np.argsort(-brightness)[:3])
        assert np.array_equal(sampled.frames, every[sampled.indices])
        assert (sampled.sampler, sampled.snapped) == ("brightest", 0)

    def test_frames_are_chosen_again_where_the_index_does_not_hold(self, tmp_path: Path) -> None:
        """The packets' times are wrong, and only decoding shows it."""
        path = FILES["mp4 from a bare stream"](tmp_path)
        every, _ = shown_frames(path)
        chosen: list[int] = []

        @dataclass
        class Thirds:
            name: str = "thirds"

            def __call__(self, video: Any, num_frames: int, **_: Any) -> Any:
                chosen.append(len(video.keyframes))
                return range(0, video.num_frames, 3)

        with open_video(path) as video:
            sampled = video.sample(60, sampler=Thirds())
        assert chosen[0] > 0 and chosen[-1] == 0 and len(chosen) == 2
        assert np.array_equal(sampled.frames, every[::3])

    @pytest.mark.parametrize(
        "indices, told",
        [
            ([], "no frame was named"),
            ([0, 1, 2, 3, 4], "5 frames were named; expected at most the 4 asked for"),
            ([0.0, 1.0], "expected a list of whole numbers"),
            ([True, False], "expected a list of whole numbers"),
            ([[0, 1]], "expected a list of whole numbers"),
            ([[0], [1, 2]], "expected a list of whole numbers"),
            (["0"], "expected a list of whole numbers"),
            (None, "expected a list of whole numbers"),
            ([-1, 4], "frame -1 was named; the video has 60 frames"),
            ([0, 60], "frame 60 was named; the video has 60 frames"),
            ([1 << 70], "expected a list of whole numbers"),
            (np.array([1 << 63], np.uint64), "frame 9223372036854775808 was named"),
            ([4, 2], "frame 2 was named after frame 4"),
            ([4, 4], "frame 4 was named after frame 4"),
        ],
    )
    def test_what_a_sampler_names_is_checked(self, clip: Path, indices: Any, told: str) -> None:
        with open_video(clip) as video:
            with pytest.raises(InputError, match=told) as error:
                video.sample(4, sampler=Fixed(indices))
            assert "sampler 'fixed'" in str(error.value) and "\n" not in str(error.value)
            if len(indices or () if not isinstance(indices, np.ndarray) else indices) != 5:
                with pytest.raises(InputError, match=told):
                    video.frames_at(indices)

    @pytest.fixture
    def own_registry(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(registry, "_SAMPLERS", dict(registry._SAMPLERS))
        yield

    def test_samplers_have_names(self, clip: Path, own_registry: None) -> None:
        sampler = Fixed(np.array([3, 5], np.uint8), name="three and five")
        register_sampler("three and five", sampler)
        register_sampler("three and five", sampler)
        with open_video(clip) as video:
            sampled = video.sample(8, sampler="three and five")
        assert (sampled.indices.tolist(), sampled.sampler) == ([3, 5], "three and five")
        with pytest.raises(InputError, match="expected one of uniform, keyframe, three and five"):
            sampler_named("nearest")
        for name, taken in (
            ("three and five", Fixed([0], name="three and five")),
            ("uniform", Fixed([0], name="uniform")),
        ):
            with pytest.raises(InputError, match="another sampler of this name"):
                register_sampler(name, taken)
        for name in ("indices", "", "another"):
            with pytest.raises(InputError, match="sampler"):
                register_sampler(name, replace(sampler, name="indices" if name == "indices" else "other"))

    def test_a_keyframe_sampler_that_moves_nothing_says_what_it_is(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", gop=1)
        sampled = sample_frames(path, 7, snap_to_keyframes=True)
        assert (sampled.sampler, sampled.snapped) == ("keyframe", 0)
