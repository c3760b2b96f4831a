"""Every command that resumes, as the kill harness starts it: what all runs share, and one run into a folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path


def command(*argv: object, codes: tuple[int, ...] = (0,)) -> None:
    """``tam ...``, which must end with one of these codes."""
    from tam_plugin.cli.main import main

    code = main([str(word) for word in argv])
    assert code in codes, (code, argv)


def upcycle(source: str) -> Callable[..., None]:
    """``tam upcycle``, in pieces small enough that a kill comes between them."""
    import torch

    from tam_plugin.checkpoint import open_source, upcycle
    from tam_plugin.checkpoint.target import Options
    from tam_plugin.cli.upcycle import find_layout
    from tam_plugin.config import TamConfig

    torch.set_num_threads(1)
    opened = open_source(source)
    find_layout(opened)  # its imports are made once, before the forks
    opened.close()

    def work(folder: str, transfer: str) -> None:
        opened = open_source(source)
        options = Options(transfer=transfer, chunk_bytes=1 << 16, max_shard_bytes=4 << 20)
        upcycle(opened, folder, find_layout(opened), TamConfig(), options=options)

    return work


def merge(run: str, base: str) -> Callable[..., None]:
    """``tam merge``."""
    import torch

    from tam_plugin.checkpoint import merge, open_source
    from tam_plugin.checkpoint.target import Options
    from tam_plugin.patches.llava_next.checkpoints.merging import open_parts

    torch.set_num_threads(1)
    opened = open_source(base)
    open_parts(run, opened).close()
    opened.close()

    def work(folder: str) -> None:
        opened = open_source(base)
        merge(opened, folder, open_parts(run, opened), options=Options(chunk_bytes=1 << 10, max_shard_bytes=32 << 10))

    return work


def plan_data(data: str, layout: list[str]) -> Callable[..., None]:
    """``tam plan-data`` without videos, in chunks of 32 rows."""
    from tam_plugin.plans import making as plans

    plans.CHUNK_ROWS = 32
    command("plan-data", "--data", data, "--out", f"{data}.warm", *layout)

    def work(folder: str, shards: int) -> None:
        given = ("plan-data", "--data", data, "--out", folder, *layout)
        for number in range(1, shards + 1) if shards > 1 else ():
            command(*given, "--shard", f"{number}/{shards}")
        command(*given)

    return work


def inductor_train(base: str) -> Callable[..., None]:
    """``tam inductor train --embedded`` from a tiny base, two seeds, its progress kept every other step."""
    import torch

    from tam_plugin.inductor import fitting
    from tam_plugin.inductor.dataset import written_queries
    from tam_plugin.inductor.split import TrainingOptions
    from tam_plugin.inductor.training import train

    torch.set_num_threads(1)
    fitting.KEEP_STEPS = 2
    others = tuple({row.dataset for row in written_queries()} - {"cameras"})
    options = TrainingOptions(
        base=Path(base),
        leave_out=others,
        grammar_per_label=2,
        no_question=8,
        fit=fitting.FitOptions(epochs=2, batch_size=64, learning_rate=2e-3),
    )

    def work(folder: str) -> None:
        train(options, Path(folder))

    return work


def data_tag(queries: str, url: str) -> Callable[..., None]:
    """``tam data tag`` against a server that the test runs."""
    import os

    os.environ.update(NO_PROXY="*", OPENAI_API_KEY="sk-none")
    for module in ("httpx", "sniffio", "tqdm", "tam_plugin.cli.data_tagging", "tam_plugin.inductor.tagging.run"):
        importlib.import_module(module)  # once, before the forks

    def work(folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        # One at a time: answers that arrive together are written together, now in more and now in fewer batches.
        given = ("--base-url", url, "--model", "r1", "--concurrency", 1, "--retry-wait", "0.01")
        command("data", "tag", queries, "--out", f"{folder}/out.jsonl", *given)

    return work


def taskworld() -> Callable[..., None]:
    """The taskworld experiment at its smallest: pretraining, stages and one arm."""
    import sys

    import torch

    from tam_plugin.eval.taskworld import pretraining, run, stages

    torch.set_num_threads(1)
    run.TEST_CLIPS, stages.SAVE_EVERY, stages.LOG_EVERY, pretraining.SAVE_EVERY = 1, 1, 1, 1

    def work(folder: str) -> None:
        sys.argv = ["run", "--out", folder, "--setting", "smoke", "--seeds", "0", "--arms", "stage 1"]
        run.main()

    return work
