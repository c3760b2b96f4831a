"""``tam data tag``, ``paraphrase`` and ``translate``: a language model labels, paraphrases or translates queries."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.files import parse_json

_COMMANDS = {
    "tag": "label queries with a language model behind an OpenAI-compatible endpoint",
    "paraphrase": "paraphrase queries with a language model behind an OpenAI-compatible endpoint",
    "translate": "translate queries with a language model behind an OpenAI-compatible endpoint",
}


def add_parsers(subparsers) -> None:
    """Register the commands."""
    for name, text in _COMMANDS.items():
        parser = subparsers.add_parser(name, help=text, description=text)
        _add_arguments(parser)
        if name == "translate":
            parser.add_argument(
                "--to", required=True, metavar="CODE", help="the target language, such as zh (ISO 639-1)"
            )
        parser.set_defaults(run=run, tagging_job=name)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("queries", metavar="QUERIES.jsonl", help="JSON lines with id, question, options, duration_s, dataset")
    add(
        "--out",
        required=True,
        metavar="OUT.jsonl",
        help="file of results; OUT.answers.jsonl and OUT.rejected.jsonl are written beside it",
    )
    add("--base-url", required=True, metavar="URL", help="the endpoint, such as http://127.0.0.1:8000/v1")
    add("--model", required=True, metavar="NAME", help="the model's name, as the server knows it")
    add(
        "--api-key-env", default="OPENAI_API_KEY", metavar="VAR", help="variable with the key (default: OPENAI_API_KEY)"
    )
    add("--no-key", action="store_true", help="send no key, as for a local server")
    add("--limit", type=int, metavar="N", help="only the first N queries, as a trial")
    add("--restart", action="store_true", help="start again; earlier answers move to OUT.answers.jsonl.old")
    add("--concurrency", type=int, default=16, metavar="N", help="concurrent requests (default: 16)")
    add("--requests-per-minute", type=float, metavar="N", help="client-side rate limit (default: none)")
    add("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait for one answer (default: 600)")
    add("--max-attempts", type=int, default=8, metavar="N", help="attempts per answer when requests fail (default: 8)")
    add(
        "--retry-wait", type=float, default=1.0, metavar="S", help="first wait after a failure; it doubles (default: 1)"
    )
    add("--max-reasks", type=int, default=2, metavar="N", help="times to ask again after a bad reply (default: 2)")
    add("--temperature", type=float, metavar="T", help="default: the server's")
    add("--max-tokens", type=int, metavar="N", help="longest reply, thinking included (default: the server's)")
    add("--extra-body", default="{}", metavar="JSON", help="further fields of each request, as one JSON object")
    add("--price-in", type=float, default=0.0, metavar="P", help="price per million prompt tokens")
    add("--price-out", type=float, default=0.0, metavar="P", help="price per million reply tokens")
    add("--max-cost", type=float, metavar="C", help="stop before more than this is spent, earlier runs included")


def run(args: argparse.Namespace) -> int:
    """Send the requests and write the results."""
    from tam_plugin.inductor.tagging.run import Limits
    from tam_plugin.inductor.tagging.settings import ChatSettings, read_key
    from tam_plugin.inductor.tagging.spending import Prices

    prices = Prices(price_in=args.price_in, price_out=args.price_out, max_cost=args.max_cost)
    limits = Limits(max_reasks=args.max_reasks, prices=prices)
    settings = ChatSettings(
        base_url=args.base_url,
        model=args.model,
        key=None if args.no_key else read_key(args.api_key_env),
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        extra_body=_json_object(args.extra_body),
        concurrency=args.concurrency,
        requests_per_minute=args.requests_per_minute,
        timeout_s=args.timeout,
        max_attempts=args.max_attempts,
        retry_wait_s=args.retry_wait,
    )
    module = importlib.import_module(f"tam_plugin.inductor.tagging.{args.tagging_job}")
    job = getattr(module, args.tagging_job)
    own = {"to": args.to} if args.tagging_job == "translate" else {}
    job(args.queries, args.out, settings, limits=limits, limit=args.limit, restart=args.restart, **own)
    return 0


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = parse_json(text, strict=False)
    except ValueError as error:
        raise InputError(f"--extra-body {text[:60]!r} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"--extra-body {text[:60]!r}: expected a JSON object")
    return values
