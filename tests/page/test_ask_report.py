"""``tam ask --report``: the page says what the command decided, saw and answered; no page after an error."""

from __future__ import annotations

import base64
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from tam_plugin import TamConfig, TaskType, probe_video, sample_frames
from tam_plugin.budget import TokenLayout
from tam_plugin.cli.main import main
from tam_plugin.patches.onevision import upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model
from tam_plugin.video import preprocess_frames

from .pages import Page

QUERY = ("--query", "What word is printed on the sign?")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small checkpoint, three mixture layers deep, whose experts differ; its folder."""
    folder = tmp_path_factory.mktemp("model")
    dense, tokenizer = demo_dense_model(seed=3, image_size=84, patch_size=14, num_hidden_layers=3)
    tam = upgrade_dense(dense, TamConfig())
    with torch.no_grad():
        for name, parameter in tam.named_parameters():
            if ".mlp." in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)), alpha=0.2)
    tam.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(capsys, sample_clip, model, page, *argv):
    capsys.readouterr()
    extra = ("--model", str(model), "--device", "cpu", "--max-new-tokens", "4", "--report", str(page), "--json")
    assert main(["ask", str(sample_clip), *extra, *(argv or QUERY)]) == 0
    return json.loads(capsys.readouterr().out), Page(page)


def test_the_page_says_what_the_command_says(capsys, sample_clip, model, tmp_path):
    values, page = ask(capsys, sample_clip, model, tmp_path / "case.html")
    shown = [float(value) for value in page.all("data", "value")]
    assert shown == list(values["probabilities"].values()) and len(shown) == len(TaskType)
    assert all(label in page.texts["probabilities"] for label in values["probabilities"])
    pairs = list(zip(page.texts["answer"], values["answer"], strict=True))
    assert pairs and all(shown == said or (shown == "\ufffd" and ord(said) < 0xA0) for shown, said in pairs)
    assert "notice" not in page.texts and "by chance" not in (tmp_path / "case.html").read_text()
    assert str(model) in (tmp_path / "case.html").read_text()
    times = [float(time[2:-1]) for time in page.all("time", "datetime")]
    assert times == values["timestamps_s"] and len(times) == values["num_frames"]


def test_the_budget_stands_beside_the_baseline(capsys, sample_clip, model, tmp_path):
    values, page = ask(capsys, sample_clip, model, tmp_path / "case.html")
    # This model's grid of 6 pooled by 2 leaves 3 × 3 tokens; this host ends a video with one newline token.
    fixed = TokenLayout(grid=6, newline_position="one_token").budget(64, 2)
    assert (fixed.tokens_per_frame, fixed.visual_tokens) == (9, 64 * 9 + 1)
    wanted = {
        "frames": (values["num_frames"], 64),
        "pooling stride": (values["pool_stride"], 2),
        "tokens per frame": (values["tokens_per_frame"], 9),
        "visual tokens": (values["visual_tokens"], 577),
    }
    shown = {row[0]: row[1:] for row in page.rows}
    for name, (taken, baseline) in wanted.items():
        ratio = "" if name == "pooling stride" else f"× {taken / baseline:.2f}"
        assert shown[name] == [f"{taken:,}", f"{baseline:,}", ratio]


def test_thumbnails_are_the_frames(capsys, sample_clip, model, tmp_path):
    values, page = ask(capsys, sample_clip, model, tmp_path / "case.html")
    sources = page.all("img", "src")
    assert len(sources) == values["num_frames"]
    video = sample_frames(sample_clip, values["num_frames"])
    for source, frame in zip(sources, video.frames, strict=True):
        kind, data = source.split(",")
        assert kind == "data:image/jpeg;base64"
        thumb = Image.open(io.BytesIO(base64.b64decode(data)))
        wanted = np.asarray(Image.fromarray(frame).resize(thumb.size, Image.Resampling.BOX), dtype=float)
        assert np.abs(np.asarray(thumb, dtype=float) - wanted).mean() < 4


def test_expert_use_is_that_of_the_routers(capsys, sample_clip, model, tmp_path):
    """Counted anew from the routers' own decisions on the same frames."""
    from tam_plugin.patches.onevision import load
    from tam_plugin.vision import moe_layers

    values, page = ask(capsys, sample_clip, model, tmp_path / "case.html")
    loaded = load(str(model), device="cpu")
    counts = []
    for layer in moe_layers(loaded.model):
        layer.gate.register_forward_hook(
            lambda _module, _inputs, routing: counts.append(np.bincount(routing.indices.ravel(), minlength=4))
        )
    frames = preprocess_frames(sample_frames(sample_clip, values["num_frames"]).frames, size=84)
    with torch.no_grad():
        loaded.model.model.vision_tower(frames)
    assert len(counts) == len(page.load()) == 3
    for shown, count in zip(page.load(), counts, strict=True):
        assert sum(shown) == pytest.approx(1)
        np.testing.assert_allclose(shown, count / count.sum(), atol=1e-12)
        assert count.sum() == values["num_frames"] * 36 * 2


