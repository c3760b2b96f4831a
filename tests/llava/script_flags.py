"""Which flags of the host's own training scripts train a TAM model, and which are refused.

``python -m tests.llava.script_flags`` prints the table. Scripts are read from the checkout. Flags that are refused are
singled out by the check that training itself makes before it reads weights; all others are shared out over three runs
of two steps, each of which is one of the host's scripts with ``--vision_tower tam`` and little else changed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import tam_plugin.budget

from . import tiny
from .host_scripts import Flags, Place, Script, read_scripts, words

PRETRAIN, FINETUNE = "train/pretrain_siglip.sh", "train/direct_finetune_siglip_a4.sh"
VIDEO = "video/train/SO400M_Qwen2_7B_ov_to_video_am9.sh"
KEPT = {"version", "mm_tunable_parts", "deepspeed", "torch_compile", "torch_compile_backend"}
"""Flags that make a run what it is; it keeps its own values of them."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Run:
    """A script's training, and the flags that it gets."""

    script: Script
    flags: Flags


def refusal(flags: Flags, trainer: str = "train_mem.py") -> str | None:
    """Why training would refuse these flags before it reads weights, or None."""
    from tam_plugin.errors import TamError
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments
    from tam_plugin.patches.llava_next.command_line.preflight import check_training

    given = {"vision_tower_pretrained": None, **flags, "tam_args": TamArguments()}
    assert trainer == "train_dpo.py" or "dpo_alpha" not in given
    try:
        check_training(SimpleNamespace(**given))
    except TamError as error:
        return str(error)
    return None


def share_out(scripts: dict[str, Script], place: Place, out: Path) -> tuple[list[Run], dict[Pair, str]]:
    """The runs, and why each refused flag is refused.

    Args:
        scripts: by name.
        place: ``llava`` is a TAM checkpoint there, for the scripts that start from a LLaVA under ZeRO-3.
        out: folder for the runs.
    """
    runs = [Run(scripts[name], place.cut(scripts[name], out / f"run{n}-qwen")) for n, name in enumerate(RUNS)]
    refused: dict[Pair, str] = {}
    for script in scripts.values():
        for pair in place.cut(script, out).items():
            if not place.is_own(pair[0]) and pair not in refused and not _trained(pair, runs):
                why = refusal({**runs[-1].flags, pair[0]: pair[1]}, script.trainer)
                if script.trainer == "train_dpo.py" and pair[0] in ("beta", "gamma"):
                    why = refused[("dpo_alpha", "1.0")]  # its companions
                if why is not None:
                    refused[pair] = why
                else:
                    _give(pair, runs)
    return runs, refused


RUNS = (PRETRAIN, FINETUNE, VIDEO)


def _trained(pair: Pair, runs: list[Run]) -> bool:
    """Whether a run has this flag with this value; one number of a flag stands for all."""
    name, value = pair
    is_number = re.fullmatch(r"[\d.e-]+", value) is not None
    return any(run.flags.get(name) == value or (is_number and name in run.flags) for run in runs)


def _give(pair: Pair, runs: list[Run]) -> None:
    """Put a flag into a run that lacks it, or whose own value another run has too."""
    name, value = pair
    for run in runs:
        own = run.flags.get(name)
        elsewhere = any(own == other.flags.get(name) for other in runs if other is not run)
        if own is None or (elsewhere and name not in KEPT):
            run.flags[name] = value
            return
    raise AssertionError(f"no run is left for --{name} {value}: add one")


def train(run: Run, place: Place, port: str) -> str | None:
    """Two steps under torchrun; why they did not come about, or None."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "--master_port", port]
    command = [*launch, str(place.host / "llava" / "train" / run.script.trainer), *words(run.flags)]
    done = subprocess.run(
        command, env=place.environment(), cwd=place.hub, capture_output=True, text=True, timeout=1500, check=False
    )
    if done.returncode:
        return done.stderr[-3000:]
    state = json.loads((Path(run.flags["output_dir"]) / "trainer_state.json").read_text())
    steps = [row["step"] for row in state["log_history"] if row.get("L_ori", 0) > 0]
    return None if steps == [1, 2] else f"logged steps: {steps}"


def table(scripts: dict[str, Script], runs: list[Run], refused: dict[Pair, str], place: Place, out: Path) -> str:
    """Every flag and value of the scripts, and what came of it."""
    rows: dict[str, list[str]] = {}
    for script in scripts.values():
        for (name, value), (_, given) in zip(
            [p for p in place.cut(script, out).items() if p[0] in script.flags], script.flags.items(), strict=True
        ):
            why = refused.get((name, value))
            here = "" if value == given or place.is_own(name) else f" (here {value})"
            outcome = f"refused: {why}" if why else f"trains{here}"
            assert why or place.is_own(name) or _trained((name, value), runs), (name, value)
            line = f"| --{name} | {'a path or name' if place.is_own(name) else given} | {outcome} |"
            if line not in rows.setdefault(name, []):
                rows[name].append(line)
    lines = [line for name in sorted(rows) for line in rows[name]]
    return "\n".join(["| flag | value in the scripts | outcome |", "|---|---|---|", *lines])


def compile_backend() -> str:
    """``inductor`` where a C++ compiler is there, which it needs on a CPU; else the backend that compiles nothing."""
    return "inductor" if shutil.which("g++") or shutil.which("clang++") else "aot_eager"


def main() -> int:
    """Make the material, train, print the table."""
    host = tiny.find_host()
    assert host is not None, "LLaVA-NeXT not found: set LLAVA_NEXT_HOME"
    sys.path.append(str(host))
    from tam_plugin.patches import activation

    activation.start()
    with tempfile.TemporaryDirectory(prefix="script-flags-") as folder:
        out = Path(folder)
        tiny.write_siglip(out / "hub")
        dense = tiny.write_dense(out / "llava-qwen-dense", out / "hub")
        llm, data = tiny.write_llm(out / "qwen-llm"), tiny.write_training_set(out / "data")
        place = make_place(host, out / "hub", llm, dense, data, out)
        with tiny.hub_cache(out / "hub"):
            scripts = {script.name: script for script in read_scripts(host, out)}
            runs, refused = share_out(scripts, place, out)
            for name, script in scripts.items():
                why = refusal(replace(place, llava=dense).cut(script, out), script.trainer)
                print(f"{name}: {'refused: ' + why if why else 'accepted'}", flush=True)
        failed = False
        for number, run in enumerate(runs):
            problem = train(run, place, str(29750 + number))
            failed = failed or problem is not None
            print(f"{run.script.name}, two steps: {problem or 'trained'}", flush=True)
        print(table(scripts, runs, refused, place, out))
    return int(failed)


def make_place(host: Path, hub: Path, llm: Path, dense: Path, data: tiny.TrainingSet, out: Path) -> Place:
    """The place of the runs; its LLaVA is what ``tam upcycle`` makes of the dense one."""
    upcycled = out / "tam-qwen"
    command = [sys.executable, "-m", "tam_plugin.cli.main", "upcycle", str(dense), str(upcycled)]
    subprocess.run(command, env=tiny.environment(host, hub), capture_output=True, check=True)
    projector = out / "run0-qwen" / "mm_projector.bin"  # what the first run leaves
    default = Path(tam_plugin.budget.__file__).with_name("default_policy.yaml").read_text()
    policy = out / "policy.yaml"
    policy.write_text(default.replace("max_frames: 120", "max_frames: 2"))
    return Place(host, hub, llm, upcycled, data, projector, policy, compile_backend())


if __name__ == "__main__":
    raise SystemExit(main())
