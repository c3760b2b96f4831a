"""Patch records on a host made for the test: all or nothing, once, undone to the very same objects."""

from __future__ import annotations

import importlib
import inspect
import shutil
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tam_plugin.patches import boot
from tam_plugin.patches.import_hooks import PostImportFinder
from tam_plugin.patches.lifecycle import APPLIED, NOT_NEEDED, OFF, WAITING, Patcher
from tam_plugin.patches.record import ABSENT, HostDriftError, Patch


def follow(patcher):
    """An installed finder that applies the records of each module that is executed."""
    finder = PostImportFinder(
        [record.module_name for record in patcher.records],
        lambda module: patcher.executed(module, {record.name for record in patcher.records}),
    )
    finder.install()
    return finder


@pytest.fixture(params=["folder"])
def host(tmp_path, monkeypatch, request):
    """A package ``toyhost``: core defines, user binds by ``from core import``, late is imported by nobody."""
    package = tmp_path / "toyhost"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text(
        textwrap.dedent("""
        def greet(name, loud=False):
            return f"hello {name}"

        class Base:
            def size(self):
                return 1

        class Child(Base):
            @staticmethod
            def kind():
                return "child"
        """)
    )
    (package / "user.py").write_text("from toyhost.core import greet\nfrom toyhost.core import greet as hail\n")
    (package / "late.py").write_text("def answer():\n    return 41\n")
    if request.param == "zip":
        shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "toyhost")
        shutil.rmtree(package)
        monkeypatch.syspath_prepend(tmp_path / "packed.zip")
    else:
        monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"toyhost.{name}")
    for name in [n for n in sys.modules if n.split(".")[0] == "toyhost"]:
        del sys.modules[name]


def loud(original):
    return lambda name, loud=False: original(name).upper()


def record(name="greet", target="toyhost.core:greet", wrap=loud, **more):
    return Patch(name=name, target=target, reason="a test", wrap=wrap, **more)


def test_apply_rebind_undo_to_the_same_objects(host):
    core, user = host("core"), host("user")
    original = core.greet
    patcher = Patcher([record(signatures=(("name", "loud"),))], rebind="toyhost")
    patcher.apply(patcher.records)
    replaced = core.greet
    assert core.greet("you") == user.greet("you") == user.hail("you") == "HELLO YOU"
    patcher.apply(patcher.records)
    assert core.greet is replaced
    assert patcher.originals()["greet"] == (core, "greet", original)
    patcher.undo()
    assert core.greet is user.greet is user.hail is original
    assert patcher.status()[0]["state"] == OFF


def test_undo_reaches_modules_imported_while_applied(host):
    core = host("core")
    original = core.greet
    patcher = Patcher([record(), record("twice", wrap=lambda g: lambda name: g(name) + "!")], rebind="toyhost")
    with patcher.applied():
        user = host("user")
        assert user.greet("you") == user.hail("you") == "HELLO YOU!"
    assert core.greet is user.greet is user.hail is original


def test_inherited_and_static_attributes_are_put_back_as_they_were(host):
    core = host("core")
    static = vars(core.Child)["kind"]
    records = [
        record("size", "toyhost.core:Child.size", lambda size: lambda self: size(self) + 1),
        record("kind", "toyhost.core:Child.kind", lambda kind: staticmethod(lambda: kind() + "!")),
        record("new", "toyhost.core:Child.new", lambda original: original is ABSENT, may_be_absent=True),
    ]
    patcher = Patcher(records, rebind="toyhost")
    with patcher.applied():
        assert (core.Child().size(), core.Base().size(), core.Child.kind(), core.Child.new) == (2, 1, "child!", True)
    assert "size" not in vars(core.Child) and core.Child().size() == 1
    assert vars(core.Child)["kind"] is static and not hasattr(core.Child, "new")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (record("bad", "toyhost.core:shout"), "it is missing"),
        (record("bad", "toyhost.core:Cousin.size"), "has no 'Cousin'"),
        (
            record("bad", "toyhost.core:Child.size", signatures=(("self", "unit"),)),
            r"expected parameters \(self, unit\), found \(self\)",
        ),
    ],
)
def test_drift_is_named_and_nothing_is_applied(host, bad, words):
    core = host("core")
    original = core.greet
    patcher = Patcher([record(), bad], rebind="toyhost")
    with pytest.raises(HostDriftError, match=words) as caught:
        patcher.apply(patcher.records)
    assert bad.target in str(caught.value)
    assert core.greet is original and patcher.originals() == {}


