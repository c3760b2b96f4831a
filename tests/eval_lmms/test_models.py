"""The models in this process: batches, failures, what is cached; and the baseline's own answers."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch

from tam_plugin.errors import ConfigError
from tam_plugin.eval.lmms.results import ERROR_MARK
from tam_plugin.eval.lmms.sample_log import read_log

pytestmark = pytest.mark.usefixtures("lmms_eval")


def make(kind: str, checkpoint: Path, rows, **arguments):
    """A model as lmms-eval makes it."""
    if kind == "onevision":
        from tam_plugin.eval.lmms.onevision import TallvaOnevision as Model
    else:
        from tam_plugin.eval.lmms.llava_next import Tallva as Model
    settings = {"pretrained": checkpoint, "device": "cpu", "dtype": "float32", "max_frames": 8, **arguments}
    text = ",".join(f"{name}={value}" for name, value in settings.items())
    model = Model.create_from_arg_string(text, {"batch_size": None, "max_batch_size": None, "device": None})
    model.task_dict = {"tiny": {"test": rows}}
    return model


@pytest.fixture(params=["onevision", "llava_tam"])
def checkpoint(request):
    """Kind and folder of each host's."""
    return request.param, request.getfixturevalue(request.param)


def texts(responses) -> list:
    return [getattr(response, "text", response) for response in responses]


def test_batches_give_the_answers_of_single_requests(checkpoint, videos, instances, tmp_path):
    asked, scored = instances(videos), instances(videos, " a red one")
    answers, losses, records = {}, {}, {}
    for size in (1, 3):
        log = tmp_path / f"{size}.jsonl"
        model = make(*checkpoint, videos, batch_size=size, log=log)
        answers[size] = texts(model.generate_until(asked))
        losses[size] = texts(model.loglikelihood(scored))
        records[size] = read_log(log)
    assert answers[1] == answers[3]
    assert [loss for loss, _ in losses[3]] == pytest.approx([loss for loss, _ in losses[1]], rel=1e-4)
    assert len({record["stride"] for record in records[3]}) > 1  # one batch, several strides
    for one, other in zip(records[1], records[3], strict=True):
        for name in ("task_type", "confidence", "frames", "stride", "visual_tokens", "prompt_tokens", "timestamps_s"):
            assert one[name] == other[name], name


def test_a_tam_model_answers_by_the_question(checkpoint, videos, instances, tmp_path):
    from tam_plugin import Inductor

    rows = [{**videos[2], "question": question} for question in ("What is written on the sign?", "What happens next?")]
    make(*checkpoint, rows, log=tmp_path / "log.jsonl").generate_until(instances(rows))
    records = read_log(tmp_path / "log.jsonl")
    for row, record in zip(rows, records, strict=True):
        said = Inductor.from_pretrained().classify(row["question"], 6.0, row["options"])
        assert (record["task_type"], record["confidence"]) == (said.task.label, pytest.approx(said.confidence))
        assert record["question"] == row["question"]
        assert len(record["timestamps_s"]) == record["frames"] <= 8
        assert record["seconds"] > 0
    assert records[0]["stride"] < records[1]["stride"] or records[0]["frames"] < records[1]["frames"]


