"""Killed at any moment, planning resumes, ends in the same bytes, divided or not, and leaves no process behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from tam_plugin.cli.plan_data import TOO_MANY_BAD
from tests.kill_harness import kill_when
from tests.plans.data import LAYOUT, mixed_rows, write
from tests.video.clips import make_clip

ROWS = 1500
PROGRAM = "import sys; from tam_plugin.cli.main import main; import tam_plugin.plans.making as p; p.CHUNK_ROWS = 64"
PROGRAM += "\nif __name__ == '__main__': sys.exit(main())"


@pytest.fixture
def command(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for number in range(3):
        make_clip(media / f"{number}.mp4", 3 + number, fps=3, size=(32, 32))
    # Every fourth video is missing: chunks with and without bad rows are killed alike.
    rows = [r | {"video": f"{n % 4}.mp4"} for n, r in enumerate(mixed_rows(ROWS)) if "video" in r]
    data = write(tmp_path / "data.jsonl", rows)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def argv(out, *more):
        given = ["--data", str(data), "--out", str(tmp_path / out), "--video-folder", str(media), "--workers", "2"]
        return [sys.executable, str(program), "plan-data", *given, *LAYOUT, *more]

    return argv


def children(marker: str) -> list[str]:
    """Processes that hold ``marker`` in their environment."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if marker.encode() in file.read():
                    found.append(name)
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are counted in /proc")
def test_kills_change_nothing(command, tmp_path):
    marker = f"TAM_TEST_MARKER={tmp_path.name}{os.getpid()}"
    env = {**os.environ, "OMP_NUM_THREADS": "1", **dict([marker.split("=")])}
    assert subprocess.run(command("calm"), env=env, capture_output=True, check=False).returncode == TOO_MANY_BAD
    rng = random.Random(3)
    journal = tmp_path / "out" / "plans.journal.1-of-2.jsonl"
    shard = command("out", "--shard", "1/2")
    sizes = []
    for _ in range(3):
        target = (sizes[-1] if sizes else 0) + rng.randrange(1, 16_000)
        process = subprocess.Popen(shard, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        kill_when(process, lambda target=target: journal.exists() and journal.stat().st_size >= target)
        assert not (tmp_path / "out" / "plans.json").exists(), process.stderr.read()
        sizes.append(journal.stat().st_size)
        with journal.open("ab") as file:  # as if the kill had come in the middle of a line
            file.write(b'{"rows": 64, "pla')
    deadline = time.monotonic() + 20
    while children(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(marker) == []
    assert sizes == sorted(set(sizes))

    def run(*argv):
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    early = run(*command("out", "--join"))
    assert early.returncode == 2 and "2 of 2 shards" in early.stderr and "--shard 1/2, --shard 2/2" in early.stderr
    for number in (2, 1):
        done = run(*command("out", "--shard", f"{number}/2"))
        assert done.returncode == 0, done.stderr
    joined = run(*command("out"))
    assert joined.returncode == TOO_MANY_BAD, joined.stderr
    for name in ("plans.safetensors", "plans.json", "bad_rows.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_a_video_that_crashes_its_reader_costs_one(tmp_path):
    """The environment makes the reader's process end at one name, as a fault in a library would."""
    from tam_plugin.plans import probing

    for number in range(20):
        make_clip(tmp_path / f"{number}.mp4", 3, fps=3, size=(32, 32))
    crash = tmp_path / "sitecustomize.py"
    crash.write_text(
        "import os, sys\n"
        "def hook(event, args):\n"
        "    if event == 'os.listdir' and str(args[0]).endswith('fatal'): os._exit(139)\n"
        "    if event == 'os.scandir' and str(args[0]).endswith('fatal'): os._exit(139)\n"
        "sys.addaudithook(hook)\n"
    )
    (tmp_path / "fatal").mkdir()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tmp_path), before)))
    prober = probing.Prober(str(tmp_path), 2.0, 2)
    try:
        names = [f"{n}.mp4" for n in range(20)]
        names.insert(11, "fatal")
        found = dict(zip(names, prober.get(names), strict=True))
    finally:
        prober.close()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    assert found.pop("fatal").error.endswith("crashed")
    assert {(p.num_frames, p.error) for p in found.values()} == {(3, None)}
