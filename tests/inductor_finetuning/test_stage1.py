"""Stage 1 on tiny random Hugging Face bases."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tam_plugin.cli.main import main
from tam_plugin.errors import ConfigError, InputError, TamNotice
from tam_plugin.inductor import Inductor
from tam_plugin.inductor.finetuning.options import Stage1Options
from tam_plugin.inductor.finetuning.rows import TASK_LABELS
from tam_plugin.inductor.finetuning.stage1 import train

from .tiny import WORDS, make_base, question, write_data

ROOT = Path(__file__).resolve().parents[2]


def options(base: Path, data: Path, **changes: object) -> Stage1Options:
    values = {"base": str(base), "data": (str(data),), "batch_size": 16, "epochs": 5, "learning_rate": 1e-2}
    return Stage1Options(**{**values, "cpu": True, **changes})  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "model.safetensors"))


def direct_probabilities(folder: Path, text: str) -> list[float]:
    """Float64 softmax of transformers' own logits over the stored temperature."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double()
    return (logits / model.config.tam_temperature).softmax(-1).tolist()


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("llama") / "base", "llama")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.jsonl", range(1, 9), 30)


@pytest.mark.parametrize(("kind", "pad"), [("llama", False), ("bert", True)])
def test_a_separable_data_set_is_learned(tmp_path: Path, data: Path, kind: str, pad: bool) -> None:
    base, out = make_base(tmp_path / "base", kind, pad=pad), tmp_path / "out"
    figures = train(options(base, data, epochs=12, patience=0, use_duration=False), out)
    assert figures is not None and figures["rows"] == 216 and figures["held_out_rows"] == 24
    assert figures["steps"] == 12 * 14 and figures["macro_f1"] == pytest.approx(1.0)
    assert figures["ece_calibrated"] <= figures["ece"] + 1e-9 and not (out / "training").exists()
    inductor = Inductor.from_pretrained(out)
    assert (inductor.temperature, inductor.use_options, inductor.use_duration) == (figures["temperature"], True, False)
    rng = random.Random(99)
    queries = [question(label, rng) for label in range(1, 9)]
    found = inductor.classify_batch(queries, [10.0] * 8)
    assert [f.task.index for f in found] == list(range(1, 9))
    for query, distribution in zip(queries, found, strict=True):
        assert distribution.probabilities == pytest.approx(direct_probabilities(out, query), abs=1e-5)
    config = json.loads((out / "config.json").read_text())
    assert [config["id2label"][str(i)] for i in range(8)] == list(TASK_LABELS)


class Stop(transformers.TrainerCallback):
    """What a kill does, at a given step."""

    def __init__(self, step: int, by_signal: bool = False) -> None:
        self.step, self.by_signal = step, by_signal

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step and self.by_signal:
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not(tmp_path: Path, data: Path, capsys) -> None:
    base = make_base(tmp_path / "base", "bert")  # with dropout: the random state must come back too
    given = options(base, data, epochs=3, eval_steps=5)
    whole = train(given, tmp_path / "whole")
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(given, tmp_path / "out", callbacks=[Stop(18)])
    with pytest.raises(InputError, match="holds no config"):
        Inductor.from_pretrained(tmp_path / "out")
    torn = tmp_path / "out" / "training" / "checkpoint-20"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global')
    resumed = train(given, tmp_path / "out")
    assert "goes on from checkpoint-15" in capsys.readouterr().err
    assert whole is not None and resumed is not None
    for name in ("steps", "accuracy", "macro_f1", "temperature"):
        assert resumed[name] == pytest.approx(whole[name], abs=1e-5)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)


def test_early_stopping_keeps_the_best(tmp_path: Path, llama: Path, data: Path) -> None:
    figures = train(options(llama, data, learning_rate=1e-9, epochs=9, patience=2), tmp_path / "out")
    assert figures is not None and figures["steps"] == 3 * 14  # the first evaluation is the best, two follow