def test_a_model_without_mixture_layers_says_so(capsys, sample_clip, tmp_path):
    dense, tokenizer = demo_dense_model(seed=3, image_size=84, patch_size=14)
    upgrade_dense(dense, TamConfig.from_dict({"moe": {"enabled": False}})).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    _, page = ask(capsys, sample_clip, tmp_path / "model", tmp_path / "case.html")
    assert page.load() == [] and "no mixture layers" in (tmp_path / "case.html").read_text()


def test_untrained_gates_are_said_to_route_by_chance(capsys, sample_clip, tmp_path):
    dense, tokenizer = demo_dense_model(seed=3, image_size=84, patch_size=14)
    dense.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    values, page = ask(capsys, sample_clip, tmp_path / "model", tmp_path / "case.html")
    assert "untrained copies" in values["notice"] and page.texts["notice"].startswith("Note")
    assert "route by chance" in (tmp_path / "case.html").read_text(encoding="utf-8")


def test_a_question_with_markup_is_inert(capsys, sample_clip, model, tmp_path):
    nasty = "<script>alert(1)</script> </h1><img src=x onerror=alert(2)> $answer ${notice} &lt; \u202e what?"
    option = "\"><svg onload='alert(3)'>"
    values, page = ask(
        capsys, sample_clip, model, tmp_path / "case.html", "--query", nasty, "--options", option, "no\x07"
    )
    assert [tag for tag, _ in page.tags].count("svg") == 1 and not any(tag == "script" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(source.startswith("data:") for source in page.all("img", "src"))
    assert nasty.replace("\u202e", "\ufffd") in page.texts["prompt"]
    assert option in page.texts["options"] and "no\ufffd" in page.texts["options"]
    assert f"[{values['visual_tokens']} visual tokens]" in page.texts["prompt"]


def test_the_page_loads_nothing(capsys, sample_clip, model, tmp_path):
    _, page = ask(capsys, sample_clip, model, tmp_path / "case.html")
    assert not {"link", "script", "iframe", "object", "a"} & {tag for tag, _ in page.tags}
    assert "default-src 'none'" in " ".join(page.all("meta", "content"))
    text = (tmp_path / "case.html").read_text()
    assert "http://" not in text and "https://" not in text and "url(" not in text


def test_the_demonstration_model_says_that_it_knows_another_world(capsys, sample_clip, tmp_path):
    page = tmp_path / "case.html"
    page.write_text("old")
    argv = ("--max-new-tokens", "2", "--report", str(page))
    assert main(["ask", str(sample_clip), *QUERY, *argv]) == 0
    assert f"report      {page}" in capsys.readouterr().out
    assert "route by chance" not in page.read_text(encoding="utf-8")
    assert Page(page).texts["answer"].startswith("(none: the model does not know this video")
    assert "knows only the drawn clips" in Page(page).texts["notice"] and len(Page(page).all("img", "src")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["case.html"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--report", "no/such/case.html"), "--report 'no/such/case.html': there is no folder 'no/such'"),
        (("--report", ""), "--report '': expected the name of an HTML file"),
        (("--report", "folder"), "--report 'folder': expected the name of an HTML file"),
        (("--report", "pipe"), "--report 'pipe': expected the name of an HTML file"),
        (("--report", "clip.mp4"), "--report 'clip.mp4': this is the video"),
        (("--contact-sheet", "clip.mp4"), "--contact-sheet 'clip.mp4': this is the video"),
        (("--report", "a.html", "--contact-sheet", "./a.html"), "--contact-sheet writes this file already"),
    ],
)
def test_paths_are_refused_before_any_work(capsys, sample_clip, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "clip.mp4").write_bytes(sample_clip.read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    # A model that is not there would be the error if anything had been loaded before.
    assert main(["ask", "clip.mp4", *QUERY, "--model", "absent", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and words in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert probe_video(tmp_path / "clip.mp4").num_frames == probe_video(sample_clip).num_frames


@pytest.mark.parametrize(
    ("video", "argv"), [("missing.mp4", ()), (None, ("--device", "quantum")), (None, ("--max-new-tokens", "99999999"))]
)
def test_no_page_after_an_error(capsys, sample_clip, tmp_path, video, argv):
    page = tmp_path / "case.html"
    assert main(["ask", video or str(sample_clip), *QUERY, *argv, "--report", str(page)]) == 2
    assert list(tmp_path.iterdir()) == []
