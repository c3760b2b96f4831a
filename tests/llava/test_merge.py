"""``tam merge`` on runs of LLaVA-NeXT: peft's merge in memory and the host's loader are the measure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tam_plugin.cli.main import main
from tests.llava import tiny
from tests.llava.test_loading import load, write_language_model
from tests.llava.test_loading_trained import answer, train
from tests.llava.test_streaming_upcycle import TIMES, config, tensors
from tests.llava.test_upgrade import load_dense, logits, upgrade, video

pytestmark = pytest.mark.usefixtures("llava")
VISUAL = ("vision_tower", "mm_projector", "image_newline")
ADAPTERS = {
    "list": {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "r": 2,
        "lora_alpha": 4,
        "rank_pattern": {"down_proj": 3, r"model\.layers\.1\.self_attn\.q_proj": 1},
        "alpha_pattern": {"v_proj": 1},
    },
    "pattern": {
        "target_modules": r"model\.layers\.\d\.(self_attn\.[kq]|mlp\.gate)_proj",
        "r": 4,
        "lora_alpha": 3,
        "use_rslora": True,
    },
}


def merge(hub: Path, *argv: object) -> int:
    with tiny.hub_cache(hub):
        return main(["merge", *map(str, argv)])


def in_float32(folder: Path):
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    return LlavaQwenForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()


def perturbed(model, parts: tuple[str, ...], std: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in parts):
                parameter.add_(torch.randn_like(parameter) * std)


@pytest.fixture(scope="module")
def bases(dense: Path, hub: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in float32 as a run may start from it: with its SigLIP, as a TAM checkpoint, as a language model."""
    folder = tmp_path_factory.mktemp("bases")
    model = load_dense(dense, hub)
    model.save_pretrained(folder / "dense-qwen")
    upgrade(model, hub).save_pretrained(folder / "tam-qwen")
    for name in ("dense-qwen", "tam-qwen"):
        tiny.write_tokenizer(folder / name)
    write_language_model(model, folder / "llm-qwen")
    return {name: folder / f"{name}-qwen" for name in ("dense", "tam", "llm")}


@pytest.fixture(scope="module", params=["list", pytest.param("pattern", marks=pytest.mark.slow)])
def lora(request, bases: dict[str, Path], hub: Path, tmp_path_factory: pytest.TempPathFactory):
    """A LoRA run: the folder that it saved, the names of its targets, and peft's model before and after its merge."""
    peft = pytest.importorskip("peft")
    from tam_plugin.patches.llava_next.checkpoints.partial_saving import save_non_lora

    folder = tmp_path_factory.mktemp("run") / "checkpoint-3"
    settings = peft.LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[request.param])
    model = load_dense(bases["dense"], hub)
    torch.manual_seed(5)
    model = peft.get_peft_model(model, settings)
    upgrade(model, hub)
    perturbed(model, VISUAL, 0.02)
    perturbed(model, ("lora_B",), 0.05)
    model.save_pretrained(folder)
    save_non_lora(SimpleNamespace(model=model, args=SimpleNamespace(should_save=True)), str(folder))
    under_lora = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    with_adapter = logits(model.eval(), video(2))
    merged = model.merge_and_unload().eval()
    assert (with_adapter - logits(load_dense(bases["dense"], hub), video(2))).abs().max() > 0.05
    return SimpleNamespace(
        folder=folder,
        targets={f"{name.removeprefix('base_model.model.')}.weight" for name in under_lora},
        logits=(with_adapter, logits(merged, video(2))),
        state=merged.state_dict(),
    )


@pytest.mark.parametrize("base", ["dense", "tam", "llm"])
def test_it_is_what_peft_merges_in_memory(lora, bases: dict[str, Path], base: str, hub: Path, tmp_path: Path):
    assert merge(hub, lora.folder, tmp_path / "whole", "--base", bases[base]) == 0
    ours = tensors(tmp_path / "whole")
    assert ours.keys() == lora.state.keys() and len(lora.targets) > 4 and lora.targets < ours.keys()
    for name, tensor in lora.state.items():
        assert ours[name].dtype == torch.float32
        if name in lora.targets:
            torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)
        else:
            assert torch.equal(ours[name], tensor), name
    found = logits(in_float32(tmp_path / "whole"), video(2))
    for expected in lora.logits:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("base", ["dense", "llm"])
