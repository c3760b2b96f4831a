"""Matrix products in bfloat16 at a usable speed on CPUs without instructions for them (there: 90 times slower).

Put on ``PYTHONPATH`` of the processes in which the tests train. A product is computed in float32 and rounded once, as
the kernels of CPUs with bfloat16 do; where such a kernel is at hand nothing is changed.
"""

import os
import sys

import torch


def _override() -> None:
    library = torch.library.Library("aten", "IMPL")
    aten = torch.ops.aten

    def through_float32(out_variant, *arguments, **scales):
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        dtype = tensors[-1].dtype
        wide = torch.float32 if dtype == torch.bfloat16 else dtype
        arguments = [a.to(wide) if isinstance(a, torch.Tensor) else a for a in arguments]
        out = torch.empty(0, dtype=wide)
        out_variant(*arguments, **scales, out=out)
        return out.to(dtype)

    library.impl("mm", lambda a, b: through_float32(aten.mm.out, a, b), "CPU")
    library.impl("bmm", lambda a, b: through_float32(aten.bmm.out, a, b), "CPU")
    library.impl("addmm", lambda c, a, b, **scales: through_float32(aten.addmm.out, c, a, b, **scales), "CPU")
    library.impl("baddbmm", lambda c, a, b, **scales: through_float32(aten.baddbmm.out, c, a, b, **scales), "CPU")
    # The backward of the flash kernel has its own slow products.
    torch.backends.cuda.enable_flash_sdp(False)
    _override.library = library  # the overrides last as long as this object


if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _override()

_trains = any(argument.endswith(("train.py", "train_mem.py")) for argument in sys.orig_argv)
if _trains and os.environ.get("DS_ACCELERATOR") == "cpu" and "RANK" in os.environ:
    # transformers starts DeepSpeed's communication on GPUs only, and asks it for the number of processes before.
    import deepspeed

    deepspeed.init_distributed("gloo", verbose=False)
