"""TAM on transformers' LlavaOnevision classes, by subclassing: nothing of transformers is patched.

Shapes: V videos in the batch, ΣT frames of all videos, P patches per frame, S image size, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionPreTrainedModel,
)
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionCausalLMOutputWithPast

from tam_plugin.errors import InputError
from tam_plugin.inductor.stored import store_inductor, stored_inductor
from tam_plugin.patches.onevision.batching import assign_videos, place_features, split_videos
from tam_plugin.patches.onevision.configuration import TamOnevisionConfig
from tam_plugin.patches.onevision.unused import never_used
from tam_plugin.patches.onevision.weights import key_mapping, load_weights
from tam_plugin.vision import (
    ResolutionProjectors,
    collect_routing,
    frames_to_tokens,
    upcycle_vision_encoder,
    use_non_reentrant_checkpointing,
    with_newlines,
    with_zero_gradients,
)

FRAMES_PER_CHUNK = 32
"""Frames that the tower sees at once when no gradient is needed; bounds the memory of all layers' outputs."""

VISUAL_NAMES = ("pixel_values_videos", "video_num_frames", "video_pool_strides")


@dataclass
class TamCausalLMOutputWithPast(LlavaOnevisionCausalLMOutputWithPast):
    """The host's output, with the parts of the training loss (Eq. 4).

    Attributes:
        lm_loss: L_ori, the next-token loss alone.
        balance_loss: L_b, before its weight.
        z_loss: L_z, before its weight.
    """

    lm_loss: torch.Tensor | None = None
    balance_loss: torch.Tensor | None = None
    z_loss: torch.Tensor | None = None


