"""Grouped GEMM: one matrix product for all experts, over rows that are sorted by expert.

A thin operator around torch's own ``grouped_mm``. It exists because torch can trace that function for
``torch.compile`` only in bfloat16, while the operator's shapes are known in every dtype.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_grouped_mm: Any = getattr(torch.nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
_custom_op: Any = getattr(torch.library, "custom_op", None)
AVAILABLE = _grouped_mm is not None and _custom_op is not None

# torch's kernels need every row stride to be a multiple of 16 bytes.
_ALIGNMENT_BYTES = 16
_SMALL_WEIGHT = 1 << 17  # below, a CPU's time goes into calls and not into products
_CUDA_CAPABILITY = (8, 0) if hasattr(torch.nn.functional, "grouped_mm") else (9, 0)


def unsupported_reason(device_type: str, dtype: torch.dtype, widths: tuple[int, ...]) -> str | None:
    """Why grouped GEMM cannot run here, in words, or None where it can.

    Args:
        device_type: ``"cpu"``, ``"cuda"``…
        dtype: dtype of rows and weights as they are multiplied.
        widths: feature widths of the matrices (each must be a multiple of 16 bytes).
    """
    itemsize = torch.empty((), dtype=dtype).element_size()
    for width in widths:
        if width * itemsize % _ALIGNMENT_BYTES:
            return f"width {width} in {dtype} is not a multiple of {_ALIGNMENT_BYTES} bytes"
    return _probe(device_type, dtype)


def grouped_is_faster(
    device_type: str, widths: tuple[int, ...], rows_per_expert: float, *, trains_weights: bool
) -> bool:
    """Whether one product for all experts takes less time than a loop over them, where both can run.

    - Compiled code takes the product: the loop's shapes depend on the data, and break the graph.
    - So does every device but a CPU, because a loop waits for the device at every expert.
    - A CPU gains nothing from one product: the loop keeps an expert's rows in the caches and adds biases on the way, so
      it is faster in inference, and with many rows in training. With few rows the gradient decides: the loop stacks
      those of E weights by a copy. Measured on float32 and bfloat16 alike, the product wins where an expert has at
      most a third as many rows as its input is wide, and its weights are not tiny (docs/performance.md).

    Args:
        device_type: ``"cpu"``, ``"cuda"``…
        widths: features into the experts, between their layers, and out.
        rows_per_expert: mean number of rows.
        trains_weights: whether a gradient of the experts' weights is wanted.
    """
    if torch.compiler.is_compiling() or device_type != "cpu":
        return True
    width, inner = widths[:2]
    return trains_weights and 3 * rows_per_expert <= width and width * inner >= _SMALL_WEIGHT


def expert_backends() -> dict[str, str]:
    """For a report: each way of computing experts → ``ready`` with device and dtype, or why it cannot run."""
    device_type, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    reason = unsupported_reason(device_type, dtype, ())
    grouped = f"ready ({device_type}, {dtype})" if reason is None else f"not usable: {reason}"
    return {"grouped": grouped, "reference": "ready"}


@torch.compiler.assume_constant_result
def _probe(device_type: str, dtype: torch.dtype) -> str | None:
    """Whether a tiny grouped product works; a constant for ``torch.compile``."""
    return _probe_once(device_type, dtype)


@functools.cache
def _probe_once(device_type: str, dtype: torch.dtype) -> str | None:
    if not AVAILABLE:
        return f"torch {torch.__version__} has no grouped_mm (2.9 has)"
    if device_type == "meta":
        return "parameters on the meta device have no values yet"
    if device_type == "cuda":
        # Other dtypes are accepted there but go expert by expert with a synchronization.
        if dtype != torch.bfloat16:
            return f"on CUDA it takes bfloat16, not {dtype}"
        if torch.cuda.get_device_capability() < _CUDA_CAPABILITY:
            return f"it needs CUDA capability {_CUDA_CAPABILITY}, this GPU has {torch.cuda.get_device_capability()}"
    try:
        rows = torch.zeros(16, 16, device=device_type, dtype=dtype)
        offsets = torch.tensor([8, 16], device=device_type, dtype=torch.int32)
        _grouped_mm(rows, rows.expand(2, 16, 16).contiguous().transpose(1, 2), offs=offsets)
    except (RuntimeError, NotImplementedError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    # Before torch 2.11 the CPU kernel refuses storage that a memory-mapped checkpoint left unaligned.
    return tensor if tensor.data_ptr() % _ALIGNMENT_BYTES == 0 else tensor.clone()


def _multiply(a: torch.Tensor, b: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """``[M, I] x [E, I, O] -> [M, O]`` over row groups, or ``[O, M] x [M, I] -> [E, O, I]`` over groups of M."""
    return _grouped_mm(_aligned(a), _aligned(b), offs=offsets)


if AVAILABLE:
    _multiply_op: Any = _custom_op("tam_plugin::grouped_mm", mutates_args=())(_multiply)

    @_multiply_op.register_fake
    def _(a: torch.Tensor, b: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        shape = (a.shape[0], b.shape[2]) if b.dim() == 3 else (offsets.shape[0], a.shape[0], b.shape[1])
        return a.new_empty(shape)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight, offsets)
        return _multiply_op(rows, weight.transpose(1, 2), offsets)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        rows, weight, offsets = ctx.saved_tensors
        grad = grad.contiguous()
        grad_rows = _multiply_op(grad, weight, offsets) if ctx.needs_input_grad[0] else None
        grad_weight = _multiply_op(grad.t(), rows, offsets) if ctx.needs_input_grad[1] else None
        return grad_rows, grad_weight, None


def grouped_linear(rows: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Multiply each group of rows by its own expert's weight, in one product.

    Args:
        rows: ``[M, in]``, contiguous, sorted by expert.
        weight: ``[E, out, in]``, of the same dtype as ``rows``.
        offsets: ``[E]`` int32; ``offsets[e]`` is the end of expert e's rows, and the last one is M.

    Returns:
        ``[M, out]``. Differentiable in ``rows`` and ``weight``; an expert without rows gets a zero gradient.
    """
    return _GroupedLinear.apply(rows, weight, offsets)
