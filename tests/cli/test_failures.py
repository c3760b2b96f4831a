"""What the machine refuses is no defect: exit code 2 and one line that says what to do; text of others stays text."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

import tam_plugin as tam
from tam_plugin.cli.failures import describe
from tam_plugin.cli.main import main
from tam_plugin.errors import InputError

from ..hostile import CODE

QUERY = ("--query", "What is it?")
EVIL = "\x1b]0;pwned\x07\x1b[31m\u202eevil\r"


def full_disk() -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def no_memory() -> None:
    bytearray(1 << 62)


def no_memory_of_torch() -> None:
    import torch

    torch.empty(1 << 60)


def missing() -> None:
    with open("/nowhere/file") as file:
        file.read()


def half_a_name() -> None:
    os.stat("\ud800")


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (full_disk, "free some space"),
        (no_memory, "out of memory"),
        (no_memory_of_torch, "out of memory"),
        (missing, "'/nowhere/file': no such file"),
        (half_a_name, "lone surrogate"),
    ],
)
def test_the_machine_refuses(fail, words):
    with pytest.raises(Exception) as caught:
        fail()
    text, code = describe(caught.value)
    assert code == 2 and words in text and text.isprintable()


def test_libraries_that_wrap_the_system(tmp_path):
    code = """
import resource, sys, torch
from safetensors.torch import save_file
from tam_plugin.cli.failures import describe
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
tensors = {"x": torch.zeros(10_000)}
for save in (lambda: save_file(tensors, "a"), lambda: torch.save(tensors, "b")):
    try:
        save()
    except Exception as error:
        print(*describe(error), sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    of_safetensors, of_torch = done.stdout.splitlines()
    assert "ulimit -f" in of_safetensors and of_safetensors.endswith("|2")
    assert "cannot be written" in of_torch and of_torch.endswith("|2")


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyError("y"), OSError("no number"), ValueError("z")])
def test_a_defect_is_a_defect(error):
    text, code = describe(error)
    assert code == 1 and "a defect" in text and type(error).__name__ in text


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path):
    from tam_plugin.patches.onevision.tiny import demo_dense_model

    dense, tokenizer = demo_dense_model(image_size=84, patch_size=14)
    dense.save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    argv = [sys.executable, "-c", CODE, "upcycle", tmp_path / "dense", tmp_path / "tam", "--copy"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 2 and "ulimit -f" in done.stderr and done.stderr.count("\n") == 1
    assert "file too large" in done.stderr and not (tmp_path / "tam" / "config.json").exists()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # rerunning the same command resumes


def harmless(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


@pytest.mark.parametrize(
    "argv",
    [
        ["plan", f"{EVIL}.mp4", *QUERY],
        ["plan", "VIDEO", *QUERY, "--backend", EVIL],
        ["plan", "VIDEO", *QUERY, "--policy", EVIL],
        ["plan", "VIDEO", *QUERY, "--inductor", f"./{EVIL}"],
        ["ask", "VIDEO", *QUERY, "--model", f"./{EVIL}"],
        ["ask", "VIDEO", *QUERY, "--device", EVIL],
        ["upcycle", EVIL, "x"],
        ["flops", "--preset", EVIL],
        ["data", "stats", EVIL],
        [EVIL],
    ],
)
def test_escapes_in_arguments_do_not_reach_the_terminal(sample_clip, capsys, argv):
    try:
        code = main([str(sample_clip) if arg == "VIDEO" else arg for arg in argv])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1 and harmless(captured.err)


def test_escapes_in_names_that_exist(sample_clip, tmp_path, capsys):
    video = tmp_path / f"{EVIL}.mp4"
    video.write_bytes(sample_clip.read_bytes())
    sheet = tmp_path / f"{EVIL}.png"
    assert main(["plan", str(video), *QUERY, "--contact-sheet", str(sheet)]) == 0
    captured = capsys.readouterr()
    assert sheet.exists() and harmless(captured.out) and harmless(captured.err) and "\\x1b[31m\\u202e" in captured.out


def test_a_name_that_is_no_unicode(sample_clip, tmp_path, capsys):
    video = tmp_path / os.fsdecode(b"\xff\xfe.mp4")
    video.write_bytes(sample_clip.read_bytes())
    assert main(["plan", str(video), *QUERY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] > 0
    assert main(["plan", str(tmp_path / os.fsdecode(b"\xff.mp4")), *QUERY]) == 2
    assert "\\udcff.mp4" in capsys.readouterr().err


def test_half_characters_in_the_programming_interface(sample_clip):
    inductor = tam.Inductor.from_pretrained()
    for query, options in (("a \ud800", None), ("a", ["b", "\ud800"]), ("A. \udfff\nB. x", None)):
        with pytest.raises(InputError, match="half a character"):
            inductor.classify(query, options=options)
        with pytest.raises(InputError, match="half a character"):
            tam.plan(query, 3.0, options=options)


def test_half_characters_in_options(sample_clip, capsys):
    for command in ("plan", "ask"):
        assert main([command, str(sample_clip), *QUERY, "--options", "yes", "no\udcff"]) == 2
        err = capsys.readouterr().err
        assert "the option 'no\\udcff' contains a lone surrogate" in err and err.count("\n") == 1
