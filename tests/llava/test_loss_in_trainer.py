"""The host's Trainer on its own data: what it logs, what it trains, and how it stops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.llava.budget_data import COUNT, SUMMARY, host_dataset, sample, turns, write_clip
from tests.llava.budget_model import tam_model

pytestmark = pytest.mark.usefixtures("qwen_prompts")
ALPHA_B, ALPHA_Z = 0.3, 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("trainer")
    write_clip(path / "clip.mp4", duration_s=8)
    return path


@pytest.fixture
def trainer_of(folder, tmp_path):
    """Builds the host's Trainer of a model and samples, as its ``train()`` does."""
    from llava.train.llava_trainer import LLaVATrainer
    from llava.train.train import DataCollatorForSupervisedDataset, TrainingArguments

    def build(model, samples, steps=2, **data_args):
        dataset = host_dataset(folder, model, samples, **data_args)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            gradient_checkpointing=True,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            dataloader_num_workers=0,
            **_on_cpu(TrainingArguments),
        )
        return LLaVATrainer(
            model=model,
            tokenizer=dataset.tokenizer,
            args=arguments,
            train_dataset=dataset,
            data_collator=DataCollatorForSupervisedDataset(tokenizer=dataset.tokenizer),
        )

    return build


def _on_cpu(cls) -> dict[str, bool]:
    return {"use_cpu": True} if "use_cpu" in cls.__dataclass_fields__ else {"no_cuda": True}


def test_logged_loss_is_the_sum_of_its_logged_parts(trainer_of):
    model = tam_model(moe={"balance_loss_weight": ALPHA_B, "z_loss_weight": ALPHA_Z})
    samples = [sample("clip.mp4", COUNT), sample("clip.mp4", SUMMARY)] * 2
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = trainer_of(model, samples)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["L_b"] > 0 and line["L_z"] > 0
        parts = line["L_ori"] + ALPHA_B * line["L_b"] + ALPHA_Z * line["L_z"]
        assert line["loss"] == pytest.approx(parts, abs=2e-4)  # the Trainer rounds it to four digits
        assert sum(line[f"expert_load_{e}"] for e in range(4)) == pytest.approx(1)
    gates = [name for name in before if name.endswith("gate.weight")]
    assert gates and all(not torch.equal(before[name], model.get_parameter(name)) for name in gates)
    assert model.config.add_time_instruction is True


def test_text_alone_has_no_router_losses_to_log(trainer_of):
    trainer = trainer_of(tam_model(), [{"conversations": turns("Name a colour.", "Red.")}] * 2, steps=1)
    trainer.train()
    (line,) = [line for line in trainer.state.log_history if "loss" in line]
    assert line["loss"] == pytest.approx(line["L_ori"], abs=1e-4)
    assert "L_b" not in line


def test_too_many_unreadable_videos_stop_training_with_their_list(trainer_of, tmp_path):
    from tam_plugin.patches.llava_next.data.bad_samples import TooManyBadSamplesError

    samples = [sample("clip.mp4", COUNT), sample("gone.mp4", COUNT)]
    trainer = trainer_of(tam_model(), samples, tam_max_bad_samples=0)
    with pytest.raises(TooManyBadSamplesError, match=r"1 of 2 training samples .*gone\.mp4"):
        trainer.train()
    assert "gone.mp4" in (tmp_path / "out" / "bad_samples.jsonl").read_text()


def test_a_plain_models_trainer_keeps_the_hosts_dataset(trainer_of):
    model = tam_model()
    samples = [sample("clip.mp4", COUNT)]
    assert type(trainer_of(model, samples).train_dataset).__name__ == "TamDataset"
    del model.config.tam
    trainer = trainer_of(model, samples)
    assert type(trainer.train_dataset).__name__ == "LazySupervisedDataset"
    logged = {"loss": 1.0}
    trainer.log(logged)
    assert "L_ori" not in trainer.state.log_history[-1]
