"""Exact frames: those of a plain sequential decode, whatever the codec, the container and the timestamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tam_plugin.video import probe_video, reader_pyav, sample_frames

from .clips import make_clip, shown_frames

_X265 = {"x265-params": "log-level=none"}

CLIPS: dict[str, dict] = {
    "h264 mp4": {"name": "a.mp4"},
    "h264 one thread's worth: a single group": {"name": "a.mp4", "gop": 1000, "options": {"sc_threshold": "0"}},
    "h264 intra only": {"name": "a.mp4", "gop": 1},
    "h264 open groups": {"name": "a.mp4", "options": {"x264-params": "open-gop=1:bframes=5:scenecut=0"}},
    "h264 open groups, ts": {"name": "a.ts", "options": {"x264-params": "open-gop=1:bframes=5:scenecut=0"}},
    "h264 intra refresh": {"name": "a.mp4", "options": {"x264-params": "intra-refresh=1:bframes=0"}},
    "h264 interlaced": {"name": "a.mp4", "options": {"x264-params": "tff=1"}},
    "h264 4:4:4": {"name": "a.mp4", "pix_fmt": "yuv444p"},
    "h264 10 bit": {"name": "a.mkv", "pix_fmt": "yuv420p10le"},
    "h264 full range": {"name": "a.mp4", "pix_fmt": "yuvj420p"},
    "h264 odd sides": {"name": "a.mp4", "pix_fmt": "yuv444p", "size": (161, 97)},
    "h264 mov": {"name": "a.mov"},
    "h264 mkv": {"name": "a.mkv"},
    "h264 ts": {"name": "a.ts"},
    "h264 flv": {"name": "a.flv"},
    "h264 avi": {"name": "a.avi", "options": {"bf": "0"}},
    "h264 fragmented mp4": {"name": "a.mp4", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264 mkv without a duration": {"name": "a.mkv", "container_options": {"live": "1"}},
    "h264 bare": {"name": "a.h264", "container": "h264"},
    "hevc mp4": {"name": "a.mp4", "codec": "libx265", "options": _X265},
    "hevc open groups": {"name": "a.mp4", "codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=1"}},
    "vp9 webm": {"name": "a.webm", "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp8 webm": {
        "name": "a.webm",
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
    },
    "av1 mp4": {"name": "a.mp4", "codec": "libsvtav1", "options": {"preset": "12"}},
    "mpeg4 avi": {"name": "a.avi", "codec": "mpeg4"},
    "mpeg4 with b-frames": {"name": "a.mp4", "codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2 ts": {"name": "a.ts", "codec": "mpeg2video", "options": {"bf": "2"}},
    "mjpeg": {"name": "a.avi", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1": {"name": "a.mkv", "codec": "ffv1"},
    "gif": {"name": "a.gif", "codec": "gif", "pix_fmt": "rgb8", "num_frames": 20},
    "one frame": {"name": "a.mp4", "num_frames": 1},
    "two frames": {"name": "a.mp4", "num_frames": 2},
    "one frame, bare": {"name": "a.h264", "container": "h264", "num_frames": 1},
    "first time not 0": {"name": "a.mkv", "times": [1000 + n for n in range(60)]},
    "first time not 0, ts": {"name": "a.ts", "times": [250 + n for n in range(60)]},
    "variable rate": {
        "name": "a.mp4",
        "times": [int(n * 40 + (n % 7) * 5 + (n > 30) * 700) for n in range(60)],
        "time_base": Fraction(1, 1000),
    },
    "variable rate, mkv": {
        "name": "a.mkv",
        "times": [int(n * 40 + (n % 7) * 5 + (n > 30) * 700) for n in range(60)],
        "time_base": Fraction(1, 1000),
    },
    "a name of many letters and spaces": {"name": "видео 視頻 ñ – 100 %d [1].mp4"},
    "a name like an address": {"name": "http:b.mp4"},
}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("seeks", [False, True], ids=["reading on", "seeking"])
def test_frames_and_times_are_those_of_a_sequential_decode(
    kind: str, seeks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seeks:  # the clips are too short for a seek to pay
        monkeypatch.setattr(reader_pyav, "_READ_ON_PACKETS", 0)
    settings = dict(CLIPS[kind])
    path = make_clip(tmp_path / settings.pop("name"), **settings)
    every, times = shown_frames(path)
    for wanted in (1, 7, len(every)):
        sampled = sample_frames(path, wanted, num_threads=2)
        places = np.linspace(0, len(every) - 1, min(wanted, len(every)), dtype=int)
        assert sampled.info.num_frames == len(every) == settings.get("num_frames", 60)
        assert sampled.indices.tolist() == places.tolist()
        assert np.array_equal(sampled.frames, every[places])
        if None not in times:
            assert sampled.timestamps_s == pytest.approx([times[p] - times[0] for p in places], abs=1e-6)
    assert probe_video(path).num_frames == len(every)
