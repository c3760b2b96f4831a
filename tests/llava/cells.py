"""What a host and a set of packages have to get through; each cell raises where it fails.

``python -m tests.llava.cells CELL FOLDER`` runs one of them against the material in ``FOLDER``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import tiny

NAMES = ("llava-qwen-dense", "qwen-llm", "data", "hub")


class Cells:
    """The cells over one folder of material, written by :meth:`material`.

    Args:
        host: folder of LLaVA-NeXT, importable in this process.
        folder: where the material is, and where the cells write.
    """

    def __init__(self, host: Path, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.dense, self.llm, self.data, self.hub = (folder / name for name in NAMES)

    def material(self) -> None:
        """Write what the cells need; not a cell of the table."""
        tiny.write_siglip(self.hub)
        tiny.write_training_set(self.data)

    def imports(self) -> None:
        """The model, its loader and the training code can be imported."""
        import llava.model.builder
        import llava.model.language_model.llava_qwen
        import llava.train.train  # noqa: F401

    def forward_backward(self) -> None:
        """A video through the model, and gradients in the language model, the projector and the tower."""
        model = self._fresh().train()
        model.requires_grad_(True)
        loss = model(**_batch()).loss
        loss.backward()
        assert loss.isfinite(), f"the loss is {loss.item()}"
        for part in ("layers.0.self_attn.q_proj", "mm_projector.0", "vision_tower.vision_tower"):
            gradients = [p.grad for name, p in model.named_parameters() if part in name and p.grad is not None]
            assert gradients and all(g.isfinite().all() for g in gradients), f"{part} got no finite gradient"
            assert any(g.abs().max() > 0 for g in gradients), f"the gradient of {part} is zero"

    def generate(self) -> None:
        """Greedy generation equals taking the best token of a whole forward pass, token by token."""
        import torch

        model = self._fresh().eval()
        batch = _batch()
        ids = batch.pop("input_ids")
        extra = {key: batch[key] for key in ("images", "modalities", "image_sizes")}
        with torch.inference_mode():
            got = model.generate(ids, **extra, max_new_tokens=4, min_new_tokens=4, do_sample=False, num_beams=1)[0]
            whole = ids
            for _ in range(4):
                logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), use_cache=False, **extra).logits
                logits[0, -1, tiny.llm_settings()["eos_token_id"]] = -torch.inf
                whole = torch.cat([whole, logits[:, -1].argmax(-1, keepdim=True)], 1)
        expected = whole[0, ids.shape[1] :]
        assert got.tolist() == expected.tolist(), f"generated {got.tolist()}, expected {expected.tolist()}"

    def save_load(self) -> None:
        """What ``save_pretrained`` wrote and ``load_pretrained_model`` read answers as the model that was saved."""
        import torch

        tiny.write_dense(self.folder / "again-qwen", self.hub)
        model = self._load(self.folder / "again-qwen").float().eval()
        with tiny.hub_cache(self.hub):
            reference = type(model)(model.config).float().eval()
        from safetensors.torch import load_file

        lost, strange = reference.load_state_dict(load_file(self.folder / "again-qwen" / "model.safetensors"), False)
        assert not lost and not strange, f"not in the file: {lost}; not in the model: {strange}"
        with torch.inference_mode():
            difference = (model(**_batch()).logits - reference(**_batch()).logits).abs().max().item()
        # Attention kernels differ between the two ways of building, which is rounding in float32.
        assert difference < 1e-4, f"logits differ by {difference:.2g}"

    def train(self) -> None:
        """``train_mem.py``, unmodified, for two steps."""
        output = self._run("out-qwen", {})
        assert (output / "model.safetensors").exists(), "no checkpoint was written"

    def lora(self) -> None:
        """``train_mem.py`` with LoRA for two steps; the reloaded weights are base + scale · B·A."""
        import torch
        from safetensors.torch import load_file

        output = self._run("llava-qwen-lora", {"lora_enable": True, "lora_r": 4, "lora_alpha": 8})
        model = self._load(output, self._dense())
        assert type(model).__name__ == "LlavaQwenForCausalLM", f"loaded as {type(model).__name__}"
        adapter = load_file(output / "adapter_model.safetensors")
        base = load_file(self._dense() / "model.safetensors")
        key = next(k for k in adapter if re.search(r"model\.layers\.1\..*v_proj\.lora_B", k))
        update = 2.0 * adapter[key].float() @ adapter[key.replace("lora_B", "lora_A")].float()
        assert update.abs().max() > 0, "the adapter did not learn"
        name = "model.layers.1.self_attn.v_proj.weight"
        loaded = model.state_dict()[name].float()
        assert torch.allclose(loaded, base[name].float() + update, atol=2e-3), f"{name} is not base plus adapter"
        learned = torch.load(output / "non_lora_trainables.bin", weights_only=True)
        kept = {k[k.index("mm_projector") :]: v for k, v in learned.items() if "mm_projector" in k and "lora" not in k}
        assert kept, "the projector was not saved"
        loaded_projector = {k[k.index("mm_projector") :]: v for k, v in model.state_dict().items() if "mm_proj" in k}
        # Older hosts load in float16 whatever they are asked for: tiny numbers are rounded.
        same = (torch.allclose(loaded_projector[k].float(), v.float(), atol=1e-6) for k, v in kept.items())
        assert all(same), "another projector"

    def tam(self) -> None:
        """``train_mem.py --vision_tower tam`` on the plain checkpoint for two steps, and loaded again."""
        output = self._run("tam-qwen", {"vision_tower": "tam", "vision_tower_pretrained": tiny.SIGLIP})
        assert any("router" in name or "gate" in name for name in self._load(output).state_dict()), "no experts"

    def _dense(self) -> Path:
        if not (self.dense / "config.json").exists():
            tiny.write_dense(self.dense, self.hub)
        return self.dense

    def _fresh(self) -> Any:
        import torch
        from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

        torch.manual_seed(3)
        with tiny.hub_cache(self.hub):
            model = LlavaQwenForCausalLM(tiny.dense_config())
        torch.nn.init.normal_(model.model.image_newline, std=0.1)
        return model.float()

    def _load(self, path: Path, base: Path | None = None) -> Any:
        from llava.model.builder import load_pretrained_model

        with tiny.hub_cache(self.hub):
            settings = {"torch_dtype": "bfloat16", "attn_implementation": "sdpa"}
            name = "llava-qwen-lora" if base else "llava-qwen"
            return load_pretrained_model(str(path), base and str(base), name, **settings)[1]

    def _run(self, name: str, flags: dict[str, object]) -> Path:
        rows = tiny.TrainingSet(self.data / "all.json", self.data / "data.yaml", self.data / "media")
        fewer_tiles = {"image_aspect_ratio": "pad"}
        arguments = tiny.train_args(
            self._dense(), rows, self.folder / name, 2, dataloader_num_workers=2, **fewer_tiles, **flags
        )
        source = (self.host / "llava" / "train" / "train.py").read_text()
        for later in ("add_time_instruction", "force_sample", "mm_newline_position"):
            if f"    {later}:" not in source:
                at = arguments.index(f"--{later}")
                del arguments[at : at + 2]
        ran = tiny.run_train(self.host, self.hub, arguments, timeout_s=900)
        assert ran.returncode == 0, failure(ran)
        losses = [float(x) for x in re.findall(r"'loss': '?([\d.naif-]+)", ran.stdout)]
        assert len(losses) == 2 and all(0 < x < 100 for x in losses), f"losses {losses}"
        return self.folder / name


CELLS: dict[str, Callable[[Cells], None]] = {
    "import": Cells.imports,
    "forward + backward": Cells.forward_backward,
    "generate": Cells.generate,
    "save + load": Cells.save_load,
    "train 2 steps": Cells.train,
    "LoRA 2 steps + reload": Cells.lora,
    "TAM 2 steps + reload": Cells.tam,
}


def failure(ran: subprocess.CompletedProcess[str]) -> str:
    """The line of a failed process that says why."""
    lines = [line.strip() for line in ran.stderr.splitlines() if re.match(r"\s*[\w.]*(Error|Exception)\b", line)]
    return (lines or ran.stderr.splitlines() or [f"exit code {ran.returncode}"])[-1][:300]


def _batch() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([[10, 11, -200, 12, 13, 14]])
    return {
        "input_ids": ids,
        "labels": torch.where(ids < 0, -100, ids),
        "attention_mask": torch.ones_like(ids),
        "images": [torch.randn(2, 3, 384, 384, generator=generator)],
        "image_sizes": [(384, 384)],
        "modalities": ["video"],
    }


def main() -> None:
    """Run one cell and print its outcome as the last line, a JSON object with ``error`` (null or why)."""
    name, folder = sys.argv[1:]
    host = tiny.find_host()
    assert host is not None, "LLaVA-NeXT is not importable"
    cells = Cells(host, Path(folder))
    error = None
    try:
        if not cells.hub.exists():
            cells.material()
        CELLS[name](cells)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}".splitlines()[0]
        if isinstance(caught, AssertionError):
            error = error.removeprefix("AssertionError: ")
    print("\n" + json.dumps({"error": error}))


if __name__ == "__main__":
    main()
