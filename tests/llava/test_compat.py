"""Each repair is active where its symptom is, and only there; where it is active the symptom is gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tam_plugin.patches import compat
from tam_plugin.patches.compat import _symptoms, model_imports, trainer_arguments, trainer_loop
from tam_plugin.patches.lifecycle import Patcher
from tam_plugin.patches.record import ABSENT, Patch


def record(name: str) -> Patch:
    return next(r for r in compat.RECORDS if r.name == name)


def outside() -> list[Patch]:
    """Records on transformers and torch, which every environment of the suite has."""
    return [r for r in compat.RECORDS if not r.module_name.startswith("llava")]


def own(patch: Patch) -> object:
    holder, name = patch.owner(sys.modules[patch.module_name])
    return vars(holder).get(name, ABSENT)


@pytest.fixture
def applied() -> Iterator[Patcher]:
    """A patcher of its own with the records outside the host; what it changed is put back."""
    from tam_plugin.patches import activation

    session = activation.patcher()
    before = [r for r in session.records if r.name in session.originals()]
    session.undo()
    patcher = Patcher(outside(), rebind="llava")
    patcher.apply(patcher.records)
    yield patcher
    patcher.undo()
    session.apply(before)


def states(patcher: Patcher) -> dict[str, str]:
    return {row["name"]: row["state"] for row in patcher.status()}


def test_every_record_is_applied_or_not_needed_and_undo_puts_back_the_same_objects(applied: Patcher) -> None:
    assert set(states(applied).values()) <= {"applied", "not needed"}
    before = dict(applied.originals())
    assert set(before) == {name for name, state in states(applied).items() if state == "applied"}
    applied.undo()
    for holder, attribute, was in before.values():
        assert vars(holder).get(attribute, ABSENT) is was


def test_what_a_record_provides_is_there(applied: Patcher) -> None:
    for patch in outside():
        if patch.may_be_absent and states(applied)[patch.name] == "applied":
            holder, name = patch.owner(sys.modules[patch.module_name])
            assert hasattr(holder, name), patch.name
            assert patch.name == "rope.rope_scaling" or applied.originals()[patch.name][2] is ABSENT


def test_names_that_the_host_imports_are_there(applied: Patcher) -> None:
    import torch
    from transformers import modeling_utils, trainer

    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer"):
        assert callable(getattr(modeling_utils, name))
    assert torch.nn.LayerNorm in trainer.ALL_LAYERNORM_LAYERS
    assert trainer.GradientAccumulationPlugin(num_steps=3).num_steps == 3


def test_heads_are_found_as_transformers_did() -> None:
    """4 heads of size 2; head 0 went before, so head 2 stands second among what is left."""
    heads, index = model_imports.find_pruneable_heads_and_indices([0, 2], 3, 2, {0})
    assert heads == {2}
    assert index.tolist() == [0, 1, 4, 5]


def test_no_rope_scaling_is_not_no_rope(applied: Patcher) -> None:
    """Three configs that ask for plain rotary embeddings give one model."""
    import torch
    from transformers import Qwen2Config, Qwen2Model

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    plain = Qwen2Config(**sizes, intermediate_size=8, vocab_size=9)
    emptied = Qwen2Config(**sizes, intermediate_size=8, vocab_size=9)
    emptied.rope_scaling = None
    outputs = []
    for config in (plain, emptied, Qwen2Config.from_dict(emptied.to_dict())):
        torch.manual_seed(0)
        outputs.append(Qwen2Model(config).eval()(torch.arange(8)[None]).last_hidden_state)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_flags_of_the_hosts_scripts_are_understood(applied: Patcher, tmp_path: Path, monkeypatch) -> None:
    import transformers

    given = ["--output_dir", str(tmp_path), "--evaluation_strategy", "no", "--warmup_ratio=0.03", "--bf16", "True"]
    parser = transformers.HfArgumentParser(transformers.TrainingArguments)
    (from_list,) = parser.parse_args_into_dataclasses(list(given))
    monkeypatch.setattr(sys, "argv", ["train_mem.py", *given])
    (from_shell,) = transformers.HfArgumentParser(transformers.TrainingArguments).parse_args_into_dataclasses()
    assert sys.argv == ["train_mem.py", *given]
    for arguments in (from_list, from_shell):
        assert str(getattr(arguments, "eval_strategy", None) or arguments.evaluation_strategy).endswith(("no", "NO"))
        assert arguments.get_warmup_steps(1000) == 30
        assert (arguments.group_by_length, arguments.past_index, arguments.bf16) == (False, -1, True)


def test_only_flags_that_the_parser_lacks_are_renamed() -> None:
    known = {"--eval_strategy": 1, "--warmup_ratio": 1, "--warmup_steps": 1}
    given = ["--evaluation_strategy", "--warmup_ratio", "--no_cuda", "0.1", "--evaluation-strategy=no", "no_cuda"]
    expected = ["--eval_strategy", "--warmup_ratio", "--no_cuda", "0.1", "--eval_strategy=no", "no_cuda"]
    assert trainer_arguments.renamed(given, known) == expected


def test_the_host_reads_special_tokens_and_ids(applied: Patcher, llm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    assert tokenizer.additional_special_tokens == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.additional_special_tokens_ids == [257, 258]
    turn = [{"role": "user", "content": "a"}]
    as_host: dict[str, object] = {"__name__": "llava.train.train", "tokenizer": tokenizer, "turn": turn}
    exec("ids = tokenizer.apply_chat_template(turn)", as_host)
    text = "<|im_start|>user\na<|im_end|>\n"
    assert as_host["ids"] == tokenizer(text).input_ids


def test_others_get_chat_templates_as_ever(applied: Patcher, llm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    turn = [{"role": "user", "content": "a"}]
    with_repair = tokenizer.apply_chat_template(turn)
    applied.undo()
    assert type(tokenizer.apply_chat_template(turn)) is type(with_repair)


def test_the_trainer_takes_a_tokenizer(applied: Patcher, llm: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen2ForCausalLM, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(llm)
    arguments = TrainingArguments(str(tmp_path), report_to="none")
    trainer = Trainer(model=Qwen2ForCausalLM.from_pretrained(llm), args=arguments, tokenizer=tokenizer)
    assert trainer.tokenizer is tokenizer
    trainer.state.global_step = 1
    trainer.create_optimizer_and_scheduler(1)
    trainer._save_checkpoint(trainer.model, None, metrics=None)
    trainer._load_rng_state(str(tmp_path / "checkpoint-1"))
    assert {"model.safetensors", "rng_state.pth"} <= {path.name for path in (tmp_path / "checkpoint-1").iterdir()}


def test_a_loop_that_reads_unknown_names_is_seen() -> None:
    module = ModuleType("some_trainer")
    exec(
        "import math\n"
        "class LLaVATrainer:\n"
        "    def _inner_training_loop(self):\n"
        "        def inner():\n"
        "            return DebugOption\n"
        "        return math.pi, len([]), inner\n",
        vars(module),
    )
    assert _symptoms.unbound_globals(module.LLaVATrainer._inner_training_loop, module) == {"DebugOption"}
    needed = record("trainer_loop.inner_training_loop").needed
    assert needed(module)
    module.DebugOption = object()  # type: ignore[attr-defined]
    assert not needed(module)
    del module.LLaVATrainer._inner_training_loop
    assert not needed(module)


def test_the_hosts_zeroth_order_mode_keeps_its_loop() -> None:
    loop = trainer_loop._loop(lambda self: "the host's")
    assert loop(SimpleNamespace(trainer_mode="zo")) == "the host's"


def test_a_step_that_averages_after_its_backward_is_told_from_one_before() -> None:
    def late(self, loss):  # type: ignore[no-untyped-def]
        self.accelerator.backward(loss)
        return loss / self.steps

    def early(self, loss):  # type: ignore[no-untyped-def]
        loss = loss / self.steps
        self.accelerator.backward(loss)
        return loss

    assert not _symptoms.divides_before_backward(late)
    assert _symptoms.divides_before_backward(early)


@pytest.mark.parametrize(
    ("source", "unguarded"),
    [("a = T.from_pretrained(1)", True), ("try:\n    a = T.from_pretrained(1)\nexcept OSError:\n    a = None", False)],
)
def test_a_tokenizer_loaded_on_import_is_seen(source: str, unguarded: bool, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "__init__.py").touch()
    (tmp_path / "llava" / "conversation.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert record("conversation.tokenizer").needed(sys) is unguarded


def test_only_the_hosts_conversations_do_without_a_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    class Loader:
        from_pretrained = record("conversation.tokenizer").wrap(AutoTokenizer.from_pretrained)

    absent = str(tmp_path / "absent")
    as_host: dict[str, object] = {"__name__": "llava.conversation", "Loader": Loader, "absent": absent}
    exec("found = Loader.from_pretrained(absent)", as_host)
    assert as_host["found"] is None
    with pytest.raises(OSError, match="absent"):
        Loader.from_pretrained(absent)