def test_an_error_while_applying_takes_back_what_was_done(host):
    core = host("core")
    original = core.greet

    def fail(_):
        raise RuntimeError("no")

    patcher = Patcher([record(), record("size", "toyhost.core:Base.size", fail)], rebind="toyhost")
    with pytest.raises(RuntimeError):
        patcher.apply(patcher.records)
    assert core.greet is original and patcher.originals() == {}


def test_records_that_are_not_needed_are_skipped(host):
    host("core")
    records = [
        record("healthy", needed=lambda module: not hasattr(module, "greet")),
        record("older", "toyhost.core:shout", requires=("toyhost.core:shout",)),
        record("elsewhere", "toyhost.gone:shout", requires=("toyhost.gone:shout",)),
    ]
    patcher = Patcher(records, rebind="toyhost")
    patcher.apply(patcher.records)
    assert [row["state"] for row in patcher.status()] == [NOT_NEEDED] * 3


def test_groups_can_be_applied_alone(host):
    core = host("core")
    patcher = Patcher(
        [record(), record("size", "toyhost.core:Base.size", lambda s: lambda self: 9, group="compat")], rebind="toyhost"
    )
    with patcher.applied("compat"):
        assert (core.Base().size(), core.greet("you")) == (9, "hello you")


def test_an_inner_block_leaves_the_outer_patches(host):
    core = host("core")
    patcher = Patcher([record()], rebind="toyhost")
    with patcher.applied():
        with patcher.applied():
            pass
        assert core.greet("you") == "HELLO YOU"
    assert core.greet("you") == "hello you"


@pytest.mark.parametrize("host", ["folder", "zip"], indirect=True)
def test_hook_patches_a_module_before_its_importers_bind(host):
    """Also where one loader serves all modules, as that of a zip file does."""
    patcher = Patcher([record(), record("late", "toyhost.late:answer", lambda a: lambda: a() + 1)], rebind="toyhost")
    patcher.apply(patcher.records, import_modules=False)
    assert [row["state"] for row in patcher.status()] == [WAITING] * 2
    finder = follow(patcher)
    try:
        user = host("user")
        assert user.hail("you") == "HELLO YOU"
        assert [row["state"] for row in patcher.status()] == [APPLIED, WAITING]
        assert host("late").answer() == 42
        assert host("core").__spec__.loader is host("core").__loader__
        assert type(host("core").__loader__) is type(host("user").__loader__)  # not one of ours
    finally:
        finder.remove()
        patcher.undo()
    assert finder not in sys.meta_path


def test_an_import_hook_and_install_do_not_both_apply(host):
    patcher = Patcher([record()], rebind="toyhost")
    finder = follow(patcher)
    try:
        patcher.apply(patcher.records)
        core = host("core")
        assert core.greet("you") == "HELLO YOU"
        patcher.undo()
        assert core.greet("you") == "hello you"
    finally:
        finder.remove()
        patcher.undo()


def test_a_module_that_is_executed_again_is_patched_again(host):
    user = host("user")
    core = host("core")
    records = [record(), record("size", "toyhost.core:Base.size", lambda size: lambda self: size(self) + 1)]
    patcher = Patcher(records, rebind="toyhost")
    first = core.greet
    patcher.apply(patcher.records)
    finder = follow(patcher)
    try:
        old = core.Base
        core = importlib.reload(core)
        second = inspect.getclosurevars(core.greet).nonlocals["original"]
        assert second is not first and core.greet("you") == user.greet("you") == "HELLO YOU"
        assert core.Base is not old and core.Base().size() == old().size() == 2
        del sys.modules["toyhost.core"]
        again = host("core")
        assert again is not core and again.greet("you") == "HELLO YOU" and again.Base().size() == 2
    finally:
        finder.remove()
        patcher.undo()
    assert core.greet is second and user.greet is first
    assert [cls().size() for cls in (old, core.Base, again.Base)] == [1, 1, 1]
    assert again.greet("you") == "hello you"