class TamOnevisionModel(LlavaOnevisionModel):
    """The host's model with a mixture vision tower and a projector per stride."""

    config_class = TamOnevisionConfig
    if TYPE_CHECKING:
        config: TamOnevisionConfig
        multi_modal_projector: Any
        """``ResolutionProjectors``, which is no subclass of what the host has under this name."""

    def __init__(self, config: TamOnevisionConfig) -> None:
        super().__init__(config)
        tam = config.tam_config
        upcycle_vision_encoder(self.vision_tower, tam)
        self.multi_modal_projector = ResolutionProjectors(self.multi_modal_projector, tam.projector, tam.moe)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.LongTensor | None = None,
        video_pool_strides: torch.LongTensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ):
        """The host's forward on embeddings in which images and videos have taken their places.

        Args:
            pixel_values_videos: ``[ΣT, 3, S, S]`` with ``video_num_frames`` ``[V]``, or the host's own
                ``[V, T, 3, S, S]``.
            video_num_frames: frames of each video, in the order of their placeholders.
            video_pool_strides: stride of each video; None gives every video the host's stride 2.

        Raises:
            InputError: counts that do not add up, or placeholders that do not match them.
        """
        _ = self.image_newline  # read before anything else on every rank, so that ZeRO-3 gathers it in step
        if pixel_values is not None or pixel_values_videos is not None:
            if input_ids is None:
                raise InputError("images and videos need input_ids: their placeholders are found by token id")
            if inputs_embeds is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            if pixel_values is not None:
                images = self.get_image_features(pixel_values, image_sizes, batch_num_images=batch_num_images)
                images = torch.cat(list(getattr(images, "pooler_output", images)))
                inputs_embeds = place_features(inputs_embeds, input_ids == self.config.image_token_id, images, "image")
            if pixel_values_videos is not None:
                videos = self.get_video_tokens(pixel_values_videos, video_num_frames, video_pool_strides)
                inputs_embeds = place_features(inputs_embeds, input_ids == self.config.video_token_id, videos, "video")
            input_ids = None
        if self.training and torch.is_grad_enabled():
            # Data parallelism waits for every gradient, and ZeRO-2 wants them in the same order on every rank: what
            # no batch uses gets zeros, and text alone sees one blank frame, of which nothing is used.
            if inputs_embeds is None:
                input_ids, inputs_embeds = None, self.get_input_embeddings()(input_ids)
            unused: list[torch.Tensor] = never_used(self)
            if self.config.newline_position == "no_token":
                unused.append(self.image_newline)
            if pixel_values is None and pixel_values_videos is None:
                unused.append(self._blank_tokens())
            inputs_embeds = with_zero_gradients(inputs_embeds, unused)
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def get_video_tokens(
        self,
        pixel_values_videos: torch.Tensor,
        video_num_frames: torch.Tensor | None = None,
        video_pool_strides: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode, project and pool frames, with newline tokens where the checkpoint has them: ``[Σ tokens, H]``."""
        frames, counts, strides = split_videos(pixel_values_videos, video_num_frames, video_pool_strides)
        features = self._encode(frames)
        videos = frames_to_tokens(features, counts, strides, self.multi_modal_projector)
        position = self.config.token_layout.newline_position
        return torch.cat([with_newlines(video, self.image_newline, position) for video in videos])

    def _blank_tokens(self) -> torch.Tensor:
        """Tokens of one blank frame at the coarsest stride."""
        side, tower = self.config.vision_config.image_size, self.vision_tower
        blank = torch.zeros(1, 3, side, side, device=tower.device, dtype=tower.dtype)
        return self.get_video_tokens(blank, None, torch.tensor([self.config.tam_config.projector.strides[-1]]))

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        """``[ΣT, 3, S, S]`` → ``[ΣT, P, D]`` as the host selects it."""
        chunk = len(frames) if torch.is_grad_enabled() else FRAMES_PER_CHUNK
        return torch.cat([self._select(part) for part in frames.split(chunk)])

    def _select(self, frames: torch.Tensor) -> torch.Tensor:
        hidden = self.vision_tower(frames.to(self.vision_tower.dtype), output_hidden_states=True).hidden_states
        layer = self.config.vision_feature_layer
        picked = hidden[layer] if isinstance(layer, int) else torch.cat([hidden[i] for i in layer], dim=-1)
        return picked[:, 1:] if self.config.vision_feature_select_strategy == "default" else picked


class TamOnevisionForConditionalGeneration(LlavaOnevisionForConditionalGeneration):
    """The host's generative model over :class:`TamOnevisionModel`; saved and loaded as any Hugging Face model."""

    config_class = TamOnevisionConfig
    if TYPE_CHECKING:
        config: TamOnevisionConfig
    # The router losses are added per micro-batch, so a trainer must average over accumulation steps itself.
    accepts_loss_kwargs = False
    _can_compile_fullgraph = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """transformers' own, for checkpoints of either of its generations; incomplete weights are refused.

        Raises:
            InputError: the files cannot be read.
            ConfigError: the weights do not fit the configuration, or it is that of a dense checkpoint.
        """
        kwargs.setdefault("key_mapping", key_mapping())
        inherited = super().from_pretrained
        return load_weights(
            lambda name, **more: inherited(name, *args, **more), pretrained_model_name_or_path, **kwargs
        )

    given_inductor: str | None = None
    """The Inductor that the user named when a dense model was upgraded; what is saved carries it along."""

    @property
    def inductor(self) -> str | None:
        """Folder or name of the model's Inductor; None for the embedded one.

        Raises:
            ConfigError: the checkpoint names one outside of its folder.
        """
        return self.given_inductor or stored_inductor(self.config.tam_config.inductor, self.config.name_or_path)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """transformers' own; an Inductor that is not the embedded one becomes a part of the checkpoint."""
        name, tam = self.config.tam_config.inductor, self.config.tam
        if name is not None:
            self.config.tam = {**(tam or {}), "inductor": store_inductor(str(self.inductor), save_directory)}
        try:
            return super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.tam = tam

    def __init__(self, config: TamOnevisionConfig) -> None:
        LlavaOnevisionPreTrainedModel.__init__(self, config)
        self.model = TamOnevisionModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.LongTensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.LongTensor | None = None,
        video_pool_strides: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> TamCausalLMOutputWithPast:
        """The host's forward; in training ``loss`` is L_ori + α_b·L_b + α_z·L_z (Eq. 4), in evaluation L_ori.

        ``generate`` reads the names of inputs from this signature, so the host's are spelled out.
        """
        kwargs.update(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            batch_num_images=batch_num_images,
            pixel_values_videos=pixel_values_videos,
            video_num_frames=video_num_frames,
            video_pool_strides=video_pool_strides,
            labels=labels,
            logits_to_keep=logits_to_keep,
            return_dict=True,
        )
        if not (self.training and labels is not None):
            return TamCausalLMOutputWithPast(**super().forward(**kwargs))
        seen = pixel_values is not None or pixel_values_videos is not None
        with collect_routing(self.model) as routing:
            output = TamCausalLMOutputWithPast(**super().forward(**kwargs))
        # The blank frame of text alone trains no router, yet its losses stay in the graph: the order in which
        # gradients arrive must be that of every other rank.
        weight = 1.0 if seen else 0.0
        loss: Any = output.loss  # the host calls every loss a FloatTensor, a class that no tensor is made of any more
        output.lm_loss = loss
        output.balance_loss, output.z_loss = weight * routing.balance_loss, weight * routing.z_loss
        output.loss = loss + weight * routing.aux_loss(self.config.tam_config.moe).to(loss)
        return output

    def prepare_inputs_for_generation(self, input_ids, pixel_values_videos=None, **kwargs):
        """The host's, which passes frames to the first step only; their counts and strides go with them."""
        inputs = super().prepare_inputs_for_generation(input_ids, pixel_values_videos=pixel_values_videos, **kwargs)
        if inputs.get("pixel_values_videos") is None:
            for name in VISUAL_NAMES:
                inputs.pop(name, None)
        return inputs

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The host's, with the vision tower non-reentrant: the router losses lose their gradient otherwise."""
        super().gradient_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)
        use_non_reentrant_checkpointing(self.model.vision_tower)

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """Repeat rows for beams and samples, and each row's videos with it (frames are not rows)."""
        visual = {name: model_kwargs.pop(name) for name in VISUAL_NAMES if model_kwargs.get(name) is not None}
        if expand_size > 1 and visual:
            visual = self._repeat_videos(input_ids, expand_size, **visual)
        host: Any = super()  # transformers annotates this method's self with a protocol that none of its models fits
        input_ids, model_kwargs = host._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **visual}

    def _repeat_videos(
        self, input_ids, expand_size, pixel_values_videos, video_num_frames=None, video_pool_strides=None
    ) -> dict[str, Any]:
        frames, counts, strides = split_videos(pixel_values_videos, video_num_frames, video_pool_strides)
        layout = self.config.token_layout
        tokens = [layout.count(t, s) for t, s in zip(counts, strides, strict=True)]
        rows = assign_videos((input_ids == self.config.video_token_id).sum(dim=1).tolist(), tokens)
        order = [video for row in rows for _ in range(expand_size) for video in row]
        parts = frames.split(counts)
        return {
            "pixel_values_videos": torch.cat([parts[v] for v in order]),
            "video_num_frames": torch.tensor([counts[v] for v in order]),
            "video_pool_strides": torch.tensor([strides[v] for v in order]),
        }


AutoModel.register(TamOnevisionConfig, TamOnevisionModel, exist_ok=True)
AutoModelForImageTextToText.register(TamOnevisionConfig, TamOnevisionForConditionalGeneration, exist_ok=True)
