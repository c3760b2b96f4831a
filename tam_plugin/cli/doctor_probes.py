"""The probes of ``tam doctor``. Each probe runs what it checks in a process of its own, so that a package that fails on
import, ends its process or never returns affects nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tam_plugin.patches.lifecycle import Patcher

LIMIT_S = 300.0
"""Seconds that one probe may take."""

CLIP = Path(__file__).parent.parent / "assets" / "sample.mp4"
"""The clip that readers decode."""


def probe_in_process(name: str) -> dict[str, Any]:
    """Run one of :data:`PROBES` in a process of its own.

    Returns:
        What the probe found; where it failed, ``ready`` (False), ``detail`` (why) and ``remedy`` (what to do, or None).
    """
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    code = f"{path}from tam_plugin.cli.doctor_probes import main; sys.exit(main({name!r}))"
    # Hosts look for a tokenizer on the hub when they are imported, and wait where there is no network.
    environment = {"HF_HUB_OFFLINE": "1", **os.environ}
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _verdict(False, f"it did not finish within {LIMIT_S:.0f} s")
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(ran.stdout.splitlines()[-1])
        if ran.returncode == 0 and isinstance(found, dict):
            return found
    last = (ran.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return _verdict(False, f"its process {_end(ran.returncode)}: {last}")


def main(name: str) -> int:
    """Run one probe here and print what it found as the last line."""
    from tam_plugin.errors import MissingDependencyError, TamError, reason_of
    from tam_plugin.installing import remedy_of

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            probe, *given = name.split(":")
            found = PROBES[probe](*given)
        except MissingDependencyError as error:
            found = _verdict(False, error.problem, error.remedy)
        except TamError as error:
            found = _verdict(False, str(error))
        except Exception as error:
            reason = reason_of(error)
            found = _verdict(False, reason, remedy_of(error, _package_of(name), reason))
    print("\n" + json.dumps(found))
    return 0


def _verdict(ready: bool, detail: str, remedy: str | None = None, **more: Any) -> dict[str, Any]:
    return {"ready": ready, "detail": " ".join(detail.split()), "remedy": remedy, **more}


def _package_of(name: str) -> str:
    probe, _, reader = name.partition(":")
    return {"decode": {"pyav": "av"}.get(reader, reader), "evaluate": "lmms_eval"}.get(probe, "transformers")


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _machine() -> dict[str, Any]:
    """Device, ways of computing experts, and where the hub's cache is."""
    import torch

    from tam_plugin.vision.grouped_gemm import expert_backends

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"devices": devices or ["cpu"], "expert_backends": expert_backends(), "hub_cache": _hub_cache()}


def _hub_cache() -> str:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        next(there.iterdir(), None)
    except OSError as error:
        return f"{folder}, which cannot be read: {there}: {error.strerror}"
    if not os.access(there, os.W_OK):
        return f"{folder}, which cannot be written: {there} is read-only"
    return f"{folder}{'' if there == folder else ', created when it is first needed'}"


def _host(module: str, class_name: str) -> dict[str, Any]:
    """Whether a host can run here; its row is constructed again, as the registered one is in another process."""
    state = getattr(importlib.import_module(module), class_name)().probe()
    return _verdict(state.ready, state.detail, state.remedy)


def _ask() -> dict[str, Any]:
    """The whole way on the demonstration model's host: the embedded Inductor, frames, the model, one token."""
    from tam_plugin.patches.hosts import host_named, load_assistant
    from tam_plugin.patches.hosts.registry import DEMONSTRATION

    host = host_named(DEMONSTRATION).probe()
    if not host.ready:
        return _verdict(False, host.detail, host.remedy, host=vars(host))
    from tam_plugin.deciding import Sampling, sample
    from tam_plugin.video import open_video

    query = "What color is the sign?"
    assistant = load_assistant(None, device="cpu")
    with open_video(str(CLIP)) as opened:
        decision = assistant.decider().decide(query, opened.info.duration_s, video_frames=opened.info.num_frames)
        decision, video = sample(opened, decision, Sampling())
    assistant.answer(video, query, decision.budget, max_new_tokens=1)
    return _verdict(True, f"{host.detail}; the demonstration model was run", host=vars(host))


