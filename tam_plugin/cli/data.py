"""``tam data``: queries to train the Inductor on, from instruction data to a labelled file."""

from __future__ import annotations

import argparse
import json
import sys

from tam_plugin.cli import data_tagging
from tam_plugin.errors import one_line


def add_parser(subparsers) -> None:
    """Register the command and its steps."""
    parser = subparsers.add_parser("data", help="collect, deduplicate, tag, paraphrase and count queries")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP", parser_class=type(parser))
    _add_collect(steps)
    _add_dedup(steps)
    data_tagging.add_parsers(steps)
    _add_stats(steps)


def _add_collect(steps) -> None:
    text = "queries from LLaVA-format JSON, the host's YAML lists, JSON lines, CSV, TSV and parquet"
    parser = steps.add_parser("collect", help=text, description=text)
    parser.add_argument(
        "sources", nargs="+", metavar="SRC", help="a file, a pattern like part_{1,2}.json, or a YAML list"
    )
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="file to write the queries to")
    parser.add_argument("--dataset", metavar="NAME", help="name of the source (default: the file's stem)")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="column of question, options, duration, id, dataset, label or label2; options and id take several "
        "(id=video,qid); ROLE= leaves it out",
    )
    parser.add_argument(
        "--ids", default="own", metavar="KIND", help="own (default), prefixed (STEM/ID), row (STEM:ROW)"
    )
    parser.add_argument(
        "--all-media", action="store_true", help="also keep instruction rows about images and rows of text only"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave malformed rows out and list them on stderr")
    parser.add_argument("--seed", type=int, default=0, help="seed of random:N in a YAML list (default: 0)")
    parser.set_defaults(run=run_collect)


def run_collect(args: argparse.Namespace) -> int:
    """Collect queries, list malformed rows, and print a summary."""
    from tam_plugin.inductor.data.collect import CollectOptions, collect
    from tam_plugin.inductor.data.columns import parse_columns

    options = CollectOptions(
        dataset=args.dataset,
        columns=parse_columns(args.column),
        ids=args.ids,
        all_media=args.all_media,
        skip_bad=args.skip_bad,
        seed=args.seed,
    )
    report = collect(args.sources, args.out, options)
    for line in report.bad:
        print(f"tam data collect: left out: {one_line(line)}", file=sys.stderr)
    print(f"tam data collect: {report.summary()}", file=sys.stderr)
    return 0


def _add_dedup(steps) -> None:
    text = "remove exact duplicates and near-duplicates; the first in file order is kept"
    parser = steps.add_parser("dedup", help=text, description=text)
    parser.add_argument("file", metavar="IN", help="queries, one JSON object per line")
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="file to write the remaining queries to")
    parser.add_argument("--threshold", type=float, default=0.8, help="Jaccard similarity, in (0, 1] (default: 0.8)")
    parser.add_argument("--num-perm", type=int, default=64, help="hash functions of MinHash (default: 64)")
    parser.add_argument(
        "--keep-labels-apart",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep queries that are alike but labelled differently, and list them in the report (default: yes)",
    )
    parser.add_argument("--report", metavar="FILE.json", help="what was removed (default: OUT.report.json)")
    parser.set_defaults(run=run_dedup)


def run_dedup(args: argparse.Namespace) -> int:
    """Deduplicate queries and print a summary."""
    from tam_plugin.inductor.data.dedup import dedup

    report = dedup(
        args.file,
        args.out,
        threshold=args.threshold,
        num_perm=args.num_perm,
        keep_labels_apart=args.keep_labels_apart,
        report=args.report,
    )
    print(f"tam data dedup: {report.summary()}", file=sys.stderr)
    return 0


def _add_stats(steps) -> None:
    text = "task types by source, lengths and durations; agreement of two taggers"
    parser = steps.add_parser("stats", help=text, description=text)
    parser.add_argument("files", nargs="+", metavar="FILE", help="queries, one JSON object per line")
    parser.add_argument("--out", metavar="DIR", help="write stats.md, stats.json and stats.png there")
    parser.add_argument("--compare", metavar="OTHER.jsonl", help="the same queries labelled by another tagger")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of Markdown")
    parser.set_defaults(run=run_stats)


def run_stats(args: argparse.Namespace) -> int:
    """Count, compare, print, and write the folder."""
    from tam_plugin.inductor.data import stats_report as report
    from tam_plugin.inductor.data.compare import compare
    from tam_plugin.inductor.data.stats import count_queries

    if args.out is not None:
        report.check_folder(args.out)
    stats = count_queries(args.files)
    comparison = compare(args.files, args.compare) if args.compare is not None else None
    if args.out is not None:
        report.write_report(args.out, stats, comparison)
    if args.json:
        print(json.dumps(report.as_dict(stats, comparison)))
    else:
        print(report.as_markdown(stats, comparison), end="")
    return 0
