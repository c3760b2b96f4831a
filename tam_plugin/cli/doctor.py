"""``tam doctor``: what is installed, which hosts are found, and what that allows."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import platform
import warnings
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "av", "pillow", "pyyaml")
EXTRAS = ("decord", "torchcodec", "accelerate", "peft", "deepspeed", "flash-attn", "lmms-eval", "gradio", "wandb")


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("doctor", help="versions, hosts found, video readers, and what works with them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    report = examine()
    print(json.dumps(report) if args.json else describe(report))
    return 0


def examine() -> dict[str, Any]:
    """Everything the report says, as plain values."""
    import tam_plugin
    from tam_plugin.patches import hosts
    from tam_plugin.video import available_backends
    from tam_plugin.vision.grouped_gemm import expert_backends

    return {
        "tam_plugin": tam_plugin.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "hosts": [vars(host) for host in hosts()],
        "video_readers": list(available_backends()),
        "expert_backends": expert_backends(),
        **_patches(),
    }


def _patches() -> dict[str, Any]:
    """Every patch as it is on this host: LLaVA-NeXT is imported and patched to see, and left as it was."""
    from tam_plugin.errors import TamError
    from tam_plugin.patches import hosts, installed, status

    llava = next(host for host in hosts() if host.name == "llava")
    if not llava.ready:
        return {"patches": status(), "patch_error": llava.detail}
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with installed():
                return {"patches": status(), "patch_error": None}
    except (TamError, ImportError, AttributeError) as error:
        return {"patches": status(), "patch_error": " ".join(f"{type(error).__name__}: {error}".split())}


def describe(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"tam-plugin {report['tam_plugin']} on Python {report['python']}", "", "packages"]
    lines += [f"  {name:<13} {version or 'MISSING'}" for name, version in report["packages"].items()]
    lines += ["extras"]
    lines += [f"  {name:<13} {version or 'not installed'}" for name, version in report["extras"].items()]
    lines += ["hosts"]
    lines += [f"  {h['name']:<13} {'ready' if h['ready'] else 'not usable'}: {h['detail']}" for h in report["hosts"]]
    lines += [f"video readers: {', '.join(report['video_readers'])} (fastest first)", "experts"]
    lines += [f"  {name:<13} {state}" for name, state in report["expert_backends"].items()]
    lines += [f"patches of LLaVA-NeXT: {len(report['patches'])}"]
    lines += [f"  none can be applied: {report['patch_error']}"] if report["patch_error"] else []
    lines += [f"  {p['name']:<28} {p['state']:<10} {p['target']}: {p['reason']}" for p in report["patches"]]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
