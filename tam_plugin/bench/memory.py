"""Peak memory of one call, above what was held before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

_STATUS, _RESET = "/proc/self/status", "/proc/self/clear_refs"


def peak_growth(call: Callable[[], object], device: str) -> int | None:
    """Bytes that ``call`` takes above what was held before, at most; None where the system does not tell.

    On CUDA these are the allocator's; on Linux's CPUs the growth of the whole process, frames and libraries included.

    Args:
        call: what is measured.
        device: ``cpu`` or ``cuda``.
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that it is not missed below
        with open(_RESET, "w") as file:
            file.write("5")  # the peak is reset to what is held now
        before = _resident("VmRSS")
    except (OSError, AttributeError):
        call()
        return None
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    with open(_STATUS) as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024
