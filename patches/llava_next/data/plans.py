"""``--tam_plans`` and ``--tam_skip``: what ``tam plan-data`` wrote, checked against a training run.

Lengths count planned tokens.
"""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.llava_next.data.budgets import BudgetPlanner
from tam_plugin.patches.llava_next.data.rows import data_files, problem_of
from tam_plugin.plans.bad_rows import read_skip_list, row_digest
from tam_plugin.plans.check import check_plans, other_file, plan_command
from tam_plugin.plans.keys import is_video_row, key_of_row
from tam_plugin.plans.table import Plans


def attach_plans(planner: BudgetPlanner, folder: str, config: TamConfig, host: Any, *, model: str | None) -> None:
    """Let ``planner`` take its budgets from the plans in ``folder``.

    Args:
        planner: the model's.
        folder: what ``tam plan-data --out`` wrote.
        config: the model's.
        host: the host's dataset.
        model: where the model comes from, for the message.

    Raises:
        ConfigError: the plans were made for something else, or a sample has none; the message says what to run.
        InputError: there are no plans.
    """
    data_args = host.data_args
    given = getattr(getattr(data_args, "tam_args", None), "tam_policy", None)
    policy_file = given or (config.policy if isinstance(config.policy, str) else None)
    needs_model = (policy_file is None and config.policy is not None) or planner.layout.reducer is not None
    command = plan_command(
        str(data_args.data_path),
        folder,
        planner.policy,
        policy_file=policy_file,
        inductor=config.inductor,
        video_folder=data_args.video_folder,
        model=model if needs_model else None,
    )
    try:
        plans = Plans(folder)
    except InputError as error:
        raise InputError(f"--tam_plans: {error}; to make them: {command}") from error
    check_plans(plans, policy=planner.policy, inductor=config.inductor, data_files=data_files(host), command=command)
    check_samples(plans, host.list_data_dict, command)
    planner.plans = plans


def without_listed(host: Any, path: str) -> Any:
    """The host's dataset without the samples that a list of ``tam plan-data`` holds (``--tam_skip``).

    Args:
        host: the host's dataset; it is not changed.
        path: the list.

    Raises:
        ConfigError: the list was made for other data, or holds every sample.
        InputError: it cannot be read.
    """
    listed = read_skip_list(path)
    files = data_files(host)
    if (found := other_file(listed.header["data"], files)) is not None:
        raise ConfigError(
            f"--tam_skip {path!r} was made for another data file: {found}. Make the list again: "
            f"tam plan-data --data {shlex.quote(str(host.data_args.data_path))} …"
        )
    kept = copy.copy(host)
    kept.list_data_dict = [record for record in host.list_data_dict if row_digest(record) not in listed.samples]
    if not kept.list_data_dict:
        raise ConfigError(f"--tam_skip {path!r} holds all of the {len(host.list_data_dict)} training samples")
    return kept


def check_samples(plans: Plans, records: Sequence[dict[str, Any]], command: str) -> None:
    """Refuse a set with samples that were not planned.

    Raises:
        ConfigError: with their count, the first of them, and the command.
    """
    places = plan_places(plans, records)
    missing = np.flatnonzero(places == NO_PLAN).tolist()
    if missing:
        record = records[missing[0]]
        raise ConfigError(
            f"the plans in {plans.folder!r} lack {len(missing)} of {len(records)} samples, the first with id "
            f"{record.get('id', missing[0])!r} and video {record['video']!r}. Make them again: {command}"
        )


NO_VIDEO, NO_PLAN = -2, -1


def plan_places(plans: Plans, records: Sequence[dict[str, Any]]) -> np.ndarray:
    """The place of each record ``[N]`` in the plans: :data:`NO_VIDEO` where it needs none, :data:`NO_PLAN` without.

    What cannot be used needs none: it is reported as a bad sample when its turn comes.
    """
    places = np.full(len(records), NO_VIDEO, np.int64)
    rows, keys = [], []
    for index, record in enumerate(records):
        if problem_of(record) or not is_video_row(record):  # a malformed row is reported when its turn comes
            continue
        try:
            keys.append(key_of_row(record).key)
        except InputError:
            continue
        rows.append(index)
    asked = np.array(keys, np.uint64)
    found = plans.find(asked)
    places[rows] = np.where((found < 0) & plans.is_bad(asked), NO_VIDEO, found)
    return places


def planned_lengths(
    planner: BudgetPlanner, plans: Plans, records: Sequence[dict[str, Any]], words: Sequence[int]
) -> list[int]:
    """Length of every sample: the host's count of words, and the visual tokens; negative for text, as in the host.

    A still image counts as one untiled picture, since nothing here opens it.
    """
    places = plan_places(plans, records)
    tokens = np.zeros(len(records), np.int64)
    has_plan = places >= 0
    at = places[has_plan]
    tokens[has_plan] = planner.layout.count(plans.column("frames")[at], plans.column("stride")[at])
    a_picture = planner.layout.grid**2
    for index, record in enumerate(records):
        if problem_of(record) is None and "image" in record:
            tokens[index] = a_picture * (len(record["image"]) if isinstance(record["image"], list) else 1)
    return [count + int(extra) if count > 0 else count for count, extra in zip(words, tokens, strict=True)]


def checkpoint_folder(model: Any) -> str | None:
    """The folder that a model was loaded from, if it is one."""
    name = getattr(model.config, "_name_or_path", None)
    return name if name and os.path.isdir(name) else None