def test_loss_is_that_of_the_hosts_own_forward(onevision, videos, instances):
    from tam_plugin.config import InstructionConfig
    from tam_plugin.deciding import compose_question, instruction_lines
    from tam_plugin.patches.onevision import VideoTurn, build_inputs, load
    from tam_plugin.video import preprocess_frames, sample_frames

    model = make("onevision", onevision, videos, policy="fixed:4:2")
    found = texts(model.loglikelihood(instances(videos[:1], "red")))[0]
    loaded = load(str(onevision), device="cpu")
    video = sample_frames(videos[0]["video"], 4)
    budget = model.decider.policy.budget()
    lines = instruction_lines(budget, video, InstructionConfig(time=True))
    question = compose_question(videos[0]["question"], lines)
    frames = preprocess_frames(video.frames, size=70, mean=loaded.image_mean, std=loaded.image_std)
    turn = VideoTurn(question=question, frames=frames, pool_stride=2, answer="red")
    with torch.no_grad():
        expected = loaded.model(**build_inputs([turn], loaded.tokenizer, loaded.model.config)).loss
    assert found[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("time", [False, True])
def test_fixed_policy_is_llava_vid(llava_tam, videos, instances, time):
    pytest.importorskip("decord", reason="llava_vid reads videos with decord")
    from lmms_eval.models.simple.llava_vid import LlavaVid

    files = videos[:3]
    baseline = LlavaVid(
        pretrained=str(llava_tam),
        device="cpu",
        device_map="auto",
        torch_dtype="bfloat16",
        conv_template="qwen_1_5",
        max_frames_num=4,
        force_sample=True,
        add_time_instruction=time,
        overwrite=False,
        mm_spatial_pool_mode="bilinear",
    )
    baseline.task_dict = {"tiny": {"test": files}}
    arguments = {"policy": "fixed:4:2", "dtype": "bfloat16"}
    model = make("llava_next", llava_tam, files, time_instruction=time, **arguments)
    expected = baseline.generate_until(copy.deepcopy(instances(files)))
    assert texts(model.generate_until(instances(files))) == expected
    assert any(expected)
    if not time:  # the baseline leaves the instruction out of scored prompts
        scored = instances(files, "red")
        expected = [loss for loss, _ in baseline.loglikelihood(scored)]
        assert [loss for loss, _ in texts(model.loglikelihood(scored))] == pytest.approx(expected, abs=1e-6)


def test_a_plain_checkpoint_follows_a_policy(llava_plain, videos, instances, tmp_path):
    """The language model sees what the policy's stride makes; by itself the host would take stride 2."""
    import yaml

    from tam_plugin.budget.policy import DEFAULT_POLICY
    from tests.llava import tiny

    checkpoint, hub = llava_plain
    values = yaml.safe_load(DEFAULT_POLICY.read_text())
    for group in values["groups"].values():
        group["strides"] = [3]
    policy, log = tmp_path / "policy.yaml", tmp_path / "log.jsonl"
    policy.write_text(yaml.safe_dump(values))
    with tiny.hub_cache(hub):
        model = make("llava_next", checkpoint, videos, policy=policy, max_frames=2, log=log)
    seen = []
    layer = model.host_model.model.get_model().layers[0]
    layer.register_forward_pre_hook(
        lambda _, args, more: seen.append((args[0] if args else more["hidden_states"]).shape[1]), with_kwargs=True
    )
    model.generate_until(instances(videos[:1]))
    (record,) = read_log(log)
    assert (record["stride"], record["frames"], record["fallback"], record["error"]) == (3, 2, None, None)
    assert record["visual_tokens"] == 2 * 9 * (9 + 1)  # a newline token for each row of the grid
    assert seen[0] == record["prompt_tokens"]


def test_an_undecodable_video_is_an_error_and_never_cached(onevision, videos, instances, tmp_path):
    from lmms_eval.caching.response_cache import ResponseCache

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(videos[0]["video"]).read_bytes()[:400])
    rows = [videos[0], {**videos[0], "video": str(broken)}]
    log = tmp_path / "log.jsonl"
    arguments = f"pretrained={onevision}"

    def ask(requests, kind):
        model = make("onevision", onevision, rows, log=log, batch_size=2)
        cache = ResponseCache.create(str(tmp_path / "cache"), model="tallva_onevision", model_args=arguments)
        responses = texts(cache.execute(model, kind, requests))
        cache.finalize(success=True)
        model.clean()  # a log has one writer
        return responses

    good, bad = ask(instances(rows), "generate_until")
    assert not good.startswith(ERROR_MARK)
    assert bad.startswith(ERROR_MARK) and str(broken) in bad and bad.strip() == ""
    _, loss = ask(instances(rows, "red"), "loglikelihood")
    assert loss[0] >= 1e9 and loss[1] is False
    assert [record["error"] is None for record in read_log(log)] == [True, False]

    shutil.copy(videos[0]["video"], broken)
    lines = len(log.read_text().splitlines())
    again, repaired = ask(instances(rows), "generate_until")
    assert again == repaired == good
    assert len(log.read_text().splitlines()) == lines + 1  # the good one came from the cache


def test_cached_responses_belong_to_policy_inductor_and_weights(onevision, videos, tmp_path):
    from lmms_eval.caching.response_cache import ResponseCache

    from tam_plugin.budget.policy import DEFAULT_POLICY

    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text())

    def key(name="tallva_onevision", **arguments):
        model = make("onevision", onevision, videos, policy=policy, **arguments)
        name = model if name == "instance" else name
        cache = ResponseCache.create(str(tmp_path / "cache"), model=name, model_args=f"pretrained={onevision}")
        cache.close()
        return cache.model_fingerprint

    first = key()
    assert key() == first
    instance = key("instance")
    assert key("instance", log=tmp_path / "log.jsonl") == instance != first
    assert key("instance", image_fps=2.0) != instance
    assert key("llava_vid") == f'llava_vid|{{"pretrained":"{onevision}"}}'  # other models' keys are as they were
    policy.write_text(DEFAULT_POLICY.read_text().replace("min_confidence: 0.35", "min_confidence: 0.4"))
    assert key() != first
    assert key("instance") != instance


def test_padding_requests_are_not_asked_twice(onevision, videos, instances, tmp_path):
    requests = instances(videos[:2])
    padding = copy.copy(requests[-1])
    padding.metadata = {**padding.metadata, "__padding_only__": True}
    model = make("onevision", onevision, videos, log=tmp_path / "log.jsonl")
    responses = texts(model.generate_until([*requests, padding, padding]))
    assert responses[1] == responses[2] == responses[3]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_requests_that_cannot_be_answered(onevision, videos, instances, tmp_path):
    def leave(doc):
        raise SystemExit(f"video path:{doc['video']} does not exist, please check")

    rows = [{**videos[0], "context": " \n", "question": ""}, {**videos[0], "context": "Why? " * 9000}]
    model = make("onevision", onevision, rows)
    no_question, too_long = model.generate_until(instances(rows))
    assert "contains no question to decide the frames by; use policy=fixed" in no_question
    assert "tokens and an answer of 5" in too_long
    assert "does not exist, please check" in model.generate_until(instances(rows[:1], visual=leave))[0]
    fixed = make("onevision", onevision, rows, policy="fixed:4:2")
    assert not texts(fixed.generate_until(instances(rows[:1])))[0].startswith(ERROR_MARK)
    with pytest.raises(ConfigError, match=r"task tiny, row 0 shows 2 things \(str\): expected the path of one video"):
        fixed.generate_until(instances(rows[:1], visual=lambda doc: [doc["video"]] * 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "fixed:4:7"}, r"stride 7: this model has projectors for \[1, 2, 3, 4\]"),
        ({"frames": 3}, "unknown argument 'frames'"),
    ],
)
def test_bad_arguments_stop_before_the_first_request(checkpoint, videos, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(*checkpoint, videos, **arguments)
