"""Training samples that cannot be used: named, counted over processes, bounded; none is passed over in silence."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path

import pytest
import torch

from tam_plugin.errors import ConfigError
from tests.llava.budget_data import COUNT, host_dataset, sample, tam, turns, write_clip
from tests.llava.budget_model import tam_model

pytestmark = pytest.mark.usefixtures("qwen_prompts")


@pytest.fixture
def broken(tmp_path) -> Path:
    write_clip(tmp_path / "good.mp4", duration_s=8)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:2000])
    (tmp_path / "bad.png").write_text("not an image")
    return tmp_path


BAD = {
    "missing": sample("nowhere.mp4", COUNT),
    "empty": sample("empty.mp4", COUNT),
    "no video": sample("text.mp4", COUNT),
    "cut short": sample("cut.mp4", COUNT),
    "no question": sample("good.mp4", ""),
    "no human turn": {"video": "good.mp4", "conversations": [{"from": "gpt", "value": "Three."}]},
    "image": {"image": "bad.png", "conversations": turns("<image>\nWhat is it?", "Grey.")},
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_is_named_once_and_the_next_one_taken(broken, case, capsys):
    dataset = tam(broken, [BAD[case], sample("good.mp4", COUNT, id="good")], tam_max_bad_samples=0.5)
    assert [dataset[0]["id"], dataset[1]["id"], dataset[0]["id"]] == ["good"] * 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tam: sample")]
    name = BAD[case].get("video") or BAD[case]["image"]
    assert len(lines) == 1 and lines[0].startswith("tam: sample 0 is left out: ") and name in lines[0]


@pytest.mark.parametrize("case", BAD)
def test_one_bad_sample_too_many_stops_with_the_list(broken, case):
    from tam_plugin.patches.llava_next.data.bad_samples import TooManyBadSamplesError

    dataset = tam(broken, [BAD[case], sample("good.mp4", COUNT)], tam_max_bad_samples=0)
    name = BAD[case].get("video") or BAD[case]["image"]
    with pytest.raises(TooManyBadSamplesError, match=f"^1 of 2 training samples .* 0: .*{re.escape(name)}: ") as caught:
        dataset[0]
    assert "\n" not in str(caught.value)


def test_rows_without_a_conversation_are_named_by_file_and_row(broken, capsys):
    good = sample("good.mp4", COUNT, id="good")
    malformed = [{"video": "good.mp4"}, "a row", {"conversations": [{"from": "human"}]}, {"conversations": "Hello"}]
    dataset = tam(broken, [good, *malformed], tam_max_bad_samples=0.8)
    host = tam(broken, [good])
    assert dataset.modality_lengths == [*host.modality_lengths, 1, 1, 1, 1]
    assert dataset.lengths == [*host.lengths, 1, 1, 1, 1]
    assert [dataset[index]["id"] for index in range(5)] == ["good"] * 5
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tam: sample")]
    for index, reason in enumerate(("no 'conversations'", "no JSON object", "a turn in", "'conversations' is"), 1):
        assert any(f"{broken / 'samples.json'}:{index + 1}: " in line and reason in line for line in lines), lines
    assert len(lines) == 4


def outcome(dataset, index: int) -> str:
    from tam_plugin.patches.llava_next.data.bad_samples import TooManyBadSamplesError

    try:
        return dataset[index]["id"]
    except TooManyBadSamplesError as error:
        return str(error)


def test_the_limit_holds_for_all_processes_together(broken, tmp_path):
    from tam_plugin.patches.llava_next.model.training import tam_dataset

    model = tam_model()
    samples = [sample("good.mp4", COUNT, id="good"), *[sample(f"gone_{n}.mp4", COUNT) for n in range(4)]] * 2
    host = host_dataset(broken, model, samples, tam_max_bad_samples=0.4)
    dataset = tam_dataset(host, model, output_dir=str(tmp_path / "out"))
    dataset.bad_samples.start()
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        outcomes = pool.starmap(outcome, [(dataset, 0), (dataset, 1), (dataset, 6)], chunksize=1)
    # Each process alone saw four bad samples, which the share (and the least number) allow; together eight.
    assert outcomes[0] == "good"
    assert any("of 10 training samples cannot be used" in text for text in outcomes[1:])
    assert set(dataset.bad_samples.found()) >= {1, 6}
    dataset.bad_samples.start()
    assert dataset.bad_samples.found() == {}


def test_damaged_frames_are_listed_and_not_counted(broken, tmp_path, capsys):
    from tam_plugin.patches.llava_next.model.training import tam_dataset
    from tests.video.clips import make_clip
    from tests.video.test_proved_frames import overwritten

    clip = make_clip(tmp_path / "whole.mkv", 96, gop=12, options={"sc_threshold": "0"})
    (broken / "damaged.mkv").write_bytes(overwritten(clip, 41))
    host = host_dataset(broken, tam_model(), [sample("damaged.mkv", COUNT, id="damaged")], tam_max_bad_samples=0)
    dataset = tam_dataset(host, tam_model(), output_dir=str(tmp_path / "out"))
    assert [dataset[0]["id"], dataset[0]["id"]] == ["damaged"] * 2
    entries = [json.loads(line) for line in dataset.bad_samples.path.read_text().splitlines()]
    assert len(entries) == 1 and entries[0]["name"].endswith("damaged.mkv")
    # the picture that was overwritten is shown as frame 44; the keyframes around it are 36 and 48
    assert entries[0]["damaged_frames"] and set(entries[0]["damaged_frames"]) <= set(range(37, 48))
    assert dataset.bad_samples.found() == {}
    assert capsys.readouterr().err.count("damaged.mkv: ") == 1


def test_a_text_too_long_for_one_frame_is_a_bad_sample(broken):
    from tam_plugin.patches.llava_next.data.bad_samples import TooManyBadSamplesError

    dataset = tam(broken, [sample("good.mp4", COUNT, "Word " * 300)], model_max_length=1000)
    with pytest.raises(TooManyBadSamplesError, match="not one frame fits"):
        dataset[0]


def test_a_missing_inductor_is_no_bad_sample(broken):
    dataset = tam(
        broken, [sample("good.mp4", COUNT)], tam_model(inductor=str(broken / "none")), tam_max_bad_samples=1.0
    )

    with pytest.raises(ConfigError, match="no Inductor at"):
        dataset[0]


def test_the_limit_is_that_of_plan_data(broken):
    """A small set bears five bad samples by default; the sixth stops it, in training as in ``tam plan-data``."""
    from tam_plugin.patches.llava_next.data.bad_samples import TooManyBadSamplesError
    from tam_plugin.plans.bad_rows import DEFAULT_MAX_SHARE, too_many

    gone = [sample(f"gone_{n}.mp4", COUNT) for n in range(6)]
    dataset = tam(broken, [*gone, *[sample("good.mp4", COUNT, id="good")] * 30])
    for index in range(5):
        dataset.bad_samples.add(index, "a video", "gone")
        assert not too_many(index + 1, 36, DEFAULT_MAX_SHARE)
    with pytest.raises(TooManyBadSamplesError, match=r"allows a share of 0\.001, and at least 5"):
        dataset[5]
    assert too_many(6, 36, DEFAULT_MAX_SHARE)
