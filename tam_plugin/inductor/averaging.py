"""Several compact Inductors as one: the average of their weights (model soup, Wortsman et al. 2022)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import storage
from tam_plugin.inductor.doubt import DOUBT_FIELD, Doubt

_OWN = ("tam_temperature", DOUBT_FIELD)
"""What may differ between the parts."""


def average(folders: Sequence[str | Path], out: str | Path) -> None:
    """Write the average of compact checkpoints of one base; its temperature and doubt are their means.

    Args:
        folders: two or more, fine-tuned from the same base: only then lie their weights in one valley.
        out: folder to write.

    Raises:
        InputError: fewer than two folders, one that cannot be read, or ``out`` holds a checkpoint.
        ConfigError: they differ in more than weights and temperature.
    """
    places, target = [Path(folder) for folder in folders], Path(out)
    if len(places) < 2:
        raise InputError(f"{len(places)} Inductor given: expected two or more to average")
    if (target / storage.CONFIG_FILE).exists():
        raise InputError(f"--out {str(target)!r} holds a checkpoint; name another folder")
    configs = [storage.read_config(place) for place in places]
    total: dict = {}
    for place, config in zip(places, configs, strict=True):
        if config.get("format") != storage.FORMAT:
            raise ConfigError(f"{place}: expected a compact Inductor ({storage.FORMAT})")
        if strange := [n for n in configs[0] if n not in _OWN and config.get(n) != configs[0][n]]:
            raise ConfigError(
                f"{place}: {strange[0]} = {config.get(strange[0])!r}, {places[0]}: {configs[0][strange[0]]!r}"
            )
        state = storage.load_weights(place / storage.WEIGHTS_FILE)
        if total and {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in total.items()}:
            raise ConfigError(f"{place} holds other weights than {places[0]}: expected checkpoints of one base")
        total = {name: total.get(name, 0) + tensor / len(places) for name, tensor in state.items()}
    temperatures = [storage.read_temperature(c, where=str(p)) for c, p in zip(configs, places, strict=True)]
    target.mkdir(parents=True, exist_ok=True)
    storage.save_weights(target / storage.WEIGHTS_FILE, total)
    shutil.copyfile(places[0] / storage.TOKENIZER_FILE, target / storage.TOKENIZER_FILE)
    config = {**configs[0], "tam_temperature": round(sum(temperatures) / len(temperatures), 4)}
    doubts = [Doubt.from_config(c, where=str(p)) for c, p in zip(configs, places, strict=True)]
    stated = [asdict(doubt) for doubt in doubts if doubt is not None]
    if stated:
        config[DOUBT_FIELD] = {name: round(sum(d[name] for d in stated) / len(stated), 4) for name in stated[0]}
    (target / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
