"""Which frames are taken: the host's uniform indices, and what snapping may and may not do to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.errors import InputError
from tam_plugin.video import snap_indices, uniform_indices


@given(st.integers(1, 300_000), st.integers(1, 120))
def test_uniform_indices_are_the_hosts(video_frames: int, wanted: int) -> None:
    found = uniform_indices(video_frames, wanted)
    if wanted <= video_frames:
        assert found.tolist() == np.linspace(0, video_frames - 1, wanted, dtype=int).tolist()
    else:
        assert found.tolist() == list(range(video_frames))
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("video_frames, wanted", [(0, 4), (4, 0), (4, -1), (4, 2.0), (True, 4), ("9", 4)])
def test_other_counts_are_refused(video_frames: object, wanted: object) -> None:
    with pytest.raises(InputError, match="expected a whole number >= 1"):
        uniform_indices(video_frames, wanted)  # type: ignore[arg-type]


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, times and keyframes of a video at a constant or a variable rate."""
    count = draw(st.integers(1, 200))
    steps = draw(st.one_of(st.just([40] * count), st.lists(st.integers(1, 400), min_size=count, max_size=count)))
    keys = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    times = np.cumsum(steps) / 1000
    return uniform_indices(count, draw(st.integers(1, 120))), times - times[0], keys


@given(videos())
def test_snapping(video: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    indices, times, keys = video
    snapped = snap_indices(indices, times, keys)
    assert (np.diff(snapped) > 0).all()
    moved = snapped != indices
    assert keys[snapped[moved]].all()
    assert not moved[keys[indices]].any()
    if len(indices) > 1:
        half = (times[indices[-1]] - times[indices[0]]) / (len(indices) - 1) / 2
        assert (np.abs(times[snapped] - times[indices]) <= half + 1e-9).all()
        for index, result in zip(indices, snapped, strict=True):
            if index != result:  # no keyframe is nearer
                distance = np.abs(times[keys] - times[index]).min()
                assert abs(times[result] - times[index]) == pytest.approx(distance)


@given(st.integers(2, 20), st.integers(2, 40))
def test_every_sample_snaps_where_keyframes_are_dense(samples: int, between: int) -> None:
    """A keyframe three frames behind each sample, and samples at least eight frames apart: all of them move to it."""
    step = between + 6
    count = step * (samples - 1) + 1
    indices = uniform_indices(count, samples)
    keys = np.zeros(count, bool)
    keys[(indices + 3)[:-1]] = True
    snapped = snap_indices(indices, np.arange(count) / 25, keys)
    assert snapped.tolist() == [*(indices[:-1] + 3).tolist(), count - 1]