def _train() -> dict[str, Any]:
    """LLaVA-NeXT's training code imported with every patch checked and applied, and left as it was."""
    from tam_plugin.errors import reason_of
    from tam_plugin.patches.activation import installed, patcher
    from tam_plugin.patches.hosts import host_named
    from tam_plugin.patches.hosts.llava_next import LLAVA_MODULES, import_llava

    host = host_named("llava").probe()
    more: dict[str, Any] = {"host": vars(host), "patches": _patch_rows(patcher()), "patch_error": host.detail}
    if not host.ready:
        return _verdict(False, host.detail, host.remedy, **more)
    try:
        with installed():
            import_llava(*LLAVA_MODULES)
            more |= {"patches": _patch_rows(patcher()), "patch_error": None}
    except Exception as error:
        detail = getattr(error, "problem", reason_of(error))
        return _verdict(False, detail, getattr(error, "remedy", None), **{**more, "patch_error": detail})
    return _verdict(True, "; ".join([host.detail, *_training_notes()]), **more)


def _training_notes() -> list[str]:
    """What the host's own scripts assume and this machine lacks."""
    import torch

    from tam_plugin.installing import installed_version

    lacks = [
        (not torch.cuda.is_available(), "no CUDA device was found"),
        (installed_version("flash-attn") is None, "no flash-attn: pass --attn_implementation sdpa"),
        (installed_version("deepspeed") is None, "no DeepSpeed: leave --deepspeed out, or pip install 'deepspeed'"),
        (installed_version("peft") is None, "no peft: no LoRA"),
    ]
    return [note for absent, note in lacks if absent]


def _patch_rows(patcher: Patcher) -> list[dict[str, str]]:
    """Every patch of a patcher: name, group, target, reason, state, and why where it is not applied."""
    records = {record.name: record for record in patcher.records}
    rows = []
    for row in patcher.status():
        why = ""
        if row["state"] == "not needed":
            useful = records[row["name"]].is_useful()
            why = "the host does not need it here" if useful else "this release of the host has no such code"
        rows.append({**row, "because": why})
    return rows


def _evaluate() -> dict[str, Any]:
    """lmms-eval's evaluator, the plugin's models in its registry, and every patch of it checked and applied once."""
    from importlib.metadata import entry_points

    from tam_plugin.errors import require
    from tam_plugin.eval.lmms.harness import PATCHER, VERSION
    from tam_plugin.installing import install_command, installed_version
    from tam_plugin.patches.hosts import lmms_models

    require("lmms_eval", needed_for="evaluating", extra="eval")
    version = installed_version("lmms-eval")
    if version != VERSION:
        return _verdict(False, f"lmms-eval {version}: expected {VERSION}", install_command("lmms_eval", "eval"))
    require("lmms_eval.evaluator", needed_for="evaluating")
    if "tam" not in {point.name for point in entry_points(group="lmms_eval.models")}:
        return _verdict(False, "the plugin is on the path but not installed", "pip install -e . in its folder")
    from lmms_eval.models import get_model

    get_model("tallva_onevision")
    with PATCHER.applied():
        rows = _patch_rows(PATCHER)
    return _verdict(True, f"lmms-eval {version} with the models {', '.join(lmms_models())}", patches=rows)


def _decode(reader: str) -> dict[str, Any]:
    """The shipped clip, decoded by one reader."""
    from tam_plugin.installing import installed_version
    from tam_plugin.video import sample_frames

    video = sample_frames(str(CLIP), 4, backend=reader)
    package = {"pyav": "av"}.get(reader, reader)
    return _verdict(True, f"{package} {installed_version(package)} decoded {len(video)} frames of {CLIP.name}")


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": _machine,
    "host": _host,
    "ask": _ask,
    "train": _train,
    "evaluate": _evaluate,
    "decode": _decode,
}
"""Name → probe; ``decode:READER`` takes a reader, ``host:MODULE:CLASS`` a host's row."""
