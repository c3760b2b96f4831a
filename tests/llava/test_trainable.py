"""With LoRA nothing else of the language model trains, whatever the host's version left to train."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.llava.budget_model import tam_model

pytestmark = pytest.mark.usefixtures("llava")


def arranged(left: str, host_parts: str | None, **tam: str):
    """Trainable parts after the plugin's rule, on a LoRA model whose host left every parameter to train, or none."""
    from peft import LoraConfig, get_peft_model

    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments
    from tam_plugin.patches.llava_next.model.trainable import arrange, count_parts

    model = get_peft_model(tam_model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        is_visual = "vision_tower" in name or "mm_projector" in name
        parameter.requires_grad_(is_visual if left == "the visual side" else left == "everything")
    dataset = SimpleNamespace(data_args=SimpleNamespace(tam_args=TamArguments(**tam)))
    arguments = SimpleNamespace(process_index=0, mm_tunable_parts=host_parts)
    arrange(SimpleNamespace(model=model, train_dataset=dataset, args=arguments))
    parts = {part.name: part for part in count_parts(model.named_parameters())}
    assert parts["lora"].parameters > 0
    return {name for name, part in parts.items() if part.trainable}, model


@pytest.mark.parametrize(
    ("left", "visual"), [("everything", {"gates", "experts", "tower", "projectors"}), ("nothing", set())]
)
def test_lora_alone_trains_of_the_language_model(left, visual, capsys):
    trains, model = arranged(left, "mm_language_model")
    assert trains == {"lora", *visual}
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)
    assert ("other than LoRA's were frozen" in capsys.readouterr().err) == (left == "everything")


def test_chosen_parts_of_the_visual_side_win_over_the_freeze():
    for left in ("everything", "nothing", "the visual side"):
        trains, _ = arranged(left, "mm_language_model", tam_tunable_parts="gates,newline")
        assert trains == {"lora", "gates", "newline"}, left


def test_without_tunable_parts_pefts_choice_of_biases_stays():
    trains, _ = arranged("everything", None)
    assert "llm" in trains