def test_finders_behind_are_asked_while_others_come_and_go(host):
    """Neither a finder that leaves during an import nor its leaving is noticed by the finder behind it."""
    asked = []

    class Behind:
        def find_spec(self, name, path=None, target=None):
            asked.append(name)

    behind = Behind()
    finder = PostImportFinder(["toyhost.core"], lambda module: None)
    leaving = boot.ImportHook(["toyhost"], before=lambda module: leaving.remove())
    sys.meta_path[:0] = [leaving, finder, behind]
    try:
        host("core")
        assert asked == ["toyhost", "toyhost.core"] and leaving not in sys.meta_path
    finally:
        finder.remove()
        sys.meta_path.remove(behind)


def test_blocks_that_overlap_each_keep_their_own_patches(host):
    """The first of two blocks ends first; what lies on top of its patch, on the same target, stays."""
    core, user = host("core"), host("user")
    original = core.greet
    records = [record(group="compat"), record("mark", wrap=lambda g: lambda name: g(name) + "!")]
    patcher = Patcher(records, rebind="toyhost")
    compat, tam = patcher.applied("compat"), patcher.applied("tam")
    compat.__enter__()
    tam.__enter__()
    assert core.greet("you") == user.greet("you") == "HELLO YOU!"
    compat.__exit__(None, None, None)
    assert core.greet("you") == user.greet("you") == "hello you!"
    patcher.apply(patcher.select("tam"))
    tam.__exit__(None, None, None)
    assert core.greet("you") == "hello you!"
    patcher.undo()
    assert core.greet is user.greet is original


def test_repairs_of_other_packages_come_before_the_hosts_imports(host, tmp_path):
    """The host's module can be imported with the repair alone, also after it failed to be imported without."""
    (tmp_path / "toylibrary.py").write_text("")
    (tmp_path / "toyhost" / "__init__.py").write_text(
        "try:\n    from toyhost import sick\nexcept ImportError:\n    pass\nfrom toyhost import sick\n"
    )
    (tmp_path / "toyhost" / "sick.py").write_text("from toyhost.core import Base\nfrom toylibrary import gone\n")
    with pytest.raises(ImportError):
        host("core")
    assert "toyhost.core" in sys.modules  # what the failed import left
    records = [
        record(),
        record("gone", "toylibrary:gone", lambda absent: lambda: 1, may_be_absent=True),
    ]
    patcher = Patcher(records, rebind="toyhost")
    patcher.apply(patcher.records)
    assert host("sick").gone() == 1 and host("core").greet("you") == "HELLO YOU"
    patcher.undo()
    assert not hasattr(sys.modules.pop("toylibrary"), "gone")


def test_threads_leave_nothing(host):
    """Threads that apply, undo and open blocks at once, while others import the modules."""
    records = [record(), record("size", "toyhost.core:Base.size", lambda size: lambda self: size(self) + 1)]
    patcher = Patcher(records, rebind="toyhost")
    finder = follow(patcher)
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        for turn in range(100):
            if number == 0:
                patcher.undo()
            elif number % 2:
                with patcher.applied():
                    pass
            else:
                patcher.apply(patcher.records)
                assert host(("core", "user")[turn % 2])
        return True

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [True] * 8
        assert host("core").greet("you") in ("hello you", "HELLO YOU") and host("core").Base().size() in (1, 2)
    finally:
        sys.setswitchinterval(switch_s)
        finder.remove()
        patcher.undo()
    core, user = host("core"), host("user")
    assert core.greet is user.greet is user.hail
    for function in (core.greet, core.Base.size):
        assert function.__code__.co_filename == core.__file__
