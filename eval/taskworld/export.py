"""Write a trained arm as an ordinary checkpoint, for ``tam ask --model``, with clips of the test split.

python -m tam_plugin.eval.taskworld.export --run DIR --seed 0 --arm both --out FOLDER [--clips 12 27 31]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from tam_plugin.config import TamConfig
from tam_plugin.errors import InputError
from tam_plugin.eval.taskworld.arms import TRAINED, Arm
from tam_plugin.eval.taskworld.budgets import POLICY_FILE
from tam_plugin.eval.taskworld.experiment import stage3_name
from tam_plugin.eval.taskworld.model import dense_model, tokenizer
from tam_plugin.eval.taskworld.render import write_file
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.files import read_yaml


def export(weights: Path, arm: Arm, seed: int, out: Path) -> None:
    """Write a stage-3 state as a TAM OneVision checkpoint with the world's policy inside.

    Raises:
        InputError: the state is missing or its stage was not finished.
    """
    from tam_plugin.patches.onevision import upgrade_dense

    if not weights.exists():
        raise InputError(f"{str(weights)!r} does not exist: expected the state of a finished stage 3")
    state = torch.load(weights, weights_only=True)
    if state["step"] < state["stage"]["steps"]:
        raise InputError(
            f"{str(weights)!r} stands at step {state['step']} of {state['stage']['steps']}: finish the run"
        )
    policy = read_yaml(POLICY_FILE, what="TaskWorld's policy")
    tam = TamConfig.from_dict({**arm.tam, "instruction": {"time": False}, "policy": policy})
    model = upgrade_dense(dense_model(seed), tam)
    model.load_state_dict(state["model"])
    model.eval().save_pretrained(out)
    tokenizer().save_pretrained(out)
    settings = out / "tokenizer_config.json"
    values = json.loads(settings.read_text())
    values["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4.57 does not know
    settings.write_text(json.dumps(values, indent=2) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=Path, help="folder of the experiment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", default="both", choices=[arm.name for arm in TRAINED if arm.ends == 3])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--clips", type=int, nargs="*", default=[], help="seeds of test clips to write beside it")
    args = parser.parse_args()
    arm = next(arm for arm in TRAINED if arm.name == args.arm)
    export(args.run / f"seed{args.seed}" / f"{stage3_name(arm)}.pt", arm, args.seed, args.out)
    for seed in args.clips:
        write_file(draw_clip(seed), args.out / f"clip{seed}.mp4")


if __name__ == "__main__":
    main()
