"""Frames, stride and times of training samples follow the question, through the host's dataset and collator."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tam_plugin.budget import TokenLayout
from tests.llava.budget_data import COUNT, DURATION_S, SUMMARY, host_dataset, sample, tam, text_of, turns, write_clip
from tests.llava.budget_model import GRID, embeddings, tam_model

pytestmark = pytest.mark.usefixtures("qwen_prompts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("samples")
    write_clip(path / "even.mp4")
    write_clip(path / "uneven.mp4", irregular=True)
    frames = path / "shareVideoGPTV" / "one"
    frames.mkdir(parents=True)
    from PIL import Image

    for number in range(1, 41):
        Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(frames / f"frame_{number}.png")
    return path


def planned(item) -> tuple[int, int]:
    pixels, _, modality = item["image"][0]
    assert len(pixels) == modality.num_frames
    return modality.num_frames, modality.pool_stride


def times_in(text: str) -> list[float]:
    return [float(t) for t in re.findall(r"([0-9.]+)s[,.]", text.partition("located at ")[2].partition("Please")[0])]


def test_the_question_decides(folder):
    from tam_plugin import plan

    dataset = tam(folder, [sample("even.mp4", COUNT), sample("even.mp4", SUMMARY)])
    counted, summed = planned(dataset[0]), planned(dataset[1])
    assert counted[0] < summed[0] and counted[1] <= summed[1]
    for (frames, _), question in ((counted, COUNT), (summed, SUMMARY)):
        assert frames == plan(question, DURATION_S).num_frames


def test_first_question_of_many_decides_and_format_instructions_do_not(folder):
    many = {"video": "even.mp4", "conversations": turns(f"<image>\n{COUNT}", "Three.", SUMMARY, "Cups are moved.")}
    told = sample("even.mp4", f"{COUNT}\nAnswer the question using a single word or phrase.")
    dataset = tam(folder, [sample("even.mp4", COUNT), many, told])
    assert planned(dataset[0]) == planned(dataset[1]) == planned(dataset[2])


@pytest.mark.parametrize("name", ["even.mp4", "uneven.mp4"])
def test_times_are_those_of_the_frames(folder, name):
    """Each returned frame is found again among all frames of the file, with the time that PyAV gives it."""
    model = tam_model()
    dataset = tam(folder, [sample(name, COUNT)], model)
    item = dataset[0]
    with av.open(str(folder / name)) as container:
        decoded = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    process = model.get_vision_tower().image_processor.preprocess
    every = process([image for _, image in decoded], return_tensors="pt")["pixel_values"].flatten(1)
    chosen = torch.cdist(item["image"][0][0].flatten(1), every).argmin(dim=1).tolist()
    assert chosen == sorted(set(chosen)) and (chosen[0], chosen[-1]) == (0, len(decoded) - 1)
    assert times_in(text_of(dataset, item)) == pytest.approx([decoded[i][0] for i in chosen], abs=0.006)


def test_large_videos_are_decoded_as_for_answers(folder):
    """Native up to the limit, which :func:`test_prompt_is_the_hosts_word_for_word` shows; scaled beyond it."""
    from tam_plugin import sample_frames
    from tam_plugin.video.scaling import NATIVE_SIZE_LIMIT
    from tests.video.clips import make_clip

    make_clip(folder / "wide.mp4", 6, size=(NATIVE_SIZE_LIMIT + 80, 48), fps=3)
    model = tam_model()
    dataset = tam(folder, [sample("wide.mp4", COUNT)], model, plan_lookup=lambda _: TokenLayout(grid=GRID).budget(4, 2))
    pixels, size, _ = dataset[0]["image"][0]
    frames = sample_frames(folder / "wide.mp4", 4, size=NATIVE_SIZE_LIMIT).frames
    assert frames.shape == (4, 48, NATIVE_SIZE_LIMIT, 3) and size == (NATIVE_SIZE_LIMIT + 80, 48)
    process = model.get_vision_tower().image_processor.preprocess
    assert torch.equal(pixels, process(frames, return_tensors="pt")["pixel_values"])


def test_prompt_is_the_hosts_word_for_word(folder):
    """The host's own item of the same frames, with its own time instruction, has the same ids and labels."""
    model = tam_model(instruction={"time": False})
    fixed = lambda _: TokenLayout(grid=GRID).budget(8, 2)  # noqa: E731
    dataset = tam(folder, [sample("even.mp4", COUNT, id="a")], model, add_time_instruction=True, plan_lookup=fixed)
    host = host_dataset(
        folder,
        model,
        [sample("even.mp4", COUNT, id="a")],
        add_time_instruction=True,
        frames_upbound=8,
        force_sample=True,
    )
    ours, theirs = dataset[0], host[0]
    assert ours["id"] == theirs["id"] == "a"
    assert torch.equal(ours["input_ids"], theirs["input_ids"]) and torch.equal(ours["labels"], theirs["labels"])
    assert torch.equal(ours["image"][0][0], theirs["image"][0][0])


