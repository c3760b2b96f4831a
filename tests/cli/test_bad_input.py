"""Bad input: exit code 2, one line on stderr that names the value, nothing on stdout, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tam_plugin.cli.main import main


@pytest.fixture
def bad(tmp_path, sample_clip):
    """Folder with files that are not what their names say."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / "cut.mp4").write_bytes(sample_clip.read_bytes()[:1000])
    (tmp_path / "policy.yaml").write_text("version: 1\nmode: medium\n")
    (tmp_path / "nothing").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "a.png")
    audio_only(tmp_path / "audio.mp4")
    return tmp_path


def audio_only(path):
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


QUERY = ("--query", "What is it?")


@pytest.mark.parametrize("command", ["plan", "ask"])
@pytest.mark.parametrize(
    ("video", "extra", "words"),
    [
        ("missing.mp4", QUERY, "missing.mp4"),
        ("empty.mp4", QUERY, "empty.mp4"),
        ("text.mp4", QUERY, "text.mp4"),
        ("cut.mp4", QUERY, "cut.mp4"),
        ("audio.mp4", QUERY, "audio.mp4"),
        ("nothing", QUERY, "nothing"),
        (None, ("--query", ""), "query"),
        (None, ("--query", " \n"), "query"),
        (None, (*QUERY, "--backend", "quicktime"), "'quicktime'"),
        (None, (*QUERY, "--policy", "policy.yaml"), "mode = 'medium'"),
        (None, (*QUERY, "--policy", "absent.yaml"), "absent.yaml"),
        (None, (*QUERY, "--inductor", "./absent"), "./absent"),
        (None, (*QUERY, "--contact-sheet", "no/such/folder/sheet.png"), "sheet.png"),
        (None, (*QUERY, "--contact-sheet", ""), "--contact-sheet ''"),
        (None, (*QUERY, "--contact-sheet", "nothing"), "--contact-sheet 'nothing'"),
        (None, (*QUERY, "--policy", ""), "budget policy"),
        (None, (*QUERY, "--policy", "pipe"), "not a regular file"),
        (None, (*QUERY, "--inductor", ""), "Inductor"),
        (None, ("--query", "what\udcff is it?"), "not valid UTF-8"),
        ("pipes", QUERY, "pipes"),
    ],
)
def test_refusals(bad, sample_clip, capsys, monkeypatch, command, video, extra, words):
    monkeypatch.chdir(bad)
    before = sorted(p.name for p in bad.rglob("*"))
    assert main([command, video or str(sample_clip), *extra]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err
    lines = [line for line in captured.err.splitlines() if not line.startswith("tam: note:")]
    assert len(lines) == 1 and lines[0].startswith(f"tam {command}: ") and "Traceback" not in captured.err
    assert sorted(p.name for p in bad.rglob("*")) == before


def test_a_config_with_another_number_of_experts(sample_clip, capsys, tmp_path):
    from tam_plugin import TamConfig
    from tam_plugin.patches.onevision import upgrade_dense
    from tam_plugin.patches.onevision.tiny import demo_dense_model

    dense, tokenizer = demo_dense_model(image_size=84, patch_size=14)
    upgrade_dense(dense, TamConfig()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["tam"]["moe"]["num_experts"] = 8
    path.write_text(json.dumps(values))
    capsys.readouterr()
    assert main(["ask", str(sample_clip), *QUERY, "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "names 8 experts" in err and "the weights hold 4" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--device", "quantum"), "device 'quantum'"),
        (("--max-new-tokens", "99999999"), "not one frame fits"),
        (("--model", ""), "model's name is empty"),
        (("--model", "a/" * 3000), "no model can be read"),
        (("--model", "pipe"), "'pipe'"),
    ],
)
def test_models_and_devices_that_are_not_there(bad, sample_clip, capsys, monkeypatch, argv, words):
    monkeypatch.chdir(bad)
    assert main(["ask", str(sample_clip), *QUERY, *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and words in err


def test_a_policy_with_strides_that_the_model_lacks(bad, sample_clip, capsys):
    from tam_plugin.budget.policy import DEFAULT_POLICY

    policy = bad / "fives.yaml"
    policy.write_text(DEFAULT_POLICY.read_text().replace("strides: [1, 2]", "strides: [5]"))
    assert main(["ask", str(sample_clip), *QUERY, "--policy", str(policy)]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1
        and "groups.resolution.strides = [5]: the model has projectors for [1, 2, 3, 4] only" in err
    )


def test_a_defect_is_one_line_as_well(sample_clip, capsys, monkeypatch):
    def fail(*_, **more):
        raise ZeroDivisionError("so\nit goes")

    monkeypatch.setattr("tam_plugin.cli.common.question", fail)
    assert main(["plan", str(sample_clip), *QUERY]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ZeroDivisionError: so it goes" in err


def test_debug_shows_the_traceback():
    from tam_plugin.errors import InputError

    with pytest.raises(InputError):
        main(["--debug", "plan", "missing.mp4", *QUERY])


@pytest.mark.parametrize(
    "argv", [["plna"], [], ["plan"], ["plan", "x.mp4"], ["bench", "moon"], ["ask", "--frames", "3"]]
)
def test_misspelt_commands_are_one_line(argv):
    code = "from tam_plugin.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_answer_length_must_be_positive(sample_clip, capsys):
    assert main(["ask", str(sample_clip), *QUERY, "--max-new-tokens", "0"]) == 2
    assert "--max-new-tokens 0" in capsys.readouterr().err
