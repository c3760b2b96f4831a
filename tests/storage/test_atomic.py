"""Replacement in one step: after an error, a full disk or a kill, the file that was there is there."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys

import pytest

from tam_plugin.errors import InputError
from tam_plugin.storage import (
    link_file,
    move_files,
    part_path,
    replace_file,
    replace_folder,
    replace_path,
    replace_records,
)
from tests import kill_harness

OLD, NEW = "old\n", "new, and longer\n"


def write(folder: str, name: str) -> None:
    if name == "folder":
        with replace_folder(f"{folder}/{name}") as made:
            (made / "a").write_text(NEW)
    elif name == "file":
        with replace_file(f"{folder}/{name}") as file:
            file.write(NEW)
    else:
        with replace_path(f"{folder}/{name}") as path:
            path.write_text(NEW)


def prepare():
    return write


@pytest.mark.parametrize("name", ["file", "path", "folder"])
def test_a_kill_at_any_moment_leaves_the_old_one_or_the_new_one(tmp_path, name):
    def fresh(number: int):
        folder = tmp_path / str(number)
        (folder / "folder").mkdir(parents=True)
        for old in (folder / "file", folder / "path", folder / "folder" / "a"):
            old.write_text(OLD)
        return folder

    def content(folder):
        file = folder / name / "a" if name == "folder" else folder / name
        return file.read_text() if file.exists() else None

    (calm,) = kill_harness.run("tests.storage.test_atomic:prepare", {}, [(fresh(0), {"name": name}, None)])
    assert content(tmp_path / "0") == NEW and not calm.killed
    folders = [fresh(place) for place in range(1, calm.touches + 1)]
    killed = [(folder, {"name": name}, place) for place, folder in enumerate(folders, 1)]
    again = [(folder, {"name": name}, None) for folder in folders]
    found = kill_harness.run("tests.storage.test_atomic:prepare", {}, killed)
    left = [content(folder) for folder in folders]
    assert all(run.killed for run in found) and left[0] == OLD and left[-1] == NEW
    # A folder that is not empty cannot be replaced in one step: in between there is none.
    assert set(left) <= {OLD, NEW} | ({None} if name == "folder" else set())
    assert any(part_path(name).name in run.files for run in found)
    kill_harness.run("tests.storage.test_atomic:prepare", {}, again)
    assert all(content(folder) == NEW and not list(folder.glob(".*")) for folder in folders)


def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text(OLD)
    with pytest.raises(ZeroDivisionError), replace_file(tmp_path / "a") as file:
        file.write(NEW)
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == OLD and os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileNotFoundError, match="elsewhere"), replace_file(tmp_path / "a"):
        open("/elsewhere/file")  # noqa: SIM115 (an error of another file stays what it is)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text(OLD)
    code = (
        "import sys; from tam_plugin.storage import replace_file\n"
        "with replace_file('a') as file: file.write('x' * 100_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    last = done.stderr.splitlines()[-1]
    assert "InputError: 'a' cannot be written: file too large; raise the limit" in last
    assert (tmp_path / "a").read_text() == OLD and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no file name"),
        ("folder", "no file name"),
        ("pipe", "regular"),
        ("no/such/folder", "no such file"),
        ("x" * 300, "shorter name"),
    ],
)
def test_what_is_no_place_for_a_file(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=words), replace_file(name) as file:
        file.write("x")
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_a_second_writer_is_refused_and_a_dead_one_s_part_is_removed(tmp_path):
    part = part_path(tmp_path / "a")
    part.write_text("left by a kill")
    with replace_file(tmp_path / "a") as file:
        file.write(NEW)
        with pytest.raises(InputError, match="another process is writing"), replace_file(tmp_path / "a"):
            pass
    assert (tmp_path / "a").read_text() == NEW and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_part_that_is_a_link_is_not_written_through(tmp_path, link):
    (tmp_path / "precious").write_text(OLD)
    link(tmp_path / "precious", part_path(tmp_path / "a"))
    with replace_file(tmp_path / "a", binary=True) as file:
        file.write(NEW.encode())
    assert (tmp_path / "precious").read_text() == OLD and (tmp_path / "a").read_text() == NEW


def test_new_files_have_the_rights_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    with replace_file(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_records_and_moved_files(tmp_path):
    assert replace_records(tmp_path / "rows", [{"a": "ä"}, {"b": None}]) == 2
    assert (tmp_path / "rows").read_text(encoding="utf-8") == '{"a": "ä"}\n{"b": null}\n'
    (tmp_path / "second").write_text(OLD)
    for _ in range(2):  # the second time it is the same file already
        link_file(tmp_path / "rows", tmp_path / "second")
        assert (tmp_path / "second").samefile(tmp_path / "rows")
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    out.mkdir()
    (out / "b").write_text(OLD)
    for name in "abz":
        (made / name).write_text(NEW)
    move_files(made, out, last="a")
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys("abz", NEW)
    assert sorted(os.listdir(tmp_path)) == ["out", "rows", "second"]


def test_the_part_of_a_live_writer_in_another_process_stays(tmp_path):
    part = part_path(tmp_path / "a")
    with part.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"), replace_file(tmp_path / "a"):
            pass
    assert part.exists()
