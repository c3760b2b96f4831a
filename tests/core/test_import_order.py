"""Imports run one way: between rooms by the floors below, between files without circles; hosts keep to their rooms.

Every import statement counts, in functions and under ``TYPE_CHECKING`` too. Modules that are imported by a name made at
run time (commands, readers, records of patches) are not seen.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.core.test_packaging import PLACES

FLOORS = """
installing
errors
bounds files hub taxonomy addons
storage headers config
model_folder
inductor budget video
vision deciding flops
planning plans training checkpoint page
patches.record patches.sources patches.words patches.checkpoint_checks
patches.hosts
patches.lifecycle patches.compat
patches.onevision patches.llava_next
patches.boot patches.import_hooks patches.activation
patches
eval.flops eval.suite eval.ablations
eval.lmms
eval.report
eval.taskworld
eval bench
cli
"""
"""The rooms under ``tam_plugin``, from the ground up; a room imports from itself and from the floors below.

The face, ``tam_plugin/__init__.py``, exports names of any room and imports none until one is asked for; to read its
version or its folder, any file may ``import tam_plugin``.
"""

SAME_FLOOR = {
    ("patches.import_hooks", "patches.boot"): "the hook's base class",
    ("patches.activation", "patches.import_hooks"): "waits for the host's modules",
    ("patches.boot", "patches.activation"): "boot.py is installed beside the package too, where it has no other file: "
    "it holds the base class of the hooks and starts the plugin",
}
CIRCLE = ("tam_plugin.patches.boot", "tam_plugin.patches.activation")
"""Left out where circles are looked for; the reason is the one above."""

HOST_PACKAGES = {
    "llava": {"patches.llava_next", "eval.lmms"},
    "lmms_eval": {"eval.lmms", "cli"},  # cli: tam doctor looks whether it imports
}


@cache
def files() -> dict[str, Path]:
    """Every module by its installed name."""
    found = {}
    for package, folder in PLACES.items():
        for path in folder.rglob("*.py"):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports: modules of the project; of other packages the top-level name."""
    found = set()
    for node in ast.walk(ast.parse(files()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are written with their whole name"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in files() else str(node.module) for name in names}
    return frozenset(name if name in files() else name.partition(".")[0] for name in found) - {module, "tam_plugin"}


FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}


def room_of(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")[1:]
    depth = 2 if parts[0] in ("patches", "eval") else 1
    return ".".join(parts[:depth])


def test_every_room_has_a_floor():
    assert {room_of(module) for module in files() if module != "tam_plugin"} == FLOOR_OF.keys()


def test_rooms_import_from_the_floors_below():
    wrong = []
    for module in files().keys() - {"tam_plugin"}:
        room = room_of(module)
        for other in map(room_of, imports(module) & files().keys()):
            if other != room and FLOOR_OF[other] >= FLOOR_OF[room] and (room, other) not in SAME_FLOOR:
                wrong.append(f"{module} imports from {other}, which is not below {room}")
    assert not wrong, "\n".join(sorted(wrong))


def test_no_circle_of_files():
    graph = {module: set(imports(module) & files().keys()) for module in files()}
    graph[CIRCLE[0]].remove(CIRCLE[1])
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports go round: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package", HOST_PACKAGES)
def test_a_host_is_imported_in_its_rooms_alone(package):
    found = {room_of(module) for module in files().keys() - {"tam_plugin"} if package in imports(module)}
    assert found == HOST_PACKAGES[package]


def test_the_core_names_no_class_of_a_host():
    first = FLOOR_OF["patches.record"]
    for module in files().keys() - {"tam_plugin"}:
        if FLOOR_OF[room_of(module)] < first:
            assert "LlavaOnevision" not in files()[module].read_text(encoding="utf-8"), module


def test_importing_the_package_imports_no_other(tmp_path):
    code = "import sys; before = set(sys.modules); import tam_plugin; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert found - sys.stdlib_module_names == {"tam_plugin"}
