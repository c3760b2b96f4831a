"""``tam upcycle`` on LLaVA-NeXT checkpoints: the host's upgrade in memory and the host's loader are the measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tam_plugin.cli.main import main
from tests.llava import tiny
from tests.llava.test_loading import load
from tests.llava.test_upgrade import load_dense, logits, model_args, video

pytestmark = pytest.mark.usefixtures("llava")
TIMES = {"transformers_version", "dtype", "torch_dtype", "_name_or_path"}


def upcycle(hub: Path, *argv: object) -> int:
    with tiny.hub_cache(hub):
        return main(["upcycle", *map(str, argv)])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def config(folder: Path) -> dict:
    values = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in values.items() if name not in TIMES}


@pytest.mark.parametrize(
    ("tam", "flags"),
    [
        ({"tam_num_experts": 3, "tam_top_k": 1, "tam_strides": "1,2"}, None),
        ({"tam_projector_gate": "soft"}, {"projector": {"gate": "soft"}}),
        (
            {"tam_moe": False, "tam_projector_gate": "single"},
            {"moe": {"enabled": False}, "projector": {"gate": "single"}},
        ),
    ],
    ids=["experts", "soft", "stage 2"],
)
def test_it_is_what_the_upgrade_in_memory_saves(dense: Path, hub: Path, tmp_path: Path, tam: dict, flags: dict | None):
    from tam_plugin.patches.llava_next.checkpoints.upgrade import upgrade_model

    model = load_dense(dense, hub, torch.bfloat16)
    model.get_vision_tower().to(torch.bfloat16)  # the host loads its tower in float32 and casts it
    torch.manual_seed(9)
    with tiny.hub_cache(hub):
        upgrade_model(model.get_model(), model_args(**tam), as_list=False)
    model.save_pretrained(tmp_path / "memory")
    if flags is None:
        options = ["--num-experts", 3, "--top-k", 1, "--strides", "1,2"]
    else:
        # The host's pooling mode holds unless a file says otherwise; this one says the same.
        (tmp_path / "tam.yaml").write_text(json.dumps(flags))
        options = ["--config", tmp_path / "tam.yaml"]
    assert upcycle(hub, dense, tmp_path / "disk", "--seed", 9, *options) == 0
    ours, theirs = tensors(tmp_path / "disk"), tensors(tmp_path / "memory")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name
    assert config(tmp_path / "disk") == config(tmp_path / "memory")


def test_the_hosts_loader_computes_what_the_dense_checkpoint_computes(dense: Path, hub: Path, tmp_path: Path):
    source = write_in_shards(dense, tmp_path / "qwen-dense-shards")
    assert upcycle(hub, source, tmp_path / "tam") == 0
    tokenizer, model, _, _ = load(tmp_path / "tam")
    assert len(tokenizer) == tiny.VOCABULARY and type(model.get_vision_tower()).__name__ == "TamVisionTower"
    # Compared in float32, where equal means equal: bfloat16 rounds after other operations in a mixture.
    before, frames = load_dense(source, hub), video(3)
    model = model.float().eval()
    torch.testing.assert_close(logits(model, frames), logits(before, frames), atol=1e-5, rtol=0)
    image = frames[:1]
    torch.testing.assert_close(logits(model, image, "image"), logits(before, image, "image"), atol=1e-5, rtol=0)


def write_in_shards(dense: Path, folder: Path) -> Path:
    """The dense checkpoint over four files, one of which holds nothing visual."""
    shutil.copytree(dense, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    state = tensors(dense)
    visual = sorted(name for name in state if "vision_tower" in name or "mm_projector" in name)
    rest = sorted(state.keys() - set(visual))
    groups = [rest[:8], rest[8:] + visual[:10], visual[10:30], visual[30:]]
    places = {}
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-00004.safetensors"
        save_file({name: state[name] for name in group}, str(folder / file), metadata={"format": "pt"})
        places.update(dict.fromkeys(group, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.mark.parametrize("journal", [True, False])
def test_there_and_back(dense: Path, hub: Path, tmp_path: Path, journal: bool):
    assert upcycle(hub, dense, tmp_path / "tam") == 0
    named = ["--vision-tower", tiny.SIGLIP]
    if not journal:
        (tmp_path / "tam" / "tam_upcycle.jsonl").unlink()
        assert upcycle(hub, tmp_path / "tam", tmp_path / "back", "--dense", "average") == 2
        assert not (tmp_path / "back").exists()
    assert upcycle(hub, tmp_path / "tam", tmp_path / "back", "--dense", "average", *([] if journal else named)) == 0
    ours, theirs = tensors(tmp_path / "back"), tensors(dense)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert config(tmp_path / "back") == config(dense)
    with tiny.hub_cache(hub):
        _, model, _, _ = load(tmp_path / "back")
    assert type(model.get_vision_tower()).__name__ == "SigLipVisionTower"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"mm_vision_tower": "openai/clip-vit-large-patch14-336"},
            "(mm_vision_tower) is 'openai/clip",
        ),
        ({"model_type": "llava_mistral"}, "mistral model"),
        ({"mm_vision_tower": "tam", "tam": {"moe": {"experts": 4}}}, "unknown field 'experts'"),
        ({"mm_vision_tower": "tam"}, "no tam.vision_encoder"),
    ],
)
def test_configurations_that_are_refused(dense: Path, hub: Path, tmp_path: Path, capsys, changes: dict, words: str):
    source = shutil.copytree(dense, tmp_path / "source")
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, **changes}))
    assert upcycle(hub, source, tmp_path / "tam") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and words in err and not (tmp_path / "tam").exists()


def test_a_checkpoint_without_its_tower(dense: Path, hub: Path, tmp_path: Path, capsys):
    source = shutil.copytree(dense, tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    kept = {name: tensor for name, tensor in tensors(dense).items() if "vision_tower" not in name}
    save_file(kept, str(source / "model.safetensors"), metadata={"format": "pt"})
    assert upcycle(hub, source, tmp_path / "tam") == 2
    assert "saved without its vision tower" in capsys.readouterr().err
