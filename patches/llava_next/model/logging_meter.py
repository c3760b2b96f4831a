"""Averages of the loss's parts and of the experts' load between two lines of the training log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from tam_plugin.vision.collect import RoutingCollector
    from tam_plugin.vision.moe_mlp import MoeMlp


class LossMeter:
    """Sums on the device, so that a step waits for nothing; they are read when the Trainer logs.

    Args:
        layers: the model's mixture layers, in the order in which they report.
    """

    def __init__(self, layers: list[MoeMlp]) -> None:
        experts = [layer.config.num_experts for layer in layers]
        self._shape = (len(layers), max(experts, default=0))
        self._sums: torch.Tensor | None = None

    def add(self, loss: torch.Tensor, routing: RoutingCollector | None) -> None:
        """Count one forward: its L_ori, and what its routing reported (None for a batch of text alone)."""
        with torch.no_grad():
            one = torch.zeros(5 + self._shape[0] * self._shape[1], device=loss.device)
            one[0], one[1] = 1.0, loss.detach()
            if routing is not None:
                one[2], one[3], one[4] = 1.0, routing.balance_loss.detach(), routing.z_loss.detach()
                load = one[5:].view(self._shape)
                for layer, records in enumerate(routing.records):
                    for record in records:
                        taken = record.assignments.sum(dim=0)
                        load[layer, : len(taken)] += taken.to(load)
            self._sums = one if self._sums is None else self._sums + one

    def take(self, device: torch.device | None = None) -> dict[str, float]:
        """Averages over the forwards of all ranks since the last call: ``L_ori``, ``L_b``, ``L_z`` and the load.

        ``expert_load_<e>`` is the share of assignments that expert ``e`` got, averaged over layers (1 / E each when
        balanced); ``expert_load_max`` the largest share of any expert in any layer. Every rank must call it.
        """
        sums, self._sums = self._sums, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            if sums is None:
                sums = torch.zeros(5 + self._shape[0] * self._shape[1], device=device)
            torch.distributed.all_reduce(sums)
        if sums is None:
            return {}
        count, loss, routed, balance, z = sums[:5].tolist()
        logs = {"L_ori": loss / count} if count else {}
        if routed:
            load = sums[5:].view(self._shape)
            share = load / load.sum(dim=1, keepdim=True).clamp(min=1)
            logs |= {"L_b": balance / routed, "L_z": z / routed, "expert_load_max": share.max().item()}
            logs |= {f"expert_load_{e}": value for e, value in enumerate(share.mean(dim=0).tolist())}
        return logs
