"""Patch records on a host made for the test: all or nothing, once, undone to the very same objects."""

from __future__ import annotations

import importlib
import sys
import textwrap

import pytest

from tam_plugin.patches.import_hooks import PostImportFinder
from tam_plugin.patches.lifecycle import APPLIED, NOT_NEEDED, OFF, WAITING, Patcher
from tam_plugin.patches.record import ABSENT, HostDriftError, Patch


@pytest.fixture
def host(tmp_path, monkeypatch):
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


def test_hook_patches_a_module_before_its_importers_bind(host):
    patcher = Patcher([record(), record("late", "toyhost.late:answer", lambda a: lambda: a() + 1)], rebind="toyhost")
    patcher.apply(patcher.records, import_modules=False)
    assert [row["state"] for row in patcher.status()] == [WAITING] * 2
    finder = PostImportFinder(
        [r.module_name for r in patcher.records],
        lambda module: patcher.apply([r for r in patcher.records if r.module_name == module.__name__]),
    )
    finder.install()
    try:
        user = host("user")
        assert user.hail("you") == "HELLO YOU"
        assert [row["state"] for row in patcher.status()] == [APPLIED, WAITING]
        assert host("late").answer() == 42
        assert "exec_module" not in vars(user.__spec__.loader)
    finally:
        finder.remove()
        patcher.undo()
    assert finder not in sys.meta_path


def test_an_import_hook_and_install_do_not_both_apply(host):
    patcher = Patcher([record()], rebind="toyhost")
    finder = PostImportFinder(["toyhost.core"], lambda module: patcher.apply(patcher.records))
    finder.install()
    try:
        patcher.apply(patcher.records)
        core = host("core")
        assert core.greet("you") == "HELLO YOU"
        patcher.undo()
        assert core.greet("you") == "hello you"
    finally:
        finder.remove()
        patcher.undo()
