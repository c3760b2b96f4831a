"""The registry: light to import, one answer and one message, and the only place that tells hosts apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.hosts import check_host, find_host, host_named, host_of, hosts, lmms_models, register_host

ROOT = Path(__file__).resolve().parents[2]
SIGNS = {"mm_vision_tower", "llava_onevision", "tam_llava_onevision"}
"""What of a config.json tells the hosts that ship apart."""
ROOMS = [ROOT / "patches" / name for name in ("hosts", "llava_next", "onevision", "compat")]
"""The registry, and the hosts' own code."""


def test_it_imports_no_host():
    code = (
        "import sys, tam_plugin.patches.hosts as registry; registry.hosts(); registry.lmms_models(); "
        "print([name for name in ('torch', 'transformers', 'llava', 'numpy', 'yaml') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_no_other_code_tells_hosts_apart():
    found = []
    for folder in ("tam_plugin", "eval", "patches"):
        for path in (ROOT / folder).rglob("*.py"):
            if not any(room in path.parents for room in ROOMS):
                texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
                found += [f"{path.relative_to(ROOT)}: {sign}" for sign in SIGNS & texts]
    assert found == []


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "llava_onevision"}, "onevision"),
        ({"model_type": "tam_llava_onevision", "tam": {}}, "onevision"),
        ({"model_type": "llava_qwen", "mm_vision_tower": "google/siglip-so400m-patch14-384"}, "llava"),
        ({"model_type": "llava_llama", "mm_vision_tower": "tam"}, "llava"),
        ({"mm_vision_tower": None}, "llava"),
        ({"model_type": "qwen2"}, None),
        ({"model_type": "siglip"}, None),
        ({}, None),
    ],
)
def test_whose_a_configuration_is(config, name):
    host = find_host(config)
    assert (host and host.name) == name
    if host is not None:
        assert host_of(config, "here") is host is host_named(host.name)


def test_one_message_names_what_was_found_and_every_host():
    with pytest.raises(ConfigError) as refused:
        host_of({"model_type": "qwen2"}, "somewhere")
    message = str(refused.value)
    assert message.startswith("'somewhere' has model_type 'qwen2' and no mm_vision_tower: expected ")
    assert all(host.checkpoints in message for host in hosts())
    with pytest.raises(ConfigError, match="has no model_type and no mm_vision_tower"):
        host_of({}, "somewhere")


def test_a_checkpoint_of_another_host_is_named():
    with pytest.raises(ConfigError, match=r"is a LLaVA-NeXT checkpoint .*: expected a LlavaOnevision checkpoint"):
        check_host("onevision", {"mm_vision_tower": "tam"}, "somewhere")


def test_what_a_host_cannot_do_says_who_can():
    with pytest.raises(ConfigError) as refused:
        host_named("llava").assistant("some/checkpoint")
    message = str(refused.value)
    assert message.startswith("'some/checkpoint' is a LLaVA-NeXT checkpoint") and "not supported" in message
    assert "expected a LlavaOnevision checkpoint" in message and "--model tallva" in message


def test_names_are_unique():
    with pytest.raises(InputError, match="'llava' is registered already"):
        register_host(host_named("llava"))
    with pytest.raises(InputError, match="host 'vicuna': expected one of llava, onevision"):
        host_named("vicuna")


def test_another_process_makes_the_same_rows():
    import importlib

    for host in hosts():
        module, _, name = host.reference.partition(":")
        assert getattr(importlib.import_module(module), name)().name == host.name


def test_the_models_of_lmms_eval_are_where_the_rows_say():
    models = lmms_models()
    assert list(models) == ["tallva", "tallva_onevision"]
    for model in models.values():
        module, _, name = model.class_path.rpartition(".")
        path = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")  # tam_plugin.eval is eval
        classes = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
        assert name in classes
