"""Every flag of the host's own training scripts trains a TAM model, or is refused before weights are read."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from tests.llava import script_flags, tiny
from tests.llava.host_scripts import Place, Script, read_scripts
from tests.ranks import free_port

pytestmark = [
    pytest.mark.usefixtures("llava_train"),
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts")


@pytest.fixture(scope="module")
def place(host: Path, hub: Path, llm: Path, dense: Path, training_set: tiny.TrainingSet, out: Path) -> Place:
    return script_flags.make_place(host, hub, llm, dense, training_set, out)


@pytest.fixture(scope="module")
def scripts(host: Path, out: Path) -> dict[str, Script]:
    return {script.name: script for script in read_scripts(host, out)}


def test_scripts_are_read_as_bash_reads_them(scripts: dict[str, Script], host: Path) -> None:
    names = {str(file.relative_to(host / "scripts")) for file in (host / "scripts" / "video" / "train").glob("*.sh")}
    assert names and names <= scripts.keys()
    flags = scripts[script_flags.VIDEO].flags
    assert flags["mm_tunable_parts"] == "mm_vision_tower,mm_mlp_adapter,mm_language_model"
    assert flags["model_name_or_path"] == "lmms-lab/llava-onevision-qwen2-7b-ov-si"  # a variable there
    assert flags["torch_compile_backend"] == "inductor" and flags["mm_spatial_pool_stride"] == "2"


def test_what_is_refused(scripts: dict[str, Script], place: Place, dense: Path, hub: Path, out: Path) -> None:
    expected = {
        "train/dpo.sh": "train_dpo.py",
        "train/dpo_ov7b.sh": "train_dpo.py",
        "train/direct_finetune_clip.sh": "(336, 672) pixels are no multiples of the vision tower's 384",
    }
    from_llava = {name for name, script in scripts.items() if not script.starts_from_llm} - expected.keys()
    assert script_flags.VIDEO in from_llava
    with tiny.hub_cache(hub):
        for name, script in scripts.items():
            upcycled = script_flags.refusal(place.cut(script, out), script.trainer)
            plain = script_flags.refusal(replace(place, llava=dense).cut(script, out), script.trainer)
            if name in expected:
                assert upcycled is not None and expected[name] in upcycled and upcycled == plain
            else:
                assert upcycled is None
                assert (plain is not None and "tam upcycle" in plain) == (name in from_llava)


@pytest.mark.slow
def test_every_other_flag_trains(scripts: dict[str, Script], place: Place, hub: Path, out: Path) -> None:
    with tiny.hub_cache(hub):
        runs, refused = script_flags.share_out(scripts, place, out)
    for run in runs:
        problem = script_flags.train(run, place, free_port())
        assert problem is None, f"{run.script.name}: {problem}"
    assert {name for name, _ in refused} == {
        *("dpo_alpha", "beta", "gamma", "mm_resampler_type", "mm_patch_merge_type", "image_grid_pinpoints")
    }
    print(script_flags.table(scripts, runs, refused, place, out))
    if place.backend != "inductor":
        pytest.skip("every flag passed; without a C++ compiler torch.compile was run with aot_eager, not with inductor")
