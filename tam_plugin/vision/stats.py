"""Routing statistics: which experts the tokens of which task and video length take (Sec. 4.6)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from tam_plugin.errors import InputError
from tam_plugin.vision.collect import RoutingCollector


class RoutingStatistics:
    """Sums over many forwards of expert load and weight, per key and layer, in float64 on the CPU.

    A key says what a sample was, such as ``(task.label, length_class)``.
    """

    def __init__(self) -> None:
        self._assignments: dict[Hashable, torch.Tensor] = {}
        self._weights: dict[Hashable, torch.Tensor] = {}

    def update(self, routing: RoutingCollector, frames_per_sample: Sequence[int], keys: Sequence[Hashable]) -> None:
        """Add what a collector recorded; one transfer from the device.

        Args:
            routing: of forwards over the frames of these samples, one after another.
            frames_per_sample: frames of each sample.
            keys: key of each sample.

        Raises:
            InputError: counts that do not match each other or the recorded frames.
        """
        if len(frames_per_sample) != len(keys):
            raise InputError(f"{len(keys)} keys for {len(frames_per_sample)} samples: expected one per sample")
        layers = [layer for layer in routing.records if layer]
        if not layers:
            return
        # [2, L, B, E]: assignments and weights of every layer, batch rows of several forwards joined.
        sums = torch.stack(
            [
                torch.stack([torch.cat([getattr(record, name) for record in layer]) for layer in layers])
                for name in ("assignments", "weight_sums")
            ]
        )
        if sum(frames_per_sample) != sums.shape[2]:
            raise InputError(
                f"frames_per_sample {list(frames_per_sample)} for {sums.shape[2]} recorded frames: expected counts "
                "that add up"
            )
        sums = sums.detach().double().cpu()
        for part, key in zip(sums.split(list(frames_per_sample), dim=2), keys, strict=True):
            assignments, weights = part.sum(dim=2)
            self._assignments[key] = self._assignments.get(key, 0) + assignments
            self._weights[key] = self._weights.get(key, 0) + weights

    def counts(self, key: Hashable | None = None) -> torch.Tensor:
        """``[L, E]`` float64: tokens that took each expert, of one key or of all.

        Raises:
            InputError: nothing was recorded (for this key).
        """
        return self._total(self._assignments, key)

    def load(self, key: Hashable | None = None) -> torch.Tensor:
        """``[L, E]`` float64: fraction of a layer's assignments that each expert took, of one key or of all.

        Raises:
            InputError: nothing was recorded (for this key).
        """
        assignments = self.counts(key)
        return assignments / assignments.sum(dim=1, keepdim=True)

    def mean_weight(self, key: Hashable | None = None) -> torch.Tensor:
        """``[L, E]`` float64: mean weight of an expert over the tokens that took it; 0 where none did.

        Raises:
            InputError: nothing was recorded (for this key).
        """
        assignments = self._total(self._assignments, key)
        return self._total(self._weights, key) / assignments.clamp(min=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping of key → ``assignments [L]``, ``load [L][E]`` and ``mean_weight [L][E]``.

        A tuple's parts are joined by ``/``; the key ``all`` is the total.
        """
        keys: list[Hashable | None] = [None, *self._assignments] if self._assignments else []
        return {
            _name(key): {
                "assignments": [round(layer[0]) for layer in self._total(self._assignments, key).sum(1, True).tolist()],
                "load": self.load(key).tolist(),
                "mean_weight": self.mean_weight(key).tolist(),
            }
            for key in keys
        }

    def _total(self, sums: dict[Hashable, torch.Tensor], key: Hashable | None) -> torch.Tensor:
        if key is None and sums:
            return torch.stack(list(sums.values())).sum(dim=0)
        if key not in sums:
            raise InputError(
                f"no routing was recorded for {key!r}; recorded: {', '.join(map(repr, sums)) or 'nothing'}"
            )
        return sums[key]


def _name(key: Hashable | None) -> str:
    if key is None:
        return "all"
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
