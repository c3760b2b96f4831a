"""Training and measuring: killed and resumed is not killed, and options are scored as whole passes score them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from tam_plugin.config import TamConfig
from tam_plugin.deciding import compose_question
from tam_plugin.errors import InputError
from tam_plugin.eval.taskworld import measuring, run, stages
from tam_plugin.eval.taskworld.arms import DENSE, MIXTURE, SWITCHED, TRAINED, Arm
from tam_plugin.eval.taskworld.batches import encode, sample, turns
from tam_plugin.eval.taskworld.budgets import budgets, fixed
from tam_plugin.eval.taskworld.experiment import switched, upcycled
from tam_plugin.eval.taskworld.export import export
from tam_plugin.eval.taskworld.measuring import by_task_type, likeliest, measure
from tam_plugin.eval.taskworld.model import dense_model, tokenizer
from tam_plugin.eval.taskworld.patch_labels import labelled_frames
from tam_plugin.eval.taskworld.pretraining import pretrain
from tam_plugin.eval.taskworld.questions import ask, with_options
from tam_plugin.eval.taskworld.tables import table
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.patches.onevision import VideoTurn, build_inputs, load, upgrade_dense


def model(tam=DENSE):
    torch.manual_seed(0)
    return upgrade_dense(dense_model(0), TamConfig.from_dict({**tam, "instruction": {"time": False}}))


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["pictures", "picture questions", "statements", "video statements", "review", "questions"]
)
def test_a_killed_stage_goes_on_as_though_it_had_not_been(tmp_path, monkeypatch, form: str) -> None:
    monkeypatch.setattr(stages, "SAVE_EVERY", 2)
    monkeypatch.setattr(stages, "LOG_EVERY", 1)
    stage = stages.Stage(name="s", steps=4, by_task=None, tower=form == "questions", form=form, clips_per_step=2)
    whole, killed = model(MIXTURE), model(MIXTURE)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    stages.train(whole, stage, tmp_path / "whole", say=lambda _: None)

    def kill(line: str) -> None:
        if "step 3" in line:
            raise KilledError

    with pytest.raises(KilledError):
        stages.train(killed, stage, tmp_path / "killed", say=kill)
    again = model(MIXTURE)
    stages.train(again, stage, tmp_path / "killed", say=lambda _: None)
    for (name, expected), found in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name
    assert (tmp_path / "killed" / "s.jsonl").read_text() == (tmp_path / "whole" / "s.jsonl").read_text()
    moved = [
        n
        for (n, a), b in zip(model(MIXTURE).state_dict().items(), again.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    ]
    assert any("vision_tower" in name for name in moved) == stage.tower
    with pytest.raises(InputError, match="expected the settings"):
        stages.train(again, stages.Stage(name="s", steps=5, by_task=None, tower=False), tmp_path / "killed")


@pytest.mark.parametrize("form", [measuring._row, measuring._statement])
def test_options_are_scored_as_whole_passes_score_them(form) -> None:
    net = model(MIXTURE).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    clip = draw_clip(11)
    questions = ask(clip, np.random.default_rng(0), "test")[:5]
    seen = sample(clip, fixed().budget(None, clip.duration_s), questions)
    visual = [net.config.video_token_id] * net.config.token_layout.count(len(seen.frames), seen.stride)
    for question, (understood, choice) in zip(questions, likeliest(net, seen, form), strict=True):
        scores = []
        for option in question.options:
            said, begin, start = form(question, option)
            before = encode("<|im_start|>user ") + visual + encode("\n")
            ids, begin, start = before + said, len(before) + begin, len(before) + start
            assert tokenizer().decode(ids[start:]).removesuffix("<|im_end|>").strip() == option
            with torch.inference_mode():
                logits = net(
                    input_ids=torch.tensor([ids]),
                    pixel_values_videos=seen.frames,
                    video_num_frames=torch.tensor([len(seen.frames)]),
                    video_pool_strides=torch.tensor([seen.stride]),
                ).logits[0]
            log_p = logits.double().log_softmax(-1)
            scores.append(sum(log_p[i - 1, ids[i]].item() for i in range(start, len(ids))))
            says_so = [int(log_p[i - 1].argmax()) for i in range(begin, start)] == ids[begin:start]
            assert understood == says_so and (form is measuring._row or understood)
        assert choice == int(np.argmax(scores))


def test_a_turn_reads_as_the_assistant_writes_it() -> None:
    net, clip = model(), draw_clip(3)
    question = with_options(ask(clip, np.random.default_rng(0))[0])
    plain = question.text.split("\n")[0]
    assert question.text == compose_question(plain, options=question.options)
    frames = torch.zeros(8, 3, 72, 72)
    turn = VideoTurn(question=question.text, frames=frames, pool_stride=2, answer=question.statement)
    expected = build_inputs([turn], tokenizer(), net.config)
    ids, labels = turns([question], [net.config.video_token_id] * net.config.token_layout.count(8, 2))
    assert expected["input_ids"][0].tolist() == ids and expected["labels"][0].tolist() == labels


@pytest.mark.slow
def test_upcycled_arms_start_where_stage_2_ended() -> None:
    dense = model().eval()
    for arm in TRAINED:
        if arm.ends < 3:
            continue
        torch.manual_seed(1)
        started = upcycled(dense, arm.tam, 0).eval()
        clip = draw_clip(1)
        asked = ask(clip, np.random.default_rng(0))
        seen = sample(clip, budgets(clip, asked, by_task=arm.by_task)[0], asked[:2])
        layout = dense.config.token_layout
        ids = torch.tensor(
            [turns(asked[:2], [dense.config.video_token_id] * layout.count(len(seen.frames), seen.stride))[0]]
        )
        more = {"video_num_frames": torch.tensor([len(seen.frames)]), "video_pool_strides": torch.tensor([seen.stride])}
        with torch.inference_mode():
            first, second = (m(input_ids=ids, pixel_values_videos=seen.frames, **more).logits for m in (dense, started))
        assert torch.allclose(first, second, atol=1e-4), arm.name


def test_controls_change_what_they_are_to_change() -> None:
    both = model(MIXTURE).eval()
    with torch.no_grad():
        for name, parameter in both.named_parameters():
            if "experts" in name or "stride_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    frames = torch.randn(2, 3, 72, 72)
    for arm in SWITCHED:
        if arm.of != "both":
            continue
        other = switched(both, arm, 0).eval()
        with torch.inference_mode():
            stride = torch.tensor([1])
            found = [m.model.get_video_tokens(frames, torch.tensor([2]), stride) for m in (both, other)]
        assert torch.equal(*found) == (arm.name == "fixed budget"), arm.name


def test_pretraining_resumes_and_names_patches(tmp_path) -> None:
    first = dense_model(0)
    pretrain(first, (2, 2), 0, tmp_path, say=lambda _: None)
    again = dense_model(0)
    pretrain(again, (2, 2), 0, tmp_path, say=lambda _: None)
    for (name, one), two in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    _, labels = labelled_frames(range(3), 2)
    named = labels["names"]
    assert named.shape == (6, 144, 5) and (named.max(-1).values >= 0).all()
    digits = [encode(f" {digit}")[-1] for digit in range(10)]
    signs = torch.isin(named, torch.tensor(digits)).any(-1)
    assert signs.sum(1).tolist() == [4] * 6, "every frame shows a sign of four digits"
    places = [encode(f" {word}")[-1] for word in ("first", "second", "third", "fourth")]
    assert sorted(named[0][signs[0]][:, 3].tolist()) == sorted(places)


@pytest.mark.slow
def test_the_whole_experiment_runs_and_a_second_run_adds_nothing(tmp_path, monkeypatch) -> None:
    arms = ["neither", "both", "stage 1", "tower and projector first", "both, 10 % of the data", "projectors alone"]
    monkeypatch.setattr(run, "TEST_CLIPS", 1)
    argv = ["run", "--out", str(tmp_path), "--setting", "smoke", "--seeds", "0", "--arms", *arms]
    monkeypatch.setattr("sys.argv", argv)
    run.main()
    results = (tmp_path / "results.jsonl").read_text()
    lines = [json.loads(line) for line in results.splitlines()]
    assert {line["arm"] for line in lines} == {*arms, *(arm.name for arm in SWITCHED)}
    assert len(lines) == len(arms) + len(SWITCHED) and {line["mean_visual_tokens"] for line in lines} == {289}
    run.main()
    assert (tmp_path / "results.jsonl").read_text() == results
    torn = "".join(results.splitlines(keepends=True)[:-2]) + lines[-2]["arm"]
    (tmp_path / "results.jsonl").write_text(torn)  # killed in the middle of the last but one
    run.main()
    again = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [{**line, "seconds": 0} for line in again] == [{**line, "seconds": 0} for line in lines]
    assert table(lines).count("\n") == len(lines) + 2
    both = next(arm for arm in TRAINED if arm.name == "both")
    export(tmp_path / "seed0" / "both.stage3.pt", both, 0, tmp_path / "model")
    loaded = load(str(tmp_path / "model"), device="cpu")
    found = measure(loaded.model, range(1))
    assert [asdict(row) for row in found] == next(line["rows"] for line in lines if line["arm"] == "both")


def test_arms_share_a_second_stage_that_is_the_same_for_them() -> None:
    names: dict[str, list[Arm]] = {}
    for arm in TRAINED:
        names.setdefault(arm.stage2_name, []).append(arm)
    for arms in names.values():
        assert len({(arm.by_task, arm.stage2, arm.data) for arm in arms}) == 1
    assert len(names) == len({(arm.by_task, arm.stage2, arm.data) for arm in TRAINED})


def test_seeds_are_measured_on_clips_that_no_other_seed_and_no_training_sees() -> None:
    clips = [clip for seed in range(3) for clip in run.split_clips(seed)]
    assert len(set(clips)) == len(clips) and max(clips) < stages.FIRST_SEED


def test_a_stage_trains_its_parts_on_its_share_of_the_clips(monkeypatch) -> None:
    net = model()
    stage = stages.Stage(name="s", steps=10, by_task=True, language_model=False, share=0.25)
    trained = {name for name, _ in net.named_parameters() if stages._trains(stage, name)}
    assert trained and all("multi_modal_projector" in name for name in trained)
    monkeypatch.setattr(stages, "OPTIONS_SHOWN", 0)
    once, again = stages._samples(stage, 0), stages._samples(stage, 16)[4:]  # 80 places, 20 clips, 8 a step
    for first, second in zip(once, again, strict=False):
        assert torch.equal(first.frames, second.frames) and first.questions == second.questions
    assert len(again) == 4 and once[0].questions != once[1].questions


def test_parts_have_their_own_rates() -> None:
    stage = stages.Stage(name="s", steps=1, by_task=True, tower=True, language_rate=3e-4, tower_rate=5e-4)
    peaks = {"vision_tower": 5e-4, "multi_modal_projector": 1e-3, "language_model": 3e-4}
    net = model(MIXTURE)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for group in stages._optimizer(net, stage).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["peak"] == next((peak for part, peak in peaks.items() if part in name), 3e-4), name


def test_a_review_asks_about_single_frames_changes_and_videos() -> None:
    stage = stages.Stage(name="s", steps=60, by_task=None, form="review", clips_per_step=2)
    seen = [stages._samples(stage, 2 * step) for step in range(60)]
    tasks: dict[str, set[int]] = {"still": set(), "changes": set(), "video": set()}
    for samples in seen:
        about = "video" if len(samples) == 1 else ("still", "changes")[len(samples[0].frames) - 1]
        tasks[about] |= {question.task.index for sample in samples for question in sample.questions}
    assert tasks["changes"] == {2} and tasks["still"] == {1, 3, 5, 8} and tasks["video"] >= {1, 2, 4, 6}


def test_blind_and_untrained_models_guess() -> None:
    rows = measure(model().eval(), range(30), by_task=False, blind=True, statements=True)
    right = float(np.mean([row.right for row in rows]))
    assert abs(right - 0.25) < 4 * (0.25 * 0.75 / len(rows)) ** 0.5
    assert set(by_task_type(rows)) == set(range(1, 9)) and {row.visual_tokens for row in rows} == {289}
