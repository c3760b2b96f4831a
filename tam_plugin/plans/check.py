"""Whether plans belong to a training run: same data files, policy, layout and Inductor; if not, what differs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tam_plugin.budget import Policy
from tam_plugin.errors import ConfigError
from tam_plugin.plans.table import Plans
from tam_plugin.storage import difference, file_sha256


def policy_values(policy: Policy) -> dict[str, Any]:
    """The policy's mapping as JSON gives it back, so that two can be compared whatever file they came from."""
    return json.loads(json.dumps(policy.to_dict()))


def layout_values(policy: Policy) -> dict[str, Any]:
    """What of the model's token layout and context a policy's budgets depend on."""
    context = policy_values(policy).get("context", {}).get("max_context_tokens", policy.layout.context_tokens)
    return policy.layout.to_dict() | {"max_context_tokens": context}


def plan_command(
    data: str,
    out: str,
    policy: Policy,
    *,
    policy_file: str | None = None,
    inductor: str | None = None,
    video_folder: str | None = None,
    model: str | None = None,
) -> str:
    """The command that makes plans for a training run, to be shown."""
    layout = policy.layout
    given: dict[str, Any] = {
        "data": data,
        "out": out,
        "video-folder": video_folder,
        "policy": policy_file,
        "inductor": inductor,
        "model": model,
        "newline-position": layout.newline_position,
        "grid": layout.grid,
        "pool-mode": layout.pool_mode,
        "model-max-length": layout.context_tokens,
    }
    words = [f"--{k} {shlex.quote(str(v))}" for k, v in given.items() if v is not None]
    strides = [] if layout.strides is None else [f"--strides {' '.join(map(str, layout.strides))}"]
    return " ".join(["tam plan-data", *words, *strides])


def check_plans(plans: Plans, *, policy: Policy, inductor: str | None, data_files: Sequence[str], command: str) -> None:
    """Refuse plans that do not belong to the training run.

    Plans may cover more files than the run trains on, and files may have been moved, since only their content counts.

    Args:
        plans: the plans.
        policy: the policy for the model's layout.
        inductor: name or path of the Inductor, None for the embedded one.
        data_files: what is trained on.
        command: what makes the right plans, for the message.

    Raises:
        ConfigError: in one line, the difference and the command.
        InputError: a data file or the Inductor cannot be read.
    """
    from tam_plugin.inductor.stored import inductor_fingerprint

    found = difference(plans.header["policy"], policy_values(policy)) or difference(
        plans.header["layout"], layout_values(policy), "layout"
    )
    what = "for another policy or layout"
    if found is None:
        planned, now = plans.header["inductor"], inductor_fingerprint(inductor)
        if planned["sha256"] != now["sha256"]:
            what, found = (
                "by another Inductor",
                f"the Inductor is {_inductor(now)}, was {_inductor(planned)}",
            )
    if found is None:
        what, found = "for another data file", other_file(plans.header["data"], data_files)
    if found is not None:
        raise ConfigError(
            f"the plans in {plans.folder!r} were made {what}: {found}. Make them again, in another folder or after "
            f"deleting that one: {command}"
        )


def _inductor(fingerprint: Mapping[str, str]) -> str:
    return f"{fingerprint['name']!r} (SHA-256 {fingerprint['sha256'][:12]}…)"


def other_file(planned: Sequence[Mapping[str, Any]], data_files: Sequence[str]) -> str | None:
    """What is wrong with the first data file whose content is that of none of the planned ones; None if all are there.

    Args:
        planned: path, size and SHA-256 of each, see :func:`~tam_plugin.storage.data_file`.
        data_files: what is trained on.

    Raises:
        InputError: one cannot be read.
    """
    sums = {entry["sha256"] for entry in planned}
    sizes = {entry["bytes"] for entry in planned}
    names = {os.path.abspath(entry["path"]): entry for entry in planned}
    for path in data_files:
        size = os.path.getsize(path) if os.path.exists(path) else None
        if size in sizes and file_sha256(path) in sums:
            continue
        before = names.get(os.path.abspath(path))
        if before is None:
            listed = ", ".join(repr(str(entry["path"])) for entry in planned[:3])
            return f"{path!r} is none of the {len(planned)} planned ({listed}{', …' if len(planned) > 3 else ''})"
        change = f"{size} bytes, planned were {before['bytes']}" if size != before["bytes"] else "other content"
        return f"{path!r} has changed since ({change})"
    return None