def test_instructions_that_are_switched_on(folder):
    samples = [sample("even.mp4", COUNT)]
    with_task = tam(folder, samples, tam_model(instruction={"task": True}))
    without = tam(folder, samples, tam_model(instruction={"time": False}))
    assert "This question is about Static Attributes Recognition." in text_of(with_task, with_task[0])
    assert "The video lasts for 40.00 seconds" in text_of(with_task, with_task[0])
    text = text_of(without, without[0])
    assert "lasts for" not in text and "This question is about" not in text and COUNT in text


def test_reading_twice_changes_nothing(folder):
    dataset = tam(folder, [sample("even.mp4", COUNT)])
    before = copy.deepcopy(dataset.host.list_data_dict)
    first, second = dataset[0], dataset[0]
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert dataset.host.list_data_dict == before and dataset.host.data_args.add_time_instruction is False


def test_folders_of_frames_in_natural_order(folder):
    dataset = tam(folder, [sample("shareVideoGPTV/one", SUMMARY)])
    item = dataset[0]
    brightness = item["image"][0][0][:, 0].mean(dim=(1, 2))
    assert len(brightness) == 40 and torch.all(brightness.diff() > 0)
    assert times_in(text_of(dataset, item)) == pytest.approx(np.arange(40) / 2)
    assert "lasts for 20.00 seconds" in text_of(dataset, item)


def test_precomputed_plans_come_first(folder):
    plans = {"known": TokenLayout(grid=GRID).budget(5, 4)}
    samples = [sample("even.mp4", COUNT, id="known"), sample("even.mp4", COUNT, id="new")]
    dataset = tam(folder, samples, plan_lookup=plans.get)
    assert planned(dataset[0]) == (5, 4)
    assert planned(dataset[1]) != (5, 4)


def test_a_question_is_classified_once(folder, monkeypatch):
    from tam_plugin import Inductor

    asked = []
    classify = Inductor.classify
    monkeypatch.setattr(Inductor, "classify", lambda self, q, **more: asked.append(q) or classify(self, q, **more))
    dataset = tam(folder, [sample("even.mp4", COUNT), sample("even.mp4", COUNT)])
    for index in (0, 0, 1, 0):
        dataset[index]
    assert len(asked) == 2


@pytest.mark.parametrize("limit", [900, 1500, 4000])
def test_the_context_is_kept_by_the_budget(folder, limit):
    """Text and visual tokens together stay within the limit, and nothing of the text is cut."""
    model = tam_model()
    dataset = tam(folder, [sample("even.mp4", SUMMARY, "Word " * 40)], model, model_max_length=limit)
    item = dataset[0]
    inputs = {name: item[name][None] for name in ("input_ids", "labels")}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    pixels, _, modality = item["image"][0]
    with torch.no_grad():
        (seen,) = embeddings(model, inputs, [pixels], [modality])
    assert len(seen) <= limit
    assert text_of(dataset, item).rstrip().endswith("Word <|im_end|>")


def test_collated_batch_goes_into_the_model(folder):
    from llava.train.train import DataCollatorForSupervisedDataset
    from PIL import Image
    from torch.utils.data import DataLoader

    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "still.png")
    samples = [
        sample("even.mp4", COUNT),
        sample("uneven.mp4", SUMMARY),
        {"image": "still.png", "conversations": turns("<image>\nWhat is it?", "Grey.")},
        {"conversations": turns("Name a colour.", "Red.")},
    ]
    model = tam_model()
    dataset = tam(folder, samples, model)
    collate = DataCollatorForSupervisedDataset(tokenizer=dataset.tokenizer)
    (loaded,) = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=collate)
    assert [str(m) for m in loaded["modalities"]] == ["video", "video", "image", "text"]
    strides = [getattr(m, "pool_stride", None) for m in loaded["modalities"]]
    assert strides == [dataset[0]["image"][0][2].pool_stride, dataset[1]["image"][0][2].pool_stride, None, None]
    with torch.no_grad():
        seen = embeddings(model, loaded, loaded["images"], loaded["modalities"])
    for index, embeds in enumerate(seen):
        item = dataset[index]
        pixels, _, modality = item["image"][0]
        one = collate([item])
        with torch.no_grad():
            (alone,) = embeddings(model, one, [pixels], [modality])
        torch.testing.assert_close(embeds, alone, atol=1e-5, rtol=1e-5)


def test_attributes_of_the_hosts_dataset_are_there(folder):
    import pickle

    dataset = tam(folder, [sample("even.mp4", COUNT), {"conversations": turns("Name a colour.", "Red.")}])
    assert dataset.modality_lengths == dataset.host.modality_lengths and len(dataset) == 2
    copied = pickle.loads(pickle.dumps(dataset))
    assert planned(copied[0]) == planned(dataset[0])
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018


def test_outside_of_a_tam_sample_the_host_reads_by_itself(folder):
    from llava.utils import process_video_with_decord

    host = host_dataset(folder, tam_model(), [sample("even.mp4", COUNT)], frames_upbound=4, force_sample=True)
    frames = process_video_with_decord(str(folder / "even.mp4"), host.data_args)[0]
    assert len(frames) == 4
    assert host[0]["image"][0][2] == "video" and type(host[0]["image"][0][2]) is str
