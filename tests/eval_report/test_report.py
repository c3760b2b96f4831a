"""``tam report`` on hand-made results: every figure worked out by hand, what is missing named, bad files refused."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from tam_plugin.cli.main import main
from tests.eval_report.material import DECIDED, lines, record, write_results, write_run, write_training

pytest.importorskip("matplotlib", reason="needs matplotlib")
PRESET = ("--preset", "llava-video-7b")


def rows_of(text: str, head: str) -> dict[str, list[str]]:
    """Cells after the first, by the first, of the table whose first head is this."""
    table = re.search(rf"^\| {head} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, text
    cells = [line.strip("| ").split(" | ") for line in table[1].strip().split("\n")]
    return {first: rest for first, *rest in cells}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """TAM and baseline."""
    write_run(tmp_path / "tam")
    write_run(tmp_path / "base", "baseline", "pretrained=nowhere,policy=fixed:64:2")
    return tmp_path


def test_every_figure(folders, capsys):
    write_training(folders / "training")
    out = folders / "report"
    arguments = ["report", str(folders / "tam"), "--baseline", str(folders / "base"), "--out", str(out), *PRESET]
    more = ["--run", f"again={folders / 'tam'}", "--training", f"stage3={folders / 'training'}", "--note", "A note."]
    assert main([*arguments, *more]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip() == str(out / "report.md")
    text = (out / "report.md").read_text()
    assert text.startswith("# Evaluation report\n\nA note.\n")
    assert rows_of(text, "task")["choice"] == ["acc,none", "0.6000", "5", "0.4000", "5"]
    assert "TAM: 1 of 5 samples have no answer (sample log)." in text
    assert "- task choice, row 4: video clips/bad.mp4: cannot be opened" in text
    buckets = rows_of(text, "confidence")
    assert buckets["0.0–0.2"] == buckets["0.2–0.4"] == ["no rows", "no rows"]
    assert buckets["0.4–0.6"] == ["1.000 (1 of 1)", "0.000 (0 of 1)"]  # 0.59
    assert buckets["0.6–0.8"] == ["0.000 (0 of 1)", "1.000 (1 of 1)"]  # 0.6 itself
    assert buckets["0.8–1.0"] == ["1.000 (2 of 2)", "0.500 (1 of 2)"]
    first, second = (rows_of(text[text.index(part) :], "task type") for part in ("(Fig. 6)", "## Budgets"))
    assert first[DECIDED[0][0]] == ["0.500 (1 of 2)", "1.000 (2 of 2)"]
    assert first[DECIDED[2][0]] == ["1.000 (2 of 2)", "0.000 (0 of 2)"]
    assert first["Reasoning and Logic"] == ["no rows", "no rows"]
    assert second[DECIDED[2][0]] == ["2", "100 / 110.0 / 120", "2: 2"]
    load = rows_of(text, "layer")
    assert load["1"] == ["0.450", "0.250", "0.300", f"{3 * (0.45**2 + 0.25**2 + 0.3**2):.3f}"]
    assert load["2"] == ["0.400", "0.200", "0.400", "1.080"]
    assert "3 requests of 4 that were computed have counts: 20 assignments per layer." in text
    costs = rows_of(text, "run")
    assert costs["TAM"][1:4] == ["4", "59.0", f"{(2 * 8 * 27 * 28 + 220 * 14 * 15) / 4:.1f}"]
    assert costs["TAM"][1:] == costs["again"][1:]
    assert [costs[name][-1] for name in ("TAM", "baseline")] == ["0.6000", "0.4000"]
    pictures = sorted(file.name for file in out.glob("*.png"))
    assert len(pictures) == 7
    assert sorted(re.findall(r"\]\((\w+\.png)\)", text)) == pictures
    page = (out / "report.html").read_text()
    assert {base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)} == {
        (out / name).read_bytes() for name in pictures
    }
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_operations_of_a_request(folders):
    from tam_plugin.budget import TokenLayout
    from tam_plugin.eval.flops import from_preset
    from tam_plugin.flops import count_flops

    lines(folders / "tam" / "log.jsonl", [record(0), record(1, continuation=" red", output_tokens=5)])
    (folders / "tam" / "log.rank1.jsonl").unlink()
    (folders / "tam" / "routing.jsonl").unlink()
    out = folders / "report"
    assert main(["report", str(folders / "tam"), "--out", str(out), *PRESET]) == 0
    shape, budget = from_preset("llava-video-7b").model, TokenLayout().budget(8, 1)
    generated = count_flops(shape, budget, text_tokens=50, new_tokens=3).total
    scored = count_flops(shape, budget, text_tokens=55).total
    assert rows_of((out / "report.md").read_text(), "run")["TAM"][4] == f"{(generated + scored) / 2:.4e}"


def test_an_ablated_run_is_counted_as_what_it_ran(folders):
    from tam_plugin.budget import TokenLayout
    from tam_plugin.eval.flops import from_preset
    from tam_plugin.flops import count_flops

    write_results(folders / "tam", "TAM", "pretrained=nowhere,ablation=tab9_top1of4")
    write_results(folders / "base", "baseline", "pretrained=nowhere,ablation=tab3a_none")
    for name in ("tam", "base"):
        lines(folders / name / "log.jsonl", [record(0)])
        (folders / name / "log.rank1.jsonl").unlink()
    (folders / "tam" / "routing.jsonl").unlink()
    out = folders / "report"
    arguments = ["report", str(folders / "tam"), "--baseline", str(folders / "base"), "--out", str(out), *PRESET]
    assert main(arguments) == 0
    model, budget = from_preset("llava-video-7b").model, TokenLayout().budget(8, 1)
    text = (out / "report.md").read_text()
    for name, shape in (("TAM", model.with_experts(4, 1)), ("baseline", model.dense())):
        expected = count_flops(shape, budget, text_tokens=50, new_tokens=3).total
        assert rows_of(text, "run")[name][4] == f"{expected:.4e}"
    assert "baseline: model tallva\\_onevision, policy fixed:64:2, ablation tab3a\\_none (Tab. 3a" in text


def test_what_is_missing_is_named(tmp_path, capsys):
    write_results(tmp_path / "tam", "TAM")
    (tmp_path / "tam" / "other.jsonl").write_text('{"a": 1}\n')
    assert main(["report", str(tmp_path / "tam"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    for words in (
        "No baseline: none was given",
        "no sample log in the folder of TAM; evaluate with log=FILE.jsonl in --model\\_args.",
        "config.json of pretrained=nowhere was not found here",
        "no routing log in the folder of TAM; evaluate with routing=FILE.jsonl in --model\\_args.",
        "no trainer\\_state.json",
        "TAM: 1 of 5 samples have no answer (samples).",
        "row 4: video clips/bad.mp4: cannot be opened",
    ):
        assert words in text, words
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.html", "report.md"]
    samples = next((tmp_path / "tam").rglob("*samples*"))
    samples.unlink()
    assert main(["report", str(tmp_path / "tam"), "--out", str(tmp_path / "out")]) == 0
    assert (
        f"TAM: {samples.name} is missing; run lmms-eval with --log\\_samples".replace("_", "\\_").replace("\\\\", "\\")
        in (tmp_path / "out" / "report.md").read_text()
    )


def test_the_newest_results_of_a_task_count(folders):
    write_results(folders / "tam", "baseline", date="20260202_000000")
    for file in (folders / "tam").glob("*.jsonl"):
        file.unlink()
    assert main(["report", str(folders / "tam"), "--out", str(folders / "out"), *PRESET]) == 0
    text = (folders / "out" / "report.md").read_text()
    assert rows_of(text, "task")["choice"] == ["acc,none", "0.4000", "5"]
    assert "several results files hold task choice; 20260202\\_000000\\_results.json, the newest, counts" in text


@pytest.mark.slow
def test_an_earlier_reports_figures_go(folders):
    out = folders / "out"
    assert main(["report", str(folders / "tam"), "--out", str(out), *PRESET]) == 0
    assert (out / "routing.png").is_file()
    (folders / "tam" / "routing.jsonl").unlink()
    assert main(["report", str(folders / "tam"), "--out", str(out), *PRESET]) == 0
    assert not (out / "routing.png").exists() and not (out / "expert_load.png").exists()


def spoil_results(tam: Path) -> None:
    next(tam.rglob("*_results.json")).write_text('{"results": {')


def spoil_samples(tam: Path) -> None:
    next(tam.rglob("*_samples_*")).write_text('{"doc_id": 0}\n{"doc\n')


def spoil_log(tam: Path) -> None:
    (tam / "log.rank1.jsonl").write_text('{"task": 1}\n')


def spoil_routing(counts):
    def spoil(tam: Path) -> None:
        with (tam / "routing.jsonl").open("a") as file:
            file.write(json.dumps({**record(3), "length_class": "long", "counts": counts}) + "\n")

    return spoil


def change_log(**changes):
    return lambda tam: lines(tam / "log.jsonl", [record(0, **changes)])


def second_log(tam: Path) -> None:
    shutil.copy(tam / "log.jsonl", tam / "more.jsonl")


def without_results(tam: Path) -> None:
    next(tam.rglob("*_results.json")).unlink()


@pytest.mark.parametrize(
    ("spoil", "extra", "words"),
    [
        (spoil_results, (), "_results.json' cannot be read"),
        (
            lambda tam: next(tam.rglob("*_results.json")).write_text("{}"),
            (),
            "has no 'config': expected a results file",
        ),
        (spoil_samples, (), "_samples_choice.jsonl:2: not a line of lmms-eval's samples"),
        (spoil_log, (), "log.rank1.jsonl:1: not a line of a sample log"),
        (lambda tam: (tam / "log.jsonl").write_text("nonsense\n"), (), "log.jsonl:1: not a JSON line"),
        (change_log(confidence="high"), (), "log.jsonl: task choice, row 0: confidence = 'high': expected a number in"),
        (change_log(frames=2.5), (), "log.jsonl: task choice, row 0: frames = 2.5: expected a whole number >= 1"),
        (change_log(duration_s=-1), (), "duration_s = -1: expected seconds above 0"),
        (spoil_routing([[1, 2]]), (), "routing log of TAM: task choice, row 3 has counts of [1, 2]"),
        (spoil_routing([[1, 2, 3], [0, 0, 0]]), (), "row 3: counts [[1, 2, 3], [0, 0, 0]]: expected numbers >= 0 of"),
        (spoil_routing("few"), (), "routing log of TAM: task choice, row 3 cannot be read"),
        (second_log, (), "holds two sample logs, log.jsonl and more.jsonl"),
        (without_results, (), "holds no *_results.json"),
        (shutil.rmtree, (), "is not a folder"),
        (None, ("--baseline", "nowhere"), "'nowhere' is not a folder"),
        (None, ("--run", "nowhere"), "--run 'nowhere': expected NAME=DIR"),
        (None, ("--training", "a=nowhere"), "holds no trainer_state.json"),
        (None, ("--preset", "gpt"), "preset 'gpt': expected one of"),
        (None, ("--model", "nowhere"), "'nowhere' does not exist"),
    ],
)
def test_refusals(folders, capsys, spoil, extra, words):
    if spoil is not None:
        spoil(folders / "tam")
    options = extra if set(extra) & {"--preset", "--model"} else (*extra, *PRESET)
    before = sorted(str(path) for path in folders.rglob("*"))
    assert main(["report", str(folders / "tam"), "--out", str(folders / "out"), *options]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and err.startswith("tam report: ")
    assert sorted(str(path) for path in folders.rglob("*")) == before


def test_a_folder_with_other_files_is_left_alone(folders, capsys):
    (folders / "mine").mkdir()
    (folders / "mine" / "letter.txt").write_text("x")
    assert main(["report", str(folders / "tam"), "--out", str(folders / "mine"), *PRESET]) == 2
    assert "holds other files and no report.md" in capsys.readouterr().err
    assert [file.name for file in (folders / "mine").iterdir()] == ["letter.txt"]
