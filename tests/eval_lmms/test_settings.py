"""``--model_args``, the sample log and the scoring of continuations, without lmms-eval."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tam_plugin.budget import BudgetPolicy
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.lmms.fingerprints import evaluation_fingerprint
from tam_plugin.eval.lmms.sample_log import SampleLog, read_log
from tam_plugin.eval.lmms.scoring import losses
from tam_plugin.eval.lmms.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "x", "max_frame": 8}, r"unknown argument 'max_frame'; expected some of pretrained, policy, .*"),
        ({}, "pretrained is missing"),
        ({"pretrained": " "}, "pretrained is missing"),
        ({"pretrained": "x", "batch_size": "auto"}, "batch_size = 'auto': expected a whole number >= 1"),
        ({"pretrained": "x", "max_frames": 0}, "max_frames = 0: expected a whole number >= 1"),
        ({"pretrained": "x", "max_frames": 2.5}, "max_frames = 2.5: expected a whole number >= 1"),
        ({"pretrained": "x", "dtype": "int8"}, "dtype = 'int8': expected one of auto, float32"),
        ({"pretrained": "x", "time_instruction": "yes"}, "time_instruction = 'yes': expected true or false"),
        ({"pretrained": "x", "sampler": "nobody"}, "sampler 'nobody': expected one of uniform, keyframe"),
        ({"pretrained": "x", "image_fps": "fast"}, "image_fps = 'fast': expected a number above 0"),
        ({"pretrained": "x", "policy": "fixed:64"}, "policy 'fixed:64': expected fixed:FRAMES:STRIDE"),
        ({"pretrained": "x", "policy": "fixed:0:2"}, "policy 'fixed:0:2': expected fixed:FRAMES:STRIDE"),
        ({"pretrained": "x", "policy": "nowhere.yaml"}, "budget policy file 'nowhere.yaml' cannot be read"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        Settings.from_arguments(arguments).own_policy()
    assert "\n" not in str(raised.value)


def test_arguments_as_lmms_eval_hands_them_over():
    given = {"pretrained": 7, "policy": "fixed:64:2", "batch_size": "3", "max_batch_size": None, "device": None}
    settings = Settings.from_arguments(given)
    assert (settings.pretrained, settings.batch_size, settings.device) == ("7", 3, "auto")
    budget = settings.own_policy().capped(16).budget()
    assert (budget.num_frames, budget.pool_stride) == (16, 2)
    assert BudgetPolicy.from_yaml().capped(16).max_frames == 16
    assert BudgetPolicy.from_yaml().capped(500).max_frames == BudgetPolicy.from_yaml().max_frames


def test_log_of_a_killed_run_goes_on(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    record = {"task": "t", "split": "test", "doc_id": 0, "index": 0, "frames": 4}
    log = SampleLog(str(path))
    log.write(record)
    log.close()
    with path.open("a") as file:
        file.write('{"task": "t", "spl')
    again = SampleLog(str(path))
    again.write({**record, "frames": 8})
    again.close()
    other = SampleLog(str(path), rank=1)
    other.write({**record, "doc_id": 1})
    other.close()
    assert [(r["doc_id"], r["frames"]) for r in read_log(path)] == [(0, 8), (1, 4)]
    path.write_text('{"task": 1}\n')
    with pytest.raises(InputError, match=r"log.jsonl:1: not a line of a sample log"):
        read_log(path)


def test_losses_against_float64():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 6, 5, generator=generator)
    weight = torch.randn(7, 5, generator=generator)
    labels = torch.full((2, 6), -100)
    labels[0, 3:6] = torch.tensor([1, 2, 3])
    logits = hidden.double() @ weight.double().T
    labels[1, 2:4] = torch.stack([logits[1, 1].argmax(), torch.tensor(6)])
    found = losses(hidden, labels, lambda h: h @ weight.T, ending=1)
    for row, (loss, _) in enumerate(found):
        wanted = [
            -math.log(math.exp(logits[row, place - 1, label]) / logits[row, place - 1].exp().sum())
            for place, label in enumerate(labels[row].tolist())
            if label != -100
        ]
        assert loss == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)
    assert found[1][1]  # what ends the turn does not count
    assert not found[0][1]


def test_fingerprints_differ_with_what_they_stand_for(tmp_path):
    import os
    import shutil

    from tam_plugin.inductor.model import DEFAULT_FOLDER

    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"1234")
    inductor = tmp_path / "inductor"
    shutil.copytree(DEFAULT_FOLDER, inductor)
    values = BudgetPolicy.from_yaml().to_dict()

    def now(policy=None, name=str(inductor)):
        return evaluation_fingerprint((str(weights), None), policy or BudgetPolicy.from_dict(values), name)

    first = now()
    assert now() == first
    assert now(name=None) == first  # a copy of the embedded one
    assert now(BudgetPolicy.from_dict({**values, "max_frames": 50}))["policy"] != first["policy"]
    fixed = {now(BudgetPolicy.fixed(64, stride))["policy"] for stride in (1, 2)}
    assert len({*fixed, first["policy"]}) == 3
    config = json.loads((inductor / "config.json").read_text())
    (inductor / "config.json").write_text(json.dumps({**config, "tam_temperature": 3.0}))
    assert now()["inductor"] != first["inductor"]
    status = (weights / "model.safetensors").stat()
    os.utime(weights / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = now()["weights"]
    assert changed != first["weights"]
    (weights / "config.json").write_text('{"a": 1}')
    assert now()["weights"] not in (changed, first["weights"])
