"""Run LLaVA-NeXT with the plugin through every cell of {host commit} × {Python environment} and write the table.

    python scripts/host_matrix.py --host CHECKOUT … --python INTERPRETER … [--cell NAME …] [--without-plugin]

Each cell is a process of its own with a time limit. Outcomes are kept in ``--results`` as they come; cells found
there are not run again, so an interrupted run resumes where it stopped (``--again`` reruns them).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("transformers", "torch", "accelerate", "peft", "deepspeed")
WITH, WITHOUT = "with the plugin", "without it"

sys.path.insert(0, str(ROOT))

from tests.llava.cells import CELLS  # noqa: E402


def commit_of(host: Path) -> str:
    """Short commit and date of a checkout."""
    command = ["git", "-C", str(host), "log", "-1", "--format=%h %cs"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def packages_of(python: str) -> str:
    """Versions of the packages that matter in an environment."""
    code = f"import importlib.metadata as m; print(', '.join(f'{{p}} {{m.version(p)}}' for p in {PACKAGES!r}))"
    command = [python, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]


def run_cell(host: Path, python: str, cell: str, folder: Path, plugin: bool, timeout_s: float) -> dict[str, object]:
    """One cell in its own process: ``error`` is null or says why it failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{host}{os.pathsep}{ROOT}",
        "LLAVA_NEXT_HOME": str(host),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TAM_PLUGIN": "1" if plugin else "0",
    }
    started = time.monotonic()
    command = [python, "-W", "ignore", "-m", "tests.llava.cells", cell, str(folder)]
    try:
        ran = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {timeout_s:.0f} s", "seconds": timeout_s}
    lines = ran.stdout.splitlines()
    try:
        error = json.loads(lines[-1])["error"]
    except (IndexError, ValueError):
        error = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
    return {"error": error, "seconds": round(time.monotonic() - started, 1)}


def render(results: dict[str, dict[str, object]], cells: list[str]) -> str:
    """The document: a table for each host commit, with what failed below it."""
    out = [
        "# LLaVA-NeXT under the plugin",
        "",
        "Written by `scripts/host_matrix.py`. Every cell is one process on a CPU, with a model of two layers and an "
        "encoder of SigLIP's width; the training cells run the host's own `llava/train/train_mem.py`, unmodified.",
        "",
        f"A number in brackets is a failure, explained below its table; `–` was not run. {_days(results)}".rstrip(),
    ]
    for way in (WITH, WITHOUT):
        rows = [r for r in results.values() if r["way"] == way]
        for host in sorted({str(r["host"]) for r in rows}, key=lambda h: h.split()[-1], reverse=True):
            here = [r for r in rows if r["host"] == host]
            name, day = host.split()
            out += ["", f"## Host {name} ({day}), {way}", "", f"| transformers | {' | '.join(cells)} |"]
            out.append("|---" * (len(cells) + 1) + "|")
            notes: list[str] = []
            for packages in sorted({str(r["packages"]) for r in here}, key=_by_version):
                marks = []
                for cell in cells:
                    found = next((r for r in here if r["packages"] == packages and r["cell"] == cell), None)
                    marks.append(_mark(found, notes))
                out.append(f"| {_label(packages, [str(r['packages']) for r in here])} | {' | '.join(marks)} |")
            out += ["", *[f"{n}. {note}" for n, note in enumerate(notes, 1)]] if notes else []
    out += ["", "## Environments", ""]
    out += [f"- {p}" for p in sorted({str(r["packages"]) for r in results.values()}, key=_by_version)]
    return "\n".join(out) + "\n"


def _days(results: dict[str, dict[str, object]]) -> str:
    """When the cells were run, in a sentence."""
    days = sorted({str(row["day"]) for row in results.values()})
    if not days:
        return ""
    return f"Cells were run on {days[0]}." if len(days) == 1 else f"Cells were run from {days[0]} to {days[-1]}."


def _by_version(packages: str) -> list[int]:
    return [int(part) for part in _transformers(packages).split(".") if part.isdigit()]


def _transformers(packages: str) -> str:
    return packages.partition(",")[0].partition(" ")[2]


def _label(packages: str, all_packages: list[str]) -> str:
    """The version of transformers, and torch's where another environment has the same one."""
    version = _transformers(packages)
    others = [p for p in all_packages if p != packages and _transformers(p) == version]
    return f"{version}, {packages.split(', ')[1]}" if others else version


def _mark(found: dict[str, object] | None, notes: list[str]) -> str:
    if found is None:
        return "–"
    if found["error"] is None:
        return "ok"
    why = " ".join(str(found["error"]).split())
    # Paths differ from run to run and say nothing here.
    why = " ".join("…/" + w.rsplit("/", 1)[-1] if w.count("/") > 2 else w for w in why.split())[:160]
    text = f"`{why.replace('`', chr(39))}`"
    if text not in notes:
        notes.append(text)
    return f"[{notes.index(text) + 1}]"


def main() -> int:
    """Run what is missing, then write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", nargs="*", type=Path, default=[], help="checkouts of LLaVA-NeXT")
    parser.add_argument("--python", nargs="*", default=[], help="interpreters with the plugin and transformers")
    parser.add_argument("--cell", nargs="*", choices=list(CELLS), default=list(CELLS), help="cells to run (all)")
    parser.add_argument("--without-plugin", action="store_true", help="run with TAM_PLUGIN=0, to compare")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "host_matrix.json")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "host_matrix.md")
    parser.add_argument("--timeout-s", type=float, default=300, help="limit for one cell")
    parser.add_argument("--again", action="store_true", help="run cells that have an outcome already")
    given = parser.parse_args()
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    way = WITHOUT if given.without_plugin else WITH
    for host in given.host:
        for python in given.python:
            commit, packages = commit_of(host), packages_of(python)
            with tempfile.TemporaryDirectory(prefix="host-matrix-") as folder:
                for cell in given.cell:
                    key = " | ".join((commit, packages, cell, way))
                    if key in results and not given.again:
                        continue
                    row = {"host": commit, "packages": packages, "cell": cell, "way": way}
                    row["day"] = date.today().isoformat()
                    outcome = run_cell(host, python, cell, Path(folder), not given.without_plugin, given.timeout_s)
                    results[key] = {**row, **outcome}
                    print(f"{commit} · {packages.split(',')[0]} · {cell} · {outcome['error'] or 'ok'}", flush=True)
                    given.results.write_text(json.dumps(results, indent=1) + "\n")
                    given.table.write_text(render(results, list(CELLS)))
    given.table.write_text(render(results, list(CELLS)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
