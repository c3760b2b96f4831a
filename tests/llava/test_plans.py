"""Plans made beforehand give a training run on the host the budgets that it would have made on the fly."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest
import torch

from tam_plugin.budget import TokenLayout
from tests.llava import tiny
from tests.llava.budget_data import COUNT, SUMMARY, host_dataset, sample, tam, turns, write_clip
from tests.llava.budget_model import GRID, embeddings, tam_model
from tests.plans.data import plan_data, questions, write

pytestmark = pytest.mark.usefixtures("qwen_prompts")
LAYOUT = ("--newline-position", "grid", "--model-max-length", "16384", "--grid", str(GRID))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("planned")
    write_clip(path / "even.mp4")
    write_clip(path / "short.mp4", duration_s=3)
    frames = path / "shareVideoGPTV" / "one"
    frames.mkdir(parents=True)
    from PIL import Image

    for number in range(1, 9):
        Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(frames / f"frame_{number}.png")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(path / "still.png")
    (path / "broken.mp4").write_bytes(b"no video")
    return path


def samples() -> list[dict]:
    videos = ("even.mp4", "short.mp4", "shareVideoGPTV/one")
    asked = [COUNT, SUMMARY, "What happens right after the cup falls?", "Why is the man angry?"]
    rows = [sample(video, question) for video in videos for question in asked]  # no ids: repeated and missing ones work
    rows += [sample("even.mp4", question, id="same") for question in asked[:2]]
    rows.append({"image": "still.png", "conversations": turns("<image>\nWhat is it?", "Grey.")})
    rows.append({"conversations": turns("Name a colour.", "Red.")})
    return rows


def with_plans(folder: Path, rows: list[dict], *more: str, out: str = "plans", layout=LAYOUT, code: int = 0, **given):
    """The planned dataset; its plans are made of the very file that the host reads."""
    host_dataset(folder, given.get("model") or tam_model(), rows)  # writes samples.json
    assert plan_data(folder / "samples.json", folder / out, *more, layout=layout) == code
    return tam(folder, rows, tam_plans=str(folder / out), **given)


def budget_of(item) -> tuple:
    modality = item["image"][0][2]
    return str(modality), getattr(modality, "num_frames", None), getattr(modality, "pool_stride", None)


@pytest.mark.parametrize("opened", [True, False], ids=["durations probed", "durations unknown"])
def test_budgets_are_those_made_on_the_fly(folder, tmp_path, opened):
    """Also where planning opened no video: what the Inductor said then is taken once the video is open."""
    rows = samples()
    out = str(tmp_path / "plans")
    dataset = with_plans(folder, rows, *(("--video-folder", str(folder)) if opened else ()), out=out)
    plain = tam(folder, rows)
    for index in range(len(rows)):
        ours, theirs = dataset[index], plain[index]
        assert budget_of(ours) == budget_of(theirs)
        assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert plain.planner.decider._inductor is not None and dataset.planner.decider._inductor is None


def test_what_was_planned_is_not_probed(folder, tmp_path, monkeypatch):
    """A planned sample opens its video once, for its frames; where planning opened none, the first time tells."""
    from tam_plugin.video.opened import Video

    rows = samples()[:2]
    known = with_plans(folder, rows, "--video-folder", str(folder), out=str(tmp_path / "known"))
    unknown = with_plans(folder, rows, out=str(tmp_path / "unknown"))
    probed = []
    info = Video.info
    monkeypatch.setattr(Video, "info", property(lambda video: probed.append(video.path) or info.fget(video)))
    assert budget_of(known[0])[0] == "video" and probed == []
    for _ in range(2):
        assert budget_of(unknown[0]) == budget_of(known[0])
    assert probed == [str(folder / "even.mp4")]


def test_workers_load_no_inductor(folder, tmp_path):
    from torch.utils.data import DataLoader

    class Watched(torch.utils.data.Dataset):
        def __len__(self):
            return len(dataset)

        def __getitem__(self, index):
            return budget_of(dataset[index]), dataset.planner.decider._inductor is None

    rows = samples()[:6]
    dataset = with_plans(folder, rows, "--video-folder", str(folder), out=str(tmp_path / "plans"))
    loaded = list(DataLoader(Watched(), batch_size=None, num_workers=2))
    assert [found[1] for found in loaded] == [True] * len(rows)
    assert [tuple(found[0]) for found in loaded] == [budget_of(dataset[i]) for i in range(len(rows))]
    copy = pickle.loads(pickle.dumps(dataset))  # what a worker that starts afresh is sent
    assert budget_of(copy[0]) == budget_of(dataset[0]) and copy.planner.decider._inductor is None


def test_an_unreadable_video_is_a_bad_sample_as_ever(folder, tmp_path, capfd):
    rows = [sample("broken.mp4", COUNT), sample("even.mp4", COUNT)]
    plain = {"tam_max_bad_samples": 0.5}
    dataset = with_plans(folder, rows, "--video-folder", str(folder), out=str(tmp_path / "plans"), **plain)
    assert budget_of(dataset[0]) == budget_of(dataset[1])
    assert "sample 0 is left out" in capfd.readouterr().err


def test_rows_that_cannot_be_planned_are_bad_samples(folder, tmp_path, capfd):
    """Plans without them are no wrong plans: training leaves the rows out and counts them, as it does without plans."""
    rows = [sample("even.mp4", "<image>"), {"video": "even.mp4", "conversations": []}, sample("even.mp4", COUNT)]
    dataset = with_plans(folder, rows, out=str(tmp_path / "plans"))
    assert [budget_of(dataset[index]) for index in range(2)] == [budget_of(dataset[2])] * 2
    assert set(dataset.bad_samples.found()) == {0, 1}
    assert "'tam plan-data' found that it cannot be used" in capfd.readouterr().err


def test_listed_samples_are_left_out_and_not_counted(folder, tmp_path):
    """Of any draw of the data: the host's own sampling takes some rows in another order."""
    from tam_plugin.errors import ConfigError

    good = [sample("even.mp4", COUNT, id=n) for n in range(3)]
    bad = [sample("broken.mp4", COUNT, id=n) for n in range(6)]
    bad.append({"video": "even.mp4", "conversations": turns()})
    plans = str(tmp_path / "plans")
    rows = [*bad[:3], *good, *bad[3:]]
    options = {"code": 3, "out": plans, "tam_skip": f"{plans}/bad_rows.jsonl", "tam_max_bad_samples": 0}
    dataset = with_plans(folder, rows, "--video-folder", str(folder), **options)
    assert len(dataset) == len(dataset.modality_lengths) == len(dataset.lengths) == 3
    assert [dataset[index]["id"] for index in range(3)] == [0, 1, 2] and dataset.bad_samples.found() == {}
    assert dataset.bad_samples.total == 3
    host = host_dataset(folder, tam_model(), rows)
    host.list_data_dict = [rows[5], rows[0], rows[3], rows[-1]]
    from tam_plugin.patches.llava_next.data.plans import without_listed

    assert [r["id"] for r in without_listed(host, options["tam_skip"]).list_data_dict] == [2, 0]
    assert len(host.list_data_dict) == 4
    host.list_data_dict = bad
    with pytest.raises(ConfigError, match="holds all of the 7 training samples"):
        without_listed(host, options["tam_skip"])
    with pytest.raises(ConfigError, match=r"was made for another data file: .* has changed since"):
        tam(folder, rows[:-1], tam_skip=options["tam_skip"])


