"""One rank of :func:`tests.ranks.together`: ``python -m tests.rank_worker HOST FOLDER WAY…``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from tests import ranks


def main() -> None:
    """Train in each way and write what came out."""
    host, folder, ways = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    module = importlib.import_module(f"tests.{host}.rank_model")
    module.start()
    for way in ways:
        model = ranks.prepare(module.model(), way)
        parameters = (_ddp if way == "ddp" else _zero)(model, module.batch, way)
        _write(folder, way, parameters, module.logged(model))
    dist.barrier()
    dist.destroy_process_group()


def _ddp(model: torch.nn.Module, batch: ranks.Batch, way: str) -> dict[str, torch.Tensor]:
    # It refuses parameters without a gradient.
    parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = ranks.optimizer_of(model)
    for step in range(ranks.STEPS):
        parallel(**batch(step, dist.get_rank())).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _zero(model: torch.nn.Module, batch: ranks.Batch, way: str) -> dict[str, torch.Tensor]:
    import deepspeed

    from tam_plugin.training.zero3 import set_leaf_modules

    stage = int(way[len("zero")])
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        # The smallest parameters stay whole, as in the configurations that ship: image_newline is read by itself.
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 64},
    }
    if stage == 3:
        set_leaf_modules(model)
    engine, *_ = deepspeed.initialize(model=model, optimizer=ranks.optimizer_of(model), config=config)
    for step in range(ranks.STEPS):
        engine.backward(engine(**batch(step, dist.get_rank())).loss)
        engine.step()
    named = dict(model.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=stage == 3):
        return {name: p.detach().clone() for name, p in named.items()}


def _write(folder: Path, way: str, parameters: dict[str, torch.Tensor], logged: dict[str, float]) -> None:
    from safetensors.torch import save_file

    rank = dist.get_rank()
    save_file({name: p.contiguous() for name, p in parameters.items()}, folder / f"{way}.{rank}.safetensors")
    (folder / f"{way}.{rank}.json").write_text(json.dumps(logged))


if __name__ == "__main__":
    main()
