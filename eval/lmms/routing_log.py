"""One JSON line per request: how many tokens each expert of the vision tower took (Fig. 7 and 12b)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tam_plugin.errors import ConfigError
from tam_plugin.eval.lmms.sample_log import KEY, SampleLog
from tam_plugin.taxonomy import length_class
from tam_plugin.vision import RoutingStatistics, collect_routing, moe_layers


class RoutingLog:
    """Listens to the tower while requests are computed; the file lives as the sample log does.

    Lines are a request's own, not sums: a resumed run counts none twice, and those of several processes add up.

    Args:
        path: the file; other processes than the first write ``NAME.rankN.SUFFIX`` beside it.
        rank: number of this process.
        tower: the vision encoder.

    Raises:
        ConfigError: the tower has no experts.
        InputError: the file cannot be written.
    """

    def __init__(self, path: str, rank: int, tower: torch.nn.Module) -> None:
        if next(moe_layers(tower), None) is None:
            raise ConfigError(f"model_args: routing = {path!r}: this model's vision tower has no experts; leave it out")
        self._tower = tower
        self._log = SampleLog(path, rank, "routing")

    @contextmanager
    def listening(self, records: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Write a line for each of the requests that are computed inside, in the order of their frames.

        Args:
            records: their lines of the sample log.
        """
        statistics = RoutingStatistics()
        with collect_routing(self._tower) as routing:
            yield
        frames = [record["frames"] for record in records]
        seen = sum(len(record.assignments) for record in next(filter(None, routing.records), ()))
        # Beams see a request's frames once each, one after another.
        statistics.update(routing, [n * max(1, seen // sum(frames)) for n in frames], range(len(records)))
        for number, record in enumerate(records):
            self._log.write(
                {
                    **{name: record[name] for name in KEY},
                    "task_type": record["task_type"],
                    "length_class": length_class(record["duration_s"]),
                    "counts": [[round(n) for n in layer] for layer in statistics.counts(number).tolist()],
                }
            )

    def close(self) -> None:
        """Close the file."""
        self._log.close()