def test_a_file_that_is_no_list_is_refused(tmp_path):
    from tam_plugin.errors import ConfigError
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    other = write(tmp_path / "bad_samples.jsonl", [{"index": 0, "name": "a.mp4", "reason": "gone"}])
    for path, reason in ((other, "is not a list of bad rows"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"--tam_skip: .*{reason}"):
            TamArguments(tam_skip=str(path))


def test_the_command_line_prints_what_makes_the_right_plans(folder, tmp_path):
    """Every refusal names the difference and a command; that command's plans are accepted."""
    import shlex

    from tam_plugin.budget.policy import DEFAULT_POLICY
    from tam_plugin.cli.main import main
    from tam_plugin.errors import ConfigError, InputError

    rows = samples()
    other_policy = tmp_path / "policy.yaml"
    other_policy.write_text(DEFAULT_POLICY.read_text().replace("max_frames: 120", "max_frames: 5"))
    host_dataset(folder, tam_model(), rows)
    data, out = folder / "samples.json", tmp_path / "plans"

    def refusal(**given) -> str:
        with pytest.raises((ConfigError, InputError)) as caught:
            tam(folder, rows, given.pop("model", None), tam_plans=str(out), **given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert plan_data(data, out, layout=LAYOUT) == 0
    said = [
        (refusal(model=tam_model(newline="frame")), "context.newline_position is 'frame', was 'grid'"),
        (refusal(model_max_length=4096), "context.max_context_tokens is 4096, was 16384"),
        (refusal(model=tam_model(policy=str(other_policy))), "max_frames is 5, was 120"),
    ]
    rows = [*rows, sample("even.mp4", "Who comes in last?")]
    said.append((refusal(), "has changed since"))
    for message, difference in said:
        assert difference in message, message
    command = shlex.split(said[2][0].partition("tam plan-data ")[2])
    command[command.index("--out") + 1] = str(tmp_path / "anew")
    host_dataset(folder, tam_model(), rows)
    assert main(["plan-data", *command]) == 0
    dataset = tam(folder, rows, tam_model(policy=str(other_policy)), tam_plans=str(tmp_path / "anew"))
    assert budget_of(dataset[1])[1] == 5


def test_another_inductor_is_refused(folder, tmp_path):
    import shutil

    import tam_plugin.inductor
    from tam_plugin.errors import ConfigError

    copy = tmp_path / "inductor"
    shutil.copytree(Path(tam_plugin.inductor.__file__).with_name("default"), copy)
    rows = samples()
    host_dataset(folder, tam_model(), rows)
    out = tmp_path / "plans"
    assert plan_data(folder / "samples.json", out, "--inductor", str(copy), layout=LAYOUT) == 0
    tam(folder, rows, tam_plans=str(out))  # the same model under another name
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tam_temperature": 2.0}))
    with pytest.raises(ConfigError, match="by another Inductor: the Inductor is "):
        tam(folder, rows, tam_model(inductor=str(copy)), tam_plans=str(out))


def test_a_sample_without_a_plan_is_named_before_training(folder, tmp_path):
    from tam_plugin.errors import ConfigError
    from tam_plugin.patches.llava_next.data.plans import attach_plans

    rows = samples()
    dataset = with_plans(folder, rows, out=str(tmp_path / "plans"))
    host = dataset.host
    host.list_data_dict = [*host.list_data_dict, sample("even.mp4", "Who comes in last?", id="added")]
    config = tam_model().config.tam
    from tam_plugin import TamConfig

    with pytest.raises(ConfigError, match=r"lack 1 of 17 samples, the first with id 'added' and video 'even\.mp4'"):
        attach_plans(dataset.planner, str(tmp_path / "plans"), TamConfig.from_dict(config), host, model=None)


def test_no_plans_there(tmp_path):
    from tam_plugin.errors import ConfigError
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    with pytest.raises(ConfigError, match=r"--tam_plans: no plans in .*: expected a folder that 'tam plan-data"):
        TamArguments(tam_plans=str(tmp_path))


def test_lengths_are_words_and_the_tokens_that_the_model_sees(folder, tmp_path):
    """Visual tokens are counted in the model's own embeddings."""
    rows = samples()
    model = tam_model()
    dataset = with_plans(folder, rows, "--video-folder", str(folder), out=str(tmp_path / "plans"), model=model)
    words = [sum(len(turn["value"].split()) for turn in row["conversations"]) for row in rows]
    for index, (row, length) in enumerate(zip(rows, dataset.modality_lengths, strict=True)):
        if "video" not in row and "image" not in row:
            assert length == -words[index]
            continue
        item = dataset[index]
        inputs = {name: item[name][None] for name in ("input_ids", "labels")}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        pixels, _, modality = item["image"][0]
        with torch.no_grad():
            (seen,) = embeddings(model, inputs, [pixels], [modality])
        # A picture is counted without the host's one newline token.
        counted = length + ("image" in row)
        assert counted == words[index] + len(seen) - (len(item["input_ids"]) - 1)
    assert dataset.lengths == [abs(length) for length in dataset.modality_lengths]


def test_early_mixed_text_keeps_the_hosts_sign(folder, tmp_path):
    rows = samples()
    dataset = with_plans(folder, rows, out=str(tmp_path / "plans"))
    dataset.host.data_args.early_mix_text = True
    assert dataset.modality_lengths[-1] == dataset.host.modality_lengths[-1] > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grouping", ["group_by_modality", "group_by_modality_auto", "neither"])
def test_batches_differ_less_in_true_tokens(folder, tmp_path, seed, grouping):
    """With the host's own sampler. True tokens are worked out question by question, apart from the plans."""
    from llava.train.llava_trainer import LengthGroupedSampler

    from tam_plugin import BudgetPolicy, Inductor

    rng = random.Random(seed)
    rows = []
    for number, question in enumerate(questions(320, seed)):
        row = sample(f"{number}.mp4", question, "Yes " * rng.randrange(1, 60), id=number)
        rows.append({**row, "duration": round(rng.lognormvariate(4, 1.2), 1)})
    dataset = with_plans(folder, rows, out=str(tmp_path / "plans"))
    policy = BudgetPolicy.from_yaml().adapted(TokenLayout(grid=GRID, context_tokens=16384))
    found = Inductor.from_pretrained().classify_batch(
        [row["conversations"][0]["value"] for row in rows], [row["duration"] for row in rows]
    )
    visual = [policy.budget(f, row["duration"]).visual_tokens for f, row in zip(found, rows, strict=True)]
    words = [sum(len(turn["value"].split()) for turn in row["conversations"]) for row in rows]
    true = [v + w for v, w in zip(visual, words, strict=True)]

    def spread(lengths: list[int]) -> float:
        """Tokens from the emptiest batch of a step to the fullest, or from a batch's shortest sample to its longest."""
        torch.manual_seed(seed)
        kind = {} if grouping == "neither" else {grouping: True}
        order = list(LengthGroupedSampler(4, world_size=4, lengths=lengths, **kind))
        batches = [order[i : i + 4] for i in range(0, len(order) - 3, 4)]
        if grouping == "group_by_modality":  # this one evens out the ranks of a step
            totals = [sum(true[i] for i in batch) for batch in batches]
            steps = [totals[i : i + 4] for i in range(0, len(totals) - 3, 4)]
            return sum(max(step) - min(step) for step in steps) / len(steps)
        return sum(max(true[i] for i in b) - min(true[i] for i in b) for b in batches) / len(batches)

    assert spread(dataset.modality_lengths) < 0.7 * spread(dataset.host.modality_lengths)


@pytest.mark.slow
def test_train_script_with_plans(llava_train, dense, hub, training_set, tmp_path):
    """The host's script from a shell: first plans of another length, then the right ones, without an Inductor."""
    from tests.llava.test_train_script import command

    out = tmp_path / "tam-qwen"
    args = [*command(llava_train, dense, training_set, out, steps=2), "--tam_plans", str(tmp_path / "plans")]
    script, given = args[0], args[1:]
    policy = given[given.index("--tam_policy") + 1]
    told = ("--policy", policy, "--newline-position", "grid", "--video-folder", str(training_set.media))
    missing = tiny.run_train(llava_train, hub, given)
    assert missing.returncode != 0 and "--tam_plans: no plans in" in missing.stderr and Path(script).exists()
    encoder = json.loads(next(Path(hub).rglob("config.json")).read_text())
    encoder = encoder.get("vision_config", encoder)
    grid = encoder["image_size"] // encoder["patch_size"]
    layout = ("--model-max-length", "4096", "--grid", str(grid))
    assert plan_data(training_set.yaml, tmp_path / "plans", *told, layout=layout) == 0
    ran = tiny.run_train(llava_train, hub, given)
    assert ran.returncode == 0, ran.stderr[-3000:]
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [r["step"] for r in history if "L_ori" in r] == [1, 2]
    other = write(tmp_path / "other.json", [])
    listed = tmp_path / "changed.yaml"
    other.write_text(json.dumps(json.loads(training_set.json.read_text())[:2]))
    listed.write_text(f"datasets:\n- json_path: {other}\n  sampling_strategy: all\n")
    changed = tiny.run_train(llava_train, hub, [str(listed) if a == str(training_set.yaml) else a for a in given])
    assert changed.returncode != 0 and "is none of the 2 planned" in changed.stderr