def test_the_hosts_loader_makes_the_same_of_both(lora, bases: dict[str, Path], base: str, hub: Path, tmp_path: Path):
    """The whole checkpoint alone, and the adapter over its base, through ``load_pretrained_model``."""
    assert merge(hub, lora.folder, tmp_path / "whole", "--base", bases[base]) == 0
    tokenizer, whole, processor, context = load(tmp_path / "whole", name="anything")
    with tiny.hub_cache(hub):
        _, over_base, _, _ = load(lora.folder, bases[base], name="anything-lora")
    assert (len(tokenizer), context) == (tiny.VOCABULARY, 32768)
    assert processor.crop_size == {"height": 384, "width": 384}
    assert type(whole) is type(over_base)
    states = whole.state_dict(), over_base.state_dict()
    assert states[0].keys() == states[1].keys()
    written = tensors(tmp_path / "whole")
    for name, tensor in states[0].items():
        assert torch.equal(tensor, written[name].bfloat16()), name
        # The loader rounds the base first and the sum again.
        torch.testing.assert_close(tensor, states[1][name], atol=2e-3, rtol=2**-6)
    over_base.save_pretrained(tmp_path / "memory")
    ours, theirs = (type(whole.config).from_pretrained(tmp_path / name).to_dict() for name in ("whole", "memory"))
    assert {k: v for k, v in ours.items() if k not in TIMES} == {k: v for k, v in theirs.items() if k not in TIMES}


def test_in_bfloat16_sums_are_rounded_once(lora, dense: Path, hub: Path, tmp_path: Path):
    assert merge(hub, lora.folder, tmp_path / "whole", "--base", dense) == 0
    ours, at_rest = tensors(tmp_path / "whole"), tensors(dense)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert ours[name].dtype == torch.bfloat16 and not torch.equal(ours[name], at_rest[name])
    agree = ours[name] == lora.state[name].bfloat16()
    assert agree.float().mean() > 0.999
    # What lies beside the adapter stays in the dtype in which the run saved it.
    held = load_file(lora.folder / "tam_non_lora.safetensors")
    assert all(ours[n].dtype == tensor.dtype for n, tensor in held.items())


def test_projector_only(bases: dict[str, Path], hub: Path, tmp_path: Path):
    from tam_plugin.patches.llava_next.checkpoints.partial_saving import save_non_lora

    run = tmp_path / "run"
    model = upgrade(load_dense(bases["dense"], hub), hub)
    perturbed(model, ("mm_projector",), 0.05)
    save_non_lora(SimpleNamespace(model=model, args=SimpleNamespace(should_save=True)), str(run))
    torch.save({n: t for n, t in model.state_dict().items() if "mm_projector" in n}, run / "mm_projector.bin")
    frames = video(2)
    expected = logits(model, frames)
    for base in ("dense", "llm"):
        assert merge(hub, run, tmp_path / base, "--base", bases[base]) == 0
        ours, theirs = tensors(tmp_path / base), model.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert torch.equal(logits(in_float32(tmp_path / base), frames), expected)


def test_the_way_back_to_a_dense_checkpoint_knows_the_tower(lora, bases: dict[str, Path], hub: Path, tmp_path: Path):
    assert merge(hub, lora.folder, tmp_path / "whole", "--base", bases["dense"]) == 0
    with tiny.hub_cache(hub):
        assert main(["upcycle", str(tmp_path / "whole"), str(tmp_path / "back"), "--dense", "average"]) == 0
    back, before = config(tmp_path / "back"), config(bases["dense"])
    assert back["mm_vision_tower"] == before["mm_vision_tower"] == tiny.SIGLIP and "tam" not in back


def test_a_run_of_another_base(lora, bases: dict[str, Path], hub: Path, tmp_path: Path, capsys):
    base = tmp_path / "wider"
    base.mkdir()
    for path in bases["llm"].iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "hidden_size": 128}))
    assert merge(hub, lora.folder, tmp_path / "whole", "--base", base) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "has hidden_size = 128" in err and not (tmp_path / "whole").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("llava_train")
@pytest.mark.parametrize("kind", ["lora", "projector"])
def test_what_the_hosts_training_leaves(
    kind: str, llava: Path, llm: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path
):
    """The output_dir and a checkpoint-N of ``train_mem.py``, merged and loaded."""
    settings = {"lora_enable": True, "lora_r": 2, "lora_alpha": 64, "learning_rate": 1e-2}
    more = settings if kind == "lora" else {"mm_tunable_parts": "mm_mlp_adapter"}
    out = tmp_path / "run-qwen"
    # The first step has learning rate 0, which leaves B at zero.
    train(llava, hub, llm, training_set, out, 2, vision_tower_pretrained=tiny.SIGLIP, **more)
    for number, folder in enumerate((out, out / "checkpoint-2")):
        whole = tmp_path / f"whole{number}"
        assert merge(hub, folder, whole, "--base", llm) == 0
        tokenizer, model, _, _ = load(whole)
        state, held = model.state_dict(), load_file(folder / "tam_non_lora.safetensors")
        assert all(torch.equal(state[name], tensor.to(torch.bfloat16)) for name, tensor in held.items())
        before = tensors(llm)
        moved = {name for name, tensor in before.items() if not torch.equal(state[name], tensor)}
        assert all(name.endswith("_proj.weight") for name in moved) and bool(moved) == (kind == "lora")
        _, over_base, _, _ = load(folder, llm, name="lora")
        for name, tensor in over_base.state_dict().items():
            torch.testing.assert_close(state[name], tensor, atol=2e-3, rtol=2**-6)
        assert len(answer(model)) > 0 and len(tokenizer) == tiny.VOCABULARY
