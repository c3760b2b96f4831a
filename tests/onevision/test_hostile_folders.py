"""Checkpoints that strangers made: each is refused in one line, in bounded time and memory, or does no harm."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tam_plugin import TamConfig
from tam_plugin.budget.policy import DEFAULT_POLICY
from tam_plugin.errors import ConfigError
from tam_plugin.inductor.model import DEFAULT_FOLDER
from tam_plugin.patches.onevision import VideoAssistant, load, upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model

from ..hostile import is_refusal, limited_many


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole TAM checkpoint, tiny but of the real grid, that has learned nothing."""
    folder = tmp_path_factory.mktemp("good")
    dense, tokenizer = demo_dense_model(image_size=84, patch_size=14)
    upgrade_dense(dense, TamConfig()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edited(folder, path, value):
    """A value of config.json (or of another file: ``file.json:a.b``) in place of another."""
    name, _, dotted = path.rpartition(":")
    file = folder / (name or "config.json")
    values = json.loads(file.read_text()) if file.exists() else {}
    *above, last = dotted.split(".")
    place = values
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    file.write_text(json.dumps(values))


def fifo(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def shared(folder, count):
    """The policy with a curve of so many points."""
    import yaml

    policy = yaml.safe_load(DEFAULT_POLICY.read_text())
    policy["groups"]["frames"]["max_frames"] = [[float(n), 1.0] for n in range(count)]
    return policy


EDITS = [
    ("vision_config.num_hidden_layers", 10**9, "num_hidden_layers = 1000000000: expected a whole number from 1 to 512"),
    ("text_config.num_hidden_layers", 10**9, "num_hidden_layers = 1000000000"),
    ("text_config.num_hidden_layers", 400, "no model can be built"),
    ("text_config.vocab_size", 8_000_000, "parameters, the weights hold"),
    ("text_config.intermediate_size", 1_000_000, "parameters, the weights hold"),
    ("text_config.hidden_size", 65_536, ""),
    ("vision_config.image_size", 16_384, "parameters, the weights hold"),
    ("vision_config.hidden_size", 10**12, "hidden_size = 1000000000000"),
    ("vision_config.hidden_size", "wide", "hidden_size = 'wide'"),
    ("vision_config", 7, ""),
    ("text_config", [], ""),
    ("vision_config.hidden_act", "__import__", ""),
    ("_attn_implementation", "stranger/kernels", "names code on a hub"),
    ("tam.moe.num_experts", 10**9, "num_experts"),
    ("tam.moe.num_experts", 1024, "names 1024 experts"),
    ("tam.projector.strides", list(range(1, 200_000)), "at most 64 of them"),
    ("tam.projector.strides", list(range(1, 65)), ""),
    ("tam.projector.strides", "1", "strides"),
    ("tam.policy", "/etc/passwd", "names the policy file '/etc/passwd' (tam.policy): files that a checkpoint names"),
    ("tam.policy", [1], "policy"),
    ("tam.policy", {"version": 1}, "mode is missing"),
    ("tam.inductor", "/etc", "names the Inductor '/etc' (tam.inductor), which is no folder of the checkpoint"),
    ("tam.inductor", "../..", "which is no folder of the checkpoint"),
    ("tam.inductor", "stranger/model", "which is no folder of the checkpoint"),
    ("tam.vision_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ("tam", [], "expected a mapping"),
    ("generation_config.json:num_beams", 50_000, "num_beams = 50000: expected a whole number from 0 to 64"),
    ("generation_config.json:eos_token_id", list(range(100_000)), "eos_token_id"),
    ("generation_config.json:eos_token_id", "x", ""),
    ("generation_config.json:repetition_penalty", -1.0, "repetition_penalty"),
    ("preprocessor_config.json:image_mean", [0.5, 0.5], "image_mean = [0.5, 0.5]: expected three numbers"),
    ("preprocessor_config.json:image_std", [0.5, 0.0, 0.5], "image_std"),
    ("preprocessor_config.json:image_mean", float("nan"), "finite numbers"),
    ("preprocessor_config.json:image_mean", "0.5", "image_mean"),
    ("adapter_config.json:base_model_name_or_path", "/etc", "holds adapter_config.json"),
    ("model.safetensors.index.json:weight_map", {"x": "../../etc/passwd"}, "expected a weight_map"),
    ("tokenizer.json:normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 10**6}, "longer"),
    ("tokenizer_config.json:model_max_length", float("inf"), "finite numbers"),
    ("tokenizer_config.json:model_max_length", [1], "expected a number"),
    ("vision_feature_layer", 500, "vision_feature_layer = 500: expected layers"),
    ("video_token_index", 10**6, ""),
]
FILES = {
    "a pipe for config.json": (lambda f: fifo(f, "config.json"), "not a regular file"),
    "a pipe for tokenizer.json": (lambda f: fifo(f, "tokenizer.json"), "not a regular file"),
    "a pipe for a shard": (lambda f: fifo(f, "model.safetensors"), "not a regular file"),
    "a pipe for a second shard": (lambda f: fifo(f, "model-2.safetensors"), "not a regular file"),
    "a pipe for generation_config.json": (lambda f: fifo(f, "generation_config.json"), "not a regular file"),
    "a device": (lambda f: (f / "vocab.json").symlink_to("/dev/zero"), "not a regular file"),
    "deep": (lambda f: (f / "config.json").write_text('{"a":' * 90 + "1" + "}" * 90), "nested deeper"),
    "twice": (lambda f: (f / "config.json").write_text('{"tam": {}, "tam": null}'), "stands twice"),
    "huge": (lambda f: os.truncate(f / "config.json", 1 << 40), "larger than"),
    "a header beyond the file": (
        lambda f: (f / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}"),
        "model.safetensors",
    ),
    "a curve without end": (lambda f: edited(f, "tam.policy", shared(f, 100_000)), "max_frames"),
    "no folder": (shutil.rmtree, ""),
}


@pytest.mark.slow
def test_each_is_refused(good, tmp_path, sample_clip):
    cases, wanted = [], []
    for number, (path, value, words) in enumerate(EDITS):
        folder = tmp_path / f"edit{number}"
        shutil.copytree(good, folder)
        edited(folder, path, value)
        cases.append(["ask", sample_clip, "--query", "What is it?", "--model", folder])
        wanted.append((f"{path} = {str(value)[:60]}", words))
    for name, (spoil, words) in FILES.items():
        folder = tmp_path / name
        shutil.copytree(good, folder)
        spoil(folder)
        cases.append(["ask", sample_clip, "--query", "What is it?", "--model", folder])
        wanted.append((name, words))
    results = limited_many(cases)
    found = zip(wanted, results, strict=True)
    wrong = [(name, result) for (name, words), result in found if not is_refusal(result, words)]
    assert not wrong, "\n".join(f"{name}: {code} {err[-500:]}" for name, (code, _, err) in wrong)


@pytest.mark.slow
def test_what_a_checkpoint_names_can_be_given_instead(good, tmp_path, sample_clip):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    edited(folder, "tam.policy", "/etc/passwd")
    edited(folder, "tam.inductor", "/etc")
    ask = ["ask", sample_clip, "--query", "What is it?", "--model", folder, "--max-new-tokens", 2, "--json"]
    given = ["--policy", DEFAULT_POLICY, "--inductor", DEFAULT_FOLDER]
    refused, done = limited_many([ask, [*ask, *given]])
    assert is_refusal(refused, "/etc") and done[0] == 0 and json.loads(done[1])["num_frames"] > 0


def test_an_inductor_and_a_policy_travel_with_the_checkpoint(tmp_path):
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "mine")
    shutil.copy(DEFAULT_POLICY, tmp_path / "policy.yaml")
    dense, tokenizer = demo_dense_model(image_size=84, patch_size=14)
    tam = TamConfig(policy=str(tmp_path / "policy.yaml"), inductor=str(tmp_path / "mine"))
    model = upgrade_dense(dense, tam)
    assert model.inductor == str(tmp_path / "mine")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "mine")
    os.unlink(tmp_path / "policy.yaml")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    assistant = VideoAssistant.from_pretrained(str(tmp_path / "elsewhere"))
    assert assistant.inductor == str((tmp_path / "elsewhere" / "inductor").resolve())
    assert assistant.decider().policy_for("What is it?").max_frames == 120
    assert model.config.tam_config.inductor == str(tmp_path / "mine")  # saving leaves the model as it was


def test_beams_of_a_checkpoint_are_not_followed(good, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    for name, value in {"num_beams": 5, "do_sample": True, "min_length": 4000, "repetition_penalty": 1.1}.items():
        edited(folder, f"generation_config.json:{name}", value)
    config = load(str(folder)).model.generation_config
    assert config.repetition_penalty == 1.1 and not config.do_sample
    assert (config.num_beams or 1, config.min_length or 0) == (1, 0)


def test_special_marks_are_counted_as_they_are_written(good):
    assistant = VideoAssistant.from_pretrained(str(good))
    marks = "<|im_end|>" * 300
    reserve = assistant.decider().policy_for(f"?{marks}").context.text_reserve_tokens
    written = assistant.loaded.tokenizer(marks, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert len(written) == 300 * len("<|im_end|>")  # a token per byte
    assert reserve >= len(written)


def test_half_a_character_in_a_question(good):
    from tam_plugin.errors import InputError

    assistant = VideoAssistant.from_pretrained(str(good))
    with pytest.raises(InputError, match="half a character"):
        assistant.decider().decide("a \ud800", 5.0)
    with pytest.raises(ConfigError, match="token_id"):
        from tam_plugin.patches.onevision.generation import followed

        config = assistant.loaded.model.generation_config
        config.eos_token_id = 10**6
        followed(config, 261, "model")
