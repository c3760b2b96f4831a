"""Plans equal what question by question would give, whatever the files, workers and order."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_plugin import Inductor, plan
from tam_plugin.budget import TokenLayout, read_policy, register_reducer
from tam_plugin.budget.reducers import unregister_reducer
from tam_plugin.errors import ConfigError
from tam_plugin.plans.check import check_plans
from tam_plugin.plans.keys import sample_key
from tam_plugin.plans.table import GIVEN, PROBED, UNKNOWN, UNREADABLE, Plans
from tests.plans.data import LAYOUT, mixed_rows, plan_data, row, table, write
from tests.video.clips import make_clip

COUNT = 120


def key(r):
    return sample_key(r.get("id"), r["video"], r["conversations"][0]["value"]).key


@pytest.fixture(scope="module")
def rows():
    return mixed_rows(COUNT)


@pytest.fixture(scope="module")
def planned(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("plans")
    write(folder / "a.json", rows[:50])
    write(folder / "b.jsonl", rows[50:])
    listed = "datasets:\n"
    for name, strategy in (("a.json", "random:10%"), ("b.jsonl", "first:3")):
        listed += f"- json_path: {folder / name}\n  sampling_strategy: {strategy}\n"
    (folder / "stage2.yaml").write_text(listed)
    assert plan_data(folder / "stage2.yaml", folder / "out") == 0
    return folder


def test_every_row_is_planned_as_one_by_one(planned, rows):
    plans = Plans(planned / "out")
    about_video = [r for r in rows if "video" in r]
    assert len(plans) == len(about_video)
    for r in about_video:
        found = plans.planned(key(r))
        budget = plan(r["conversations"][0]["value"], r.get("duration"))
        assert (found.num_frames, found.stride, found.task) == (budget.num_frames, budget.pool_stride, budget.task)
        assert found.confidence == pytest.approx(budget.confidence, abs=1e-3) and found.extension is None
        assert found.flags & (UNKNOWN | GIVEN | PROBED) == (GIVEN if "duration" in r else UNKNOWN)
        assert found.duration_s == pytest.approx(r.get("duration"))


def test_unknown_durations_are_decided_later_without_an_inductor(planned, rows):
    plans, inductor = Plans(planned / "out"), Inductor.from_pretrained()
    unknown = [r for r in rows if "video" in r and "duration" not in r]
    for r in unknown:
        for duration_s in (3.0, 30.0, 180.0, 181.0):
            expected = inductor.classify(r["conversations"][0]["value"], duration_s=duration_s)
            found = plans.distribution(key(r), duration_s)
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert len(unknown) > 10


def test_plans_for_another_layout_are_refused_whatever_the_policy(planned, tmp_path):
    """A fixed policy's mapping says nothing of the model, and no mapping says anything of a token reducer."""

    class Half:
        def shape(self, num_frames, tokens_per_frame):
            return num_frames // 2, tokens_per_frame

    def check(plans, policy):
        check_plans(plans, policy=policy, inductor=None, data_files=[], command="tam plan-data")

    fixed = read_policy("fixed:9:2")
    layout = TokenLayout(newline_position="grid", context_tokens=4_000)
    assert (
        plan_data(
            planned / "stage2.yaml",
            tmp_path,
            "--policy",
            "fixed:9:2",
            layout=("--newline-position", "grid", "--model-max-length", "4000"),
        )
        == 0
    )
    check(Plans(tmp_path), fixed.adapted(layout))
    with pytest.raises(ConfigError, match=r"layout\.newline_position is 'frame', was 'grid'"):
        check(Plans(tmp_path), fixed.adapted(layout.replace(newline_position="frame")))
    with pytest.raises(ConfigError, match=r"layout\.max_context_tokens is 5000, was 4000"):
        check(Plans(tmp_path), fixed.adapted(layout.replace(context_tokens=5_000)))
    register_reducer("half", Half())
    try:
        with pytest.raises(ConfigError, match=r"layout\.reducer is 'half', was None"):
            check(Plans(tmp_path), fixed.adapted(layout.replace(reducer="half")))
    finally:
        unregister_reducer("half")


def test_report_adds_up(planned, rows, capsys):
    """The second run finds the plans finished and reports them."""
    capsys.readouterr()
    assert plan_data(planned / "stage2.yaml", planned / "out") == 0
    out = capsys.readouterr().out
    counts = json.loads((planned / "out" / "plans.json").read_text())["counts"]
    about_video = [r for r in rows if "video" in r]
    budgets = [plan(r["conversations"][0]["value"], r.get("duration")) for r in about_video]
    tokens, fixed = sum(b.visual_tokens for b in budgets), TokenLayout().budget(64, 2).visual_tokens * len(budgets)
    assert counts["visual_tokens"] == tokens and counts["baseline"]["visual_tokens"] == fixed
    assert f"Visual tokens saved: {fixed - tokens} " in out
    assert counts["rows"] == COUNT and counts["rows_without_video"] == COUNT // 10
    assert counts["durations"]["unknown"] == sum("duration" not in r for r in about_video)
    cells = Counter((b.task.label, str(b.pool_stride), str(b.num_frames)) for b in budgets)
    told = {(t, s, f): n for t, a in counts["histogram"].items() for s, b in a.items() for f, n in b.items()}
    assert told == cells
    body = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("| ")][2:]
    for line in body:
        assert sum(map(int, line[2:-1])) == int(line[-1])
    assert sum(int(line[-1]) for line in body) == len(budgets)


