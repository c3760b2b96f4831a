"""Records by which the router losses enter the training loss and its log."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tam_plugin.patches.llava_next.model.model_config import is_tam
from tam_plugin.patches.record import Patch

LANGUAGE_MODELS = {
    "llava_qwen": "LlavaQwenForCausalLM",
    "llava_qwen_moe": "LlavaQwenMoeForCausalLM",
    "llava_llama": "LlavaLlamaForCausalLM",
    "llava_mixtral": "LlavaMixtralForCausalLM",
}
"""The host's modules and classes that hand a video's modality on; the others take still images alone."""

_FORWARD = (
    "self",
    "input_ids",
    "attention_mask",
    "position_ids",
    "past_key_values",
    "inputs_embeds",
    "labels",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "images",
    "image_sizes",
    "return_dict",
    "modalities",
    "dpo_forward",
    "cache_position",
)


def _forward(original: Callable) -> Callable:
    from tam_plugin.patches.llava_next.model.loss import with_router_losses

    return with_router_losses(original)


def _log(original: Callable) -> Callable:
    @functools.wraps(original)
    def log(self, logs, *args, **kwargs):
        if "loss" in logs and is_tam(self.model):
            from tam_plugin.patches.llava_next.model.loss import meter_of

            meter = meter_of(self.model)
            if meter is not None:
                logs = {**logs, **meter.take(self.args.device)}
        return original(self, logs, *args, **kwargs)

    return log


RECORDS = (
    *(
        Patch(
            name=f"loss.forward_{module.removeprefix('llava_')}",
            target=f"llava.model.language_model.{module}:{language_model}.forward",
            reason="balance and z losses of the experts are added to the training loss, once",
            wrap=_forward,
            signatures=(_FORWARD,),
            requires=(f"llava.model.language_model.{module}:{language_model}",),
        )
        for module, language_model in LANGUAGE_MODELS.items()
    ),
    Patch(
        name="loss.log",
        target="llava.train.llava_trainer:LLaVATrainer.log",
        reason="L_ori, L_b, L_z and the experts' load go wherever the Trainer logs to",
        wrap=_log,
        signatures=(("self", "logs"), ("self", "logs", "start_time")),
    ),
)