def test_other_settings_do_not_go_on_and_finished_ones_are_refused(tmp_path: Path, llama: Path, data: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(options(llama, data), out, callbacks=[Stop(15)])
    with pytest.raises(ConfigError, match=r"unfinished run of other settings .*learning_rate was 0\.01, is 0\.02"):
        train(options(llama, data, learning_rate=2e-2), out)
    assert train(options(llama, data, learning_rate=2e-2, epochs=1), out, overwrite=True)
    with pytest.raises(InputError, match="finished Inductor"):
        train(options(llama, data, learning_rate=2e-2, epochs=1), out)
    before = weights(out)["score.weight"]
    assert train(options(llama, data, epochs=1), out, overwrite=True)
    assert not torch.equal(weights(out)["score.weight"], before)


def test_a_classifier_of_the_eight_in_another_order_keeps_what_it_knows(tmp_path: Path, data: Path) -> None:
    base = make_base(tmp_path / "base", "llama", labels=list(reversed(TASK_LABELS)))
    train(options(base, data, learning_rate=1e-12, weight_decay=0.0, epochs=1), tmp_path / "out")
    expected = Inductor.from_pretrained(base).classify("why is the dog in the car", 12.0)
    inductor = Inductor.from_pretrained(tmp_path / "out")
    inductor.temperature = 1.0
    found = inductor.classify("why is the dog in the car", 12.0)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_label_without_rows_is_a_notice(tmp_path: Path, llama: Path) -> None:
    data = write_data(tmp_path / "d.jsonl", [1, 2, 3, 4, 5, 6, 7], 4)
    with pytest.warns(TamNotice, match="no row of OCR and Cross-modal Alignment"):
        train(options(llama, data, epochs=1), tmp_path / "out")


def test_one_process_where_several_were_asked_for_is_a_notice(
    tmp_path: Path, llama: Path, data: Path, monkeypatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # what accelerate launch --cpu --num_processes 2 leaves
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.warns(TamNotice, match="started one process, not several"):
        train(options(llama, data, epochs=1), tmp_path / "out")


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_base(folder / "three", "llama", labels=["a", "b", "c"])
    make_base(folder / "nine", "llama", labels=[*TASK_LABELS, "extra"])
    make_base(folder / "plain", "llama")
    (folder / "other").mkdir()
    (folder / "other" / "thesis.tex").write_text("text")
    (folder / "file").write_text("text")
    (folder / "empty.jsonl").touch()
    write_data(folder / "good.jsonl", range(1, 9), 3)
    (folder / "one.jsonl").write_text('{"question": "q", "label": 1}\n')
    (folder / "bad.jsonl").write_text('{"question": "q", "label": 1}\n{"question": "q", "label": 12}\n')
    return folder


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--base", "three"), "needs at least 8 labels, found 3: a, b, c"),
        (("--base", "nine"), "labels beyond the eight task types: extra"),
        (("--base", "nobody/nothing"), "the base 'nobody/nothing' cannot be read"),
        (("--base", "./absent"), "the base './absent' cannot be read"),
        (("--base", ""), "the base's name is empty"),
        (("--base", str(ROOT / "tam_plugin/inductor/default")), "is a compact Inductor"),
        (("--data", "bad.jsonl"), "bad.jsonl, line 2: unknown label 12"),
        (("--data", "empty.jsonl"), "'empty.jsonl' is empty"),
        (("--data", "one.jsonl"), "none can be held out"),
        (("--data", "good.jsonl", "good.jsonl"), "ids must be unique"),
        (("--valid", "good.jsonl"), "ids must be unique"),
        (("--out", "other"), "holds something that is no Inductor (thesis.tex)"),
        (("--out", "other", "--overwrite"), "holds something that is no Inductor"),
        (("--out", "file"), "expected the name of a folder"),
        (("--learning-rate", "0"), "--learning-rate 0.0: expected a number over 0"),
        (("--learning-rate", "nan"), "--learning-rate nan"),
        (("--held-out", "1"), "--held-out 1.0"),
        (("--report-to", "wandb"), "'wandb'"),
    ],
)
def test_bad_input_is_one_line(bad: Path, capsys, monkeypatch, argv: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(bad)
    before = sorted(str(p) for p in bad.rglob("*"))
    capsys.readouterr()
    given = {"--base": ["plain"], "--data": ["good.jsonl"], "--out": ["new"]}
    given[argv[0]] = list(argv[1:])
    assert main(["inductor", "train", *(word for name, values in given.items() for word in (name, *values))]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("tam: note:")]
    assert captured.out == "" and len(lines) == 1 and said in lines[0]
    assert sorted(str(p) for p in bad.rglob("*")) == before


def test_the_parser_is_light() -> None:
    code = (
        "import sys; from tam_plugin.cli.main import build_parser; build_parser(); "
        "print([m for m in ('torch', 'transformers', 'peft', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


KILLED = """
import sys
from tests.inductor_finetuning.test_stage1 import Stop, options, train
train(options(*sys.argv[1:3], epochs=2, eval_steps=5), sys.argv[3], callbacks=[Stop(12, by_signal=True)])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_by_the_same_command(tmp_path: Path, llama: Path, data: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, llama, data, out], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and not (out / "config.json").exists()
    numbers = ("--epochs", "2", "--eval-steps", "5", "--batch-size", "16", "--learning-rate", "0.01", "--cpu")
    command = [sys.executable, "-m", "tam_plugin.cli.main", "inductor", "train", "--base", llama, "--data", data]
    done = subprocess.run(
        [*map(str, command), "--out", str(out), *numbers], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "goes on from checkpoint-10" in done.stderr and json.loads(done.stdout)["steps"] == 28
    assert Inductor.from_pretrained(out).classify(WORDS[3]).probabilities


RANKS = """
import sys, os
from pathlib import Path
import torch, transformers
from safetensors.torch import save_file
from tests.inductor_finetuning.test_stage1 import options, train

class Keep(transformers.TrainerCallback):
    def on_train_end(self, args, state, control, model=None, **_):
        while hasattr(model, "module"):
            model = model.module
        held = {name: value.detach().clone() for name, value in model.state_dict().items()}
        save_file(held, f"{sys.argv[4]}/rank{os.environ['RANK']}.safetensors")
        assert torch.distributed.get_backend() == "gloo" and args.world_size == 2

found = train(options(*sys.argv[1:3], epochs=2, batch_size=8), sys.argv[3], callbacks=[Keep()])
assert (found is None) == (os.environ["RANK"] != "0")
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path: Path, llama: Path, data: Path) -> None:
    script, out = tmp_path / "ranks.py", tmp_path / "out"
    script.write_text(RANKS)
    # Several processes on CPUs: accelerate's own --cpu starts them by MPI alone.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = {"cwd": ROOT, "env": env, "capture_output": True, "text": True}
    done = subprocess.run([*launch, str(script), str(llama), str(data), str(out), str(tmp_path)], check=False, **run)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [load_file(str(tmp_path / f"rank{i}.safetensors")) for i in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    assert all(torch.equal(ranks[0][name], value) for name, value in weights(out).items())
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json")
    assert {p.name for p in out.iterdir()} >= set(names) and not list(out.glob("**/checkpoint-*"))
    numbers = ["--epochs", "1", "--cpu", "--learning-rate", "0.01", "--batch-size", "8", "--class-weights", "sqrt"]
    command = ["-m", "tam_plugin.cli.main", "inductor", "train", "--base", str(llama), "--data", str(data)]
    done = subprocess.run([*launch, *command, "--out", str(tmp_path / "cli"), *numbers], check=False, **run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 14 and Inductor.from_pretrained(tmp_path / "cli")