def test_batches_and_files_change_nothing(planned, rows, tmp_path):
    whole = write(tmp_path / "whole.jsonl", [*rows[60:], *rows[:60], *rows[:5]])
    assert plan_data(whole, tmp_path / "out", "--batch-size", "7") == 0
    ours, theirs = table(tmp_path / "out"), table(planned / "out")
    for name in ("key", "frames", "stride", "task", "flags", "duration"):
        assert np.array_equal(ours[name], theirs[name], equal_nan=name == "duration"), name
    assert ours["frames"].dtype == np.uint8 and np.all(np.diff(ours["key"].astype(object)) > 0)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_byte(rows, tmp_path):
    import torch

    data, before, hashes = write(tmp_path / "data.jsonl", rows), torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert plan_data(data, tmp_path / str(threads)) == 0
            hashes.add(json.loads((tmp_path / str(threads) / "plans.json").read_text())["table_sha256"])
    finally:
        torch.set_num_threads(before)
    assert len(hashes) == 1


def test_a_copy_in_another_process_maps_the_file(planned):
    plans = Plans(planned / "out")
    sent = pickle.dumps(plans)
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert np.array_equal(copy.column("key"), plans.column("key"))
    base = copy.column("key")
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap) or type(base.base).__name__ == "mmap"


def test_looking_up_loads_no_inductor(planned, rows):
    code = (
        "import sys\nfrom tam_plugin.plans.table import Plans\nfrom tam_plugin.plans import check, keys\n"
        f"assert Plans({str(planned / 'out')!r}).planned({key(rows[0])}) is not None\n"
        "print([m for m in ('torch', 'transformers', 'av', 'tam_plugin.inductor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 2**64 - 1), min_size=1), st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_find_is_membership(held, asked):
    from tam_plugin.plans.table import _find

    ordered = np.array(sorted(held), np.uint64)
    asked = [*asked, *list(held)[:3]]
    for number, place in zip(asked, _find(ordered, np.array(asked, np.uint64)).tolist(), strict=True):
        assert (place >= 0) == (number in held)
        assert place < 0 or int(ordered[place]) == number


def test_the_parts_of_a_key_do_not_run_together():
    keys = {sample_key(*parts).key for parts in (("1", "2", "3"), (1, "2", "3"), ("12", "", "3"), (None, "12", "3"))}
    assert len(keys) == 4


def test_videos_tell_their_length(tmp_path):
    from PIL import Image

    media = tmp_path / "media"
    (media / "pictures").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (32, 32)).save(media / "pictures" / f"{number}.png")
    make_clip(media / "clip.mp4", 60, fps=3)
    (media / "broken.mp4").write_bytes(b"not a video")
    question = "Put the events in order."
    names = {"clip.mp4": PROBED, "pictures": PROBED, "broken.mp4": UNKNOWN | UNREADABLE, "gone.mp4": GIVEN | UNREADABLE}
    rows = [row(1, question, video=name, duration=40 if name == "gone.mp4" else None) for name in names]
    rows.append(row(2, question, video="clip.mp4", duration=7))
    data = write(tmp_path / "data.json", rows)
    assert plan_data(data, tmp_path / "out", "--video-folder", str(media), "--workers", "2") == 0
    plans = Plans(tmp_path / "out")
    distribution = Inductor.from_pretrained()
    from tam_plugin import BudgetPolicy

    lengths = {"clip.mp4": (20.0, 60), "pictures": (3.0, 6), "gone.mp4": (40.0, None), "broken.mp4": (None, None)}
    for r in rows:
        found, (duration_s, num_frames) = plans.planned(key(r)), lengths[r["video"]]
        asked = distribution.classify(question, duration_s=duration_s)
        budget = BudgetPolicy.from_yaml().budget(asked, duration_s, video_frames=num_frames)
        assert (found.num_frames, found.stride) == (budget.num_frames, budget.pool_stride)
        assert found.duration_s == pytest.approx(duration_s) and found.flags & 15 == names[r["video"]]
    counts = plans.header["counts"]
    assert counts["bad_rows"] == {"all": 2, "unreadable": 2, "unreadable_videos": 2, "malformed": 0, "not_json": 0}
    fixed = [TokenLayout().budget(min(64, n or 64), 2).visual_tokens for _, n in (lengths[r["video"]] for r in rows)]
    assert counts["baseline"]["visual_tokens"] == sum(fixed)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_layout_of_a_model(tmp_path, kind, rows):
    from tam_plugin import BudgetPolicy, TamConfig

    folder = tmp_path / "model"
    folder.mkdir()
    encoder = {"image_size": 98, "patch_size": 14}
    values = {
        "mm_vision_tower": "tam",
        "mm_newline_position": "frame",
        "mm_patch_merge_type": "spatial_unpad",
        "tokenizer_model_max_length": 4000,
        "tam": TamConfig.from_dict({"vision_encoder": encoder}).to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(values))
    data = write(tmp_path / "data.jsonl", rows[:10])
    model = folder if kind == "folder" else folder / "config.json"
    assert plan_data(data, tmp_path / "out", "--model", str(model), layout=()) == 0
    layout = json.loads((tmp_path / "out" / "plans.json").read_text())["layout"]
    pool_mode = BudgetPolicy.from_yaml().layout.pool_mode
    assert layout == {"grid": 7, "newline_position": "frame", "pool_mode": pool_mode, "max_context_tokens": 4000}


def test_help_names_what_training_needs(capsys):
    from tam_plugin.cli.main import main

    with pytest.raises(SystemExit):
        main(["plan-data", "--help"])
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--video-folder", *LAYOUT[::2]))
