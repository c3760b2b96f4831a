"""What ``uninstall()`` leaves: every attribute is the original object, and nothing of the plugin stays in the host."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tam_plugin.patches
from tam_plugin.patches import activation
from tam_plugin.patches.record import ABSENT

from . import tiny

pytestmark = pytest.mark.usefixtures("llava_train")
OURS = str(Path(tam_plugin.patches.__file__).parent)


@pytest.fixture
def session() -> Iterator[Any]:
    """The patcher of this process, fully applied; what was applied before is applied again afterwards."""
    patcher = activation.patcher()
    activation.install()
    yield patcher
    activation.start()
    activation.install()


def targets(patcher) -> dict[str, tuple[Any, str]]:
    return {r.name: r.owner(sys.modules[r.module_name]) for r in patcher.records if r.module_name in sys.modules}


def ours_in(names: Iterable[str], uninstalled: Any = None) -> list[str]:
    """Attributes of modules, and of the classes they define, whose code lies in the plugin.

    Once uninstalled, those do not count that could not have been imported without the plugin.
    """
    found = []
    provided = {r.attribute.rpartition(".")[2] for r in uninstalled.records if r.may_be_absent} if uninstalled else ()
    for name in names:
        module = sys.modules[name]
        classes = [c for c in list(vars(module).values()) if inspect.isclass(c) and c.__module__ == name]
        for holder in (module, *classes):
            for key, value in list(vars(holder).items()):
                code = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                code = getattr(code, "__code__", None)
                if code is not None and code.co_filename.startswith(OURS) and key not in provided:
                    found.append(f"{name}:{getattr(holder, '__qualname__', '')}.{key}")
    return found


def test_every_attribute_is_the_original_after_uninstall(session) -> None:
    # Several records may stand on one attribute: what stood there first is the original.
    originals: dict[tuple[int, str], Any] = {}
    for holder, name, before in session.originals().values():
        originals.setdefault((id(holder), name), before)
    holders = targets(session)
    watched = {r.module_name for r in session.records if r.module_name in sys.modules}
    watched |= {name for name in sys.modules if name == "llava" or name.startswith("llava.")}
    applied = {name for name, row in ((r["name"], r) for r in session.status()) if row["state"] == "applied"}
    assert len(applied) > 20 and len(ours_in(watched)) >= 20
    activation.uninstall()
    for name in applied:
        holder, attribute = holders[name]
        assert vars(holder).get(attribute, ABSENT) is originals[id(holder), attribute], name
    assert ours_in(watched, session) == []
    assert {row["state"] for row in session.status()} == {"off"}


def test_the_hosts_symptoms_are_back_after_uninstall_and_gone_after_install(session) -> None:
    """A repair is needed exactly where it was applied: the host is as broken, and as whole, as it came."""
    repairs = [r for r in session.records if r.group == "compat" and r.module_name in sys.modules and r.is_useful()]
    before = {row["name"]: row["state"] == "applied" for row in session.status()}
    activation.uninstall()
    after = {r.name: bool(r.needed(sys.modules[r.module_name])) for r in repairs}
    assert after == {r.name: before[r.name] for r in repairs}
    activation.install()
    assert {row["name"]: row["state"] == "applied" for row in session.status()} == before


def test_inside_a_block_as_installed_and_after_it_as_before(session) -> None:
    from llava.model import builder

    activation.uninstall()
    plain = builder.load_pretrained_model
    with activation.installed():
        assert builder.load_pretrained_model is not plain
        with activation.installed(only="compat"):
            pass
        assert builder.load_pretrained_model is not plain
    assert builder.load_pretrained_model is plain


def test_a_fresh_process_installs_however_its_imports_went(llava: Path, hub: Path) -> None:
    """``TAM_PLUGIN=0``: the host fails to be imported where it needs repairs, and leaves half of its modules behind.

    Then it is imported by halves, and uninstalled, between two installations.
    """
    code = """
import contextlib, sys, tam_plugin
from tam_plugin.patches import activation
from tests.llava.test_uninstall import ours_in

with contextlib.suppress(ImportError):
    import llava.model.builder
activation.start()
import llava.model.builder
assert "llava.train.llava_trainer" not in sys.modules
tam_plugin.uninstall()
tam_plugin.install()
assert {row["state"] for row in tam_plugin.status()} <= {"applied", "not needed"}
tam_plugin.uninstall()
host = [name for name in sys.modules if name.partition(".")[0] == "llava"]
assert ours_in(host, activation.patcher()) == [] and "llava.train.llava_trainer" in host
tam_plugin.install(only="compat")
import llava.train.train
"""
    run_fresh(llava, hub, code, TAM_PLUGIN="0")


def test_threads_of_a_fresh_process_leave_nothing_that_uninstall_does_not_remove(llava: Path, hub: Path) -> None:
    code = """
import sys, threading, tam_plugin
from concurrent.futures import ThreadPoolExecutor
from tests.llava.test_uninstall import ours_in

start = threading.Barrier(8)

def work(number):
    start.wait()
    for _ in range(3):
        if number == 0:
            import llava
            tam_plugin.uninstall()
        elif number < 3:
            with tam_plugin.patches.installed():
                pass
        else:
            tam_plugin.install()

with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
tam_plugin.install()
patcher = tam_plugin.patches.activation.patcher()
applied = [row["name"] for row in tam_plugin.status() if row["state"] == "applied"]
assert len(patcher.originals()) == len(applied) > 20
names = {r.module_name for r in patcher.records} | {n for n in sys.modules if n.partition(".")[0] == "llava"}
names &= sys.modules.keys()
assert len(ours_in(names)) > 20
tam_plugin.uninstall()
assert ours_in(names, patcher) == []
assert not any(type(f).__module__.startswith("tam_plugin") for f in sys.meta_path)
"""
    run_fresh(llava, hub, code, TAM_PLUGIN="1")


def run_fresh(llava: Path, hub: Path, code: str, **env: str) -> None:
    """Run ``code`` in a process where no host is imported yet."""
    environment = tiny.environment(llava, hub, **env)
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).resolve().parents[2])
    code = f"import tam_plugin.patches\n{code}"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_doctor_shows_what_is_applied_on_this_host(llava: Path, hub: Path) -> None:
    code = "import sys; from tam_plugin.cli.main import main; sys.exit(main(['doctor', '--json']))"
    environment = tiny.environment(llava, hub)
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    report = json.loads(ran.stdout)
    assert report["patch_error"] is None
    assert [row["name"] for row in report["patches"]] == [r.name for r in activation.patcher().records]
    states = {row["name"]: row["state"] for row in report["patches"]}
    assert set(states.values()) <= {"applied", "not needed"}
    assert states["tower.build"] == states["loading.load"] == "applied"
