"""Tiny checkpoints of both hosts as folders, and lmms-eval's requests about tiny videos."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.eval_lmms import material
from tests.llava import tiny
from tests.llava.conftest import host, llava
from tests.onevision.conftest import dense_and_tokenizer, make_tam

__all__ = ["dense_and_tokenizer", "host", "llava", "make_tam"]


@pytest.fixture(scope="session")
def lmms_eval():
    """The harness; tests that need it are skipped where it is not installed."""
    return pytest.importorskip("lmms_eval", reason="needs lmms-eval, in an environment of its own: make evaltest")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Rows about three videos and a folder of frames."""
    return material.write_rows(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def onevision(dense_and_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TAM checkpoint of the OneVision host whose experts and projectors differ from each other."""
    import torch

    from tam_plugin import TamConfig
    from tam_plugin.patches.onevision import upgrade_dense

    model = upgrade_dense(copy.deepcopy(dense_and_tokenizer[0]), TamConfig())
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".mlp." in name or "projector" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    folder = tmp_path_factory.mktemp("checkpoints") / "tam-onevision"
    model.save_pretrained(folder)
    dense_and_tokenizer[1].save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava_tam(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TAM checkpoint of LLaVA-NeXT with a grid of 7 × 7, in bfloat16."""
    import torch

    from tests.llava.budget_model import tam_model

    model = tam_model()
    model.config.mm_use_im_patch_token = model.config.mm_use_im_start_end = False
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 258, 256
    folder = tmp_path_factory.mktemp("checkpoints") / "llava-qwen-tam"
    model.to(torch.bfloat16).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def llava_plain(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of LLaVA-NeXT with a SigLIP tower of 27 × 27, and the hub cache that has the tower."""
    folder = tmp_path_factory.mktemp("plain")
    tiny.write_siglip(folder / "hub")
    return tiny.write_dense(folder / "llava-qwen-dense", folder / "hub"), folder / "hub"


@pytest.fixture
def instances(lmms_eval):
    """``instances(rows, continuations=None, **changes)``: requests as a task makes them."""
    from lmms_eval.api.instance import Instance

    def make(rows: list[dict[str, Any]], continuation: str | None = None, visual=None, **generation: Any) -> list[Any]:
        kind = "generate_until" if continuation is None else "loglikelihood"
        second = {"max_new_tokens": 5, "temperature": 0, **generation} if continuation is None else continuation
        show = visual or (lambda doc: [doc["video"]])
        return [
            Instance(
                request_type=kind,
                arguments=(row.get("context", row["question"]), second, show, number, "tiny", "test"),
                idx=0,
                metadata={"task": "tiny", "doc_id": number, "repeats": 1, "split": "test"},
            )
            for number, row in enumerate(rows)
        ]

    return make
