"""``tam bench inductor``: the embedded Inductor against a classifier of the paper's size (SmolLM2-135M).

The comparison is a Llama classifier with SmolLM2-135M's shape and random weights (speed does not depend on their
values), fed with the same token ids; SmolLM2's own tokenizer would split the queries into about as many.
"""

from __future__ import annotations

import argparse
from typing import Any

from tam_plugin.bench.timing import compare, rows
from tam_plugin.errors import InputError, require

HOST = "SmolLM2-135M shape, one query"
QUERIES = (
    "What color is the helicopter?",
    "How many riders are on the podium?",
    "What does the person do after opening a can of chickpeas?",
    "How does the skier move down the slope?",
    "Is the woman happy or angry at the end of the video?",
    "Arrange the events in chronological order.",
    "How many times did the brightness change?",
    "Where is the kitchen, next to the bedroom or next to the washroom?",
    "According to the video, how can we solve the problem?",
    "What indicates that the food is being cooked?",
    "What objects appear after the subtitle mentions 'multiple reasons'?",
    "What word is printed on the screen at the start?",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    parser.add_argument("--model", help="an Inductor checkpoint; the embedded one when left out")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up (default 5)")
    parser.add_argument("--batch", type=int, default=64, help="queries in the batched rows (default 64)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time single queries and batches of both classifiers in one run.

    Returns:
        ``rows`` with seconds per query, ``queries_per_second`` of the batched row, ``threads``, ``load_seconds``.

    Raises:
        InputError: fewer than one round or one query per batch.
    """
    if args.rounds < 1 or args.batch < 1:
        raise InputError(f"--rounds and --batch must be at least 1, got {args.rounds} and {args.batch}")
    import time

    torch = require("torch", needed_for="the Inductor benchmark")
    from tam_plugin.inductor import Inductor

    start = time.perf_counter()
    inductor = Inductor.from_pretrained(args.model)
    load_seconds = time.perf_counter() - start
    host = _smollm2_shape()
    ids = inductor.token_ids([inductor.input_text(query) for query in QUERIES])
    batch = [QUERIES[i % len(QUERIES)] for i in range(args.batch)]

    def host_single() -> None:
        with torch.inference_mode():
            for row in ids:
                host(input_ids=torch.tensor([row]) % host.config.vocab_size)

    def single() -> None:
        for query in QUERIES:
            inductor.classify(query)

    def batched() -> None:
        inductor.classify_batch(batch, batch_size=args.batch)

    medians = compare({HOST: host_single, "Inductor, one query": single, "Inductor, batched": batched}, args.rounds)
    per_query = {
        name: seconds / (args.batch if name == "Inductor, batched" else len(QUERIES))
        for name, seconds in medians.items()
    }
    return {
        "rows": rows(per_query, HOST),
        "unit": "seconds per query",
        "queries_per_second": 1.0 / per_query["Inductor, batched"],
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "load_seconds": load_seconds,
        "model": args.model or "embedded",
    }


def _smollm2_shape() -> Any:
    """A Llama sequence classifier of SmolLM2-135M's sizes with random weights."""
    transformers = require("transformers", needed_for="the Inductor benchmark's comparison")
    config = transformers.LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        num_labels=8,
        pad_token_id=0,
    )
    return transformers.LlamaForSequenceClassification(config).eval()
